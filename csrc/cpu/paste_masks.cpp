// Encode masks in their boxes to COCO run lengths of the image. Schema: ops.cpp; contract and twin:
// maskrcnn_benchmark/structures/paste_masks.py.
//
// Between two rows of the mask, a column of the image is linear. So a column is decided by its values at the mask's
// rows, and single pixels are computed only if the threshold lies between two of them. The work grows with columns
// times rows of the mask, and no float image is made.
#include "../common/macros.h"
#include "../common/tensor.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

namespace {

using namespace mb;

struct Pasting {
  int64_t height, width;  // of the image
  int64_t side, padding;  // of the mask, and of the border of zeros around it
  float threshold;
  bool aligned;

  int64_t padded() const { return side + 2 * padding; }
  bool inside(float value) const { return aligned ? value >= threshold : value > threshold; }
};

// The pixels [begin, end) of the image that a mask covers along one axis. Pixel begin + i mixes the rows low[i] and
// high[i] of the padded mask, the second with weight fraction[i].
struct Axis {
  int64_t begin = 0, end = 0;
  std::vector<int64_t> low, high;
  std::vector<float> fraction;

  int64_t size() const { return end - begin; }

  void clear(int64_t first, int64_t last, int64_t pixels) {
    begin = std::clamp<int64_t>(first, 0, pixels);
    end = std::clamp<int64_t>(last, begin, pixels);
    low.clear(), high.clear(), fraction.clear();
  }

  void add(int64_t index, float rest, int64_t last_row) {
    low.push_back(std::min(index, last_row));
    high.push_back(std::min(index + 1, last_row));
    fraction.push_back(std::min(rest, 1.0f));
  }

  // A box of integer pixels, both ends inside, to which the padded mask is resized.
  void stretch(float from, float to, int64_t pixels, int64_t rows) {
    const int64_t first = static_cast<int64_t>(from), last = static_cast<int64_t>(to);
    clear(first, last + 1, pixels);
    const float scale = static_cast<float>(rows) / static_cast<float>(std::max<int64_t>(last - first + 1, 1));
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const float at = std::max((static_cast<float>(pixel - first) + 0.5f) * scale - 0.5f, 0.0f);
      const int64_t index = std::min(static_cast<int64_t>(at), rows - 1);
      add(index, at - static_cast<float>(index), rows - 1);
    }
  }

  // A box in continuous coordinates; the center of pixel p is p + 0.5. Up to half a mask pixel outside the box, values
  // fade to the zeros of the border.
  void sample(float from, float to, int64_t pixels, int64_t side) {
    const float length = to - from, fade = length / static_cast<float>(2 * side);
    clear(static_cast<int64_t>(std::floor(from - fade)) - 1, static_cast<int64_t>(std::ceil(to + fade)) + 1, pixels);
    if (!(length > 0.0f)) end = begin;
    const float size = static_cast<float>(side);
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const float unit = (static_cast<float>(pixel) + 0.5f - from) / length * 2.0f - 1.0f;
      const float at = std::clamp(((unit + 1.0f) * size - 1.0f) / 2.0f, -1.0f, size);
      const float below = std::floor(at);
      add(static_cast<int64_t>(below) + 1, at - below, side + 1);
    }
  }
};

// Both axes of a box; empty if a corner is not finite.
void place(const float* box, const Pasting& how, Axis& cols, Axis& rows) {
  constexpr float kFarthest = 1073741824.0f;  // 2^30: such corners are far outside of every image
  cols.clear(0, 0, how.width), rows.clear(0, 0, how.height);
  if (!std::all_of(box, box + 4, [](float corner) { return std::isfinite(corner); })) return;
  const float grow = static_cast<float>(static_cast<double>(how.padded()) / static_cast<double>(how.side));
  const auto fill = [&](Axis& axis, float low, float high, int64_t pixels) {
    low = std::clamp(low, -kFarthest, kFarthest), high = std::clamp(high, -kFarthest, kFarthest);
    if (how.aligned) return axis.sample(low, high, pixels, how.side);
    const float half = (high - low) * 0.5f * grow, center = (high + low) * 0.5f;
    axis.stretch(center - half, center + half, pixels, how.padded());
  };
  fill(cols, box[0], box[2], how.width);
  fill(rows, box[1], box[3], how.height);
}

enum Verdict : uint8_t { kOut, kIn, kNear };

// One column of the image at the rows of the mask. kIn and kOut leave a margin above all rounding, so that all pixels
// between two rows with one verdict have it, too.
MB_SIMD_CLONES void mix_columns(const float* left, const float* right, float fraction, int64_t rows, float low_mark,
                                float high_mark, float* values, uint8_t* verdicts) {
  const float rest = 1.0f - fraction;
  for (int64_t i = 0; i < rows; ++i) {
    const float value = left[i] * rest + right[i] * fraction;
    values[i] = value;
    verdicts[i] = value > high_mark ? kIn : value < low_mark ? kOut : kNear;
  }
}

// Positions where the image, read column by column, changes from 0 to 1 and back.
class Borders {
 public:
  std::vector<int64_t> at;

  void set(int64_t position, bool value) {
    if (value == inside_) return;
    inside_ = value;
    at.push_back(position);
  }

