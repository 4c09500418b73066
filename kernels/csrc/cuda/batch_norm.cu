// Uncentred batch norm on NVIDIA GPUs: chunks of a channel to a table, the table to one number per channel, the result.
// No atomics, and chunks by shape alone: the same bits in every run.
#ifndef USE_CUDA
#define USE_CUDA  // shim.h of older releases hides its CUDA functions without it
#endif
#include <cuda_runtime.h>

#include <algorithm>

#include "../batch_norm.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

namespace bcos {
namespace batch_norm {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = int64_t{1} << 20;

// A block of threads takes one chunk of `tile` channels; NHWC: a warp reads 32 neighbouring channels of one pixel.
struct Chunks {
  Shape shape;
  int tile;
  int64_t size, count;  // values of one channel in a chunk; chunks of a channel

  explicit Chunks(const Shape& s) : shape(s), tile(s.channels_last ? 32 : 1) {
    constexpr int64_t kMostChunks = 256, kLeastPerThread = 16;
    size = std::max((s.count() + kMostChunks - 1) / kMostChunks, kLeastPerThread * (kThreads / tile));
    count = (s.count() + size - 1) / size;
  }

  dim3 grid() const {
    return dim3(static_cast<unsigned>((shape.channels + tile - 1) / tile), static_cast<unsigned>(count));
  }
  // Where the i-th value of a channel is
  __device__ int64_t element(int64_t i, int64_t c) const {
    if (shape.channels_last) return i * shape.channels + c;
    return (i / shape.pixels * shape.channels + c) * shape.pixels + i % shape.pixels;
  }
  __device__ int64_t values(int64_t chunk) const {
    const int64_t rest = shape.count() - chunk * size;
    return rest < size ? rest : size;
  }
};

__device__ int64_t channel_of(const Shape& s, int64_t element) {
  return s.channels_last ? element % s.channels : element / s.pixels % s.channels;
}

// Welford's update, Chan's merge: no cancellation where the mean is much larger than the spread.
template <class T>
struct MomentsOf {
  using A = computing_t<T>;
  const T* x;

  struct State {
    A count, first, second;  // mean; sum of squares about it

    __device__ void merge(const State& other) {
      if (other.count == A(0)) return;
      const A total = count + other.count, shift = other.first - first, share = other.count / total;
      first += shift * share;
      second += other.second + shift * shift * count * share;
      count = total;
    }
  };

  __device__ void add(State& s, int64_t i) const {
    const A value = static_cast<A>(x[i]), before = value - s.first;
    s.count += A(1);
    s.first += before / s.count;
    s.second += before * (value - s.first);
  }
};

template <class T>
struct ProductsOf {
  using A = computing_t<T>;
  const T *grad, *x;

  struct State {
    A first, second;  // sum of grad x; sum of grad

    __device__ void merge(const State& other) { first += other.first, second += other.second; }
  };

