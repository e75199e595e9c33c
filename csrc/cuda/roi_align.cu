// ROIAlign forward and backward on the GPU, over all maps of a pyramid in one launch. Schemas: ops.cpp; contract and twin:
// maskrcnn_benchmark/layers/roi_align.py.
//
// One thread an element, in the memory order of the tensor it writes (backward with atomics: reads), so that neighbouring
// threads touch neighbouring addresses in both layouts.
#include "../common/roi_align.h"
#include "launch.h"

#include <optional>
#include <vector>

namespace {

using namespace mb;

constexpr int64_t kMaxLevels = 8;  // they travel as arguments of the kernels

// All maps have the same images, channels and layout.
struct Pyramid {
  int64_t levels, images, channels;
  int64_t height[kMaxLevels], width[kMaxLevels];
  double scale[kMaxLevels];
  bool channels_last;
};

// T is const where the maps are read.
template <typename T>
struct Maps {
  T* data[kMaxLevels];
};

struct Pooling {
  int64_t rois, pooled_h, pooled_w, ratio;
  bool aligned;
};

// The four coordinates of element `index` of a tensor (n, C, h, w) in its memory order.
struct Place {
  int64_t n, c, y, x;
};

// I: an unsigned type that holds every index; a GPU divides 32 bits several times faster than 64.
template <typename I>
__device__ __forceinline__ Place divide(I index, I channels, I height, I width, bool channels_last) {
  Place p;
  if (channels_last) {
    p.c = index % channels;
    index /= channels;
    p.x = index % width;
    index /= width;
    p.y = index % height;
    p.n = index / height;
  } else {
    p.x = index % width;
    index /= width;
    p.y = index % height;
    index /= height;
    p.c = index % channels;
    p.n = index / channels;
  }
  return p;
}

__device__ __forceinline__ Place place_of(int64_t index, int64_t count, int64_t channels, int64_t height, int64_t width,
                                          bool channels_last) {
  if (count <= INT32_MAX) {
    return divide<uint32_t>(index, channels, height, width, channels_last);
  }
  return divide<uint64_t>(index, channels, height, width, channels_last);
}

// Its inverse.
__device__ __forceinline__ int64_t index_of(int64_t n, int64_t c, int64_t y, int64_t x, int64_t channels,
                                            int64_t height, int64_t width, bool channels_last) {
  return channels_last ? ((n * height + y) * width + x) * channels + c : ((n * channels + c) * height + y) * width + x;
}

// A ROI: its map, its image (-1 for an index outside the batch or the pyramid: it samples nothing) and its two axes.
template <typename A>
struct Roi {
  int64_t level, image;
  RoiAxis<A> rows, cols;

  // levels: the map of each ROI, or null for the first.
  __device__ Roi(const A* rois, const int64_t* levels, int64_t number, const Pyramid& maps, const Pooling& pooling) {
    const A* roi = rois + 5 * number;
    level = levels == nullptr ? 0 : levels[number];
    const bool known = level >= 0 && level < maps.levels && roi[0] >= A(0) && roi[0] < static_cast<A>(maps.images);
    image = known ? static_cast<int64_t>(roi[0]) : -1;
    if (!known) level = 0;
    const A scale = static_cast<A>(maps.scale[level]);
    rows = roi_axis(roi[2], roi[4], scale, pooling.aligned, pooling.pooled_h, pooling.ratio, maps.height[level]);
    cols = roi_axis(roi[1], roi[3], scale, pooling.aligned, pooling.pooled_w, pooling.ratio, maps.width[level]);
  }

  __device__ A samples() const {
    const int64_t count = rows.grid * cols.grid;
    return static_cast<A>(count > 1 ? count : 1);
  }
};

template <typename T>
__global__ void pool(Maps<const T> inputs, Pyramid maps, const acc_t<T>* rois, const int64_t* levels, Pooling pooling,
                     int64_t count, T* output) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(index, count) {
    const Place out =
        place_of(index, count, maps.channels, pooling.pooled_h, pooling.pooled_w, maps.channels_last);
    const Roi<A> roi(rois, levels, out.n, maps, pooling);
    const int64_t height = maps.height[roi.level], width = maps.width[roi.level];
    const T* input = inputs.data[roi.level];
    A sum = 0;
    if (roi.image >= 0) {
      const auto pixel = [&](int64_t y, int64_t x) {
        const int64_t at = index_of(roi.image, out.c, y, x, maps.channels, height, width, maps.channels_last);
        return static_cast<A>(input[at]);
      };
      for (int64_t i = 0; i < roi.rows.grid; ++i) {
        const AxisSample<A> y = axis_sample(roi.rows, out.y, i, height);
        for (int64_t j = 0; j < roi.cols.grid; ++j) {
          const AxisSample<A> x = axis_sample(roi.cols, out.x, j, width);
          sum += y.low_weight * (x.low_weight * pixel(y.low, x.low) + x.high_weight * pixel(y.low, x.high)) +
                 y.high_weight * (x.low_weight * pixel(y.high, x.low) + x.high_weight * pixel(y.high, x.high));
        }
      }
    }
    output[index] = static_cast<T>(sum / roi.samples());
  }
}

