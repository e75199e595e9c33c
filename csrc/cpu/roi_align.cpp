// ROIAlign forward and backward on the CPU, over all maps of a pyramid. Schemas: ops.cpp; contract and twin:
// maskrcnn_benchmark/layers/roi_align.py.
//
// A bin is a weighted sum over a few rows times a few columns of its map (roi_taps.h). The loops run over channels,
// which must be adjacent. In channels_last maps they are: forward reads them in place, in parallel over ROIs. For
// contiguous maps, and for gradients, a thread processes a block of channels at a time and transposes it into or out of
// a buffer that stays in the cache. No two threads write the same number, and the order of every sum is fixed, for any
// memory format and number of threads.
#include "../common/macros.h"
#include "../common/tensor.h"
#include "huge_pages.h"
#include "lanes.h"
#include "roi_taps.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <vector>

namespace {

using namespace mb;

// The taps of all bins as pixel offsets, for reading single planes, once per channel.
template <typename A>
struct FlatTaps {
  std::vector<int64_t> begin, offset;
  std::vector<A> weight;

  void fill(const RoiTaps<A>& taps, const Pooling& pooling, int64_t width) {
    begin.assign(1, 0);
    offset.clear();
    weight.clear();
    for (int64_t ph = 0; ph < pooling.pooled_h; ++ph) {
      for (int64_t pw = 0; pw < pooling.pooled_w; ++pw) {
        for (int64_t r = taps.rows.begin[ph]; r < taps.rows.begin[ph + 1]; ++r) {
          for (int64_t c = taps.cols.begin[pw]; c < taps.cols.begin[pw + 1]; ++c) {
            offset.push_back(taps.rows.index[r] * width + taps.cols.index[c]);
            weight.push_back(taps.rows.weight[r] * taps.cols.weight[c]);
          }
        }
        begin.push_back(static_cast<int64_t>(offset.size()));
      }
    }
  }
};

// ---- one ROI -------------------------------------------------------------------------------------------------------

// The bin (ph, pw) of kVectors vectors of channels. `image` points to the first channel in pixel 0.
template <int64_t kVectors, typename T>
MB_HD void pool_bin(const T* image, const RoiTaps<acc_t<T>>& taps, int64_t ph, int64_t pw, int64_t width,
                    int64_t channels, T* out) {
  using A = acc_t<T>;
  constexpr int64_t kCount = Lanes<A>::kCount;
  lanes_t<A> sum[kVectors] = {};
  for (int64_t r = taps.rows.begin[ph]; r < taps.rows.begin[ph + 1]; ++r) {
    const T* row = image + taps.rows.index[r] * width * channels;
    for (int64_t c = taps.cols.begin[pw]; c < taps.cols.begin[pw + 1]; ++c) {
      const A weight = taps.rows.weight[r] * taps.cols.weight[c];
      const T* pixel = row + taps.cols.index[c] * channels;
      for (int64_t v = 0; v < kVectors; ++v) {
        lanes_t<A> lanes;
        load_lanes(pixel + v * kCount, lanes);
        sum[v] += weight * lanes;
      }
    }
  }
  for (int64_t v = 0; v < kVectors; ++v) store_lanes(sum[v], out + v * kCount);
}

// Prefetches the pixels of the bin (ph, pw) while the one before it is summed: hardware does not predict their
// positions.
template <typename T>
MB_HD void prefetch_bin(const T* image, const RoiTaps<acc_t<T>>& taps, int64_t ph, int64_t pw, int64_t width,
                        int64_t channels) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t r = taps.rows.begin[ph]; r < taps.rows.begin[ph + 1]; ++r) {
    const T* row = image + taps.rows.index[r] * width * channels;
    for (int64_t c = taps.cols.begin[pw]; c < taps.cols.begin[pw + 1]; ++c) {
      const T* pixel = row + taps.cols.index[c] * channels;
      for (int64_t i = 0; i < channels; i += kLine) __builtin_prefetch(pixel + i);
    }
  }
}

