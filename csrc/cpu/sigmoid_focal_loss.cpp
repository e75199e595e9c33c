// Sigmoid focal loss on the CPU. Schemas: ops.cpp; contract and twin: maskrcnn_benchmark/layers/sigmoid_focal_loss.py.
#include "../common/focal_loss.h"
#include "../common/tensor.h"
#include "huge_pages.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <type_traits>
#include <vector>

namespace {

using namespace mb;

// Elements of the flattened (N, K) logits that are processed together, step by step, with intermediate values in the
// first-level cache. A single loop with all steps would wait for its chain of a hundred dependent operations: cores
// look ahead only two or three vectors of it. Separate steps have short chains.
constexpr int64_t kBlock = 512;
// Tasks begin at multiples of this for any number of threads, so that sums do not depend on it.
constexpr int64_t kTask = 32 * kBlock;
// Dense targets: with more targets above 0 in a block, the general formula computes the whole block.
constexpr int64_t kFew = 32;
constexpr int64_t kGroupBytes = 256;

template <typename T, typename Gamma>
struct Given {
  const T* logits;
  const int64_t* labels;  // one of labels and targets is null
  const T* targets;
  int64_t classes;
  Gamma gamma;
  acc_t<T> alpha;
};

template <bool kSlope, typename A, typename Gamma>
MB_HD A negative_value(const SigmoidTerms<A>& s, Gamma gamma, A alpha) {
  return kSlope ? negative_grad(s, gamma, alpha) : negative_loss(s, gamma, alpha);
}
template <bool kSlope, typename A, typename Gamma>
MB_HD A positive_value(const SigmoidTerms<A>& s, Gamma gamma, A alpha) {
  return kSlope ? positive_grad(s, gamma, alpha) : positive_loss(s, gamma, alpha);
}
template <bool kSlope, typename A, typename Gamma>
MB_HD A dense_value(const SigmoidTerms<A>& s, A t, Gamma gamma, A alpha) {
  return kSlope ? dense_grad(s, t, gamma, alpha) : dense_loss(s, t, gamma, alpha);
}

// The elements in the type of sums: in place, or in the buffer.
template <typename T>
MB_HD const acc_t<T>* widen(const T* from, int64_t count, acc_t<T>* buffer) {
  if constexpr (std::is_same_v<T, acc_t<T>>) {
    return from;
  } else {
    for (int64_t i = 0; i < count; ++i) buffer[i] = static_cast<acc_t<T>>(from[i]);
    return buffer;
  }
}

// Finds the positions of nonzero elements, until more than kFew are found, and returns their number. It checks groups,
// then the 8-byte words of a group that is not all 0, then their elements. Counting has no branches, because they would
// be mispredicted.
template <typename T>
MB_HD int64_t find_nonzero(const T* elements, int64_t count, int64_t* where) {
  constexpr int64_t kGroup = kGroupBytes / sizeof(T), kPerWord = sizeof(uint64_t) / sizeof(T);
  constexpr int64_t kWords = kGroup / kPerWord;
  const auto look_at = [&](int64_t i, int64_t& found) {
    where[found] = i;
    found += static_cast<acc_t<T>>(elements[i]) != acc_t<T>(0);
  };
  int64_t found = 0, group = 0, nonzero[kWords];
  for (; group + kGroup <= count && found <= kFew; group += kGroup) {
    uint64_t words[kWords], any = 0;
    std::memcpy(words, elements + group, sizeof words);
    for (uint64_t word : words) any |= word;
    if (any == 0) continue;
    int64_t words_found = 0;
    for (int64_t word = 0; word < kWords; ++word) {
      nonzero[words_found] = word;
      words_found += words[word] != 0;
    }
    for (int64_t k = 0; k < words_found; ++k) {
      for (int64_t i = 0; i < kPerWord; ++i) look_at(group + nonzero[k] * kPerWord + i, found);
    }
  }
  for (; group < count && found <= kFew; ++group) look_at(group, found);
  return found;
}

// Losses, or their derivatives, of a block. Nearly all logits of a detector are negatives: all are first computed as
// negatives, then the others are corrected.
template <bool kSlope, typename T, typename Gamma>
MB_HD void evaluate(const Given<T, Gamma>& in, int64_t begin, int64_t count, acc_t<T>* values) {
  using A = acc_t<T>;
  A x_buffer[kBlock], e[kBlock];
  // The targets are read last, so they are prefetched here.
  if (in.targets) {
    for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(in.targets + begin + i);
  }
  const A* x = widen(in.logits + begin, count, x_buffer);
  for (int64_t i = 0; i < count; ++i) e[i] = exp_minus_abs(x[i]);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = negative_value<kSlope>(sigmoid_terms(x[i], e[i]), in.gamma, in.alpha);
  }
  if (in.labels) {
    for (int64_t row = begin / in.classes; row * in.classes < begin + count; ++row) {
      const int64_t label = in.labels[row], first = row * in.classes - begin;
      if (label == 0) continue;
      if (label < 0) {
        std::fill(values + std::max<int64_t>(0, first), values + std::min(count, first + in.classes), A(0));
        continue;
      }
      const int64_t i = first + label - 1;
      if (i < 0 || i >= count) continue;
      values[i] = positive_value<kSlope>(sigmoid_terms(x[i], e[i]), in.gamma, in.alpha);
    }
    return;
  }
  const T* targets = in.targets + begin;
  int64_t where[kFew + kGroupBytes / sizeof(T)];
  const int64_t found = find_nonzero(targets, count, where);
  if (found <= kFew) {
    for (int64_t k = 0; k < found; ++k) {
      const int64_t i = where[k];
      values[i] = dense_value<kSlope>(sigmoid_terms(x[i], e[i]), static_cast<A>(targets[i]), in.gamma, in.alpha);
    }
    return;
  }
  A t_buffer[kBlock];
  const A* t = widen(targets, count, t_buffer);
  // Where the target is 0 the value is kept, so that it does not depend on other targets.
  for (int64_t i = 0; i < count; ++i) {
    const A value = dense_value<kSlope>(sigmoid_terms(x[i], e[i]), t[i], in.gamma, in.alpha);
    values[i] = t[i] == A(0) ? values[i] : value;
  }
}

