// 3x3 convolutions with stride 1 by the Winograd algorithm F(4x4, 3x3) on the CPU: 36 multiplications for 16 outputs
// instead of 144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016).
// Schemas: ops.cpp; contract: maskrcnn_benchmark/layers/winograd.py.
//
// A tile of 6 x 6 pixels becomes 36 numbers per channel. Each of the 36 is a separate matrix product of (tiles, C) with
// (C, K). 36 sums become 4 x 4 outputs. A block of tiles passes all three steps before the next one begins, so that
// intermediate values stay in the caches.
//
// The polynomials are evaluated at 0, +-1/sqrt(2), +-sqrt(2) and infinity. With the usual 0, +-1, +-2, rounding errors
// are twice as large (256 channels: 3.2e-6 of the outputs' standard deviation against 1.5e-6; 0.6e-6 for a sequential
// sum of all products).
#include "huge_pages.h"
#include "winograd.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

namespace {

template <typename T>
void convolve(const Geometry& g, int64_t images, const Tensor& in, const Tensor& weight,
              const std::optional<Tensor>& bias, const Tensor& out) {
  static const auto run_block = pick(MB_VERSIONS(run_block<T>));
  const int64_t tiles = images * g.tile_rows * g.tile_cols;
  // At least two blocks if there are enough tiles, for two threads; all of one size, so that no thread waits for
  // another.
  const int64_t blocks = std::max(divide_up(tiles, kBlock), std::min<int64_t>(tiles / (kBlock / 4), 2));
  const int64_t per_block = round_up(divide_up(tiles, std::max<int64_t>(blocks, 1)), kRows);
  const int64_t bytes =
      kPlanes * (plane_size(per_block * g.channels) + plane_size(per_block * g.filters)) * sizeof(float);
  const T* from = in.const_data_ptr<T>();
  T* to = out.mutable_data_ptr<T>();
  const float* filters = weight.const_data_ptr<float>();
  const float* shift = bias ? bias->const_data_ptr<float>() : nullptr;
  torch::stable::parallel_for(0, divide_up(tiles, per_block), 1, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(64, bytes), &std::free);
    STD_TORCH_CHECK(scratch, "winograd_conv: no memory for ", bytes, " bytes of scratch");
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * per_block, count = std::min(per_block, tiles - first);
      run_block(g, from, filters, shift, to, first, count, static_cast<float*>(scratch.get()));
    }
  });
}

// Transforms kMultiple filters of all channels. steps: strides of a filter, a channel, a row and a column of the taps.
// In `to`, the numbers of one channel and plane are adjacent. Channels are `width` apart, planes `plane`.
MB_SIMD_CLONES void transform_filters(const float* from, const int64_t steps[4], int64_t channels, float* to,
                                      int64_t width, int64_t plane) {
  constexpr int kSide = kMultiple;
  double matrix[kTile][3];
  filter_matrix(matrix);
  for (int64_t c = 0; c < channels; ++c, from += steps[1], to += width) {
    double taps[3][3][kSide], lines[kTile][3][kSide];
    for (int y = 0; y < 3; ++y) {
      for (int x = 0; x < 3; ++x) {
        for (int k = 0; k < kSide; ++k) taps[y][x][k] = from[k * steps[0] + y * steps[2] + x * steps[3]];
      }
    }
    for (int y = 0; y < kTile; ++y) {
      const double* m = matrix[y];
      for (int x = 0; x < 3; ++x) {
        for (int k = 0; k < kSide; ++k) {
          lines[y][x][k] = m[0] * taps[0][x][k] + m[1] * taps[1][x][k] + m[2] * taps[2][x][k];
        }
      }
    }
    for (int y = 0; y < kTile; ++y) {
      for (int x = 0; x < kTile; ++x) {
        const double* m = matrix[x];
        for (int k = 0; k < kSide; ++k) {
          const double value = m[0] * lines[y][0][k] + m[1] * lines[y][1][k] + m[2] * lines[y][2][k];
          to[(y * kTile + x) * plane + k] = static_cast<float>(value);
        }
      }
    }
  }
}

Tensor winograd_weight(const Tensor& given, bool transposed) {
  STD_TORCH_CHECK(given.dim() == 4 && given.size(2) == 3 && given.size(3) == 3,
                  "winograd_weight: expected (K, C, 3, 3)");
  const Tensor weight = cast(given, ScalarType::Float);
  const int64_t filters = weight.size(transposed ? 1 : 0), channels = weight.size(transposed ? 0 : 1);
  STD_TORCH_CHECK(filters % kMultiple == 0 && channels % kMultiple == 0, "winograd_weight: ", weight.size(0),
                  " filters of ", weight.size(1), " channels; expected multiples of ", kMultiple);
  const int64_t plane = plane_size(channels * filters), size[2] = {kPlanes, plane};
  Tensor out = torch::stable::empty({size, 2}, ScalarType::Float, std::nullopt, weight.device());
  use_huge_pages(out);
  const float* from = weight.const_data_ptr<float>();
  int64_t steps[4] = {weight.stride(0), weight.stride(1), weight.stride(2), weight.stride(3)};
  if (transposed) {  // filters and channels are swapped, taps are reversed
    from += 2 * (steps[2] + steps[3]);
    std::swap(steps[0], steps[1]);
    steps[2] = -steps[2], steps[3] = -steps[3];
  }
  float* to = out.mutable_data_ptr<float>();
  torch::stable::parallel_for(0, filters / kMultiple, 1, [&](int64_t begin, int64_t end) {
    int64_t start = 0, width = panel_width(filters, 0);
    for (int64_t k = begin * kMultiple; k < end * kMultiple; k += kMultiple) {
      while (start + width <= k) start += width, width = panel_width(filters, start);
      transform_filters(from + k * steps[0], steps, channels, to + start * channels + k - start, width, plane);
    }
  });
  return torch::stable::narrow(out, 1, 0, channels * filters);
}

