// Sigmoid focal loss on the GPU. Schemas: ops.cpp; contract and twin: maskrcnn_benchmark/layers/sigmoid_focal_loss.py.
#include "../common/focal_loss.h"
#include "launch.h"

namespace {

using namespace mb;

// Target of element i by the labels, one per row of the (N, K) logits: ignored (-1), another class (0) or its own
// class (1). A GPU divides 32 bits several times faster than 64.
__device__ __forceinline__ int role_of(const int64_t* labels, int64_t i, int64_t count, int64_t classes) {
  int64_t row, column;
  if (count <= INT32_MAX) {
    const uint32_t narrow = static_cast<uint32_t>(i), width = static_cast<uint32_t>(classes);
    row = narrow / width;
    column = narrow % width;
  } else {
    row = i / classes;
    column = i % classes;
  }
  const int64_t label = labels[row];
  return label < 0 ? -1 : label == column + 1;
}

template <typename T, typename Gamma>
__global__ void label_losses(const T* logits, const int64_t* labels, int64_t count, int64_t classes, Gamma gamma,
                             acc_t<T> alpha, T* out) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(i, count) {
    const int role = role_of(labels, i, count, classes);
    const A x = static_cast<A>(logits[i]);
    const A loss = role > 0 ? positive_loss(x, gamma, alpha) : role == 0 ? negative_loss(x, gamma, alpha) : A(0);
    out[i] = static_cast<T>(loss);
  }
}

// step: 0 if one gradient applies to all elements, otherwise 1.
template <typename T, typename Gamma>
__global__ void label_grads(const T* grad, int64_t step, const T* logits, const int64_t* labels, int64_t count,
                            int64_t classes, Gamma gamma, acc_t<T> alpha, T* out) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(i, count) {
    const int role = role_of(labels, i, count, classes);
    const A x = static_cast<A>(logits[i]);
    const A slope = role > 0 ? positive_grad(x, gamma, alpha) : role == 0 ? negative_grad(x, gamma, alpha) : A(0);
    out[i] = static_cast<T>(static_cast<A>(grad[i * step]) * slope);
  }
}

template <typename T, typename Gamma>
__global__ void dense_losses(const T* logits, const T* targets, int64_t count, Gamma gamma, acc_t<T> alpha, T* out) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(i, count) {
    out[i] = static_cast<T>(dense_loss(static_cast<A>(logits[i]), static_cast<A>(targets[i]), gamma, alpha));
  }
}

template <typename T, typename Gamma>
__global__ void dense_grads(const T* grad, int64_t step, const T* logits, const T* targets, int64_t count, Gamma gamma,
                            acc_t<T> alpha, T* out) {
  using A = acc_t<T>;
  MB_GRID_STRIDE(i, count) {
    const A slope = dense_grad(static_cast<A>(logits[i]), static_cast<A>(targets[i]), gamma, alpha);
    out[i] = static_cast<T>(static_cast<A>(grad[i * step]) * slope);
  }
}

struct Inputs {
  Tensor logits, targets, out;
  int64_t count, classes;
  bool dense;
  cudaStream_t stream;

  Inputs(const Tensor& given_logits, const Tensor& given_targets)
      : logits(torch::stable::contiguous(given_logits)),
        targets(given_targets),
        out(torch::stable::empty(logits.sizes(), logits.scalar_type(), std::nullopt, logits.device())),
        count(logits.numel()),
        classes(logits.size(1)),
        dense(given_targets.dim() == 2),
        stream(current_stream(logits)) {
    targets = torch::stable::contiguous(cast(given_targets, dense ? logits.scalar_type() : ScalarType::Long));
  }
};

template <typename T, typename Gamma>
void launch_forward(const Inputs& in, Gamma gamma, acc_t<T> alpha) {
  const T* logits = in.logits.const_data_ptr<T>();
  T* out = in.out.template mutable_data_ptr<T>();
  if (in.dense) {
    dense_losses<T, Gamma><<<blocks_for(in.count), kThreads, 0, in.stream>>>(
        logits, in.targets.const_data_ptr<T>(), in.count, gamma, alpha, out);
  } else {
    label_losses<T, Gamma><<<blocks_for(in.count), kThreads, 0, in.stream>>>(
        logits, in.targets.const_data_ptr<int64_t>(), in.count, in.classes, gamma, alpha, out);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename T, typename Gamma>
void launch_backward(const Inputs& in, const Tensor& grad, int64_t step, Gamma gamma, acc_t<T> alpha) {
  const T* logits = in.logits.const_data_ptr<T>();
  T* out = in.out.template mutable_data_ptr<T>();
  if (in.dense) {
    dense_grads<T, Gamma><<<blocks_for(in.count), kThreads, 0, in.stream>>>(
        grad.const_data_ptr<T>(), step, logits, in.targets.const_data_ptr<T>(), in.count, gamma, alpha, out);
  } else {
    label_grads<T, Gamma><<<blocks_for(in.count), kThreads, 0, in.stream>>>(
        grad.const_data_ptr<T>(), step, logits, in.targets.const_data_ptr<int64_t>(), in.count, in.classes, gamma,
        alpha, out);
  }
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor sigmoid_focal_loss(const Tensor& logits, const Tensor& targets, double gamma, double alpha) {
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const Inputs in(logits, targets);
  if (in.count == 0) return in.out;
  MB_DISPATCH_FLOATING(in.logits.scalar_type(), "sigmoid_focal_loss", [&] {
    using A = acc_t<scalar_t>;
    if (gamma == 2) {
      launch_forward<scalar_t>(in, GammaTwo<A>{}, static_cast<A>(alpha));
    } else {
      launch_forward<scalar_t>(in, GammaAny<A>{static_cast<A>(gamma)}, static_cast<A>(alpha));
    }
  });
  return in.out;
}

Tensor sigmoid_focal_loss_backward(const Tensor& grad, const Tensor& logits, const Tensor& targets, double gamma,
                                   double alpha) {
  const torch::stable::accelerator::DeviceGuard guard(logits.get_device_index());
  const Inputs in(logits, targets);
  if (in.count == 0) return in.out;
  const bool one_gradient = grad.stride(0) == 0 && grad.stride(1) == 0;
  const Tensor grad_data = one_gradient ? grad : torch::stable::contiguous(grad);
  const int64_t step = one_gradient ? 0 : 1;
  MB_DISPATCH_FLOATING(in.logits.scalar_type(), "sigmoid_focal_loss_backward", [&] {
    using A = acc_t<scalar_t>;
    if (gamma == 2) {
      launch_backward<scalar_t>(in, grad_data, step, GammaTwo<A>{}, static_cast<A>(alpha));
    } else {
      launch_backward<scalar_t>(in, grad_data, step, GammaAny<A>{static_cast<A>(gamma)}, static_cast<A>(alpha));
    }
  });
  return in.out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("sigmoid_focal_loss", TORCH_BOX(&sigmoid_focal_loss));
  m.impl("sigmoid_focal_loss_backward", TORCH_BOX(&sigmoid_focal_loss_backward));
}