// image: (H, W, C); out: (pooled_h, pooled_w, C).
template <typename T>
MB_SIMD_CLONES void pool_pixels(const T* image, const RoiTaps<acc_t<T>>& taps, const Pooling& pooling, int64_t width,
                                int64_t channels, T* out) {
  using A = acc_t<T>;
  constexpr int64_t kCount = Lanes<A>::kCount;
  for (int64_t ph = 0; ph < pooling.pooled_h; ++ph) {
    for (int64_t pw = 0; pw < pooling.pooled_w; ++pw, out += channels) {
      if (pw + 1 < pooling.pooled_w) prefetch_bin(image, taps, ph, pw + 1, width, channels);
      int64_t channel = 0;
      for (; channel + 4 * kCount <= channels; channel += 4 * kCount) {
        pool_bin<4>(image + channel, taps, ph, pw, width, channels, out + channel);
      }
      for (; channel + kCount <= channels; channel += kCount) {
        pool_bin<1>(image + channel, taps, ph, pw, width, channels, out + channel);
      }
      for (; channel < channels; ++channel) {
        A sum = 0;
        for (int64_t r = taps.rows.begin[ph]; r < taps.rows.begin[ph + 1]; ++r) {
          const T* row = image + taps.rows.index[r] * width * channels + channel;
          for (int64_t c = taps.cols.begin[pw]; c < taps.cols.begin[pw + 1]; ++c) {
            sum += taps.rows.weight[r] * taps.cols.weight[c] * static_cast<A>(row[taps.cols.index[c] * channels]);
          }
        }
        out[channel] = static_cast<T>(sum);
      }
    }
  }
}

// planes: (channels, H, W); out: (channels, pooled_h, pooled_w).
template <typename T>
void pool_planes(const T* planes, const FlatTaps<acc_t<T>>& taps, int64_t channels, int64_t pixels, int64_t bins,
                 T* out) {
  using A = acc_t<T>;
  for (int64_t channel = 0; channel < channels; ++channel, planes += pixels, out += bins) {
    for (int64_t bin = 0; bin < bins; ++bin) {
      A sum = 0;
      for (int64_t i = taps.begin[bin]; i < taps.begin[bin + 1]; ++i) {
        sum += taps.weight[i] * static_cast<A>(planes[taps.offset[i]]);
      }
      out[bin] = static_cast<T>(sum);
    }
  }
}

// Channels that a thread transposes at a time.
template <typename A>
constexpr int64_t kBlock = 2 * Lanes<A>::kCount;

// grad: (pooled_h, pooled_w, one block of channels), added to image_grad: (H, W, the same block).
template <typename A>
MB_SIMD_CLONES void spread_block(const A* grad, const RoiTaps<A>& taps, const Pooling& pooling, int64_t width,
                                 A* image_grad) {
  constexpr int64_t kCount = Lanes<A>::kCount, kVectors = kBlock<A> / kCount;
  for (int64_t ph = 0; ph < pooling.pooled_h; ++ph) {
    for (int64_t pw = 0; pw < pooling.pooled_w; ++pw, grad += kBlock<A>) {
      lanes_t<A> share[kVectors];
      for (int64_t v = 0; v < kVectors; ++v) load_lanes(grad + v * kCount, share[v]);
      for (int64_t r = taps.rows.begin[ph]; r < taps.rows.begin[ph + 1]; ++r) {
        A* row = image_grad + taps.rows.index[r] * width * kBlock<A>;
        for (int64_t c = taps.cols.begin[pw]; c < taps.cols.begin[pw + 1]; ++c) {
          const A weight = taps.rows.weight[r] * taps.cols.weight[c];
          A* pixel = row + taps.cols.index[c] * kBlock<A>;
          for (int64_t v = 0; v < kVectors; ++v) {
            lanes_t<A> sum;
            load_lanes(pixel + v * kCount, sum);
            sum += weight * share[v];
            store_lanes(sum, pixel + v * kCount);
          }
        }
      }
    }
  }
}

