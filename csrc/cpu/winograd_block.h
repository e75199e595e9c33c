// Processes one block of tiles, see winograd.cpp, which includes this file once for every instruction set (hence no
// include guard). The namespace defines Vec, a vector of kBytes bytes; kVecs, such that kRows x kVecs of them fit into
// the registers; and fused(a, b, c) = a * b + c.

typedef uint32_t Words __attribute__((vector_size(kBytes)));
typedef uint16_t Halves __attribute__((vector_size(kBytes / 2)));

constexpr int kLanes = kBytes / sizeof(float);

MB_HD Vec splat(float x) { return x - Vec{}; }

template <typename T>
MB_HD Vec load(const T* from) {
  if constexpr (std::is_same_v<T, float>) {
    Vec lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
  } else {  // bfloat16: the upper half of a float
    Halves bits;
    std::memcpy(&bits, from, sizeof bits);
    const Words wide = __builtin_convertvector(bits, Words) << 16;
    Vec lanes;
    std::memcpy(&lanes, &wide, sizeof lanes);
    return lanes;
  }
}

template <typename T>
MB_HD void store(Vec lanes, T* to) {
  if constexpr (std::is_same_v<T, float>) {
    std::memcpy(to, &lanes, sizeof lanes);
  } else {  // to the nearest, ties to even; NaN becomes quiet NaN
    Words bits;
    std::memcpy(&bits, &lanes, sizeof bits);
    const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Words is_nan = reinterpret_cast<Words>(lanes != lanes);
    const Halves half = __builtin_convertvector((is_nan & 0x7fc0) | (~is_nan & rounded), Halves);
    std::memcpy(to, &half, sizeof half);
  }
}

// One column or row of the input transform: 6 pixels to the left sides of 6 products.
MB_HD void transform_input_line(const Vec* d, Vec* v, int step) {
  const Vec even_low = fused(splat(-kFar2), d[2], d[4]), odd_low = splat(kNear) * fused(splat(-kFar2), d[1], d[3]);
  const Vec even_far = fused(splat(-kNear2), d[2], d[4]), odd_far = splat(kFar) * fused(splat(-kNear2), d[1], d[3]);
  v[0 * step] = fused(splat(-(kNear2 + kFar2)), d[2], d[0] + d[4]);
  v[1 * step] = even_low + odd_low;
  v[2 * step] = even_low - odd_low;
  v[3 * step] = even_far + odd_far;
  v[4 * step] = even_far - odd_far;
  v[5 * step] = fused(splat(-(kNear2 + kFar2)), d[3], d[1] + d[5]);
}

// One column or row of the output transform: 6 sums of products to 4 pixels.
MB_HD void transform_output_line(const Vec* m, Vec* y, int step) {
  const Vec near_sum = m[1] + m[2], near_gap = m[1] - m[2], far_sum = m[3] + m[4], far_gap = m[3] - m[4];
  y[0 * step] = m[0] + near_sum + far_sum;
  y[1 * step] = fused(splat(kNear), near_gap, splat(kFar) * far_gap);
  y[2 * step] = fused(splat(kNear2), near_sum, splat(kFar2) * far_sum);
  y[3 * step] = fused(splat(kNear * kNear2), near_gap, fused(splat(kFar * kFar2), far_gap, m[5]));
}

template <typename T>
void transform_input(const Geometry& g, const T* image, int64_t top, int64_t left, float* to, int64_t plane) {
  const bool inside = top >= 0 && left >= 0 && top + kTile <= g.height && left + kTile <= g.width;
  const bool goes_on = inside && left + kOut + kTile <= g.width;
  const T* corner = image + top * g.in.row + left * g.in.pixel;
  for (int64_t c = 0; c < g.channels; c += kLanes) {
    if (goes_on) {  // prefetch the pixels that only the tile to the right reads: most loads would wait for memory
      for (int y = 0; y < kTile; ++y) {
        for (int x = kTile; x < kTile + kOut; ++x) __builtin_prefetch(corner + y * g.in.row + x * g.in.pixel + c, 0, 2);
      }
    }
    Vec columns[kTile][kTile], pixels[kTile];
    for (int x = 0; x < kTile; ++x) {
      for (int y = 0; y < kTile; ++y) {
        const bool here = inside || (top + y >= 0 && top + y < g.height && left + x >= 0 && left + x < g.width);
        pixels[y] = here ? load(corner + y * g.in.row + x * g.in.pixel + c) : Vec{};
      }
      transform_input_line(pixels, &columns[0][x], kTile);
    }
    for (int y = 0; y < kTile; ++y) {
      Vec line[kTile];
      transform_input_line(columns[y], line, 1);
      for (int x = 0; x < kTile; ++x) store(line[x], to + (y * kTile + x) * plane + c);
    }
  }
}

