// ROIAlign forward and backward on the CPU. Schemas: ops.cpp; contract and twin: maskrcnn_benchmark/layers/roi_align.py.
//
// A bin is a weighted sum over a few rows times a few columns of the map. The samples of a bin often share pixels, so
// their weights are first added up per row and per column. Forward runs in parallel over ROIs, backward over images and
// channels: no two threads write the same gradient, and every sum has one order whatever the number of threads.
#include "../common/roi_align.h"
#include "../common/tensor.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace {

using namespace mb;

struct Shape {
  int64_t images, channels, height, width, pooled_h, pooled_w;
  int64_t bins() const { return pooled_h * pooled_w; }
  int64_t pixels() const { return height * width; }
};

struct Sampling {
  double scale;
  int64_t ratio;
  bool aligned;
};

// For every bin along one axis: the pixels it reads, ascending, and their weights, which add up to at most 1.
template <typename A>
struct AxisTaps {
  std::vector<int64_t> begin, index;
  std::vector<A> weight;

  void fill(const RoiAxis<A>& axis, int64_t pooled, int64_t size) {
    begin.assign(1, 0);
    index.clear();
    weight.clear();
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
  // Samples of a bin come in ascending order: a pixel met before is among the last two.
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

  void fill(const A* roi, const Shape& shape, const Sampling& sampling) {
    const A scale = static_cast<A>(sampling.scale);
    rows.fill(roi_axis(roi[2], roi[4], scale, sampling.aligned, shape.pooled_h, sampling.ratio, shape.height),
              shape.pooled_h, shape.height);
    cols.fill(roi_axis(roi[1], roi[3], scale, sampling.aligned, shape.pooled_w, sampling.ratio, shape.width),
              shape.pooled_w, shape.width);
  }
};

// The taps of all bins, spelled out as pixel offsets: what the contiguous layout reads again for every channel.
template <typename A>
struct FlatTaps {
  std::vector<int64_t> begin, offset;
  std::vector<A> weight;

