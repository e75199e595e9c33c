// CUDA's language and the calls of its runtime that csrc/cuda makes, on the CPU: one block after the other, the threads
// of a block as coroutines that give way at __syncthreads(). Between two barriers the threads run one by one, first to
// last, last to first or shuffled, so that results of kernels with a race depend on that order.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(threads)
#define __shared__ static  // blocks never run at the same time

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;
using cudaError_t = int;
constexpr int cudaMemcpyDeviceToHost = 2;

inline dim3 blockIdx, blockDim, gridDim, threadIdx;

namespace emulation {

constexpr size_t kStack = 1 << 16;

enum Order { kForwards, kBackwards, kShuffled };
inline Order order = kForwards;
inline cudaError_t last_error = 0;

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done = false;
};

inline ucontext_t scheduler;
inline Thread* running = nullptr;
inline const std::function<void()>* kernel = nullptr;

inline void give_way() { swapcontext(&running->context, &scheduler); }

inline void run_thread() {
  (*kernel)();
  running->done = true;
  give_way();
}

inline void run_block(std::vector<Thread>& threads, std::mt19937& random) {
  for (Thread& thread : threads) {
    thread.done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, run_thread, 0);
  }
  std::vector<unsigned> turn(threads.size());
  std::iota(turn.begin(), turn.end(), 0u);
  if (order == kBackwards) std::reverse(turn.begin(), turn.end());
  while (!turn.empty()) {
    if (order == kShuffled) std::shuffle(turn.begin(), turn.end(), random);
    for (unsigned number : turn) {
      running = &threads[number];
      threadIdx = dim3(number);
      swapcontext(&scheduler, &running->context);
    }
    turn.erase(std::remove_if(turn.begin(), turn.end(), [&](unsigned number) { return threads[number].done; }),
               turn.end());
  }
}

// What <<<blocks, threads, shared, stream>>> does; the limits are those of every GPU since 2012.
inline void launch(dim3 blocks, unsigned threads, size_t, cudaStream_t, const std::function<void()>& call) {
  if (blocks.x == 0 || blocks.x > 2147483647u || blocks.y == 0 || blocks.y > 65535 || blocks.z != 1 || threads == 0 ||
      threads > 1024) {
    last_error = 1;
    return;
  }
  kernel = &call;
  blockDim = dim3(threads);
  gridDim = blocks;
  std::vector<Thread> block(threads);
  std::mt19937 random(0);
  for (unsigned y = 0; y < blocks.y; ++y) {
    for (unsigned x = 0; x < blocks.x; ++x) {
      blockIdx = dim3(x, y);
      run_block(block, random);
    }
  }
}

struct DeviceGuard {
  explicit DeviceGuard(int32_t) {}
};

}  // namespace emulation

inline void __syncthreads() { emulation::give_way(); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <typename T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address += value;
  return before;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int, cudaStream_t) {
  std::memcpy(to, from, bytes);
  return 0;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return 0; }

inline cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, 0); }

// What torch declares beside them where it is compiled for CUDA.
inline int32_t aoti_torch_get_current_cuda_stream(int32_t, void**) { return 0; }
inline void torch_c10_cuda_check_msg(int32_t error, const char*, const char*, uint32_t, bool, char** message) {
  if (error != 0) *message = strdup("a launch that no GPU accepts");
}
inline void torch_c10_cuda_free_error_msg(char* message) { std::free(message); }
