// How the operators start kernels: on the current stream of x's device. Where no nvcc reads this, the kernels run on the
// CPU, thread by thread, and serve its tensors: how they are tested without a GPU (tests/cuda_on_cpu).
#pragma once
#if defined(__CUDACC__) && !defined(USE_CUDA)
#define USE_CUDA  // shim.h of older releases hides its CUDA functions without it
#endif
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "../stable.h"

#if defined(__CUDACC__)
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#define BCOS_CUDA_KEY CUDA
#define BCOS_MOST_BLOCKS (1 << 20)
#define BCOS_MOST_ITEMS INT32_MAX
#else
#define BCOS_CUDA_KEY CPU
#define BCOS_MOST_BLOCKS 2    // so that the loops over what is left run in the tests
#define BCOS_MOST_ITEMS 1024  // and the kernels for more
#endif

namespace bcos {
namespace cuda {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int64_t kMostBlocks = BCOS_MOST_BLOCKS;  // kernels loop over the rest: a grid may be too small for 64-bit counts
constexpr int64_t kMostItems = BCOS_MOST_ITEMS;    // whose numbers 32 bits hold, for what divides them

inline unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>(std::min((threads + kThreads - 1) / kThreads, kMostBlocks));
}

// For kernels whose warps have something to prepare: some dozens of blocks for each of a large GPU's processors, which go on.
inline unsigned few_blocks_for(int64_t threads) { return std::min(blocks_for(threads), 4096u); }

__device__ inline int64_t thread_number() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ inline int64_t thread_count() { return int64_t{gridDim.x} * blockDim.x; }

#if defined(__CUDACC__)

struct Guard {
  torch::stable::accelerator::DeviceGuard guard;
  explicit Guard(const torch::stable::Tensor& t) : guard(t.get_device_index()) {}
};

inline cudaStream_t current_stream() {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(torch::stable::accelerator::getCurrentDeviceIndex(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// kThreads threads in each block
template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), dim3 blocks, const Args&... args) {
  kernel<<<blocks, kThreads, 0, current_stream()>>>(args...);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

#else

struct Guard {
  explicit Guard(const torch::stable::Tensor&) {}
};

template <class... Parameters, class... Args>
void launch(void (*kernel)(Parameters...), dim3 blocks, const Args&... args) {
  cuda_on_cpu::run(blocks, dim3(kThreads), [&] { kernel(args...); });
}

#endif

}  // namespace cuda
}  // namespace bcos
