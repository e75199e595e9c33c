// Intersection over union of two xyxy boxes, rounded at every step as in the original programs, so that pairs near the
// threshold get the same decision.
#pragma once

#include "macros.h"

namespace mb {

template <typename T>
struct Box {
  T x1, y1, x2, y2;
};

// extra: 1 if the last pixel belongs to the box (side = x2 - x1 + 1), otherwise 0.
template <typename T>
MB_HD T box_area(const Box<T>& box, T extra) {
  return (box.x2 - box.x1 + extra) * (box.y2 - box.y1 + extra);
}

template <typename T>
MB_HD T intersection(const Box<T>& a, const Box<T>& b, T extra) {
  const T left = a.x1 < b.x1 ? b.x1 : a.x1, right = b.x2 < a.x2 ? b.x2 : a.x2;
  const T top = a.y1 < b.y1 ? b.y1 : a.y1, bottom = b.y2 < a.y2 ? b.y2 : a.y2;
  const T width = right - left + extra, height = bottom - top + extra;
  return (T(0) < width ? width : T(0)) * (T(0) < height ? height : T(0));
}

// False if the quotient is NaN. A box with a NaN coordinate has a NaN area, so it suppresses nothing and nothing
// suppresses it. Two boxes without area do not suppress each other.
template <typename T>
MB_HD bool iou_exceeds(const Box<T>& a, T area_a, const Box<T>& b, T area_b, T extra, T threshold) {
  const T common = intersection(a, b, extra);
  return common / (area_a + area_b - common) > threshold;
}

}  // namespace mb
