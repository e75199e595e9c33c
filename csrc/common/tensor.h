// Checks and helpers for tensors, on top of PyTorch's stable ABI.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/Dispatch_v2.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mb {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// float16 and bfloat16 are only read and written; sums use a wider type.
template <typename T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <typename T>
using acc_t = typename Accumulate<T>::type;

inline ScalarType accumulate_type(ScalarType type) {
  return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Tensor cast(const Tensor& tensor, ScalarType type) {
  return tensor.scalar_type() == type ? tensor : torch::stable::to(tensor, type);
}

// True for a (N, C, H, W) tensor with adjacent channels. One that is contiguous in both senses (a single channel, or
// 1 x 1 maps) counts as contiguous, as in layers/roi_align.py.
inline bool is_channels_last(const Tensor& tensor) {
  if (tensor.is_contiguous()) return false;
  const int order[4] = {1, 3, 2, 0};
  int64_t expected = 1;
  for (int dim : order) {
    if (tensor.size(dim) == 1) continue;
    if (tensor.stride(dim) != expected) return false;
    expected *= tensor.size(dim);
  }
  return true;
}

inline bool any_channels_last(const std::vector<Tensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), is_channels_last);
}

inline Tensor in_format(const Tensor& tensor, bool channels_last) {
  return torch::stable::contiguous(tensor, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

inline Tensor empty_maps(const Tensor& like, ScalarType type, int64_t n, int64_t c, int64_t h, int64_t w,
                         bool channels_last) {
  const int64_t size[4] = {n, c, h, w};
  return torch::stable::empty({size, 4}, type, std::nullopt, like.device(), std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

}  // namespace mb

// Runs the body with scalar_t set to the C++ type of a floating dtype.
#define MB_DISPATCH_FLOATING(TYPE, NAME, ...)                                              \
  THO_DISPATCH_V2(TYPE, NAME, AT_WRAP(__VA_ARGS__), AT_EXPAND(AT_FLOATING_TYPES), \
                  torch::headeronly::ScalarType::Half, torch::headeronly::ScalarType::BFloat16)
