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

// Index: 32 bits where the items' numbers fit, see apply_item.
template <class Index, class F>
__global__ void apply_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) apply_item(f, static_cast<Index>(i));
}

template <class Index, class F>
__global__ void windows_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) window_item(f, static_cast<Index>(i));
}

template <class Index, class F>
__global__ void reduce_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) reduce_item(f, static_cast<Index>(i));
}

template <class A>
__device__ A sum_of_warp(A value) {  // the same in all lanes
  for (int other = kWarp / 2; other > 0; other /= 2) value += __shfl_xor_sync(0xffffffffu, value, other);
  return value;
}

// Channels-last: the lanes of a warp read neighbouring channels of one pixel.
template <class Index, class F>
__global__ void reduce_by_warps_kernel(const F f, int64_t items) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t item = thread_number() / kWarp; item < items; item += thread_count() / kWarp) {  // whole warps at once
    const GroupItem i = group_item(f, static_cast<Index>(item));
    const typename F::A context = f.context(i.n, i.g, i.s);
    const typename F::A sum = sum_of_warp(partial_sum(f, i, context, lane, kWarp));
    if (lane == 0) f.finish(i.n, i.g, i.s, context, sum);
  }
}

// A warp for each filter.
template <class F>
__global__ void filters_kernel(const F f) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t filter = thread_number() / kWarp; filter < f.filters; filter += thread_count() / kWarp) {
    const int64_t first = filter * f.length, end = first + f.length;
    FilterSums sums{0, 0};
    for (int64_t i = first + lane; i < end; i += kWarp) {
      const FilterSums term = f.term(i);
      sums.squares += term.squares, sums.products += term.products;
    }
    sums = {sum_of_warp(sums.squares), sum_of_warp(sums.products)};
    const double factor = f.factor(sums);
    for (int64_t i = first + lane; i < end; i += kWarp) f.write(sums, factor, i);
  }
}

template <class F>
__global__ void add_kernel(const F f) {
  for (int64_t i = thread_number(); i < f.size; i += thread_count()) f.at(i);
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

  template <class... Args>
  static std::optional<Responses> responses(const Args&...) {
    return std::nullopt;
  }
  template <class... Args>
  static std::optional<Gradients> gradients(const Args&...) {
    return std::nullopt;
  }
  static bool widens(ScalarType) { return false; }
  static int64_t piece(const Problem& problem) { return problem.length(); }

  template <class F>
  static void add(const F& f) {
    if (f.size == 0) return;
    add_kernel<<<blocks(f.size), kThreads, 0, current_stream()>>>(f);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class F>
  static void filters(const F& f) {
    if (f.filters == 0) return;
    filters_kernel<<<blocks(f.filters * kWarp), kThreads, 0, current_stream()>>>(f);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class F>
  static void reduce(const F& f) {
    const int64_t items = f.extent.batch * f.extent.groups * f.extent.pixels;
    if (items == 0) return;
    with_index(items, [&](auto index) {
      using Index = decltype(index);
      if (F::layout == Layout::kChannels && f.extent.width >= kWarp)
        reduce_by_warps_kernel<Index><<<blocks(items * kWarp), kThreads, 0, current_stream()>>>(f, items);
      else
        reduce_kernel<Index><<<blocks(items), kThreads, 0, current_stream()>>>(f, items);
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class F>
  static void apply(const F& f) {
    const int64_t items = f.extent.batch * f.extent.channels() * f.extent.pixels;
    if (items == 0) return;
    with_index(items, [&](auto index) {
      apply_kernel<decltype(index)><<<blocks(items), kThreads, 0, current_stream()>>>(f, items);
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class F>
  static void windows(const F& f) {
    const int64_t items = f.planes * f.rows * f.columns;
    if (items == 0) return;
    with_index(items, [&](auto index) {
      windows_kernel<decltype(index)><<<blocks(items), kThreads, 0, current_stream()>>>(f, items);
    });
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  template <class F>
  static void with_index(int64_t items, const F& f) {
    return items <= UINT32_MAX ? f(uint32_t{}) : f(int64_t{});
  }
};

}  // namespace
}  // namespace bcos

STABLE_TORCH_LIBRARY_IMPL(bcos_kernels, CUDA, m) {
  m.impl("conv2d", TORCH_BOX(&bcos::conv2d<bcos::Cuda>));
  m.impl("conv2d_backward", TORCH_BOX(&bcos::conv2d_backward<bcos::Cuda>));
  m.impl("linear", TORCH_BOX(&bcos::linear<bcos::Cuda>));
  m.impl("linear_backward", TORCH_BOX(&bcos::linear_backward<bcos::Cuda>));
}
