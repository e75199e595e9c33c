// ROIAlign forward and backward on the GPU. Schemas: ops.cpp; contract and twin: maskrcnn_benchmark/layers/roi_align.py.
//
// One thread an element, in the memory order of the tensor it writes (backward with atomics: reads), so that neighbouring
// threads touch neighbouring addresses in both layouts.
#include "../common/roi_align.h"
#include "launch.h"

#include <vector>

namespace {

using namespace mb;

struct Shape {
  int64_t images, channels, height, width, pooled_h, pooled_w, rois;
  bool channels_last;
};

struct Sampling {
  double scale;
  int64_t ratio;
  bool aligned;
};

// The four coordinates of element `index` of a tensor (n, C, h, w) in its memory order.
struct Place {
  int64_t n, c, y, x;
};

__device__ __forceinline__ Place place_of(int64_t index, int64_t channels, int64_t height, int64_t width,
                                          bool channels_last) {
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

// Its inverse.
__device__ __forceinline__ int64_t index_of(int64_t n, int64_t c, int64_t y, int64_t x, int64_t channels,
                                            int64_t height, int64_t width, bool channels_last) {
  return channels_last ? ((n * height + y) * width + x) * channels + c : ((n * channels + c) * height + y) * width + x;
}

// A ROI: its image (-1 for an index outside the batch, which samples nothing) and its two axes.
template <typename A>
struct Roi {
  int64_t image;
  RoiAxis<A> rows, cols;

  __device__ Roi(const A* roi, const Shape& s, const Sampling& sampling)
      : image(roi[0] >= A(0) && roi[0] < static_cast<A>(s.images) ? static_cast<int64_t>(roi[0]) : -1),
        rows(roi_axis(roi[2], roi[4], static_cast<A>(sampling.scale), sampling.aligned, s.pooled_h, sampling.ratio,
                      s.height)),
        cols(roi_axis(roi[1], roi[3], static_cast<A>(sampling.scale), sampling.aligned, s.pooled_w, sampling.ratio,
                      s.width)) {}

  __device__ A samples() const {
    const int64_t count = rows.grid * cols.grid;
    return static_cast<A>(count > 1 ? count : 1);
  }
};

template <typename T>
__global__ void pool(const T* input, const acc_t<T>* rois, Shape s, Sampling sampling, int64_t count, T* output) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(index, count) {
    const Place out = place_of(index, s.channels, s.pooled_h, s.pooled_w, s.channels_last);
    const Roi<A> roi(rois + 5 * out.n, s, sampling);
    A sum = 0;
    if (roi.image >= 0) {
      const auto pixel = [&](int64_t y, int64_t x) {
        return static_cast<A>(
            input[index_of(roi.image, out.c, y, x, s.channels, s.height, s.width, s.channels_last)]);
      };
      for (int64_t i = 0; i < roi.rows.grid; ++i) {
        const AxisSample<A> y = axis_sample(roi.rows, out.y, i, s.height);
        for (int64_t j = 0; j < roi.cols.grid; ++j) {
          const AxisSample<A> x = axis_sample(roi.cols, out.x, j, s.width);
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
__global__ void spread(const T* grad, const acc_t<T>* rois, Shape s, Sampling sampling, int64_t count,
                       acc_t<T>* input_grad) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(index, count) {
    const Place out = place_of(index, s.channels, s.pooled_h, s.pooled_w, s.channels_last);
    const Roi<A> roi(rois + 5 * out.n, s, sampling);
    if (roi.image < 0) continue;
    const A share = static_cast<A>(grad[index]) / roi.samples();
    const auto add = [&](int64_t y, int64_t x, A weight) {
      if (weight == A(0)) return;
      atomicAdd(input_grad + index_of(roi.image, out.c, y, x, s.channels, s.height, s.width, s.channels_last),
                weight * share);
    };
    for (int64_t i = 0; i < roi.rows.grid; ++i) {
      const AxisSample<A> y = axis_sample(roi.rows, out.y, i, s.height);
      for (int64_t j = 0; j < roi.cols.grid; ++j) {
        const AxisSample<A> x = axis_sample(roi.cols, out.x, j, s.width);
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

// The same sums in a fixed order: every pixel asks all ROIs in turn. Slower, and without atomics.
template <typename T>
__global__ void gather(const T* grad, const acc_t<T>* rois, Shape s, Sampling sampling, int64_t count,
                       acc_t<T>* input_grad) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(index, count) {
    const Place in = place_of(index, s.channels, s.height, s.width, s.channels_last);
    A sum = 0;
    for (int64_t r = 0; r < s.rois; ++r) {
      const Roi<A> roi(rois + 5 * r, s, sampling);
      if (roi.image != in.n || out_of_reach(roi.rows, s.pooled_h, in.y, s.height) ||
          out_of_reach(roi.cols, s.pooled_w, in.x, s.width)) {
        continue;
      }
      A roi_sum = 0;
      for (int64_t ph = 0; ph < s.pooled_h; ++ph) {
        const A row_weight = weight_of_pixel(roi.rows, ph, in.y, s.height);
        if (row_weight == A(0)) continue;
        for (int64_t pw = 0; pw < s.pooled_w; ++pw) {
          const A weight = row_weight * weight_of_pixel(roi.cols, pw, in.x, s.width);
          if (weight == A(0)) continue;
          roi_sum += weight * static_cast<A>(grad[index_of(r, in.c, ph, pw, s.channels, s.pooled_h, s.pooled_w,
                                                           s.channels_last)]);
        }
      }
      sum += roi_sum / roi.samples();
    }
    input_grad[index] = sum;
  }
}

template <typename T>
void launch_forward(const Tensor& input, const Tensor& rois, const Shape& s, const Sampling& sampling,
                    const Tensor& output) {
  const int64_t count = output.numel();
  pool<T><<<blocks_for(count), kThreads, 0, current_stream(input)>>>(input.const_data_ptr<T>(),
                                                                     rois.const_data_ptr<acc_t<T>>(), s, sampling,
                                                                     count, output.mutable_data_ptr<T>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void launch_backward(const Tensor& grad, const Tensor& rois, const Shape& s, const Sampling& sampling,
                     bool deterministic, const Tensor& sums) {
  using A = acc_t<T>;
  const cudaStream_t stream = current_stream(grad);
  const int64_t count = deterministic ? sums.numel() : grad.numel();
  if (deterministic) {
    gather<T><<<blocks_for(count), kThreads, 0, stream>>>(grad.const_data_ptr<T>(), rois.const_data_ptr<A>(), s,
                                                          sampling, count, sums.mutable_data_ptr<A>());
  } else {
    spread<T><<<blocks_for(count), kThreads, 0, stream>>>(grad.const_data_ptr<T>(), rois.const_data_ptr<A>(), s,
                                                          sampling, count, sums.mutable_data_ptr<A>());
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor roi_align(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_h, int64_t pooled_w,
                 int64_t sampling_ratio, bool aligned) {
  const torch::stable::accelerator::DeviceGuard guard(input.get_device_index());
  const bool channels_last = is_channels_last(input);
  const Shape shape{input.size(0), input.size(1), input.size(2), input.size(3),
                    pooled_h,      pooled_w,      rois.size(0),  channels_last};
  const ScalarType type = input.scalar_type();
  const Tensor output = empty_maps(input, type, shape.rois, shape.channels, pooled_h, pooled_w, channels_last);
  if (output.numel() == 0) return output;
  const Tensor maps = in_format(input, channels_last);
  const Tensor boxes = torch::stable::contiguous(cast(rois, accumulate_type(type)));
  MB_DISPATCH_FLOATING(type, "roi_align", [&] {
    launch_forward<scalar_t>(maps, boxes, shape, Sampling{spatial_scale, sampling_ratio, aligned}, output);
  });
  return output;
}

Tensor roi_align_backward(const Tensor& grad, const Tensor& rois, std::vector<int64_t> input_size, double spatial_scale,
                          int64_t sampling_ratio, bool aligned, bool channels_last, bool deterministic) {
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  const Shape shape{input_size[0], input_size[1], input_size[2], input_size[3],
                    grad.size(2),  grad.size(3),  rois.size(0),  channels_last};
  const ScalarType type = grad.scalar_type();
  Tensor sums = empty_maps(grad, accumulate_type(type), shape.images, shape.channels, shape.height, shape.width,
                           channels_last);
  torch::stable::zero_(sums);
  if (grad.numel() > 0 && sums.numel() > 0) {
    const Tensor grads = in_format(grad, channels_last);
    const Tensor boxes = torch::stable::contiguous(cast(rois, accumulate_type(type)));
    MB_DISPATCH_FLOATING(type, "roi_align_backward", [&] {
      launch_backward<scalar_t>(grads, boxes, shape, Sampling{spatial_scale, sampling_ratio, aligned}, deterministic,
                                sums);
    });
  }
  return cast(sums, type);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
}
