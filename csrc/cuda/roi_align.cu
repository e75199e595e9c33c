// ROIAlign forward and backward on the GPU, over all maps of a pyramid in one launch. Schemas: ops.cpp; contract and twin:
// maskrcnn_benchmark/layers/roi_align.py.
//
// A block has one ROI, or a part of it. Its threads first compute the bins' sample positions into shared memory, then
// process the ROI's elements in the memory order of the pooled tensor. So adjacent threads access adjacent addresses,
// and with channels_last each thread processes as many channels at a time as fit into 16 bytes.
#include "roi_align.h"

#include <optional>
#include <type_traits>
#include <vector>

namespace {

using namespace mb;

template <typename T, int V>
__global__ void pool(const __grid_constant__ Maps<const T> inputs, const __grid_constant__ Pyramid maps,
                     const acc_t<T>* rois, const int64_t* levels, const __grid_constant__ Pooling pooling, T* output) {
  using A = acc_t<T>;
  __shared__ Tap<A> row_taps[kTaps], col_taps[kTaps];
  const Block<A> block(rois, levels, maps, pooling, row_taps, col_taps);
  const T* input = inputs.data[block.roi.level] + block.origin;
  auto* pooled = reinterpret_cast<Pack<T, V>*>(output + static_cast<int64_t>(blockIdx.x) * block.elements);
  const A samples = block.roi.samples();
  MB_ROI_STRIDE(i, block.elements / V) {
    const Place out = divide<uint32_t>(i, maps.channels / V, pooling.pooled_h, pooling.pooled_w, maps.channels_last);
    A sums[V] = {};
    if (block.roi.image >= 0) {
      const T* channel = input + (maps.channels_last ? out.c * V : out.c * block.area);
      for_each_read(block.rows, block.cols, out.y, out.x, [&](int64_t distance, A weight) {
        const auto pixel = *reinterpret_cast<const Pack<T, V>*>(channel + distance);
        for (int v = 0; v < V; ++v) sums[v] = fma(weight, static_cast<A>(pixel.values[v]), sums[v]);
      });
    }
    Pack<T, V> means;
    for (int v = 0; v < V; ++v) means.values[v] = static_cast<T>(sums[v] / samples);
    pooled[i] = means;
  }
}

// Four floats are one transaction from Hopper on.
template <typename A, int V>
__device__ __forceinline__ void add_atomically(A* to, const A (&values)[V], A factor) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (std::is_same_v<A, float> && V % 4 == 0) {
    for (int v = 0; v < V; v += 4) {
      atomicAdd(reinterpret_cast<float4*>(to + v), make_float4(factor * values[v], factor * values[v + 1],
                                                               factor * values[v + 2], factor * values[v + 3]));
    }
  } else
#endif
    for (int v = 0; v < V; ++v) atomicAdd(to + v, factor * values[v]);
}

