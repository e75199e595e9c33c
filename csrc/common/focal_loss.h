// Sigmoid focal loss of one logit x and its derivative, without overflow for any x. p = sigmoid(x), q = 1 - p.
// Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5.
#pragma once

#include "macros.h"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace mb {

// exp(-|x|). The CPU's float version is written out, because compilers do not vectorize std::exp: -|x| = n ln 2 + r, a
// polynomial for exp(r) (Remez, 4e-9), n added to the exponent bits. Largest relative error 1e-7. |x| is clamped at 87,
// where the result is 1.6e-38. Without the sign, bits are ordered like values, so one integer minimum clamps them. NaN
// counts as 87.
MB_HD float exp_minus_abs(float x) {
#if defined(__CUDA_ARCH__)
  return expf(-fabsf(x));
#else
  constexpr int32_t kLimit = 0x42ae0000;  // 87.0f
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits &= 0x7fffffff;
  bits = bits < kLimit ? bits : kLimit;
  float size;
  std::memcpy(&size, &bits, sizeof size);
  const float shifted = 12582912.0f - size * 1.44269504088896341f;  // 1.5 * 2^23: the integer n is in the low bits
  const float n = shifted - 12582912.0f;
  const float r = (n * -0.693359375f - size) + n * 2.12194440e-4f;
  const float square = r * r;
  const float high = (8.36850355523e-3f + r * 1.38158891642e-3f) * square + (0.166665230851f + r * 4.16683410029e-2f);
  const float y = (high * r + 0.499999938058f) * square + (1.0f + r);
  uint32_t power, result;
  std::memcpy(&power, &shifted, sizeof power);
  std::memcpy(&result, &y, sizeof result);
  result += power << 23;
  float value;
  std::memcpy(&value, &result, sizeof value);
  return value;
#endif
}
MB_HD double exp_minus_abs(double x) { return exp(-fabs(x)); }

// 1 / (1 + e) and log(1 + e) for 0 <= e <= 1.
template <typename T>
struct UnitTerms {
  T reciprocal, log1p;
};

// The CPU's float version: a polynomial for log(1 + e) / e (Remez, 3e-8), evaluated in pairs. Its chain of dependent
// operations is short and overlaps with the division.
MB_HD UnitTerms<float> unit_terms(float e) {
#if defined(__CUDA_ARCH__)
  return {1.0f / (1.0f + e), log1pf(e)};
#else
  const float square = e * e, fourth = square * square;
  const float y01 = 0.99999996988f - e * 0.499994931397f, y23 = 0.333190967916f - e * 0.248429821097f;
  const float y45 = 0.191060064444f - e * 0.136632452959f, y67 = 7.82259478174e-2f - e * 2.95052372763e-2f;
  const float y = (y01 + y23 * square) + fourth * ((y45 + y67 * square) + fourth * 5.23269410983e-3f);
  return {1.0f / (1.0f + e), e * y};
#endif
}
MB_HD UnitTerms<double> unit_terms(double e) { return {1.0 / (1.0 + e), log1p(e)}; }

// Gamma as a type: for the usual 2 the power is one multiplication, and the loops contain no calls.
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
  // Multiplied by p (1 - p) by the caller; 0 instead of infinity avoids 0 * inf when gamma < 1.
  MB_HD T power_minus_one(T p) const { return p > T(0) ? pow(p, value - T(1)) : T(0); }
};

// sigmoid(x), sigmoid(-x), -log sigmoid(x), -log sigmoid(-x)
template <typename T>
struct SigmoidTerms {
  T p, q, minus_log_p, minus_log_q;
};

// e is exp_minus_abs(x). A NaN logit makes both logarithms NaN, and with them every loss.
template <typename T>
MB_HD SigmoidTerms<T> sigmoid_terms(T x, T e) {
  const UnitTerms<T> unit = unit_terms(e);
  const T larger = unit.reciprocal, smaller = e * unit.reciprocal, tail = unit.log1p;
  const bool negative = x < T(0);
  return {negative ? smaller : larger, negative ? larger : smaller, x > T(0) ? tail : tail - x,
          negative ? tail : tail + x};
}

// The losses and derivatives below take a logit, or its terms if they are already computed.
template <typename T>
MB_HD SigmoidTerms<T> sigmoid_terms(T x) {
  return sigmoid_terms(x, exp_minus_abs(x));
}
template <typename T>
MB_HD SigmoidTerms<T> sigmoid_terms(const SigmoidTerms<T>& terms) {
  return terms;
}

// The original kernels clamp p at FLT_MIN before the logarithm, in the loss and in its derivative.
template <typename T>
MB_HD T clamped(T minus_log_p) {
  const T limit = T(87.33654475055310898657);
  return minus_log_p > limit ? limit : minus_log_p;
}

// The logit of the object's class.
template <typename Logit, typename T, typename Gamma>
MB_HD T positive_loss(const Logit& logit, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(logit);
  return alpha * gamma.power(s.q) * clamped(s.minus_log_p);
}

template <typename Logit, typename T, typename Gamma>
MB_HD T positive_grad(const Logit& logit, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(logit);
  return -alpha * gamma.power(s.q) * (s.q + gamma.gamma() * s.p * clamped(s.minus_log_p));
}

// Every other logit.
template <typename Logit, typename T, typename Gamma>
MB_HD T negative_loss(const Logit& logit, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(logit);
  return (T(1) - alpha) * gamma.power(s.p) * s.minus_log_q;
}

template <typename Logit, typename T, typename Gamma>
MB_HD T negative_grad(const Logit& logit, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(logit);
  return (T(1) - alpha) * gamma.power(s.p) * (s.p + gamma.gamma() * s.q * s.minus_log_q);
}

// A target t in [0, 1]: cross entropy times alpha_t (1 - p_t)^gamma, where p_t = p t + (1 - p)(1 - t) and
// alpha_t = alpha t + (1 - alpha)(1 - t).
template <typename Logit, typename T, typename Gamma>
MB_HD T dense_loss(const Logit& logit, T t, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(logit);
  const T miss = s.p * (T(1) - t) + s.q * t;  // 1 - p_t
  const T weight = alpha * t + (T(1) - alpha) * (T(1) - t);
  return weight * gamma.power(miss) * (t * s.minus_log_p + (T(1) - t) * s.minus_log_q);
}

template <typename Logit, typename T, typename Gamma>
MB_HD T dense_grad(const Logit& logit, T t, Gamma gamma, T alpha) {
  const SigmoidTerms<T> s = sigmoid_terms(logit);
  const T miss = s.p * (T(1) - t) + s.q * t;
  const T weight = alpha * t + (T(1) - alpha) * (T(1) - t);
  const T entropy = t * s.minus_log_p + (T(1) - t) * s.minus_log_q;
  const T slope = s.p * s.q * (T(1) - t - t);  // of miss
  return weight * (gamma.gamma() * gamma.power_minus_one(miss) * slope * entropy +
                   gamma.power(miss) * (s.p * (T(1) - t) - s.q * t));
}

}  // namespace mb
