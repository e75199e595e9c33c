// Sigmoid focal loss on the CPU. Schemas: ops.cpp; contract and twin: maskrcnn_benchmark/layers/sigmoid_focal_loss.py.
#include "../common/focal_loss.h"
#include "../common/tensor.h"
#include "huge_pages.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>

namespace {

using namespace mb;

constexpr int64_t kElementsPerTask = 16384;

// The kernels below run over [begin, end) of the flattened (N, K) logits. `step` is 0 where one gradient serves all
// elements, as it does after a sum; it is asked outside the loops, which stay free of gathers that way.
template <typename T, typename Gamma>
MB_SIMD_CLONES void negative_losses(const T* logits, T* out, int64_t begin, int64_t end, Gamma gamma, acc_t<T> alpha) {
  for (int64_t i = begin; i < end; ++i) {
    out[i] = static_cast<T>(negative_loss(static_cast<acc_t<T>>(logits[i]), gamma, alpha));
  }
}

template <typename T, typename Gamma>
MB_SIMD_CLONES void negative_grads(const T* grad, int64_t step, const T* logits, T* out, int64_t begin, int64_t end,
                                   Gamma gamma, acc_t<T> alpha) {
  using A = acc_t<T>;
  if (step == 0) {
    const A g = static_cast<A>(grad[0]);
    for (int64_t i = begin; i < end; ++i) {
      out[i] = static_cast<T>(g * negative_grad(static_cast<A>(logits[i]), gamma, alpha));
    }
    return;
  }
  for (int64_t i = begin; i < end; ++i) {
    out[i] = static_cast<T>(static_cast<A>(grad[i]) * negative_grad(static_cast<A>(logits[i]), gamma, alpha));
  }
}

template <typename T, typename Gamma>
MB_SIMD_CLONES void dense_losses(const T* logits, const T* targets, T* out, int64_t begin, int64_t end, Gamma gamma,
                                 acc_t<T> alpha) {
  using A = acc_t<T>;
  for (int64_t i = begin; i < end; ++i) {
    out[i] = static_cast<T>(dense_loss(static_cast<A>(logits[i]), static_cast<A>(targets[i]), gamma, alpha));
  }
}

template <typename T, typename Gamma>
MB_SIMD_CLONES void dense_grads(const T* grad, int64_t step, const T* logits, const T* targets, T* out, int64_t begin,
                                int64_t end, Gamma gamma, acc_t<T> alpha) {
  using A = acc_t<T>;
  for (int64_t i = begin; i < end; ++i) {
    const A slope = dense_grad(static_cast<A>(logits[i]), static_cast<A>(targets[i]), gamma, alpha);
    out[i] = static_cast<T>(static_cast<A>(grad[i * step]) * slope);
  }
}

// Nearly all logits of a detector are negatives: a chunk of rows is first computed as if all were, in one flat loop,
// then the rows with an object, or with a target to ignore, are set right. Calls all(first, last), one(element, row).
template <typename T, typename All, typename One>
void rows_by_target(const int64_t* targets, int64_t rows, int64_t classes, T* out, All all, One one) {
  const int64_t rows_per_task = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, classes));
  torch::stable::parallel_for(0, rows, rows_per_task, [&](int64_t begin, int64_t end) {
    all(begin * classes, end * classes);
    for (int64_t row = begin; row < end; ++row) {
      if (targets[row] > 0) {
        one(row * classes + targets[row] - 1);
      } else if (targets[row] < 0) {
        std::fill(out + row * classes, out + (row + 1) * classes, static_cast<T>(0.0f));
      }
    }
  });
}

void check_labels(const int64_t* targets, int64_t rows, int64_t classes) {
  for (int64_t row = 0; row < rows; ++row) {
    STD_TORCH_CHECK(targets[row] <= classes, "sigmoid_focal_loss: targets[", row, "] is ", targets[row],
                    ", but the logits have ", classes, " columns; wanted 0 (background), 1..", classes,
                    " or a negative number (ignored)");
  }
}

struct Inputs {
  Tensor logits, targets, out;
  int64_t rows, classes;
  bool dense;

