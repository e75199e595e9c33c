// Taps of ROIAlign: for every bin of every ROI, a few rows times a few columns of a map, and their weights.
#pragma once

#include "../common/roi_align.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace mb {

// One feature map of a pyramid: its pixels, and its scale (pixels of the map per pixel of the image).
struct Level {
  int64_t height, width;
  double scale;
  int64_t pixels() const { return height * width; }
};

struct Pooling {
  std::vector<Level> levels;
  int64_t images, channels, pooled_h, pooled_w, sampling_ratio;
  bool aligned;
  int64_t bins() const { return pooled_h * pooled_w; }
};

// For every bin along one axis: the pixels it reads, ascending, and their weights, which sum to at most 1. The samples
// of a bin often share pixels, whose weights are added here once for all channels.
template <typename A>
struct AxisTaps {
  std::vector<int64_t> begin, index;
  std::vector<A> weight;

  void fill(const RoiAxis<A>& axis, int64_t pooled, int64_t size) {
    begin.assign(1, 0);
    const A share = axis.grid > 0 ? A(1) / static_cast<A>(axis.grid) : A(0);
    for (int64_t bin = 0; bin < pooled; ++bin) {
      for (int64_t i = 0; i < axis.grid; ++i) {
        const AxisSample<A> sample = axis_sample(axis, bin, i, size);
        add(sample.low, sample.low_weight * share);
        add(sample.high, sample.high_weight * share);
      }
      begin.push_back(static_cast<int64_t>(index.size()));
    }
  }

 private:
  // Samples of a bin are in ascending order: a repeated pixel is among the last two.
  void add(int64_t pixel, A share) {
    if (share == A(0)) return;
    const int64_t size = static_cast<int64_t>(index.size());
    for (int64_t i = std::max(size - 2, begin.back()); i < size; ++i) {
      if (index[i] == pixel) {
        weight[i] += share;
        return;
      }
    }
    index.push_back(pixel);
    weight.push_back(share);
  }
};

template <typename A>
struct RoiTaps {
  AxisTaps<A> rows, cols;

  void fill(const A* roi, const Level& level, const Pooling& pooling) {
    const A scale = static_cast<A>(level.scale);
    rows.fill(roi_axis(roi[2], roi[4], scale, pooling.aligned, pooling.pooled_h, pooling.sampling_ratio, level.height),
              pooling.pooled_h, level.height);
    cols.fill(roi_axis(roi[1], roi[3], scale, pooling.aligned, pooling.pooled_w, pooling.sampling_ratio, level.width),
              pooling.pooled_w, level.width);
  }
};

// All ROIs in processing order: by map, and on a map by band from left to right, so that the data of one ROI is often
// still in the cache for the next one. The order depends only on the ROIs.
template <typename A>
struct Plan {
  std::vector<int64_t> order;       // positions in the caller's list
  std::vector<int64_t> group;       // of each, in that order: level * images + image
  std::vector<int64_t> begin;       // where each group starts; one more at the end
  std::vector<RoiTaps<A>> taps;     // of each, in that order

  // rois: (count, 5); levels: (count,) or null for level 0. Indices have been checked.
  Plan(const A* rois, const int64_t* levels, int64_t count, const Pooling& pooling)
      : order(count), group(count), begin(pooling.levels.size() * pooling.images + 1, 0), taps(count) {
    constexpr A kBand = 32;  // pixels of the map
    struct Key {
      int64_t group, band, x;
    };
    std::vector<Key> keys(count);
    for (int64_t i = 0; i < count; ++i) {
      const A* roi = rois + 5 * i;
      const int64_t number = levels == nullptr ? 0 : levels[i];
      const Level& level = pooling.levels[number];
      const auto middle = [&](A low, A high, int64_t size) {
        const A at = (low + high) / 2 * static_cast<A>(level.scale), last = static_cast<A>(size);
        return at > A(0) ? (at < last ? at : last) : A(0);  // NaN becomes 0
      };
      keys[i] = {number * pooling.images + static_cast<int64_t>(roi[0]),
                 static_cast<int64_t>(middle(roi[2], roi[4], level.height) / kBand),
                 static_cast<int64_t>(middle(roi[1], roi[3], level.width))};
      ++begin[keys[i].group + 1];
    }
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      const Key &p = keys[a], &q = keys[b];
      if (p.group != q.group) return p.group < q.group;
      if (p.band != q.band) return p.band < q.band;
      return p.x != q.x ? p.x < q.x : a < b;
    });
    torch::stable::parallel_for(0, count, 64, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        group[i] = keys[order[i]].group;
        taps[i].fill(rois + 5 * order[i], pooling.levels[group[i] / pooling.images], pooling);
      }
    });
  }
};

}  // namespace mb