  void fill(const RoiTaps<A>& taps, const Shape& shape) {
    begin.assign(1, 0);
    offset.clear();
    weight.clear();
    for (int64_t ph = 0; ph < shape.pooled_h; ++ph) {
      for (int64_t pw = 0; pw < shape.pooled_w; ++pw) {
        for (int64_t r = taps.rows.begin[ph]; r < taps.rows.begin[ph + 1]; ++r) {
          for (int64_t c = taps.cols.begin[pw]; c < taps.cols.begin[pw + 1]; ++c) {
            offset.push_back(taps.rows.index[r] * shape.width + taps.cols.index[c]);
            weight.push_back(taps.rows.weight[r] * taps.cols.weight[c]);
          }
        }
        begin.push_back(static_cast<int64_t>(offset.size()));
      }
    }
  }
};

// ---- channels_last: the loops run over channels -------------------------------------------------------------------

// 64 bytes of sums: one register with AVX-512, two with AVX2, four without.
template <typename A>
struct Lanes {
  static constexpr int64_t kCount = 64 / sizeof(A);
  typedef A type __attribute__((vector_size(64)));
};

// Returns through a reference: a 64-byte vector as return value has another ABI in every clone.
template <typename T>
MB_HD void load_lanes(const T* from, typename Lanes<acc_t<T>>::type& lanes) {
  using A = acc_t<T>;
  if constexpr (std::is_same_v<T, A>) {
    std::memcpy(&lanes, from, sizeof lanes);
  } else if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {
    typedef uint16_t Short __attribute__((vector_size(32)));
    typedef uint32_t Long __attribute__((vector_size(64)));
    Short bits;
    std::memcpy(&bits, from, sizeof bits);
    const Long wide = __builtin_convertvector(bits, Long) << 16;
    std::memcpy(&lanes, &wide, sizeof lanes);
  } else {
    for (int64_t i = 0; i < Lanes<A>::kCount; ++i) lanes[i] = static_cast<A>(from[i]);
  }
}

// image: (H, W, C); out: (pooled_h, pooled_w, C).
template <typename T>
MB_SIMD_CLONES void pool_channels_last(const T* image, const RoiTaps<acc_t<T>>& taps, const Shape& shape, T* out) {
  using A = acc_t<T>;
  constexpr int64_t kVectors = 4, kCount = Lanes<A>::kCount, kWide = kVectors * kCount;
  const int64_t channels = shape.channels;
  for (int64_t ph = 0; ph < shape.pooled_h; ++ph) {
    for (int64_t pw = 0; pw < shape.pooled_w; ++pw, out += channels) {
      const int64_t row_end = taps.rows.begin[ph + 1], col_begin = taps.cols.begin[pw];
      const int64_t col_end = taps.cols.begin[pw + 1];
      int64_t channel = 0;
      for (; channel + kWide <= channels; channel += kWide) {
        typename Lanes<A>::type sum[kVectors] = {};
        for (int64_t r = taps.rows.begin[ph]; r < row_end; ++r) {
          const T* row = image + taps.rows.index[r] * shape.width * channels + channel;
          for (int64_t c = col_begin; c < col_end; ++c) {
            const A weight = taps.rows.weight[r] * taps.cols.weight[c];
            const T* pixel = row + taps.cols.index[c] * channels;
            for (int64_t v = 0; v < kVectors; ++v) {
              typename Lanes<A>::type lanes;
              load_lanes(pixel + v * kCount, lanes);
              sum[v] += weight * lanes;
            }
          }
        }
        for (int64_t v = 0; v < kVectors; ++v) {
          for (int64_t i = 0; i < kCount; ++i) out[channel + v * kCount + i] = static_cast<T>(sum[v][i]);
        }
      }
      for (; channel < channels; ++channel) {
        A sum = 0;
        for (int64_t r = taps.rows.begin[ph]; r < row_end; ++r) {
          const T* row = image + taps.rows.index[r] * shape.width * channels + channel;
          for (int64_t c = col_begin; c < col_end; ++c) {
            sum += taps.rows.weight[r] * taps.cols.weight[c] * static_cast<A>(row[taps.cols.index[c] * channels]);
          }
        }
        out[channel] = static_cast<T>(sum);
      }
    }
  }
}

// grad: (pooled_h, pooled_w, C); image_grad: (H, W, C). Only the channels [first, last) are touched.
template <typename T>
MB_SIMD_CLONES void spread_channels_last(const T* grad, const RoiTaps<acc_t<T>>& taps, const Shape& shape,
                                         int64_t first, int64_t last, acc_t<T>* image_grad) {
  using A = acc_t<T>;
  const int64_t channels = shape.channels;
  for (int64_t ph = 0; ph < shape.pooled_h; ++ph) {
    for (int64_t pw = 0; pw < shape.pooled_w; ++pw, grad += channels) {
      for (int64_t r = taps.rows.begin[ph]; r < taps.rows.begin[ph + 1]; ++r) {
        A* row = image_grad + taps.rows.index[r] * shape.width * channels;
        for (int64_t c = taps.cols.begin[pw]; c < taps.cols.begin[pw + 1]; ++c) {
          const A weight = taps.rows.weight[r] * taps.cols.weight[c];
          A* __restrict pixel = row + taps.cols.index[c] * channels;
          for (int64_t channel = first; channel < last; ++channel) {
            pixel[channel] += weight * static_cast<A>(grad[channel]);
          }
        }
      }
    }
  }
}

// ---- contiguous: one plane after the other -------------------------------------------------------------------------

// image: (C, H, W); out: (C, pooled_h, pooled_w).
template <typename T>
void pool_planes(const T* image, const FlatTaps<acc_t<T>>& taps, const Shape& shape, T* out) {
  using A = acc_t<T>;
  for (int64_t channel = 0; channel < shape.channels; ++channel, image += shape.pixels(), out += shape.bins()) {
    for (int64_t bin = 0; bin < shape.bins(); ++bin) {
      A sum = 0;
      for (int64_t i = taps.begin[bin]; i < taps.begin[bin + 1]; ++i) {
        sum += taps.weight[i] * static_cast<A>(image[taps.offset[i]]);
      }
      out[bin] = static_cast<T>(sum);
    }
  }
}

// grad: (C, pooled_h, pooled_w); image_grad: (C, H, W). Only the channels [first, last) are touched.
template <typename T>
void spread_planes(const T* grad, const FlatTaps<acc_t<T>>& taps, const Shape& shape, int64_t first, int64_t last,
                   acc_t<T>* image_grad) {
  using A = acc_t<T>;
  for (int64_t channel = first; channel < last; ++channel) {
    const T* plane_grad = grad + channel * shape.bins();
    A* plane = image_grad + channel * shape.pixels();
    for (int64_t bin = 0; bin < shape.bins(); ++bin) {
      const A g = static_cast<A>(plane_grad[bin]);
      for (int64_t i = taps.begin[bin]; i < taps.begin[bin + 1]; ++i) plane[taps.offset[i]] += taps.weight[i] * g;
    }
  }
}

// ---- over all ROIs -------------------------------------------------------------------------------------------------

template <typename A>
void check_image_indices(const A* rois, int64_t count, int64_t images) {
  for (int64_t i = 0; i < count; ++i) {
    const A index = rois[5 * i];
    STD_TORCH_CHECK(index >= A(0) && index < static_cast<A>(images) && index == std::floor(index), "roi_align: rois[", i,
                    ", 0] is ", static_cast<double>(index), ", but the input holds ", images,
                    " image(s); wanted an index from 0 to ", images - 1);
  }
}

template <typename T>
void pool_all(const T* input, const acc_t<T>* rois, int64_t count, const Shape& shape, const Sampling& sampling,
              bool channels_last, T* output) {
  using A = acc_t<T>;
  const int64_t image_size = shape.channels * shape.pixels(), roi_size = shape.channels * shape.bins();
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    RoiTaps<A> taps;
    FlatTaps<A> flat;
    for (int64_t i = begin; i < end; ++i) {
      const A* roi = rois + 5 * i;
      const T* image = input + static_cast<int64_t>(roi[0]) * image_size;
      taps.fill(roi, shape, sampling);
      if (channels_last) {
        pool_channels_last<T>(image, taps, shape, output + i * roi_size);
      } else {
        flat.fill(taps, shape);
        pool_planes<T>(image, flat, shape, output + i * roi_size);
      }
    }
  });
}