  Inputs(const Tensor& given_logits, const Tensor& given_targets)
      : logits(torch::stable::contiguous(given_logits)),
        targets(given_targets),
        out(torch::stable::empty(logits.sizes(), logits.scalar_type(), std::nullopt, logits.device())),
        rows(logits.size(0)),
        classes(logits.size(1)),
        dense(given_targets.dim() == 2) {
    use_huge_pages(out);
    targets = torch::stable::contiguous(cast(given_targets, dense ? logits.scalar_type() : ScalarType::Long));
    if (!dense) check_labels(targets.const_data_ptr<int64_t>(), rows, classes);
  }
};

template <typename T, typename Gamma>
void forward(const Inputs& in, Gamma gamma, acc_t<T> alpha) {
  using A = acc_t<T>;
  const T* logits = in.logits.const_data_ptr<T>();
  T* out = in.out.template mutable_data_ptr<T>();
  if (in.dense) {
    const T* targets = in.targets.const_data_ptr<T>();
    torch::stable::parallel_for(0, in.rows * in.classes, kElementsPerTask, [&](int64_t begin, int64_t end) {
      dense_losses(logits, targets, out, begin, end, gamma, alpha);
    });
    return;
  }
  rows_by_target(
      in.targets.const_data_ptr<int64_t>(), in.rows, in.classes, out,
      [&](int64_t begin, int64_t end) { negative_losses(logits, out, begin, end, gamma, alpha); },
      [&](int64_t i) { out[i] = static_cast<T>(positive_loss(static_cast<A>(logits[i]), gamma, alpha)); });
}

template <typename T, typename Gamma>
void backward(const Inputs& in, const T* grad, int64_t step, Gamma gamma, acc_t<T> alpha) {
  using A = acc_t<T>;
  const T* logits = in.logits.const_data_ptr<T>();
  T* out = in.out.template mutable_data_ptr<T>();
  if (in.dense) {
    const T* targets = in.targets.const_data_ptr<T>();
    torch::stable::parallel_for(0, in.rows * in.classes, kElementsPerTask, [&](int64_t begin, int64_t end) {
      dense_grads(grad, step, logits, targets, out, begin, end, gamma, alpha);
    });
    return;
  }
  rows_by_target(
      in.targets.const_data_ptr<int64_t>(), in.rows, in.classes, out,
      [&](int64_t begin, int64_t end) { negative_grads(grad, step, logits, out, begin, end, gamma, alpha); },
      [&](int64_t i) {
        const A slope = positive_grad(static_cast<A>(logits[i]), gamma, alpha);
        out[i] = static_cast<T>(static_cast<A>(grad[i * step]) * slope);
      });
}

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& targets, double gamma, double alpha) {
  const Inputs in(logits, targets);
  if (in.rows * in.classes == 0) return in.out;
  MB_DISPATCH_FLOATING(in.logits.scalar_type(), "sigmoid_focal_loss", [&] {
    using A = acc_t<scalar_t>;
    if (gamma == 2) {
      forward<scalar_t>(in, GammaTwo<A>{}, static_cast<A>(alpha));
    } else {
      forward<scalar_t>(in, GammaAny<A>{static_cast<A>(gamma)}, static_cast<A>(alpha));
    }
  });
  return in.out;
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& targets, double gamma,
                                   double alpha) {
  const Inputs in(logits, targets);
  if (in.rows * in.classes == 0) return in.out;
  const bool one_gradient = grad.stride(0) == 0 && grad.stride(1) == 0;
  const Tensor grad_data = one_gradient ? grad : torch::stable::contiguous(grad);
  const int64_t step = one_gradient ? 0 : 1;
  MB_DISPATCH_FLOATING(in.logits.scalar_type(), "sigmoid_focal_loss_backward", [&] {
    using A = acc_t<scalar_t>;
    const scalar_t* g = grad_data.const_data_ptr<scalar_t>();
    if (gamma == 2) {
      backward<scalar_t>(in, g, step, GammaTwo<A>{}, static_cast<A>(alpha));
    } else {
      backward<scalar_t>(in, g, step, GammaAny<A>{static_cast<A>(gamma)}, static_cast<A>(alpha));
    }
  });
  return in.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CPU, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sigmoid_focal_loss_backward));
}
