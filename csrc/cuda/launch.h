// Launch helpers for CUDA kernels, on top of PyTorch's stable ABI.
//
// The kernels of this folder have been compiled and reviewed, and have not yet run on a GPU.
#pragma once

#include "../common/tensor.h"

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>

namespace mb {

constexpr int kThreads = 256;

// Kernels over `count` elements run grid-stride loops with 64-bit counters, so a bounded number of blocks covers any
// count. There is at least one block, because launching none is an error.
inline unsigned blocks_for(int64_t count) {
  return static_cast<unsigned>(std::clamp<int64_t>((count + kThreads - 1) / kThreads, 1, 65536));
}

inline cudaStream_t current_stream(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

}  // namespace mb

// for (int64_t i : the elements of `count` that this thread processes)
#define MB_GRID_STRIDE(i, count)                                                                \
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < (count); \
       i += static_cast<int64_t>(gridDim.x) * blockDim.x)
