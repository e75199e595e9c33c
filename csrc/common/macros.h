// Compiler switches, written once.
#pragma once

#include <cstdint>  // any C library header: it defines __GLIBC__ where that is the library

#if defined(__CUDACC__)
#define MB_HD __host__ __device__ __forceinline__
#else
#define MB_HD inline __attribute__((always_inline))
#endif

// One binary for every x86-64 CPU: the loader picks the widest version of a function that the CPU runs. It needs ifunc
// (glibc) and stops at calls through pointers, so it stands on plain functions over a range. All versions round alike:
// the build forbids contraction into fused multiply-adds.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GLIBC__) && !defined(__CUDACC__)
#define MB_SIMD_CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#else
#define MB_SIMD_CLONES
#endif
