// The gradient of a 3x3 convolution's filters by the Winograd algorithm: every step of winograd.cpp, transposed. For
// each of the 36 planes, the transformed inputs (tiles, C) and gradients (tiles, K) are multiplied over the tiles.
#include "huge_pages.h"
#include "winograd.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace {

// Tiles whose products are summed at a time: many, because all sums are read and written for every block of them.
constexpr int64_t kGradBlock = 192;

using Floats = std::unique_ptr<float, decltype(&std::free)>;

Floats allocate(int64_t count) {
  const int64_t bytes = round_up(count * static_cast<int64_t>(sizeof(float)), 64);
  Floats floats(static_cast<float*>(std::aligned_alloc(64, bytes)), &std::free);
  STD_TORCH_CHECK(floats, "winograd_weight_grad: no memory for ", bytes, " bytes of scratch");
  use_huge_pages(floats.get(), bytes);
  return floats;
}

template <typename T>
void sum_products(const Geometry& g, int64_t images, const T* in, const T* grad, float* sums, int64_t sums_plane) {
  static const auto transform = pick(MB_VERSIONS(transform_both<T>));
  static const auto multiply = pick(MB_VERSIONS(sum_plane));
  const int64_t tiles = images * g.tile_rows * g.tile_cols, block = std::min(kGradBlock, tiles);
  GradientScratch scratch{};
  // strides that are not powers of two, for the same reason as in plane_size
  scratch.input_step = g.channels + kMultiple, scratch.grad_step = g.filters + kMultiple;
  scratch.input_plane = plane_size(block * scratch.input_step);
  scratch.grad_plane = plane_size(block * scratch.grad_step);
  const Floats inputs = allocate(kPlanes * scratch.input_plane), grads = allocate(kPlanes * scratch.grad_plane);
  scratch.inputs = inputs.get(), scratch.grads = grads.get();
  for (int64_t first = 0; first < tiles; first += block) {
    const int64_t count = std::min(block, tiles - first);
    torch::stable::parallel_for(0, count, 16, [&](int64_t begin, int64_t end) {
      transform(g, in, grad, first, begin, end, scratch);
    });
    // Each plane belongs to one thread, so that the order of its sums does not depend on their number.
    torch::stable::parallel_for(0, kPlanes, 1, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane) {
        multiply(g, static_cast<int>(plane), count, scratch, first > 0, sums + plane * sums_plane);
      }
    });
  }
}

// Transforms the sums of one channel and kMultiple filters to 3 x 3 taps; steps are those of a filter, a row and a
// column.
MB_SIMD_CLONES void finish_taps(const float* sums, int64_t plane, float* to, const int64_t steps[3]) {
  constexpr int kSide = kMultiple;
  double matrix[kTile][3], columns[3][kTile][kSide] = {};
  filter_matrix(matrix);
  for (int y = 0; y < kTile; ++y) {
    for (int x = 0; x < kTile; ++x) {
      for (int i = 0; i < 3; ++i) {
        for (int k = 0; k < kSide; ++k) columns[i][x][k] += matrix[y][i] * sums[(y * kTile + x) * plane + k];
      }
    }
  }
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      double taps[kSide] = {};
      for (int x = 0; x < kTile; ++x) {
        for (int k = 0; k < kSide; ++k) taps[k] += matrix[x][j] * columns[i][x][k];
      }
      for (int k = 0; k < kSide; ++k) to[k * steps[0] + i * steps[1] + j * steps[2]] = static_cast<float>(taps[k]);
    }
  }
}

Tensor winograd_weight_grad(const Tensor& given_grad, const Tensor& given_input, int64_t padding) {
  STD_TORCH_CHECK(given_grad.dim() == 4 && given_input.dim() == 4 && given_grad.size(0) == given_input.size(0) &&
                      given_grad.size(2) == given_input.size(2) + 2 * padding - 2 &&
                      given_grad.size(3) == given_input.size(3) + 2 * padding - 2,
                  "winograd_weight_grad: gradients that a 3x3 convolution of this input and padding does not have");
  STD_TORCH_CHECK(given_grad.size(1) % kMultiple == 0 && given_input.size(1) % kMultiple == 0,
                  "winograd_weight_grad: ", given_grad.size(1), " filters of ", given_input.size(1),
                  " channels; expected multiples of ", kMultiple);
  STD_TORCH_CHECK(given_input.scalar_type() == given_grad.scalar_type() &&
                      (given_input.scalar_type() == ScalarType::Float || given_input.scalar_type() == ScalarType::BFloat16),
                  "winograd_weight_grad: expected float32 or bfloat16, the same for both");
  const Tensor input = torch::stable::contiguous(given_input, MemoryFormat::ChannelsLast);
  const Tensor grad = torch::stable::contiguous(given_grad, MemoryFormat::ChannelsLast);
  Geometry g{};
  g.channels = input.size(1), g.height = input.size(2), g.width = input.size(3);
  g.filters = grad.size(1), g.out_height = grad.size(2), g.out_width = grad.size(3);
  g.padding = padding;
  g.tile_rows = divide_up(g.out_height, kOut), g.tile_cols = divide_up(g.out_width, kOut);
  g.in = strides_of(input), g.out = strides_of(grad);
  const Tensor out = empty_maps(input, ScalarType::Float, g.filters, g.channels, 3, 3, true);
  float* to = out.mutable_data_ptr<float>();
  if (grad.numel() == 0) {
    std::fill(to, to + out.numel(), 0.0f);
    return out;
  }
  const int64_t plane = plane_size(g.channels * g.filters);
  const Floats sums = allocate(kPlanes * plane);
  if (input.scalar_type() == ScalarType::Float) {
    sum_products(g, input.size(0), input.const_data_ptr<float>(), grad.const_data_ptr<float>(), sums.get(), plane);
  } else {
    sum_products(g, input.size(0), input.const_data_ptr<BFloat16>(), grad.const_data_ptr<BFloat16>(), sums.get(), plane);
  }
  const int64_t steps[3] = {out.stride(0), out.stride(2), out.stride(3)}, channel_step = out.stride(1);
  torch::stable::parallel_for(0, g.channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t k = 0; k < g.filters; k += kMultiple) {
        finish_taps(sums.get() + c * g.filters + k, plane, to + k * steps[0] + c * channel_step, steps);
      }
    }
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("winograd_weight_grad", TORCH_BOX(&winograd_weight_grad));
}
