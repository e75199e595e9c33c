// 64-byte vectors of sums: one register with AVX-512, two with AVX2, four otherwise; and their loads, stores and
// transposes. All of it is inlined into functions marked MB_SIMD_CLONES.
#pragma once

#include "../common/macros.h"
#include "../common/tensor.h"

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace mb {

template <typename A>
struct Lanes {
  static constexpr int64_t kCount = 64 / sizeof(A);
  typedef A type __attribute__((vector_size(64)));
};
template <typename A>
using lanes_t = typename Lanes<A>::type;

typedef uint32_t WideBits __attribute__((vector_size(64)));
typedef uint16_t HalfBits __attribute__((vector_size(32)));

// Results are returned by reference: returning a 64-byte vector by value has another ABI in every clone.
template <typename T>
MB_HD void load_lanes(const T* from, lanes_t<acc_t<T>>& lanes) {
  using A = acc_t<T>;
  if constexpr (std::is_same_v<T, A>) {
    std::memcpy(&lanes, from, sizeof lanes);
  } else if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {
    HalfBits bits;
    std::memcpy(&bits, from, sizeof bits);
    const WideBits wide = __builtin_convertvector(bits, WideBits) << 16;
    std::memcpy(&lanes, &wide, sizeof lanes);
  } else {
    for (int64_t i = 0; i < Lanes<A>::kCount; ++i) lanes[i] = static_cast<A>(from[i]);
  }
}

template <typename T>
MB_HD void store_lanes(const lanes_t<acc_t<T>>& lanes, T* to) {
  using A = acc_t<T>;
  if constexpr (std::is_same_v<T, A>) {
    std::memcpy(to, &lanes, sizeof lanes);
  } else if constexpr (std::is_same_v<T, torch::headeronly::BFloat16>) {
    // To the nearest, ties to even; NaN becomes quiet NaN, as in PyTorch's own conversion.
    WideBits bits;
    std::memcpy(&bits, &lanes, sizeof bits);
    const WideBits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const WideBits is_nan = reinterpret_cast<WideBits>(lanes != lanes);
    const HalfBits half = __builtin_convertvector((is_nan & 0x7fc0) | (~is_nan & rounded), HalfBits);
    std::memcpy(to, &half, sizeof half);
  } else {
    for (int64_t i = 0; i < Lanes<A>::kCount; ++i) to[i] = static_cast<T>(lanes[i]);
  }
}

#if defined(__clang__) || __GNUC__ >= 12
#define MB_SHUFFLE(TYPE, A, B, ...) __builtin_shufflevector(A, B, __VA_ARGS__)
#else
#define MB_SHUFFLE(TYPE, A, B, ...) __builtin_shuffle(A, B, TYPE{__VA_ARGS__})
#endif

// Interleaves the lanes of a and b: their first halves into low, their second halves into high.
MB_HD void zip(const lanes_t<float>& a, const lanes_t<float>& b, lanes_t<float>& low, lanes_t<float>& high) {
  typedef int32_t Index __attribute__((vector_size(64), unused));
  low = MB_SHUFFLE(Index, a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  high = MB_SHUFFLE(Index, a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
MB_HD void zip(const lanes_t<double>& a, const lanes_t<double>& b, lanes_t<double>& low, lanes_t<double>& high) {
  typedef int64_t Index __attribute__((vector_size(64), unused));
  low = MB_SHUFFLE(Index, a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  high = MB_SHUFFLE(Index, a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

// to[c * to_stride + r] = from[r * from_stride + c] for a square of Lanes::kCount rows. Interleaving the two halves
// log2(kCount) times transposes it.
template <typename From, typename To>
MB_HD void transpose_tile(const From* from, int64_t from_stride, To* to, int64_t to_stride) {
  using A = acc_t<From>;
  constexpr int64_t kSide = Lanes<A>::kCount;
  lanes_t<A> lines[kSide], zipped[kSide];
  for (int64_t i = 0; i < kSide; ++i) load_lanes(from + i * from_stride, lines[i]);
  for (int64_t done = 1; done < kSide; done *= 2) {
    for (int64_t i = 0; i < kSide / 2; ++i) zip(lines[i], lines[i + kSide / 2], zipped[2 * i], zipped[2 * i + 1]);
    for (int64_t i = 0; i < kSide; ++i) lines[i] = zipped[i];
  }
  for (int64_t i = 0; i < kSide; ++i) store_lanes(lines[i], to + i * to_stride);
}

// The same for any number of rows and columns. From and To have the same sum type.
template <typename From, typename To>
MB_SIMD_CLONES void transpose(const From* from, int64_t from_stride, int64_t rows, int64_t cols, To* to,
                              int64_t to_stride) {
  using A = acc_t<From>;
  constexpr int64_t kSide = Lanes<A>::kCount;
  const int64_t whole_rows = rows / kSide * kSide, whole_cols = cols / kSide * kSide;
  for (int64_t r = 0; r < whole_rows; r += kSide) {
    for (int64_t c = 0; c < whole_cols; c += kSide) {
      transpose_tile(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; ++c) {
      to[c * to_stride + r] = static_cast<To>(static_cast<A>(from[r * from_stride + c]));
    }
  }
}

// Copies rows of `cols` elements from one stride to another, and from one type to another.
template <typename From, typename To>
MB_SIMD_CLONES void copy_lines(const From* from, int64_t from_stride, int64_t rows, int64_t cols, To* to,
                               int64_t to_stride) {
  using A = acc_t<From>;
  constexpr int64_t kCount = Lanes<A>::kCount;
  for (int64_t r = 0; r < rows; ++r, from += from_stride, to += to_stride) {
    int64_t c = 0;
    for (; c + kCount <= cols; c += kCount) {
      lanes_t<A> lanes;
      load_lanes(from + c, lanes);
      store_lanes(lanes, to + c);
    }
    for (; c < cols; ++c) to[c] = static_cast<To>(static_cast<A>(from[c]));
  }
}

}  // namespace mb