// ---- all ROIs ------------------------------------------------------------------------------------------------------

// A block of channels of one image: the unit of work for transposed channels.
struct Block {
  int64_t image, first, channels;
};

// A thread's buffers for transposed channels. Memory is allocated at the first use. Lanes beyond the channels of a
// block keep old values: their sums are not used.
template <typename A>
class Workspace {
 public:
  explicit Workspace(const Pooling& pooling) : bins_(pooling.bins() * kBlock<A>) {
    for (const Level& level : pooling.levels) size_ = std::max(size_, level.pixels() * kBlock<A>);
  }

  A* pixels() {  // (H, W, one block) of any level
    if (pixels_ == nullptr) {
      pixels_.reset(static_cast<A*>(std::calloc(size_, sizeof(A))));
      if (pixels_ == nullptr) throw std::bad_alloc();
      use_huge_pages(pixels_.get(), size_ * static_cast<int64_t>(sizeof(A)));
    }
    return pixels_.get();
  }

  A* bins() { return bins_.data(); }  // (pooled_h, pooled_w, one block)

 private:
  struct Free {
    void operator()(A* memory) const { std::free(memory); }
  };
  int64_t size_ = 0;
  std::unique_ptr<A, Free> pixels_;
  std::vector<A> bins_;
};

// Calls work(block, workspace) for all blocks of all images, in parallel.
template <typename A, typename Work>
void for_each_block(const Pooling& pooling, Work work) {
  const int64_t blocks = (pooling.channels + kBlock<A> - 1) / kBlock<A>;
  torch::stable::parallel_for(0, pooling.images * blocks, 1, [&](int64_t begin, int64_t end) {
    Workspace<A> space(pooling);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * kBlock<A>;
      work(Block{task / blocks, first, std::min(kBlock<A>, pooling.channels - first)}, space);
    }
  });
}

// inputs: the maps, (N, H, W, C); output: (count, pooled_h, pooled_w, C).
template <typename T>
void pool_channels_last(const std::vector<const T*>& inputs, const Plan<acc_t<T>>& plan, const Pooling& pooling,
                        T* output) {
  const int64_t count = static_cast<int64_t>(plan.order.size());
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t number = plan.group[i] / pooling.images, image = plan.group[i] % pooling.images;
      const Level& level = pooling.levels[number];
      pool_pixels(inputs[number] + image * level.pixels() * pooling.channels, plan.taps[i], pooling, level.width,
                  pooling.channels, output + plan.order[i] * pooling.bins() * pooling.channels);
    }
  });
}

// Whether transposing the channels pays: it costs a pass over the map, and makes the taps of a bin far cheaper.
bool worth_turning(int64_t rois, const Pooling& pooling, const Level& level) {
  return pooling.channels >= 8 && rois * pooling.bins() * 16 >= level.pixels();
}

// inputs: the maps, (N, C, H, W); output: (count, C, pooled_h, pooled_w).
template <typename T>
void pool_contiguous(const std::vector<const T*>& inputs, const Plan<acc_t<T>>& plan, const Pooling& pooling,
                     T* output) {
  using A = acc_t<T>;
  const int64_t bins = pooling.bins();
  for_each_block<A>(pooling, [&](const Block& block, Workspace<A>& space) {
    FlatTaps<A> flat;
    for (size_t number = 0; number < inputs.size(); ++number) {
      const Level& level = pooling.levels[number];
      const int64_t group = static_cast<int64_t>(number) * pooling.images + block.image;
      const int64_t begin = plan.begin[group], end = plan.begin[group + 1];
      const T* planes = inputs[number] + (block.image * pooling.channels + block.first) * level.pixels();
      const bool turned = worth_turning(end - begin, pooling, level);
      if (turned) {
        transpose(planes, level.pixels(), block.channels, level.pixels(), space.pixels(), kBlock<A>);
      }
      for (int64_t i = begin; i < end; ++i) {
        T* out = output + (plan.order[i] * pooling.channels + block.first) * bins;
        if (turned) {
          pool_pixels(space.pixels(), plan.taps[i], pooling, level.width, kBlock<A>, space.bins());
          transpose(space.bins(), kBlock<A>, bins, block.channels, out, bins);
        } else {
          flat.fill(plan.taps[i], pooling, level.width);
          pool_planes(planes, flat, block.channels, level.pixels(), bins, out);
        }
      }
    }
  });
}

