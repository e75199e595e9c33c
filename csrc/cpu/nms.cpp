// Greedy non-maximum suppression on the CPU. Schema: ops.cpp; contract and twin: maskrcnn_benchmark/layers/nms.py.
#include "../common/iou.h"
#include "../common/tensor.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

namespace {

using namespace mb;

// The boxes kept so far, by group: group g has the slots from start[g] on, kept[g] of them filled.
template <typename T>
struct KeptBoxes {
  std::vector<T> x1, y1, x2, y2, area;
  std::vector<int64_t> start, kept;

  KeptBoxes(int64_t boxes, std::vector<int64_t> group_start)
      : x1(boxes), y1(boxes), x2(boxes), y2(boxes), area(boxes), start(std::move(group_start)), kept(start.size(), 0) {}

  void push(int64_t group, const Box<T>& box, T box_area) {
    const int64_t slot = start[group] + kept[group]++;
    x1[slot] = box.x1, y1[slot] = box.y1, x2[slot] = box.x2, y2[slot] = box.y2, area[slot] = box_area;
  }
};

// Whether one of the slots [begin, end) suppresses the box. The vectorized loop has no division: it finds the blocks
// that may contain such a slot, with a margin above all rounding. Only those are decided by the exact quotient.
template <typename T>
MB_SIMD_CLONES bool suppressed_by(const T* x1, const T* y1, const T* x2, const T* y2, const T* area, int64_t begin,
                                  int64_t end, Box<T> box, T box_area, T extra, T threshold) {
  constexpr int64_t kBlock = 64;
  const T low = threshold * (1 - 16 * std::numeric_limits<T>::epsilon());
  const T tiny = std::numeric_limits<T>::min() * 16;
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t last = std::min(first + kBlock, end);
    int maybe = 0;
    for (int64_t i = first; i < last; ++i) {
      const T common = intersection(Box<T>{x1[i], y1[i], x2[i], y2[i]}, box, extra);
      maybe |= common + tiny >= low * (area[i] + box_area - common);
    }
    if (!maybe) continue;
    for (int64_t i = first; i < last; ++i) {
      if (iou_exceeds(Box<T>{x1[i], y1[i], x2[i], y2[i]}, area[i], box, box_area, extra, threshold)) return true;
    }
  }
  return false;
}

// Positions by descending score, lower index first for equal scores, without NaN scores.
template <typename T>
std::vector<int64_t> order_by_score(const T* scores, int64_t n) {
  std::vector<int64_t> order;
  order.reserve(n);
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isnan(scores[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
  return order;
}

// Numbers the groups 0..G-1 in `group`, and returns the first slot of each.
std::vector<int64_t> number_groups(const int64_t* groups, int64_t n, std::vector<int64_t>& group) {
  group.assign(n, 0);
  if (groups == nullptr) return {0};
  std::vector<int64_t> names(groups, groups + n);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  std::vector<int64_t> start(names.size() + 1, 0);
  for (int64_t i = 0; i < n; ++i) {
    group[i] = std::lower_bound(names.begin(), names.end(), groups[i]) - names.begin();
    ++start[group[i] + 1];
  }
  std::partial_sum(start.begin(), start.end(), start.begin());
  start.pop_back();
  return start;
}

// Boxes are processed by descending score over all groups, so that stopping after max_keep leaves the best ones. One
// thread does this: 20,000 boxes take some 20 ms. Threads would have to synchronize after every few boxes, which costs
// far more than it saves as soon as the machine is busy.
template <typename T>
std::vector<int64_t> keep_boxes(const T* boxes, const T* scores, const int64_t* groups, int64_t n, T threshold, T extra,
                                int64_t max_keep) {
  std::vector<int64_t> group, result;
  KeptBoxes<T> kept(n, number_groups(groups, n, group));
  const int64_t limit = max_keep < 0 ? n : std::min(max_keep, n);
  for (int64_t index : order_by_score(scores, n)) {
    if (static_cast<int64_t>(result.size()) == limit) break;
    const T* corners = boxes + 4 * index;
    const Box<T> box{corners[0], corners[1], corners[2], corners[3]};
    const T area = box_area(box, extra);
    const int64_t g = group[index], begin = kept.start[g], end = begin + kept.kept[g];
    if (suppressed_by(kept.x1.data(), kept.y1.data(), kept.x2.data(), kept.y2.data(), kept.area.data(), begin, end, box,
                      area, extra, threshold)) {
      continue;
    }
    kept.push(g, box, area);
    result.push_back(index);
  }
  return result;
}

Tensor nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups, double iou_threshold,
           bool inclusive, int64_t max_keep) {
  const int64_t n = boxes.size(0);
  const ScalarType type = boxes.scalar_type() == ScalarType::Double || scores.scalar_type() == ScalarType::Double
                              ? ScalarType::Double
                              : ScalarType::Float;
  const Tensor box_data = torch::stable::contiguous(cast(boxes, type));
  const Tensor score_data = torch::stable::contiguous(cast(scores, type));
  std::optional<Tensor> group_data;
  if (groups.has_value()) group_data = torch::stable::contiguous(cast(*groups, ScalarType::Long));
  const int64_t* group_ptr = group_data.has_value() ? group_data->const_data_ptr<int64_t>() : nullptr;

  std::vector<int64_t> kept;
  if (type == ScalarType::Double) {
    kept = keep_boxes<double>(box_data.const_data_ptr<double>(), score_data.const_data_ptr<double>(), group_ptr, n,
                              iou_threshold, inclusive ? 1.0 : 0.0, max_keep);
  } else {
    kept = keep_boxes<float>(box_data.const_data_ptr<float>(), score_data.const_data_ptr<float>(), group_ptr, n,
                             static_cast<float>(iou_threshold), inclusive ? 1.0f : 0.0f, max_keep);
  }
  const int64_t size[1] = {static_cast<int64_t>(kept.size())};
  Tensor result = torch::stable::new_empty(boxes, {size, 1}, ScalarType::Long);
  std::copy(kept.begin(), kept.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("nms", TORCH_BOX(&nms));
}