// Adds in the order in which the threads arrive.
template <typename T, int V>
__global__ void spread(const T* grad, const acc_t<T>* rois, const int64_t* levels, const __grid_constant__ Pyramid maps,
                       const __grid_constant__ Pooling pooling, const __grid_constant__ Maps<acc_t<T>> input_grads) {
  using A = acc_t<T>;
  __shared__ Tap<A> row_taps[kTaps], col_taps[kTaps];
  const Block<A> block(rois, levels, maps, pooling, row_taps, col_taps);
  if (block.roi.image < 0) return;
  A* input_grad = input_grads.data[block.roi.level] + block.origin;
  const auto* pooled = reinterpret_cast<const Pack<T, V>*>(grad + static_cast<int64_t>(blockIdx.x) * block.elements);
  const A samples = block.roi.samples();
  MB_ROI_STRIDE(i, block.elements / V) {
    const Place out = divide<uint32_t>(i, maps.channels / V, pooling.pooled_h, pooling.pooled_w, maps.channels_last);
    const Pack<T, V> grads = pooled[i];
    A shares[V];
    for (int v = 0; v < V; ++v) shares[v] = static_cast<A>(grads.values[v]) / samples;
    A* channel = input_grad + (maps.channels_last ? out.c * V : out.c * block.area);
    for_each_read(block.rows, block.cols, out.y, out.x, [&](int64_t distance, A weight) {
      if (weight != A(0)) add_atomically(channel + distance, shares, weight);
    });
  }
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

// Whether no sample of the axis can read the pixel, with a margin of a pixel. (The border also gets samples outside.)
template <typename A>
__device__ bool out_of_reach(const RoiAxis<A>& axis, int64_t bins, int64_t pixel) {
  const A end = axis.start + static_cast<A>(bins) * axis.bin, at = static_cast<A>(pixel);
  const A low = axis.start < end ? axis.start : end, high = axis.start < end ? end : axis.start;
  return low > at + A(2) || high < at - A(2);
}

// The same sums in a fixed order: every pixel of one map goes through all ROIs. Slower, but without atomics.
template <typename T>
__global__ void gather(const T* grad, const acc_t<T>* rois, const int64_t* levels, Pyramid maps, Pooling pooling,
                       int64_t level, int64_t count, acc_t<T>* input_grad) {
  using A = acc_t<T>;
  const int64_t height = maps.height[level], width = maps.width[level];
  MB_GRID_STRIDE(index, count) {
    const Place in = place_of(index, count, maps.channels, height, width, maps.channels_last);
    A sum = 0;
    for (int64_t r = 0; r < pooling.rois; ++r) {
      if (levels != nullptr && levels[r] != level) continue;
      const Roi<A> roi(rois, levels, r, maps, pooling);
      if (roi.image != in.n || out_of_reach(roi.rows, pooling.pooled_h, in.y) ||
          out_of_reach(roi.cols, pooling.pooled_w, in.x)) {
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

// The ROIs in this dtype's sum type, and the map of each; levels is null if there is one map.
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
  STD_TORCH_CHECK(height > 0 && width > 0, "roi_align: a map has ", height, " x ", width,
                  " pixels; expected at least one");
  maps.height[maps.levels] = height;
  maps.width[maps.levels] = width;
  maps.scale[maps.levels++] = scale;
}

// Whether V channels of every tensor can be accessed as one.
template <typename T, int V>
bool in_packs(const Pyramid& maps, const T* pooled, const Maps<const T>& data) {
  const auto aligned = [](const T* pointer) { return reinterpret_cast<uintptr_t>(pointer) % (sizeof(T) * V) == 0; };
  return maps.channels_last && maps.channels % V == 0 && aligned(pooled) &&
         std::all_of(data.data, data.data + maps.levels, aligned);
}

// Blocks for ROIs of `count` packs.
dim3 blocks_for_rois(int64_t rois, int64_t count) {
  const int64_t shares = (count + kThreads * kPerThread - 1) / (kThreads * kPerThread);
  return {static_cast<unsigned>(rois), static_cast<unsigned>(std::min<int64_t>(shares, 65535))};
}

template <typename T, int V>
void launch_pool(const Maps<const T>& data, const Pyramid& maps, const Rois& rois, const Pooling& pooling,
                 const Tensor& output) {
  pool<T, V><<<blocks_for_rois(pooling.rois, output.numel() / pooling.rois / V), kThreads, 0, current_stream(output)>>>(
      data, maps, rois.boxes.const_data_ptr<acc_t<T>>(), rois.levels, pooling, output.mutable_data_ptr<T>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T>
void launch_forward(const std::vector<Tensor>& inputs, const Pyramid& maps, const Rois& rois, const Pooling& pooling,
                    const Tensor& output) {
  constexpr int kWide = 16 / sizeof(T);
  Maps<const T> data{};
  for (size_t i = 0; i < inputs.size(); ++i) data.data[i] = inputs[i].const_data_ptr<T>();
  if (in_packs<T, kWide>(maps, output.const_data_ptr<T>(), data)) {
    launch_pool<T, kWide>(data, maps, rois, pooling, output);
  } else {
    launch_pool<T, 1>(data, maps, rois, pooling, output);
  }
}

template <typename T, int V>
void launch_spread(const Tensor& grad, const Pyramid& maps, const Rois& rois, const Pooling& pooling,
                   const Maps<acc_t<T>>& data) {
  spread<T, V><<<blocks_for_rois(pooling.rois, grad.numel() / pooling.rois / V), kThreads, 0, current_stream(grad)>>>(
      grad.const_data_ptr<T>(), rois.boxes.const_data_ptr<acc_t<T>>(), rois.levels, maps, pooling, data);
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
  constexpr int kWide = 16 / sizeof(T);
  Maps<A> data{};
  for (size_t i = 0; i < sums.size(); ++i) data.data[i] = sums[i].mutable_data_ptr<A>();
  // The sums are newly allocated, so they are aligned for any type (as null is).
  if (in_packs<T, kWide>(maps, grad.const_data_ptr<T>(), {})) {
    launch_spread<T, kWide>(grad, maps, rois, pooling, data);
  } else {
    launch_spread<T, 1>(grad, maps, rois, pooling, data);
  }
}

// A kernel counts the elements of a ROI in 32 bits, and the ROIs are the blocks of a launch.
void check_counts(int64_t channels, const Pooling& pooling) {
  const int64_t elements = channels * pooling.pooled_h * pooling.pooled_w;
  STD_TORCH_CHECK(elements <= INT32_MAX, "roi_align: ", elements, " elements a ROI; the CUDA kernel takes 2^31 - 1");
  STD_TORCH_CHECK(pooling.rois <= INT32_MAX, "roi_align: ", pooling.rois, " ROIs; the CUDA kernel takes 2^31 - 1");
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
  check_counts(maps.channels, pooling);
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
    check_counts(maps.channels, pooling);
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