// grad: (count, C, pooled_h, pooled_w), input_grads: the maps (N, C, H, W), each contiguous or channels_last.
template <typename T>
void spread_all(const T* grad, bool grad_channels_last, const Plan<acc_t<T>>& plan, const Pooling& pooling,
                bool channels_last, const std::vector<T*>& input_grads) {
  using A = acc_t<T>;
  const int64_t bins = pooling.bins(), channels = pooling.channels;
  for_each_block<A>(pooling, [&](const Block& block, Workspace<A>& space) {
    A *pixels = space.pixels(), *shares = space.bins();
    for (size_t number = 0; number < input_grads.size(); ++number) {
      const Level& level = pooling.levels[number];
      const int64_t group = static_cast<int64_t>(number) * pooling.images + block.image;
      std::fill(pixels, pixels + level.pixels() * kBlock<A>, A(0));
      for (int64_t i = plan.begin[group]; i < plan.begin[group + 1]; ++i) {
        const T* roi_grad = grad + plan.order[i] * channels * bins;
        if (grad_channels_last) {
          copy_lines(roi_grad + block.first, channels, bins, block.channels, shares, kBlock<A>);
        } else {
          transpose(roi_grad + block.first * bins, bins, block.channels, bins, shares, kBlock<A>);
        }
        spread_block(shares, plan.taps[i], pooling, level.width, pixels);
      }
      T* out = input_grads[number] + block.image * channels * level.pixels();
      if (channels_last) {
        copy_lines(pixels, kBlock<A>, level.pixels(), block.channels, out + block.first, channels);
      } else {
        T* planes = out + block.first * level.pixels();
        transpose(pixels, kBlock<A>, level.pixels(), block.channels, planes, level.pixels());
      }
    }
  });
}

// ---- tensors -------------------------------------------------------------------------------------------------------

void add_level(Pooling& pooling, int64_t height, int64_t width, double scale) {
  STD_TORCH_CHECK(height > 0 && width > 0, "roi_align: a map has ", height, " x ", width,
                  " pixels; expected at least one");
  pooling.levels.push_back({height, width, scale});
}

// The ROIs in this dtype's sum type, and the map of each, checked.
struct Rois {
  Tensor boxes;
  std::optional<Tensor> levels;

  Rois(const Tensor& rois, const std::optional<Tensor>& given_levels, ScalarType type, const Pooling& pooling)
      : boxes(torch::stable::contiguous(cast(rois, accumulate_type(type)))) {
    if (given_levels.has_value()) levels = torch::stable::contiguous(cast(*given_levels, ScalarType::Long));
    const int64_t count = boxes.size(0), most = static_cast<int64_t>(pooling.levels.size());
    for (int64_t i = 0; i < count; ++i) {
      const double index = boxes.scalar_type() == ScalarType::Double
                               ? boxes.const_data_ptr<double>()[5 * i]
                               : static_cast<double>(boxes.const_data_ptr<float>()[5 * i]);
      STD_TORCH_CHECK(index >= 0 && index < static_cast<double>(pooling.images) && index == std::floor(index),
                      "roi_align: rois[", i, ", 0] is ", index, ", but the input holds ", pooling.images,
                      " image(s); expected an index from 0 to ", pooling.images - 1);
      const int64_t level = level_data() == nullptr ? 0 : level_data()[i];
      STD_TORCH_CHECK(level >= 0 && level < most, "roi_align: levels[", i, "] is ", level, ", but there are ", most,
                      " map(s); expected an index from 0 to ", most - 1);
    }
  }