  __device__ void add(State& s, int64_t i) const {
    const A g = static_cast<A>(grad[i]);
    s.first += g * static_cast<A>(x[i]);
    s.second += g;
  }
};

// table[chunk][channel] = the two numbers of a state
template <class F>
__global__ void chunk_kernel(const F f, const Chunks chunks, double* table) {
  __shared__ typename F::State states[kThreads];
  const int lane = threadIdx.x / chunks.tile, lanes = kThreads / chunks.tile;
  const int64_t c = int64_t{blockIdx.x} * chunks.tile + threadIdx.x % chunks.tile;
  const int64_t first = int64_t{blockIdx.y} * chunks.size, count = chunks.values(blockIdx.y);
  typename F::State state{};
  if (c < chunks.shape.channels)
    for (int64_t i = lane; i < count; i += lanes) f.add(state, chunks.element(first + i, c));
  states[threadIdx.x] = state;
  for (int half = lanes / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) states[threadIdx.x].merge(states[threadIdx.x + half * chunks.tile]);
  }
  if (lane == 0 && c < chunks.shape.channels) {  // its own state, which no other thread wrote
    double* entry = table + 2 * (int64_t{blockIdx.y} * chunks.shape.channels + c);
    entry[0] = static_cast<double>(states[threadIdx.x].first);
    entry[1] = static_cast<double>(states[threadIdx.x].second);
  }
}

__device__ int64_t thread_number() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ int64_t thread_count() { return int64_t{gridDim.x} * blockDim.x; }

template <class T>
__global__ void statistics_kernel(const Forward<T> f, const Chunks chunks, const double* table) {
  using A = computing_t<T>;
  const int64_t channels = chunks.shape.channels;
  const double total = static_cast<double>(chunks.shape.count());
  for (int64_t c = thread_number(); c < channels; c += thread_count()) {
    double mean = 0, squares = 0;
    for (int64_t chunk = 0; chunk < chunks.count; ++chunk)
      mean += static_cast<double>(chunks.values(chunk)) * table[2 * (chunk * channels + c)];
    mean /= total;
    for (int64_t chunk = 0; chunk < chunks.count; ++chunk) {
      const double* entry = table + 2 * (chunk * channels + c);
      const double shift = entry[0] - mean;
      squares += entry[1] + static_cast<double>(chunks.values(chunk)) * shift * shift;
    }
    f.mean[c] = static_cast<A>(mean);
    f.var[c] = static_cast<A>(squares / total);
  }
}

template <class T>
__global__ void result_kernel(const Forward<T> f, int64_t elements) {
  using A = computing_t<T>;
  for (int64_t i = thread_number(); i < elements; i += thread_count()) {
    const int64_t c = channel_of(f.shape, i);
    const A factor = (f.weight ? f.weight[c] : A(1)) / std::sqrt(f.var[c] + f.eps);
    f.y[i] = static_cast<T>(static_cast<A>(f.x[i]) * factor + (f.bias ? f.bias[c] : A(0)));
  }
}

// coefficients: C factors, then C pulls
template <class T>
__global__ void coefficients_kernel(const Backward<T> b, const Chunks chunks, const double* table,
                                    computing_t<T>* coefficients) {
  using A = computing_t<T>;
  const int64_t channels = chunks.shape.channels;
  for (int64_t c = thread_number(); c < channels; c += thread_count()) {
    double products = 0, grads = 0;
    for (int64_t chunk = 0; chunk < chunks.count; ++chunk) {
      products += table[2 * (chunk * channels + c)];
      grads += table[2 * (chunk * channels + c) + 1];
    }
    const double inverse = 1 / std::sqrt(static_cast<double>(b.var[c]) + static_cast<double>(b.eps));
    const double factor = (b.weight ? static_cast<double>(b.weight[c]) : 1.0) * inverse;
    if (b.grad_weight) b.grad_weight[c] = static_cast<A>(products * inverse);
    if (b.grad_bias) b.grad_bias[c] = static_cast<A>(grads);
    coefficients[c] = static_cast<A>(factor);
    coefficients[channels + c] =
        static_cast<A>(-factor * inverse * inverse * products / static_cast<double>(chunks.shape.count()));
  }
}

template <class T>
__global__ void gradient_kernel(const Backward<T> b, const computing_t<T>* coefficients, int64_t elements) {
  using A = computing_t<T>;
  for (int64_t i = thread_number(); i < elements; i += thread_count()) {
    const int64_t c = channel_of(b.shape, i);
    A grad_x = static_cast<A>(b.grad[i]) * coefficients[c];
    if (!b.detach) grad_x += (static_cast<A>(b.x[i]) - b.mean[c]) * coefficients[b.shape.channels + c];
    b.grad_x[i] = static_cast<T>(grad_x);
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

Tensor scratch(const Tensor& like, int64_t size, ScalarType type) {
  return torch::stable::new_empty(like, std::vector<int64_t>{size}, type);
}

template <class F>
Tensor table_of(const F& f, const Chunks& chunks, const Tensor& like) {
  const Tensor table = scratch(like, 2 * chunks.count * chunks.shape.channels, ScalarType::Double);
  chunk_kernel<<<chunks.grid(), kThreads, 0, current_stream()>>>(f, chunks, table.mutable_data_ptr<double>());
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return table;
}

struct Cuda {
  struct Guard {
    torch::stable::accelerator::DeviceGuard guard;
    explicit Guard(const Tensor& t) : guard(t.get_device_index()) {}
  };

  template <class T>
  static void forward(const Forward<T>& f, const Tensor& like) {
    const Chunks chunks(f.shape);
    const int64_t channels = f.shape.channels, elements = f.shape.count() * channels;
    const Tensor table = table_of(MomentsOf<T>{f.x}, chunks, like);
    statistics_kernel<<<blocks(channels), kThreads, 0, current_stream()>>>(f, chunks, table.const_data_ptr<double>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    result_kernel<<<blocks(elements), kThreads, 0, current_stream()>>>(f, elements);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <class T>
  static void backward(const Backward<T>& b, const Tensor& like) {
    using A = computing_t<T>;
    const Chunks chunks(b.shape);
    const int64_t channels = b.shape.channels, elements = b.shape.count() * channels;
    const Tensor table = table_of(ProductsOf<T>{b.grad, b.x}, chunks, like);
    const Tensor coefficients = scratch(like, 2 * channels, computing_type(like.scalar_type()));
    coefficients_kernel<<<blocks(channels), kThreads, 0, current_stream()>>>(
        b, chunks, table.const_data_ptr<double>(), coefficients.mutable_data_ptr<A>());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    if (!b.grad_x) return;
    gradient_kernel<<<blocks(elements), kThreads, 0, current_stream()>>>(b, coefficients.const_data_ptr<A>(),
                                                                         elements);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace
}  // namespace batch_norm
}  // namespace bcos

STABLE_TORCH_LIBRARY_IMPL(bcos_kernels, CUDA, m) {
  m.impl("batch_norm", TORCH_BOX(&bcos::batch_norm::forward<bcos::batch_norm::Cuda>));
  m.impl("batch_norm_backward", TORCH_BOX(&bcos::batch_norm::backward<bcos::batch_norm::Cuda>));
}
