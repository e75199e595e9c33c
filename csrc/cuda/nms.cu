// Greedy non-maximum suppression on the GPU. Schema: ops.cpp; contract and twin: maskrcnn_benchmark/layers/nms.py.
//
// Sort by score. Compute one bit per pair: whether the better box suppresses the worse (N * N / 8 bytes: 50 MB for
// 20,000 boxes). One block then goes through the boxes, 64 at a time. All of it runs on the device: the host waits
// once, for the number of kept boxes, which is the size of the result.
#include "../common/iou.h"
#include "launch.h"

#include <array>
#include <cmath>
#include <initializer_list>
#include <optional>

namespace {

using namespace mb;

constexpr int kTile = 64;  // bits of a word
constexpr int kSweepThreads = 512;

template <typename T>
__global__ void sort_keys(const T* scores, int64_t n, T* keys) {
  MB_GRID_STRIDE(i, n) {
    keys[i] = scores[i] == scores[i] ? scores[i] : static_cast<T>(-INFINITY);  // dropped NaN scores rank last
  }
}

// Word w of removed has the bits of ranks 64 w, ..., 64 w + 63: set where the score is NaN.
template <typename T>
__global__ void leave_out_nan(const T* scores, const int64_t* order, int64_t n, int64_t words, uint64_t* removed) {
  MB_GRID_STRIDE(word, words) {
    uint64_t nan = 0;
    for (int64_t rank = word * kTile; rank < min((word + 1) * kTile, n); ++rank) {
      const T score = scores[order[rank]];
      nan |= static_cast<uint64_t>(score != score) << (rank - word * kTile);
    }
    removed[word] = nan;
  }
}

// Word `column tile` of row i in the (N, words) bit matrix.
__device__ __forceinline__ int64_t word_at(int64_t i, int64_t tile, int64_t words) {
  return i * words + tile;
}

// Block (x, y) compares the boxes of tile y with those of tile x, both by rank. Tiles below the diagonal are neither
// written nor read. blockDim.x is kTile; rows and columns beyond n are skipped.
template <typename T>
__global__ void suppression_bits(const T* boxes, const int64_t* groups, const int64_t* order, int64_t n, int64_t words,
                                 T threshold, T extra, uint64_t* bits) {
  const int64_t row_tile = blockIdx.y, col_tile = blockIdx.x;
  if (col_tile < row_tile) return;
  __shared__ Box<T> box[kTile];
  __shared__ T area[kTile];
  __shared__ int64_t group[kTile];

  const int thread = threadIdx.x;
  const auto load = [&](int64_t rank) {
    const T* b = boxes + 4 * order[rank];
    return Box<T>{b[0], b[1], b[2], b[3]};
  };
  const int64_t columns = min(static_cast<int64_t>(kTile), n - col_tile * kTile);
  if (thread < columns) {
    const int64_t rank = col_tile * kTile + thread;
    box[thread] = load(rank);
    area[thread] = box_area(box[thread], extra);
    group[thread] = groups == nullptr ? 0 : groups[order[rank]];
  }
  __syncthreads();

  const int64_t row = row_tile * kTile + thread;
  if (row >= n) return;
  const Box<T> own = load(row);
  const T own_area = box_area(own, extra);
  const int64_t own_group = groups == nullptr ? 0 : groups[order[row]];
  uint64_t word = 0;
  for (int j = row_tile == col_tile ? thread + 1 : 0; j < columns; ++j) {
    // Most pairs do not overlap and need no division: 0 exceeds no threshold, as thresholds are at least 0.
    if (group[j] == own_group && intersection(own, box[j], extra) > T(0) &&
        iou_exceeds(own, own_area, box[j], area[j], extra, threshold)) {
      word |= uint64_t{1} << j;
    }
  }
  bits[word_at(row, col_tile, words)] = word;
}

// One block. removed: (words,) of leave_out_nan; kept: (n,), filled from the front with indices by descending score.
// Bits of rows that are not kept are never read. The inner loops have a fixed length and no break, so that their reads
// overlap.
__global__ void sweep(const uint64_t* bits, const int64_t* order, int64_t n, int64_t words, int64_t limit,
                      uint64_t* removed, int64_t* kept, int64_t* kept_count) {
  __shared__ uint64_t diagonal[kTile];
  __shared__ uint64_t tile_kept;
  const int thread = threadIdx.x;
  int64_t count = 0;  // equal in all threads
  for (int64_t tile = 0; tile < words && count < limit; ++tile) {
    const int64_t first = tile * kTile;
    const int rows = static_cast<int>(min(static_cast<int64_t>(kTile), n - first));
    if (thread < kTile) diagonal[thread] = thread < rows ? bits[word_at(first + thread, tile, words)] : 0;
    __syncthreads();  // also makes the previous round's writes to `removed` visible
    if (thread == 0) {
      uint64_t dead = removed[tile], alive = 0;
      if (rows < kTile) dead |= ~uint64_t{0} << rows;
      int room = static_cast<int>(min(static_cast<int64_t>(kTile), limit - count));
#pragma unroll 16
      for (int j = 0; j < kTile; ++j) {
        const bool keep = (dead >> j & 1) == 0 && room > 0;
        alive |= static_cast<uint64_t>(keep) << j;
        dead |= keep ? diagonal[j] : 0;
        room -= keep;
      }
      tile_kept = alive;
    }
    __syncthreads();
    const uint64_t alive = tile_kept;
    if (thread < kTile && (alive >> thread & 1)) {
      const int64_t before = __popcll(alive & ((uint64_t{1} << thread) - 1));
      kept[count + before] = order[first + thread];
    }
    for (int64_t word = tile + 1 + thread; word < words; word += blockDim.x) {
      uint64_t dead = removed[word];
#pragma unroll 16
      for (int j = 0; j < kTile; ++j) {
        if (alive >> j & 1) dead |= bits[word_at(first + j, word, words)];
      }
      removed[word] = dead;
    }
    count += __popcll(alive);
  }
  if (thread == 0) *kept_count = count;
}

// aten::sort in descending order, lower index first for equal values. (torch 2.11's headers lack torch::stable::sort.)
Tensor descending_order(const Tensor& keys) {
  std::array<StableIValue, 4> stack{
      torch::stable::detail::from(keys), torch::stable::detail::from(std::optional<bool>(true)),
      torch::stable::detail::from(int64_t{0}), torch::stable::detail::from(true)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
  const Tensor values = torch::stable::detail::to<Tensor>(stack[0]);  // takes ownership, so that it is freed
  return torch::stable::detail::to<Tensor>(stack[1]);
}

template <typename T>
Tensor keep_boxes(const Tensor& boxes, const Tensor& scores, const int64_t* groups, T threshold, T extra,
                  int64_t max_keep) {
  const int64_t n = boxes.size(0), words = (n + kTile - 1) / kTile;
  STD_TORCH_CHECK(words <= 65535, "nms: ", n, " boxes on the GPU; at most ", 65535 * int64_t{kTile}, " fit the grid");
  const cudaStream_t stream = current_stream(boxes);
  const auto buffer = [&](std::initializer_list<int64_t> size, ScalarType type) {
    return torch::stable::new_empty(boxes, {size.begin(), size.size()}, type);
  };

  Tensor keys = buffer({n}, scores.scalar_type());
  sort_keys<T><<<blocks_for(n), kThreads, 0, stream>>>(scores.const_data_ptr<T>(), n, keys.mutable_data_ptr<T>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  const Tensor order = descending_order(keys);

  Tensor bits = buffer({n, words}, ScalarType::Long), removed = buffer({words}, ScalarType::Long);
  Tensor kept = buffer({n}, ScalarType::Long), kept_count = buffer({1}, ScalarType::Long);
  uint64_t* bit_data = reinterpret_cast<uint64_t*>(bits.mutable_data_ptr<int64_t>());
  uint64_t* removed_data = reinterpret_cast<uint64_t*>(removed.mutable_data_ptr<int64_t>());
  leave_out_nan<T><<<blocks_for(words), kThreads, 0, stream>>>(
      scores.const_data_ptr<T>(), order.const_data_ptr<int64_t>(), n, words, removed_data);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  const dim3 tiles(static_cast<unsigned>(words), static_cast<unsigned>(words));
  suppression_bits<T><<<tiles, kTile, 0, stream>>>(boxes.const_data_ptr<T>(), groups, order.const_data_ptr<int64_t>(),
                                                   n, words, threshold, extra, bit_data);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  sweep<<<1, kSweepThreads, 0, stream>>>(bit_data, order.const_data_ptr<int64_t>(), n, words,
                                         max_keep < 0 ? n : std::min(max_keep, n), removed_data,
                                         kept.mutable_data_ptr<int64_t>(), kept_count.mutable_data_ptr<int64_t>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();

  int64_t count = 0;
  STD_CUDA_CHECK(cudaMemcpyAsync(&count, kept_count.const_data_ptr<int64_t>(), sizeof count, cudaMemcpyDeviceToHost,
                                 stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  return torch::stable::narrow(kept, 0, 0, count);
}

Tensor nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& groups, double iou_threshold,
           bool inclusive, int64_t max_keep) {
  const torch::stable::accelerator::DeviceGuard guard(boxes.get_device_index());
  const int64_t n = boxes.size(0);
  if (n == 0) {
    const int64_t none[1] = {0};
    return torch::stable::new_empty(boxes, {none, 1}, ScalarType::Long);
  }
  const bool wide = boxes.scalar_type() == ScalarType::Double || scores.scalar_type() == ScalarType::Double;
  const ScalarType type = wide ? ScalarType::Double : ScalarType::Float;
  const Tensor box_data = torch::stable::contiguous(cast(boxes, type));
  const Tensor score_data = torch::stable::contiguous(cast(scores, type));
  std::optional<Tensor> group_data;
  if (groups.has_value()) group_data = torch::stable::contiguous(cast(*groups, ScalarType::Long));
  const int64_t* group_ptr = group_data.has_value() ? group_data->const_data_ptr<int64_t>() : nullptr;
  if (wide) {
    return keep_boxes<double>(box_data, score_data, group_ptr, iou_threshold, inclusive ? 1.0 : 0.0, max_keep);
  }
  return keep_boxes<float>(box_data, score_data, group_ptr, static_cast<float>(iou_threshold), inclusive ? 1.0f : 0.0f,
                           max_keep);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(maskrcnn_benchmark, CUDA, m) {
  m.impl("nms", TORCH_BOX(&nms));
}