template <typename T>
void transform_output(const Geometry& g, const float* from, int64_t plane, const float* bias, T* image, int64_t top,
                      int64_t left) {
  const int64_t rows = std::min<int64_t>(kOut, g.out_height - top), cols = std::min<int64_t>(kOut, g.out_width - left);
  T* corner = image + top * g.out.row + left * g.out.pixel;
  for (int64_t k = 0; k < g.filters; k += kLanes) {
    for (int64_t y = 0; y < rows; ++y) {
      for (int64_t x = 0; x < cols; ++x) __builtin_prefetch(corner + y * g.out.row + x * g.out.pixel + k, 1, 3);
    }
    const Vec shift = bias == nullptr ? Vec{} : load(bias + k);
    Vec columns[kOut][kTile], products[kTile];
    for (int x = 0; x < kTile; ++x) {
      for (int y = 0; y < kTile; ++y) products[y] = load(from + (y * kTile + x) * plane + k);
      transform_output_line(products, &columns[0][x], kTile);
    }
    for (int64_t y = 0; y < rows; ++y) {
      Vec line[kOut];
      transform_output_line(columns[y], line, 1);
      for (int64_t x = 0; x < cols; ++x) {
        Vec value = line[x] + shift;
        if (g.relu) value = value < Vec{} ? Vec{} : value;  // keeps NaN
        store(value, corner + y * g.out.row + x * g.out.pixel + k);
      }
    }
  }
}

// A left matrix: the strides of its rows and columns.
struct Left {
  const float* at;
  int64_t row, col;
};

