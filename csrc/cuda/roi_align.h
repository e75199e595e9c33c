// Maps, ROIs and sample positions for the ROIAlign kernels.
#pragma once

#include "../common/roi_align.h"
#include "launch.h"

namespace mb {

constexpr int64_t kMaxLevels = 8;  // passed as arguments of the kernels
constexpr int kTaps = 256;         // per axis in shared memory: 14 bins of 18 samples
constexpr int kPerThread = 4;      // elements of a ROI per thread, before further blocks share them

// All maps have the same images, channels and memory format.
struct Pyramid {
  int64_t levels, images, channels;
  int64_t height[kMaxLevels], width[kMaxLevels];
  double scale[kMaxLevels];
  bool channels_last;
};

// T is const if the maps are only read.
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

// I: an unsigned type that can hold every index; a GPU divides 32 bits several times faster than 64.
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

// A ROI: its map, its image (-1 for an index outside the batch or the pyramid: it has no samples) and its two axes.
template <typename A>
struct Roi {
  int64_t level, image;
  RoiAxis<A> rows, cols;

  // levels: the map of each ROI, or null for the first map.
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

// A sample's two pixels along one axis: their distances in elements from pixel 0, and their weights.
template <typename A>
struct Tap {
  int64_t low, high;
  A low_weight, high_weight;
};

template <typename A>
__device__ __forceinline__ Tap<A> make_tap(const RoiAxis<A>& axis, int64_t bin, int64_t sample, int64_t size,
                                           int64_t step) {
  const AxisSample<A> at = axis_sample(axis, bin, sample, size);
  return {at.low * step, at.high * step, at.low_weight, at.high_weight};
}

// The taps of one axis of a block's ROI: in shared memory if they fit, otherwise recomputed at every use.
template <typename A>
struct AxisTaps {
  RoiAxis<A> axis;
  int64_t size, step;
  Tap<A>* taps;
  bool fit;

  // All threads of a block must call this. They synchronize before they use the result.
  __device__ AxisTaps(const RoiAxis<A>& of, int64_t bins, int64_t pixels, int64_t elements, Tap<A>* store)
      : axis(of), size(pixels), step(elements), taps(store), fit(axis.grid * bins <= kTaps) {
    if (!fit) return;
    const int grid = static_cast<int>(axis.grid), count = static_cast<int>(bins) * grid;
    for (int i = threadIdx.x; i < count; i += blockDim.x) taps[i] = make_tap(axis, i / grid, i % grid, size, step);
  }

  __device__ __forceinline__ Tap<A> get(int64_t bin, int64_t sample) const {
    return fit ? taps[bin * axis.grid + sample] : make_tap(axis, bin, sample, size, step);
  }
};

// Calls visit(distance from pixel (0, 0) in elements, weight) for every pixel read by every sample of a bin.
template <typename A, typename Visit>
__device__ __forceinline__ void for_each_read(const AxisTaps<A>& rows, const AxisTaps<A>& cols, int64_t bin_y,
                                              int64_t bin_x, const Visit& visit) {
  for (int64_t i = 0; i < rows.axis.grid; ++i) {
    const Tap<A> y = rows.get(bin_y, i);
#pragma unroll 2
    for (int64_t j = 0; j < cols.axis.grid; ++j) {
      const Tap<A> x = cols.get(bin_x, j);
      visit(y.low + x.low, y.low_weight * x.low_weight);
      visit(y.low + x.high, y.low_weight * x.high_weight);
      visit(y.high + x.low, y.high_weight * x.low_weight);
      visit(y.high + x.high, y.high_weight * x.high_weight);
    }
  }
}

// V adjacent channels, read and written as one.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T values[V];
};

// A block's ROI as seen by its threads.
template <typename A>
struct Block {
  Roi<A> roi;
  AxisTaps<A> rows, cols;
  int64_t area;       // pixels of the ROI's map
  int64_t origin;     // of its image in the map, in elements
  uint32_t elements;  // of the pooled ROI

  __device__ Block(const A* rois, const int64_t* levels, const Pyramid& maps, const Pooling& pooling, Tap<A>* row_taps,
                   Tap<A>* col_taps)
      : roi(rois, levels, blockIdx.x, maps, pooling),
        rows(roi.rows, pooling.pooled_h, maps.height[roi.level],
             maps.width[roi.level] * (maps.channels_last ? maps.channels : 1), row_taps),
        cols(roi.cols, pooling.pooled_w, maps.width[roi.level], maps.channels_last ? maps.channels : 1, col_taps),
        area(maps.height[roi.level] * maps.width[roi.level]),
        origin(roi.image < 0 ? 0 : roi.image * maps.channels * area),
        elements(static_cast<uint32_t>(maps.channels * pooling.pooled_h * pooling.pooled_w)) {
    __syncthreads();
  }
};

// for (uint32_t i : the elements of the block's ROI that this thread processes, V at a time)
#define MB_ROI_STRIDE(i, count)                                                                  \
  for (uint32_t i = blockIdx.y * blockDim.x + threadIdx.x; i < (count); i += gridDim.y * blockDim.x)

}  // namespace mb