// Adds up in whatever order the threads arrive.
template <typename T>
__global__ void spread(const T* grad, const acc_t<T>* rois, const int64_t* levels, Pyramid maps, Pooling pooling,
                       int64_t count, Maps<acc_t<T>> input_grads) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(index, count) {
    const Place out =
        place_of(index, count, maps.channels, pooling.pooled_h, pooling.pooled_w, maps.channels_last);
    const Roi<A> roi(rois, levels, out.n, maps, pooling);
    if (roi.image < 0) continue;
    const int64_t height = maps.height[roi.level], width = maps.width[roi.level];
    A* input_grad = input_grads.data[roi.level];
    const A share = static_cast<A>(grad[index]) / roi.samples();
    const auto add = [&](int64_t y, int64_t x, A weight) {
      if (weight == A(0)) return;
      atomicAdd(input_grad + index_of(roi.image, out.c, y, x, maps.channels, height, width, maps.channels_last),
                weight * share);
    };
    for (int64_t i = 0; i < roi.rows.grid; ++i) {
      const AxisSample<A> y = axis_sample(roi.rows, out.y, i, height);
      for (int64_t j = 0; j < roi.cols.grid; ++j) {
        const AxisSample<A> x = axis_sample(roi.cols, out.x, j, width);
        add(y.low, x.low, y.low_weight * x.low_weight);
        add(y.low, x.high, y.low_weight * x.high_weight);
        add(y.high, x.low, y.high_weight * x.low_weight);
        add(y.high, x.high, y.high_weight * x.high_weight);
      }
    }
  }
}

// Sum of the weights with which the samples of one bin read one pixel, along one axis.
template <typename A>
__device__ A weight_of_pixel(const RoiAxis<A>& axis, int64_t bin, int64_t pixel, int64_t size) {
  A weight = 0;
  for (int64_t i = 0; i < axis.grid; ++i) {
    const AxisSample<A> sample = axis_sample(axis, bin, i, size);
    if (sample.low == pixel) weight += sample.low_weight;
    if (sample.high == pixel) weight += sample.high_weight;
  }
  return weight;
}

// Whether no sample of the axis can read the pixel, with a pixel of margin. The border also takes samples from outside.
template <typename A>
__device__ bool out_of_reach(const RoiAxis<A>& axis, int64_t bins, int64_t pixel, int64_t size) {
  const A end = axis.start + static_cast<A>(bins) * axis.bin, at = static_cast<A>(pixel);
  const A low = axis.start < end ? axis.start : end, high = axis.start < end ? end : axis.start;
  return (pixel < size - 1 && low > at + A(2)) || (pixel > 0 && high < at - A(2));
}

// The same sums in a fixed order: every pixel of one map asks all ROIs in turn. Slower, and without atomics.
template <typename T>
__global__ void gather(const T* grad, const acc_t<T>* rois, const int64_t* levels, Pyramid maps, Pooling pooling,
                       int64_t level, int64_t count, acc_t<T>* input_grad) {
  using A = acc_t<T>;
  const int64_t height = maps.height[level], width = maps.width[level];
  MB_GRID_STRIDE(index, count) {
    const Place in = place_of(index, count, maps.channels, height, width, maps.channels_last);
    A sum = 0;
    for (int64_t r = 0; r < pooling.rois; ++r) {
      const Roi<A> roi(rois, levels, r, maps, pooling);
      if (roi.image != in.n || roi.level != level || out_of_reach(roi.rows, pooling.pooled_h, in.y, height) ||
          out_of_reach(roi.cols, pooling.pooled_w, in.x, width)) {
        continue;
      }
      A roi_sum = 0;
      for (int64_t ph = 0; ph < pooling.pooled_h; ++ph) {
        const A row_weight = weight_of_pixel(roi.rows, ph, in.y, height);
        if (row_weight == A(0)) continue;
        for (int64_t pw = 0; pw < pooling.pooled_w; ++pw) {
          const A weight = row_weight * weight_of_pixel(roi.cols, pw, in.x, width);
          if (weight == A(0)) continue;
          roi_sum += weight * static_cast<A>(grad[index_of(r, in.c, ph, pw, maps.channels, pooling.pooled_h,
                                                           pooling.pooled_w, maps.channels_last)]);
        }
      }
      sum += roi_sum / roi.samples();
    }
    input_grad[index] = sum;
  }
}

// ---- launches ------------------------------------------------------------------------------------------------------

// The ROIs as this dtype's sums, and the map of each; levels is null where there is one map.
struct Rois {
  Tensor boxes;
  std::optional<Tensor> held;
  const int64_t* levels = nullptr;

  Rois(const Tensor& rois, const std::optional<Tensor>& given_levels, ScalarType type)
      : boxes(torch::stable::contiguous(cast(rois, accumulate_type(type)))) {
    if (!given_levels.has_value()) return;
    held = torch::stable::contiguous(cast(*given_levels, ScalarType::Long));
    levels = held->const_data_ptr<int64_t>();
  }
};

