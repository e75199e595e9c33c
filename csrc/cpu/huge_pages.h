// Huge pages for large results.
#pragma once

#include "../common/tensor.h"

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mb {

// Asks the kernel to back fresh memory with pages of 2 MB. A new tensor of 50 MB otherwise costs 12,000 page faults,
// which take longer than pooling 1,000 ROIs into it. This is only a hint, which the kernel may ignore.
inline void use_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

inline void use_huge_pages(const Tensor& tensor) {
  use_huge_pages(tensor.mutable_data_ptr(), tensor.numel() * static_cast<int64_t>(tensor.element_size()));
}

}  // namespace mb