// c (Rows, Vecs * kLanes) (+)= a (Rows, depth) b (depth, Vecs * kLanes), with the sums in registers.
template <int Rows, int Vecs, bool kAdd>
void multiply(Left a, const float* b, int64_t b_stride, int64_t depth, float* c, int64_t c_stride) {
  Vec sums[Rows][Vecs] = {};
  if constexpr (kAdd) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < Vecs; ++v) sums[r][v] = load(c + r * c_stride + v * kLanes);
    }
  }
  for (int64_t i = 0; i < depth; ++i, a.at += a.col, b += b_stride) {
    Vec line[Vecs];
#pragma GCC unroll 8
    for (int v = 0; v < Vecs; ++v) line[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec left = splat(a.at[r * a.row]);
#pragma GCC unroll 8
      for (int v = 0; v < Vecs; ++v) sums[r][v] = fused(left, line[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vecs; ++v) store(sums[r][v], c + r * c_stride + v * kLanes);
  }
}

// c (rows, width) (+)= a (rows, depth) b (depth, width); rows a multiple of Rows, width of kMultiple.
template <int Rows, bool kAdd>
void multiply_panel(Left a, int64_t rows, const float* b, int64_t b_stride, int64_t width, int64_t depth, float* c,
                    int64_t c_stride) {
  int64_t done = 0;
  while (done < width) {
    const int vecs = static_cast<int>(std::min<int64_t>(kVecs, (width - done) / kLanes));
    const auto kernel = vecs == 4   ? multiply<Rows, 4, kAdd>
                        : vecs == 3 ? multiply<Rows, 3, kAdd>
                        : vecs == 2 ? multiply<Rows, 2, kAdd>
                                    : multiply<Rows, 1, kAdd>;
    for (int64_t r = 0; r < rows; r += Rows) {
      kernel({a.at + r * a.row, a.row, a.col}, b + done, b_stride, depth, c + r * c_stride + done, c_stride);
    }
    done += vecs * kLanes;
  }
}

template <typename T>
void run_block(const Geometry& g, const T* in, const float* weight, const float* bias, T* out, int64_t first,
               int64_t count, float* scratch) {
  const int64_t rows = round_up(count, kRows);
  const int64_t left_plane = plane_size(rows * g.channels), sum_plane = plane_size(rows * g.filters);
  float* left = scratch;
  float* sums = left + kPlanes * left_plane;
  for (int64_t t = 0; t < count; ++t) {
    const Place at = place_of(g, first + t);
    transform_input(g, in + at.image * g.in.image, at.top - g.padding, at.left - g.padding, left + t * g.channels,
                    left_plane);
  }
  for (int plane = 0; plane < kPlanes; ++plane) {
    // Rows without a tile are multiplied, too: any values are fine, but denormal numbers would be slow.
    std::fill(left + plane * left_plane + count * g.channels, left + plane * left_plane + rows * g.channels, 0.0f);
    const float* panel = weight + plane * g.weight_plane;
    for (int64_t k = 0; k < g.filters;) {
      const int64_t width = panel_width(g.filters, k);
      multiply_panel<kRows, false>({left + plane * left_plane, g.channels, 1}, rows, panel, width, width, g.channels,
                                   sums + plane * sum_plane + k, g.filters);
      panel += width * g.channels;
      k += width;
    }
  }
  for (int64_t t = 0; t < count; ++t) {
    const Place at = place_of(g, first + t);
    transform_output(g, sums + t * g.filters, sum_plane, bias, out + at.image * g.out.image, at.top, at.left);
  }
}

// One column or row of the transposed output transform: 4 pixels to 6.
MB_HD void transform_grad_line(const Vec* y, Vec* d, int step) {
  const Vec even_near = fused(splat(kNear2), y[2], y[0]), odd_near = splat(kNear) * fused(splat(kNear2), y[3], y[1]);
  const Vec even_far = fused(splat(kFar2), y[2], y[0]), odd_far = splat(kFar) * fused(splat(kFar2), y[3], y[1]);
  d[0 * step] = y[0];
  d[1 * step] = even_near + odd_near;
  d[2 * step] = even_near - odd_near;
  d[3 * step] = even_far + odd_far;
  d[4 * step] = even_far - odd_far;
  d[5 * step] = y[3];
}

template <typename T>
void transform_grad(const Geometry& g, const T* image, int64_t top, int64_t left, float* to, int64_t plane) {
  const int64_t rows = std::min<int64_t>(kOut, g.out_height - top), cols = std::min<int64_t>(kOut, g.out_width - left);
  const T* corner = image + top * g.out.row + left * g.out.pixel;
  for (int64_t k = 0; k < g.filters; k += kLanes) {
    Vec columns[kTile][kOut], pixels[kOut];
    for (int x = 0; x < kOut; ++x) {
      for (int y = 0; y < kOut; ++y) {
        pixels[y] = y < rows && x < cols ? load(corner + y * g.out.row + x * g.out.pixel + k) : Vec{};
      }
      transform_grad_line(pixels, &columns[0][x], kOut);
    }
    for (int y = 0; y < kTile; ++y) {
      Vec line[kTile];
      transform_grad_line(columns[y], line, 1);
      for (int x = 0; x < kTile; ++x) store(line[x], to + (y * kTile + x) * plane + k);
    }
  }
}

// Transforms tiles [begin, end) of the inputs and of the outputs' gradients into the planes of `to`.
template <typename T>
void transform_both(const Geometry& g, const T* in, const T* grad, int64_t first, int64_t begin, int64_t end,
                    const GradientScratch& to) {
  for (int64_t t = begin; t < end; ++t) {
    const Place at = place_of(g, first + t);
    transform_input(g, in + at.image * g.in.image, at.top - g.padding, at.left - g.padding,
                    to.inputs + t * to.input_step, to.input_plane);
    transform_grad(g, grad + at.image * g.out.image, at.top, at.left, to.grads + t * to.grad_step, to.grad_plane);
  }
}

// sums (C, K) (+)= inputs (count, C)^T grads (count, K) of one plane.
inline void sum_plane(const Geometry& g, int plane, int64_t count, const GradientScratch& of, bool add, float* sums) {
  const Left left{of.inputs + plane * of.input_plane, 1, of.input_step};
  for (int64_t k = 0; k < g.filters; k += kPanel) {
    const int64_t width = std::min(kPanel, g.filters - k);
    const auto multiply_into = add ? multiply_panel<kGradRows, true> : multiply_panel<kGradRows, false>;
    multiply_into(left, g.channels, of.grads + plane * of.grad_plane + k, of.grad_step, width, count, sums + k,
                  g.filters);
  }
}
