// Shared by the Winograd files: sizes, matrices, and the code compiled once for every instruction set. See
// winograd.cpp.
#pragma once

#include "../common/macros.h"
#include "../common/tensor.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using namespace mb;
using torch::headeronly::BFloat16;

constexpr int kTile = 6, kOut = 4, kPlanes = kTile * kTile;
constexpr float kNear = 0.70710678118654752f, kFar = 1.41421356237309505f, kNear2 = 0.5f, kFar2 = 2.0f;
constexpr int64_t kMultiple = 16;  // of the channels of inputs and outputs
constexpr int64_t kPanel = 64;     // maximum number of adjacent columns of weights
constexpr int kRows = 6;           // tiles multiplied together, with their sums in registers
constexpr int kGradRows = 4;       // channels multiplied together for the gradient of filters
constexpr int64_t kBlock = 36;     // maximum number of tiles of a block: with 256 channels, 3.6 MB between the steps

struct Strides {
  int64_t image, row, pixel;
};

struct Geometry {
  int64_t channels, filters, weight_plane, height, width, out_height, out_width, padding, tile_rows, tile_cols;
  Strides in, out;
  bool relu;
};

// Scratch memory of the filters' gradient for a block of tiles: 36 planes of (tiles, channels) each.
struct GradientScratch {
  float *inputs, *grads;
  int64_t input_step, input_plane, grad_step, grad_plane;
};

struct Place {
  int64_t image, top, left;  // of a tile's outputs
};

inline Place place_of(const Geometry& g, int64_t tile) {
  const int64_t row = tile / g.tile_cols;
  return {row / g.tile_rows, row % g.tile_rows * kOut, tile % g.tile_cols * kOut};
}

inline int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }
inline int64_t round_up(int64_t n, int64_t multiple) { return divide_up(n, multiple) * multiple; }

// Planes at multiples of 4 KB would compete for the same few lines of the first-level cache.
inline int64_t plane_size(int64_t floats) { return round_up(floats, 1024) + kMultiple; }

// Width of the panel that begins at column k: panels are as few and as even as possible.
inline int64_t panel_width(int64_t filters, int64_t k) {
  const int64_t units = filters / kMultiple, panels = divide_up(filters, kPanel), small = units / panels;
  const int64_t end_of_wide = units % panels * (small + 1) * kMultiple;
  return (k < end_of_wide ? small + 1 : small) * kMultiple;
}

#if defined(__x86_64__)
#if defined(__clang__)
#define MB_TARGET_BEGIN(ISA) _Pragma(MB_TEXT(clang attribute push(__attribute__((target(ISA))), apply_to = function)))
#define MB_TARGET_END _Pragma("clang attribute pop")
#else
#define MB_TARGET_BEGIN(ISA) _Pragma("GCC push_options") _Pragma(MB_TEXT(GCC target(ISA)))
#define MB_TARGET_END _Pragma("GCC pop_options")
#endif
#define MB_TEXT(...) MB_TEXT_OF(__VA_ARGS__)
#define MB_TEXT_OF(...) #__VA_ARGS__

MB_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,fma")
namespace avx512 {
constexpr int kBytes = 64, kVecs = 4;
typedef float Vec __attribute__((vector_size(kBytes)));
MB_HD Vec fused(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
#include "winograd_block.h"
}  // namespace avx512
MB_TARGET_END

MB_TARGET_BEGIN("avx2,fma")
namespace avx2 {
constexpr int kBytes = 32, kVecs = 2;
typedef float Vec __attribute__((vector_size(kBytes)));
MB_HD Vec fused(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
#include "winograd_block.h"
}  // namespace avx2
MB_TARGET_END
#endif

namespace portable {
constexpr int kBytes = 16, kVecs = 2;
typedef float Vec __attribute__((vector_size(kBytes)));
MB_HD Vec fused(Vec a, Vec b, Vec c) { return a * b + c; }
#include "winograd_block.h"
}  // namespace portable

#if defined(__x86_64__)
#define MB_VERSIONS(NAME) portable::NAME, avx2::NAME, avx512::NAME
#else
#define MB_VERSIONS(NAME) portable::NAME, portable::NAME, portable::NAME
#endif

// The widest version that this CPU supports, or that torch's own ATEN_CPU_CAPABILITY (default, avx2) allows.
template <typename Function>
Function pick(Function narrow, [[maybe_unused]] Function middle, [[maybe_unused]] Function wide) {
#if defined(__x86_64__)
  const char* asked = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string limit = asked == nullptr ? "" : asked;
  if (limit != "default" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    const bool has_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return has_wide && limit != "avx2" ? wide : middle;
  }
#endif
  return narrow;
}

// The 6 x 3 matrix that maps 3 taps to the 6 points; for a point p the factor is 1 / prod(p - q) over the others.
inline void filter_matrix(double matrix[kTile][3]) {
  const double factors[2] = {1 / (2 * kNear2 * (kNear2 - kFar2)), 1 / (2 * kFar2 * (kFar2 - kNear2))};
  const double points[2] = {std::sqrt(0.5), std::sqrt(2.0)};
  matrix[0][0] = 1 / (kNear2 * kFar2), matrix[0][1] = 0, matrix[0][2] = 0;
  for (int i = 0; i < 4; ++i) {
    const double p = i % 2 == 0 ? points[i / 2] : -points[i / 2], factor = factors[i / 2];
    matrix[i + 1][0] = factor, matrix[i + 1][1] = factor * p, matrix[i + 1][2] = factor * p * p;
  }
  matrix[5][0] = 0, matrix[5][1] = 0, matrix[5][2] = 1;
}

inline Strides strides_of(const Tensor& t) { return {t.stride(0), t.stride(2), t.stride(3)}; }

}  // namespace
