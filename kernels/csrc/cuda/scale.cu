// The operators on NVIDIA GPUs: one thread per item, one warp per pixel where it sums over neighbouring channels.
// No atomics: the result is the same in every run.
#ifndef USE_CUDA
#define USE_CUDA  // shim.h of older releases hides its CUDA functions without it
#endif
#include <cuda_runtime.h>

#include <algorithm>

#include "../operators.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

namespace bcos {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int64_t kMostBlocks = int64_t{1} << 20;  // loops over the rest: a grid may be too small for 64-bit counts

__device__ int64_t thread_number() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ int64_t thread_count() { return int64_t{gridDim.x} * blockDim.x; }

template <class F>
__global__ void apply_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) apply_item(f, i);
}

template <class F>
__global__ void windows_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) window_item(f, i);
}

template <class F>
__global__ void reduce_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) reduce_item(f, i);
}

// Channels-last: the lanes of a warp read neighbouring channels of one pixel.
template <class F>
__global__ void reduce_by_warps_kernel(const F f, int64_t items) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t item = thread_number() / kWarp; item < items; item += thread_count() / kWarp) {  // whole warps at once
    const GroupItem i = group_item(f, item);
    const typename F::A context = f.context(i.n, i.g, i.s);
    typename F::A sum = partial_sum(f, i, context, lane, kWarp);
    for (int other = kWarp / 2; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (lane == 0) f.finish(i.n, i.g, i.s, context, sum);
  }
}

unsigned blocks(int64_t threads) {
  return static_cast<unsigned>(std::min((threads + kThreads - 1) / kThreads, kMostBlocks));
}

cudaStream_t current_stream() {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(torch::stable::accelerator::getCurrentDeviceIndex(), &stream));
  return static_cast<cudaStream_t>(stream);
}

struct Cuda {
  struct Guard {
    torch::stable::accelerator::DeviceGuard guard;
    explicit Guard(const Tensor& t) : guard(t.get_device_index()) {}
  };

  template <class F>
  static void reduce(const F& f) {
    const int64_t items = f.extent.batch * f.extent.groups * f.extent.pixels;
    if (items == 0) return;
    if (F::layout == Layout::kChannels && f.extent.width >= kWarp)
      reduce_by_warps_kernel<<<blocks(items * kWarp), kThreads, 0, current_stream()>>>(f, items);
    else
      reduce_kernel<<<blocks(items), kThreads, 0, current_stream()>>>(f, items);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class F>
  static void apply(const F& f) {
    const int64_t items = f.extent.batch * f.extent.channels() * f.extent.pixels;
    if (items == 0) return;
    apply_kernel<<<blocks(items), kThreads, 0, current_stream()>>>(f, items);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class F>
  static void windows(const F& f) {
    const int64_t items = f.planes * f.rows * f.columns;
    if (items == 0) return;
    windows_kernel<<<blocks(items), kThreads, 0, current_stream()>>>(f, items);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace
}  // namespace bcos

STABLE_TORCH_LIBRARY_IMPL(bcos_kernels, CUDA, m) {
  m.impl("scale", TORCH_BOX(&bcos::scale<bcos::Cuda>));
  m.impl("scale_backward", TORCH_BOX(&bcos::scale_backward<bcos::Cuda>));
}