void add_level(Pyramid& maps, int64_t height, int64_t width, double scale) {
  STD_TORCH_CHECK(maps.levels < kMaxLevels, "roi_align: more than ", kMaxLevels, " maps do not fit the CUDA kernel");
  STD_TORCH_CHECK(height > 0 && width > 0, "roi_align: a map has ", height, " x ", width, " pixels; wanted some");
  maps.height[maps.levels] = height;
  maps.width[maps.levels] = width;
  maps.scale[maps.levels++] = scale;
}

template <typename T>
void launch_forward(const std::vector<Tensor>& inputs, const Pyramid& maps, const Rois& rois, const Pooling& pooling,
                    const Tensor& output) {
  Maps<const T> data{};
  for (size_t i = 0; i < inputs.size(); ++i) data.data[i] = inputs[i].const_data_ptr<T>();
  const int64_t count = output.numel();
  pool<T><<<blocks_for(count), kThreads, 0, current_stream(output)>>>(
      data, maps, rois.boxes.const_data_ptr<acc_t<T>>(), rois.levels, pooling, count, output.mutable_data_ptr<T>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void launch_backward(const Tensor& grad, const Rois& rois, const Pyramid& maps, const Pooling& pooling,
                     bool deterministic, const std::vector<Tensor>& sums) {
  using A = acc_t<T>;
  const cudaStream_t stream = current_stream(grad);
  const A* boxes = rois.boxes.const_data_ptr<A>();
  if (deterministic) {
    for (size_t i = 0; i < sums.size(); ++i) {
      const int64_t count = sums[i].numel();
      gather<T><<<blocks_for(count), kThreads, 0, stream>>>(grad.const_data_ptr<T>(), boxes, rois.levels, maps, pooling,
                                                            static_cast<int64_t>(i), count,
                                                            sums[i].mutable_data_ptr<A>());
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    }
    return;
  }
  Maps<A> data{};
  for (size_t i = 0; i < sums.size(); ++i) data.data[i] = sums[i].mutable_data_ptr<A>();
  const int64_t count = grad.numel();
  spread<T><<<blocks_for(count), kThreads, 0, stream>>>(grad.const_data_ptr<T>(), boxes, rois.levels, maps, pooling,
                                                        count, data);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor roi_align(std::vector<Tensor> inputs, const Tensor& rois, const std::optional<Tensor>& levels,
                 std::vector<double> spatial_scales, int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio,
                 bool aligned) {
  const torch::stable::accelerator::DeviceGuard guard(inputs[0].get_device_index());
  const ScalarType type = inputs[0].scalar_type();
  Pyramid maps{0, inputs[0].size(0), inputs[0].size(1), {}, {}, {}, any_channels_last(inputs)};
  for (size_t i = 0; i < inputs.size(); ++i) {
    add_level(maps, inputs[i].size(2), inputs[i].size(3), spatial_scales[i]);
    inputs[i] = in_format(inputs[i], maps.channels_last);
  }
  const Pooling pooling{rois.size(0), pooled_h, pooled_w, sampling_ratio, aligned};
  const Tensor output =
      empty_maps(inputs[0], type, pooling.rois, maps.channels, pooled_h, pooled_w, maps.channels_last);
  if (output.numel() == 0) return output;
  const Rois given(rois, levels, type);
  MB_DISPATCH_FLOATING(type, "roi_align", [&] { launch_forward<scalar_t>(inputs, maps, given, pooling, output); });
  return output;
}

std::vector<Tensor> roi_align_backward(const Tensor& grad, const Tensor& rois, const std::optional<Tensor>& levels,
                                       int64_t images, std::vector<int64_t> sizes, std::vector<double> spatial_scales,
                                       int64_t sampling_ratio, bool aligned, bool channels_last, bool deterministic) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const ScalarType type = grad.scalar_type();
  Pyramid maps{0, images, grad.size(1), {}, {}, {}, channels_last};
  std::vector<Tensor> sums;
  for (size_t i = 0; i < spatial_scales.size(); ++i) {
    add_level(maps, sizes[2 * i], sizes[2 * i + 1], spatial_scales[i]);
    sums.push_back(
        empty_maps(grad, accumulate_type(type), images, maps.channels, sizes[2 * i], sizes[2 * i + 1], channels_last));
    torch::stable::zero_(sums.back());
  }
  const Pooling pooling{rois.size(0), grad.size(2), grad.size(3), sampling_ratio, aligned};
  if (grad.numel() > 0 && images > 0) {
    const Tensor grads = in_format(grad, channels_last);
    const Rois given(rois, levels, type);
    MB_DISPATCH_FLOATING(type, "roi_align_backward", [&] {
      launch_backward<scalar_t>(grads, given, maps, pooling, deterministic, sums);
    });
  }
  for (Tensor& sum : sums) sum = cast(sum, type);
  return sums;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
}
