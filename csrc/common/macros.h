// Compiler attributes and pragmas.
#pragma once

#include <cstdint>  // any C library header: it defines __GLIBC__ where that is the library

#if defined(__CUDACC__)
#define MB_HD __host__ __device__ __forceinline__
#else
#define MB_HD inline __attribute__((always_inline))
#endif

// One binary for every x86-64 CPU: the loader selects the widest version of a function that the CPU supports. This
// requires ifunc (glibc) and does not apply to calls through pointers, so it is used on plain functions over a range.
// All versions round equally: the build forbids contraction into fused multiply-adds.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GLIBC__) && !defined(__CUDACC__)
#define MB_SIMD_CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define MB_SIMD_CLONES
#endif
