// Sigmoid focal loss of one logit x and its derivative, without overflow for any x. p = sigmoid(x).
// Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5.
#pragma once

#include "macros.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace mb {

// exp(x) for x <= 0. The CPU's float version is written out, because compilers leave std::exp scalar: split x into
// n ln 2 + r, Cephes' polynomial for exp(r), n put into the exponent bits. Largest relative error 1e-7; below -87 the
// result stays at 1.6e-38.
MB_HD float exp_nonpositive(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: the integer ends in the low bits
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return y * power;
#endif
}
MB_HD double exp_nonpositive(double x) { return exp(x); }

// 1 / (1 + e) and log(1 + e) for 0 <= e <= 1.
template <typename T>
struct UnitTerms {
  T reciprocal, log1p;
};

// The CPU's float version: the logarithm as 2 atanh(s) with s = e / (2 + e) <= 1/3, the first term left out being below
// 2e-9; one division serves both, because divisions are most of what a vector of losses costs.
MB_HD UnitTerms<float> unit_terms(float e) {
#if defined(__CUDA_ARCH__)
  return {1.0f / (1.0f + e), log1pf(e)};
#else
  const float one = 1.0f + e, two = 2.0f + e, both = 1.0f / (one * two);
  const float s = e * one * both, q = s * s;
  float y = 1.0f / 15;
  y = y * q + 1.0f / 13;
  y = y * q + 1.0f / 11;
  y = y * q + 1.0f / 9;
  y = y * q + 1.0f / 7;
  y = y * q + 1.0f / 5;
  y = y * q + 1.0f / 3;
  y = y * q + 1.0f;
  return {two * both, 2.0f * s * y};
#endif
}
MB_HD UnitTerms<double> unit_terms(double e) { return {1.0 / (1.0 + e), log1p(e)}; }

// Gamma as a type: with the usual 2 the power is one multiplication and the loops stay free of calls.
template <typename T>
struct GammaTwo {
  MB_HD T gamma() const { return T(2); }
  MB_HD T power(T p) const { return p * p; }
  MB_HD T power_minus_one(T p) const { return p; }
};

template <typename T>
struct GammaAny {
  T value;
  MB_HD T gamma() const { return value; }
  MB_HD T power(T p) const { return value == T(0) ? T(1) : pow(p, value); }
  // Multiplied by p (1 - p) where it is used; 0 instead of infinity keeps 0 * inf out when gamma < 1.
  MB_HD T power_minus_one(T p) const { return p > T(0) ? pow(p, value - T(1)) : T(0); }
};

// sigmoid(x), sigmoid(-x), -log sigmoid(x), -log sigmoid(-x)
template <typename T>
struct SigmoidTerms {
  T p, q, minus_log_p, minus_log_q;
};

template <typename T>
MB_HD SigmoidTerms<T> sigmoid_terms(T x) {
  const T e = exp_nonpositive(x < T(0) ? x : -x);
  const UnitTerms<T> unit = unit_terms(e);
  const T larger = unit.reciprocal, smaller = e * unit.reciprocal, tail = unit.log1p;
  const bool negative = x < T(0);
  return {negative ? smaller : larger, negative ? larger : smaller, negative ? tail - x : tail,
          negative ? tail : tail + x};
}

// The original kernels clamp p at FLT_MIN before the logarithm, in the loss and in its derivative.
template <typename T>
MB_HD T clamped(T minus_log_p) {
  const T limit = T(87.33654475055310898657);
  return minus_log_p < limit ? minus_log_p : limit;
}

// The logit of the object's own class.
template <typename T, typename Gamma>
MB_HD T positive_loss(T x, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(x);
  return alpha * gamma.power(s.q) * clamped(s.minus_log_p);
}

template <typename T, typename Gamma>
MB_HD T positive_grad(T x, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(x);
  return -alpha * gamma.power(s.q) * (s.q + gamma.gamma() * s.p * clamped(s.minus_log_p));
}

// Every other logit.
template <typename T, typename Gamma>
MB_HD T negative_loss(T x, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(x);
  return (T(1) - alpha) * gamma.power(s.p) * s.minus_log_q;
}

template <typename T, typename Gamma>
MB_HD T negative_grad(T x, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(x);
  return (T(1) - alpha) * gamma.power(s.p) * (s.p + gamma.gamma() * s.q * s.minus_log_q);
}

// A target t in [0, 1]: cross entropy times alpha_t (1 - p_t)^gamma, where p_t = p t + (1 - p)(1 - t) and
// alpha_t = alpha t + (1 - alpha)(1 - t).
template <typename T, typename Gamma>
MB_HD T dense_loss(T x, T t, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(x);
  const T miss = s.p * (T(1) - t) + s.q * t;  // 1 - p_t
  const T weight = alpha * t + (T(1) - alpha) * (T(1) - t);
  return weight * gamma.power(miss) * (t * s.minus_log_p + (T(1) - t) * s.minus_log_q);
}

template <typename T, typename Gamma>
MB_HD T dense_grad(T x, T t, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(x);
  const T miss = s.p * (T(1) - t) + s.q * t;
  const T weight = alpha * t + (T(1) - alpha) * (T(1) - t);
  const T entropy = t * s.minus_log_p + (T(1) - t) * s.minus_log_q;
  const T slope = s.p * s.q * (T(1) - t - t);  // of miss
  return weight * (gamma.gamma() * gamma.power_minus_one(miss) * slope * entropy +
                   gamma.power(miss) * (s.p * (T(1) - t) - s.q * t));
}

}  // namespace mb
