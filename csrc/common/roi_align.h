// Sample positions of ROIAlign. He et al., "Mask R-CNN", ICCV 2017, section 3; `aligned` is the later half-pixel
// correction. Axes are separate: the bilinear weight of a pixel is the product of its weights along y and x.
#pragma once

#include "macros.h"

#include <cmath>
#include <cstdint>

namespace mb {

// One axis of one ROI, in pixels of the feature map.
template <typename T>
struct RoiAxis {
  T start, bin;
  int64_t grid;  // samples per bin, 0..size + 2
};

// low, high: the ROI's two coordinates in pixels of the image; size: pixels of the map along this axis.
template <typename T>
MB_HD RoiAxis<T> roi_axis(T low, T high, T scale, bool aligned, int64_t pooled, int64_t sampling_ratio, int64_t size) {
  const T offset = aligned ? T(0.5) : T(0);
  const T start = low * scale - offset;
  T length = high * scale - offset - start;
  if (!aligned && length < T(1)) length = T(1);  // the original's smallest ROI is one pixel of the map
  const T bin = length / static_cast<T>(pooled);
  if (sampling_ratio > 0) return {start, bin, sampling_ratio};
  // Adaptive: a sample per pixel. The bound only applies to bins larger than the whole map, so that a huge box costs no
  // more than the map. NaN compares false and gets no sample.
  const T samples = ceil(bin), most = static_cast<T>(size + 2);
  return {start, bin, samples >= T(1) ? static_cast<int64_t>(samples < most ? samples : most) : 0};
}

// The two pixels around a sample and their weights, which are 0 for a sample more than a pixel outside the map.
template <typename T>
struct AxisSample {
  int64_t low, high;
  T low_weight, high_weight;
};

template <typename T>
MB_HD AxisSample<T> axis_sample(const RoiAxis<T>& axis, int64_t bin, int64_t sample, int64_t size) {
  T at = axis.start + static_cast<T>(bin) * axis.bin +
         (static_cast<T>(sample) + T(0.5)) * axis.bin / static_cast<T>(axis.grid);
  if (!(at >= T(-1) && at <= static_cast<T>(size))) return {0, 0, T(0), T(0)};  // also for NaN
  if (at < T(0)) at = T(0);
  const int64_t low = static_cast<int64_t>(at);
  if (low >= size - 1) return {size - 1, size - 1, T(1), T(0)};
  const T fraction = at - static_cast<T>(low);
  return {low, low + 1, T(1) - fraction, fraction};
}

}  // namespace mb