template <typename T>
void spread_all(const T* grad, const acc_t<T>* rois, int64_t count, const Shape& shape, const Sampling& sampling,
                bool channels_last, acc_t<T>* input_grad) {
  using A = acc_t<T>;
  // Slices of whole cache lines, so that threads do not share one; about one slice a thread.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t slice = std::max<int64_t>(16, (shape.channels / std::max<int64_t>(1, threads) + 15) / 16 * 16);
  const int64_t slices = (shape.channels + slice - 1) / slice;
  const int64_t image_size = shape.channels * shape.pixels(), roi_size = shape.channels * shape.bins();
  torch::stable::parallel_for(0, shape.images * slices, 1, [&](int64_t begin, int64_t end) {
    RoiTaps<A> taps;
    FlatTaps<A> flat;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / slices, first = task % slices * slice;
      const int64_t last = std::min(first + slice, shape.channels);
      for (int64_t i = 0; i < count; ++i) {
        const A* roi = rois + 5 * i;
        if (static_cast<int64_t>(roi[0]) != image) continue;
        taps.fill(roi, shape, sampling);
        if (channels_last) {
          spread_channels_last<T>(grad + i * roi_size, taps, shape, first, last, input_grad + image * image_size);
        } else {
          flat.fill(taps, shape);
          spread_planes<T>(grad + i * roi_size, flat, shape, first, last, input_grad + image * image_size);
        }
      }
    }
  });
}

// Contiguous maps are turned to channels_last and back where the ROIs read more than that costs (about two passes over
// the maps). Both ways add in the same order, so the choice does not show in the result.
bool worth_turning(int64_t rois, const Shape& shape) {
  return shape.channels >= 16 && rois * shape.bins() * 2 >= shape.images * shape.pixels();
}

Tensor roi_align(const Tensor& input, const Tensor& rois, double spatial_scale, int64_t pooled_h, int64_t pooled_w,
                 int64_t sampling_ratio, bool aligned) {
  const Shape shape{input.size(0), input.size(1), input.size(2), input.size(3), pooled_h, pooled_w};
  const Sampling sampling{spatial_scale, sampling_ratio, aligned};
  const ScalarType type = input.scalar_type();
  const int64_t count = rois.size(0);
  const bool given_channels_last = is_channels_last(input);
  const bool channels_last = given_channels_last || worth_turning(count, shape);
  const Tensor maps = in_format(input, channels_last);
  const Tensor boxes = torch::stable::contiguous(cast(rois, accumulate_type(type)));
  const Tensor output = empty_maps(input, type, count, shape.channels, pooled_h, pooled_w, channels_last);
  MB_DISPATCH_FLOATING(type, "roi_align", [&] {
    using A = acc_t<scalar_t>;
    check_image_indices(boxes.const_data_ptr<A>(), count, shape.images);
    pool_all<scalar_t>(maps.const_data_ptr<scalar_t>(), boxes.const_data_ptr<A>(), count, shape, sampling,
                       channels_last, output.mutable_data_ptr<scalar_t>());
  });
  return in_format(output, given_channels_last);
}

Tensor roi_align_backward(const Tensor& grad, const Tensor& rois, std::vector<int64_t> input_size, double spatial_scale,
                          int64_t sampling_ratio, bool aligned, bool wanted_channels_last, bool /*deterministic*/) {
  const Shape shape{input_size[0], input_size[1], input_size[2], input_size[3], grad.size(2), grad.size(3)};
  const Sampling sampling{spatial_scale, sampling_ratio, aligned};
  const ScalarType type = grad.scalar_type();
  const int64_t count = rois.size(0);
  const bool channels_last = wanted_channels_last || worth_turning(count, shape);
  const Tensor grads = in_format(grad, channels_last);
  const Tensor boxes = torch::stable::contiguous(cast(rois, accumulate_type(type)));
  Tensor sums = empty_maps(grad, accumulate_type(type), shape.images, shape.channels, shape.height, shape.width,
                           channels_last);
  torch::stable::zero_(sums);
  MB_DISPATCH_FLOATING(type, "roi_align_backward", [&] {
    using A = acc_t<scalar_t>;
    check_image_indices(boxes.const_data_ptr<A>(), count, shape.images);
    spread_all<scalar_t>(grads.const_data_ptr<scalar_t>(), boxes.const_data_ptr<A>(), count, shape, sampling,
                         channels_last, sums.mutable_data_ptr<A>());
  });
  return in_format(cast(sums, type), wanted_channels_last);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
}