void convolve_into(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, int64_t padding,
                   bool relu, const Tensor& out) {
  Geometry g{};
  g.channels = input.size(1), g.height = input.size(2), g.width = input.size(3);
  g.filters = out.size(1), g.weight_plane = weight.stride(0), g.out_height = out.size(2), g.out_width = out.size(3);
  g.padding = padding, g.relu = relu;
  g.tile_rows = divide_up(g.out_height, kOut), g.tile_cols = divide_up(g.out_width, kOut);
  g.in = strides_of(input), g.out = strides_of(out);
  if (out.numel() == 0) return;
  if (input.scalar_type() == ScalarType::Float) {
    convolve<float>(g, input.size(0), input, weight, bias, out);
  } else {
    convolve<BFloat16>(g, input.size(0), input, weight, bias, out);
  }
}

// (N, C, H, W) with the channels of a pixel adjacent.
Tensor checked_input(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  STD_TORCH_CHECK(input.dim() == 4, "winograd_conv: input has ", input.dim(), " dimensions; expected (N, C, H, W)");
  STD_TORCH_CHECK(input.scalar_type() == ScalarType::Float || input.scalar_type() == ScalarType::BFloat16,
                  "winograd_conv: input is neither float32 nor bfloat16");
  const int64_t channels = input.size(1);
  STD_TORCH_CHECK(weight.dim() == 2 && weight.size(0) == kPlanes && weight.stride(1) == 1 &&
                      weight.scalar_type() == ScalarType::Float && channels > 0 && channels % kMultiple == 0 &&
                      weight.size(1) % (channels * kMultiple) == 0,
                  "winograd_conv: the weight is not what winograd_weight makes for ", channels, " input channels");
  STD_TORCH_CHECK(!bias || (bias->scalar_type() == ScalarType::Float && bias->is_contiguous() &&
                            bias->numel() * channels == weight.size(1)),
                  "winograd_conv: the bias is not float32 with one number a filter");
  return input.stride(1) == 1 ? input : torch::stable::contiguous(input, MemoryFormat::ChannelsLast);
}

Tensor winograd_conv(const Tensor& given, const Tensor& weight, const std::optional<Tensor>& bias, int64_t padding,
                     bool relu) {
  const Tensor input = checked_input(given, weight, bias);
  const int64_t height = input.size(2) + 2 * padding - 2, width = input.size(3) + 2 * padding - 2;
  STD_TORCH_CHECK(padding >= 0 && height > 0 && width > 0, "winograd_conv: maps of ", input.size(2), " x ",
                  input.size(3), " with padding ", padding, " are smaller than the filters");
  const Tensor out = empty_maps(input, input.scalar_type(), input.size(0), weight.size(1) / input.size(1), height,
                                width, true);
  use_huge_pages(out);
  convolve_into(input, weight, bias, padding, relu, out);
  return out;
}

// Every output is written to its final place, between the channels of the others, and read there by the next
// convolution.
Tensor winograd_chain(const Tensor& given, const std::vector<Tensor>& weights, const std::vector<Tensor>& biases) {
  STD_TORCH_CHECK(weights.size() == biases.size(), "winograd_chain: ", weights.size(), " weights, ", biases.size(),
                  " biases; expected one of each for every convolution");
  STD_TORCH_CHECK(given.dim() == 4, "winograd_chain: input has ", given.dim(), " dimensions; expected (N, C, H, W)");
  int64_t total = given.size(1);
  for (const Tensor& bias : biases) total += bias.numel();
  Tensor out = empty_maps(given, given.scalar_type(), given.size(0), total, given.size(2), given.size(3), true);
  use_huge_pages(out);
  int64_t begin = 0, end = given.size(1);
  Tensor last = torch::stable::narrow(out, 1, 0, end);
  torch::stable::copy_(last, given);
  for (size_t i = 0; i < weights.size(); ++i) {
    const Tensor input = checked_input(last, weights[i], biases[i]);
    begin = end, end += biases[i].numel();
    last = torch::stable::narrow(out, 1, begin, end - begin);
    convolve_into(input, weights[i], biases[i], 1, true, last);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("winograd_weight", TORCH_BOX(&winograd_weight));
  m.impl("winograd_conv", TORCH_BOX(&winograd_conv));
  m.impl("winograd_chain", TORCH_BOX(&winograd_chain));
}