template <typename T, typename Gamma>
MB_SIMD_CLONES void write_losses(const Given<T, Gamma>& in, int64_t begin, int64_t end, T* out) {
  acc_t<T> values[kBlock];
  for (; begin < end; begin += kBlock) {
    const int64_t count = std::min(kBlock, end - begin);
    evaluate<false>(in, begin, count, values);
    for (int64_t i = 0; i < count; ++i) out[begin + i] = static_cast<T>(values[i]);
  }
}

// Sums a block by halves, then in double: its rounding error is that of some ten additions.
template <typename T, typename Gamma>
MB_SIMD_CLONES void sum_losses(const Given<T, Gamma>& in, int64_t begin, int64_t end, double* sum) {
  constexpr int64_t kLanes = 16;
  acc_t<T> values[kBlock];
  double lanes[kLanes] = {};
  for (; begin < end; begin += kBlock) {
    const int64_t count = std::min(kBlock, end - begin);
    evaluate<false>(in, begin, count, values);
    std::fill(values + count, values + kBlock, acc_t<T>(0));
    for (int64_t half = kBlock / 2; half >= kLanes; half /= 2) {
      for (int64_t i = 0; i < half; ++i) values[i] += values[i + half];
    }
    for (int64_t i = 0; i < kLanes; ++i) lanes[i] += values[i];
  }
  *sum = 0;
  for (double lane : lanes) *sum += lane;
}

// `step` is 0 if one gradient applies to all elements, as after a sum.
template <typename T, typename Gamma>
MB_SIMD_CLONES void write_grads(const Given<T, Gamma>& in, int64_t begin, int64_t end, const T* grad, int64_t step,
                                T* out) {
  using A = acc_t<T>;
  A values[kBlock], grad_buffer[kBlock];
  const A shared = static_cast<A>(grad[0]);
  for (; begin < end; begin += kBlock) {
    const int64_t count = std::min(kBlock, end - begin);
    evaluate<true>(in, begin, count, values);
    if (step == 0) {
      for (int64_t i = 0; i < count; ++i) out[begin + i] = static_cast<T>(shared * values[i]);
    } else {
      const A* own = widen(grad + begin, count, grad_buffer);
      for (int64_t i = 0; i < count; ++i) out[begin + i] = static_cast<T>(own[i] * values[i]);
    }
  }
}

MB_SIMD_CLONES int64_t largest_of(const int64_t* labels, int64_t count) {
  int64_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = labels[i] > largest ? labels[i] : largest;
  return largest;
}

struct Inputs {
  Tensor logits, targets;
  int64_t rows, classes, total;
  bool dense;