  // COCO's text: differences of run lengths in base 32, least significant digit first, from character 48 on; bit 32
  // means that the number continues. From the fourth run on, the number is the difference from the run two before it.
  std::string compressed(int64_t pixels) {
    if (at.empty() || at.back() != pixels) at.push_back(pixels);
    std::string text;
    int64_t start = 0, run = 0, before[2] = {0, 0};
    for (size_t i = 0; i < at.size(); ++i) {
      run = at[i] - start;
      start = at[i];
      int64_t number = i > 2 ? run - before[i % 2] : run;
      before[i % 2] = run;
      for (bool more = true; more;) {
        const int64_t digit = number & 31;
        number >>= 5;
        more = digit & 16 ? number != -1 : number != 0;
        text.push_back(static_cast<char>(48 + digit + (more ? 32 : 0)));
      }
    }
    return text;
  }

 private:
  bool inside_ = false;
};

// Buffers that a thread reuses from mask to mask.
struct Workspace {
  Axis cols, rows;
  std::vector<float> columns, values;  // the padded mask, transposed; one column of the image
  std::vector<uint8_t> verdicts;
  std::vector<int64_t> first;  // first[k]: the first pixel of the window that reads row k or a later one
};

void transpose_padded(const float* mask, const Pasting& how, std::vector<float>& columns) {
  columns.assign(how.padded() * how.padded(), 0.0f);
  for (int64_t y = 0; y < how.side; ++y) {
    for (int64_t x = 0; x < how.side; ++x) {
      columns[(x + how.padding) * how.padded() + y + how.padding] = mask[y * how.side + x];
    }
  }
}

std::string paste(const float* mask, const float* box, const Pasting& how, Workspace& work) {
  Borders borders;
  place(box, how, work.cols, work.rows);
  const Axis &cols = work.cols, &rows = work.rows;
  const int64_t pixels = how.height * how.width, count = how.padded();
  if (cols.size() == 0 || rows.size() == 0) return borders.compressed(pixels);

  transpose_padded(mask, how, work.columns);
  work.values.resize(count);
  work.verdicts.resize(count);
  work.first.resize(count + 1);
  for (int64_t k = 0; k <= count; ++k) {
    work.first[k] = std::lower_bound(rows.low.begin(), rows.low.end(), k) - rows.low.begin();
  }
  const float margin = how.threshold * 9.5367431640625e-7f + 1e-30f;  // 2^-20; the other is for values near zero
  const bool whole_columns = rows.size() == how.height;
  for (int64_t x = 0; x < cols.size(); ++x) {
    const int64_t top = (cols.begin + x) * how.height + rows.begin;
    mix_columns(&work.columns[cols.low[x] * count], &work.columns[cols.high[x] * count], cols.fraction[x], count,
                how.threshold - margin, how.threshold + margin, work.values.data(), work.verdicts.data());
    for (int64_t k = rows.low.front(); k <= rows.low.back(); ++k) {
      const uint8_t verdict = work.verdicts[k];
      if (verdict != kNear && verdict == work.verdicts[std::min(k + 1, count - 1)]) {
        if (work.first[k] < work.first[k + 1]) borders.set(top + work.first[k], verdict == kIn);
        continue;
      }
      for (int64_t y = work.first[k]; y < work.first[k + 1]; ++y) {
        const float upper = work.values[rows.low[y]] * (1.0f - rows.fraction[y]);
        borders.set(top + y, how.inside(upper + work.values[rows.high[y]] * rows.fraction[y]));
      }
    }
    if (!whole_columns) borders.set(top + rows.size(), false);
  }
  borders.set((cols.end - 1) * how.height + rows.end, false);
  return borders.compressed(pixels);
}

std::tuple<Tensor, Tensor> paste_masks_rle(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width,
                                           double threshold, int64_t padding, bool aligned) {
  const Tensor mask_data = torch::stable::contiguous(cast(masks, ScalarType::Float));
  const Tensor box_data = torch::stable::contiguous(cast(boxes, ScalarType::Float));
  const int64_t count = masks.size(0), side = masks.size(1);
  const Pasting how{height, width, side, aligned ? 1 : padding, static_cast<float>(threshold), aligned};
  const float *mask = mask_data.const_data_ptr<float>(), *box = box_data.const_data_ptr<float>();

  std::vector<std::string> texts(count);
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    Workspace work;
    for (int64_t i = begin; i < end; ++i) texts[i] = paste(mask + i * side * side, box + 4 * i, how, work);
  });

  const int64_t ends_size[1] = {count};
  Tensor ends = torch::stable::new_empty(masks, {ends_size, 1}, ScalarType::Long);
  int64_t total = 0;
  for (int64_t i = 0; i < count; ++i) {
    total += static_cast<int64_t>(texts[i].size());
    ends.mutable_data_ptr<int64_t>()[i] = total;
  }
  const int64_t text_size[1] = {total};
  Tensor text = torch::stable::new_empty(masks, {text_size, 1}, ScalarType::Byte);
  uint8_t* out = text.mutable_data_ptr<uint8_t>();
  for (const std::string& one : texts) out = std::copy(one.begin(), one.end(), out);
  return {text, ends};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("paste_masks_rle", TORCH_BOX(&paste_masks_rle));
}