  const int64_t* level_data() const { return levels.has_value() ? levels->const_data_ptr<int64_t>() : nullptr; }

  template <typename A>
  Plan<A> plan(const Pooling& pooling) const {
    return Plan<A>(boxes.const_data_ptr<A>(), level_data(), boxes.size(0), pooling);
  }
};

Tensor roi_align(std::vector<Tensor> inputs, const Tensor& rois, const std::optional<Tensor>& levels,
                 std::vector<double> spatial_scales, int64_t pooled_h, int64_t pooled_w, int64_t sampling_ratio,
                 bool aligned) {
  const Tensor& first = inputs[0];
  const ScalarType type = first.scalar_type();
  const bool channels_last = any_channels_last(inputs);
  Pooling pooling{{}, first.size(0), first.size(1), pooled_h, pooled_w, sampling_ratio, aligned};
  for (size_t i = 0; i < inputs.size(); ++i) {
    add_level(pooling, inputs[i].size(2), inputs[i].size(3), spatial_scales[i]);
    inputs[i] = in_format(inputs[i], channels_last);
  }
  const Rois checked(rois, levels, type, pooling);
  const Tensor output = empty_maps(first, type, rois.size(0), pooling.channels, pooled_h, pooled_w, channels_last);
  use_huge_pages(output);
  MB_DISPATCH_FLOATING(type, "roi_align", [&] {
    std::vector<const scalar_t*> maps;
    for (const Tensor& input : inputs) maps.push_back(input.const_data_ptr<scalar_t>());
    const auto plan = checked.plan<acc_t<scalar_t>>(pooling);
    if (channels_last) {
      pool_channels_last(maps, plan, pooling, output.mutable_data_ptr<scalar_t>());
    } else {
      pool_contiguous(maps, plan, pooling, output.mutable_data_ptr<scalar_t>());
    }
  });
  return output;
}

// sizes: height and width of every map, one after the other.
std::vector<Tensor> roi_align_backward(const Tensor& grad, const Tensor& rois, const std::optional<Tensor>& levels,
                                       int64_t images, std::vector<int64_t> sizes, std::vector<double> spatial_scales,
                                       int64_t sampling_ratio, bool aligned, bool channels_last,
                                       bool /*deterministic*/) {
  const ScalarType type = grad.scalar_type();
  Pooling pooling{{}, images, grad.size(1), grad.size(2), grad.size(3), sampling_ratio, aligned};
  std::vector<Tensor> input_grads;
  for (size_t i = 0; i < spatial_scales.size(); ++i) {
    add_level(pooling, sizes[2 * i], sizes[2 * i + 1], spatial_scales[i]);
    input_grads.push_back(
        empty_maps(grad, type, images, pooling.channels, sizes[2 * i], sizes[2 * i + 1], channels_last));
    use_huge_pages(input_grads.back());
  }
  const Rois checked(rois, levels, type, pooling);
  const bool grad_channels_last = is_channels_last(grad);
  const Tensor grads = in_format(grad, grad_channels_last);
  MB_DISPATCH_FLOATING(type, "roi_align_backward", [&] {
    std::vector<scalar_t*> maps;
    for (Tensor& map : input_grads) maps.push_back(map.mutable_data_ptr<scalar_t>());
    spread_all(grads.const_data_ptr<scalar_t>(), grad_channels_last, checked.plan<acc_t<scalar_t>>(pooling), pooling,
               channels_last, maps);
  });
  return input_grads;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("roi_align", TORCH_BOX(&roi_align));
  m.impl("roi_align_backward", TORCH_BOX(&roi_align_backward));
}