  Inputs(const Tensor& given_logits, const Tensor& given_targets)
      : logits(torch::stable::contiguous(given_logits)),
        targets(given_targets),
        rows(logits.size(0)),
        classes(logits.size(1)),
        total(rows * classes),
        dense(given_targets.dim() == 2) {
    targets = torch::stable::contiguous(cast(given_targets, dense ? logits.scalar_type() : ScalarType::Long));
    if (!dense) check_labels(targets.const_data_ptr<int64_t>());
  }

  void check_labels(const int64_t* labels) const {
    if (largest_of(labels, rows) <= classes) return;
    const int64_t row = std::find_if(labels, labels + rows, [&](int64_t label) { return label > classes; }) - labels;
    STD_TORCH_CHECK(false, "sigmoid_focal_loss: targets[", row, "] is ", labels[row], ", but the logits have ", classes,
                    " columns; expected 0 (background), 1..", classes, " or a negative number (ignored)");
  }

  Tensor empty_result() const {
    Tensor out = torch::stable::empty(logits.sizes(), logits.scalar_type(), std::nullopt, logits.device());
    use_huge_pages(out);
    return out;
  }

  // Calls function(given) with gamma as a type.
  template <typename T, typename Function>
  void with_gamma(double gamma, double alpha, const Function& function) const {
    using A = acc_t<T>;
    const T* data = logits.const_data_ptr<T>();
    const int64_t* labels = dense ? nullptr : targets.const_data_ptr<int64_t>();
    const T* dense_targets = dense ? targets.const_data_ptr<T>() : nullptr;
    const A weight = static_cast<A>(alpha);
    if (gamma == 2) {
      function(Given<T, GammaTwo<A>>{data, labels, dense_targets, classes, {}, weight});
    } else {
      function(Given<T, GammaAny<A>>{data, labels, dense_targets, classes, {static_cast<A>(gamma)}, weight});
    }
  }

  int64_t tasks() const { return (total + kTask - 1) / kTask; }

  // Calls function(task, begin, end) for every task.
  template <typename Function>
  void for_tasks(const Function& function) const {
    torch::stable::parallel_for(0, tasks(), 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        function(task, task * kTask, std::min(total, (task + 1) * kTask));
      }
    });
  }
};

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& targets, double gamma, double alpha) {
  const Inputs in(logits, targets);
  Tensor out = in.empty_result();
  if (in.total == 0) return out;
  MB_DISPATCH_FLOATING(in.logits.scalar_type(), "sigmoid_focal_loss", [&] {
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    in.with_gamma<scalar_t>(gamma, alpha, [&](const auto& given) {
      in.for_tasks([&](int64_t, int64_t begin, int64_t end) { write_losses(given, begin, end, to); });
    });
  });
  return out;
}

Tensor sigmoid_focal_loss_sum(const Tensor& logits, const Tensor& targets, double gamma, double alpha, bool mean) {
  const Inputs in(logits, targets);
  Tensor out = torch::stable::empty({}, in.logits.scalar_type(), std::nullopt, in.logits.device());
  std::vector<double> sums(in.tasks());
  MB_DISPATCH_FLOATING(in.logits.scalar_type(), "sigmoid_focal_loss_sum", [&] {
    if (in.total > 0) {
      in.with_gamma<scalar_t>(gamma, alpha, [&](const auto& given) {
        in.for_tasks([&](int64_t task, int64_t begin, int64_t end) { sum_losses(given, begin, end, &sums[task]); });
      });
    }
    double sum = 0;
    for (double one : sums) sum += one;
    *out.mutable_data_ptr<scalar_t>() =
        static_cast<scalar_t>(static_cast<acc_t<scalar_t>>(mean ? sum / static_cast<double>(in.total) : sum));
  });
  return out;
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& targets, double gamma,
                                   double alpha) {
  const Inputs in(logits, targets);
  Tensor out = in.empty_result();
  if (in.total == 0) return out;
  const bool one_gradient = grad.stride(0) == 0 && grad.stride(1) == 0;
  const Tensor grad_data = one_gradient ? grad : torch::stable::contiguous(grad);
  const int64_t step = one_gradient ? 0 : 1;
  MB_DISPATCH_FLOATING(in.logits.scalar_type(), "sigmoid_focal_loss_backward", [&] {
    const scalar_t* from = grad_data.const_data_ptr<scalar_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    in.with_gamma<scalar_t>(gamma, alpha, [&](const auto& given) {
      in.for_tasks([&](int64_t, int64_t begin, int64_t end) { write_grads(given, begin, end, from, step, to); });
    });
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_sum", TORCH_BOX(&sigmoid_focal_loss_sum));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sigmoid_focal_loss_backward));
}
