// Uncentred batch norm on NVIDIA GPUs: chunks of a channel to a table, the table to one number per channel, the result.
// No atomics, and chunks by shape and alignment alone: the same bits in every run.
#include "launch.h"

#include "../batch_norm.h"
#include "packs.h"

namespace bcos {
namespace batch_norm {
namespace {
using namespace cuda;

// Who takes what, in every pass over the elements: a block of threads one chunk of `tile` packs of channels (NHWC; a pack is
// of neighbouring channels) or of one channel (NCHW; a pack is of neighbouring pixels). A thread stays with its channels.
template <bool channels_last, int kSize>
struct Chunks {
  int64_t channels, pixels;    // of one image
  int64_t runs, length;        // packs of channels at a pixel, or channels; packs of each
  int tile;                    // neighbouring runs of a block: a power of 2
  int64_t size, count;         // packs of a run in a chunk; chunks of a run

  explicit Chunks(const Shape& s) : channels(s.channels), pixels(s.pixels) {
    constexpr int64_t kBlocks = 1024, kMostChunks = 512, kLeastPerThread = 4;
    runs = channels_last ? channels / kSize : channels;
    length = channels_last ? s.count() : s.count() / kSize;
    tile = 1;
    while (channels_last && tile < kWarp && tile < runs) tile *= 2;
    const int64_t most = std::max<int64_t>(1, std::min(kMostChunks, kBlocks / tiles()));
    size = std::max((length + most - 1) / most, kLeastPerThread * (kThreads / tile));
    count = (length + size - 1) / size;
  }

  int64_t tiles() const { return (runs + tile - 1) / tile; }
  dim3 grid() const { return dim3(static_cast<unsigned>(tiles()), static_cast<unsigned>(count)); }

  __device__ int lane() const { return threadIdx.x / tile; }  // of those with the same channels
  __device__ int lanes() const { return kThreads / tile; }
  __device__ int64_t run() const { return int64_t{blockIdx.x} * tile + threadIdx.x % tile; }
  __device__ bool has_channels() const { return run() < runs; }
  __device__ int64_t channel(int i) const { return channels_last ? run() * kSize + i : run(); }  // of a pack's element
  __device__ int64_t values(int64_t chunk) const {  // of one channel
    const int64_t rest = length - chunk * size;
    return (rest < size ? rest : size) * (channels_last ? 1 : kSize);
  }

  // f(where a pack begins), for each of this thread's
  template <class F>
  __device__ void each(const F& f) const {
    const int64_t first = int64_t{blockIdx.y} * size, end = first + size < length ? first + size : length;
    if (!has_channels()) return;
    if constexpr (channels_last) {
#pragma unroll 4
      for (int64_t i = first + lane(); i < end; i += lanes()) f(i * channels + run() * kSize);
    } else {
      const int64_t packs = pixels / kSize, images = lanes() / packs, rest = lanes() % packs;
      int64_t i = first + lane(), n = i / packs, at = i % packs;
#pragma unroll 4
      for (; i < end; i += lanes()) {
        f(((n * channels + run()) * packs + at) * kSize);
        n += images, at += rest;
        if (at >= packs) at -= packs, ++n;
      }
    }
  }
};

// f of Chunks for this layout; packs where they are whole and aligned, else element by element.
template <class T, class F>
void with_chunks(const Shape& shape, bool aligned, const F& f) {
  const bool packed = aligned && (shape.channels_last ? shape.channels : shape.pixels) % kPack<T> == 0;
  if (shape.channels_last) return packed ? f(Chunks<true, kPack<T>>(shape)) : f(Chunks<true, 1>(shape));
  return packed ? f(Chunks<false, kPack<T>>(shape)) : f(Chunks<false, 1>(shape));
}

template <class A>
struct Pair {
  A first, second;
};

// ---- Sums over a chunk ----

// Mean, and sum of squares about it, of what is left of x beside the channel's first value: where the mean is much larger
// than the spread that difference is exact, and has no large mean. Welford's update and Chan's merge do the rest, where the
// first value is far from all others.
template <class T>
struct MomentsOf {
  using Element = T;
  using A = computing_t<T>;
  const T* x;

  template <bool channels_last, int size>
  __device__ Lanes<A, size> origins(const Chunks<channels_last, size>& chunks) const {
    if constexpr (channels_last)
      return load<size>(x + chunks.run() * size);
    else
      return repeated<size>(widened(x[chunks.run() * chunks.pixels]));
  }
  template <int size>
  __device__ void add(Lanes<Pair<A>, size>& pairs, A count /* with these */, int64_t element,
                      const Lanes<A, size>& origins) const {
    const Lanes<A, size> values = load<size>(x + element);
    const A share = 1 / count;
#pragma unroll
    for (int i = 0; i < size; ++i) {
      Pair<A>& pair = pairs.at[i];
      const A value = values.at[i] - origins.at[i], before = value - pair.first;
      pair.first += before * share;
      pair.second += before * (value - pair.first);
    }
  }
  __device__ static void merge(Pair<A>& pair, A count, const Pair<A>& other, A other_count) {
    if (other_count == A(0)) return;
    const A shift = other.first - pair.first, share = other_count / (count + other_count);
    pair.first += shift * share;
    pair.second += other.second + shift * shift * count * share;
  }
};

// Sums of grad x, and of grad
template <class T>
struct ProductsOf {
  using Element = T;
  using A = computing_t<T>;
  const T *grad, *x;

  template <bool channels_last, int size>
  __device__ Lanes<A, size> origins(const Chunks<channels_last, size>&) const {
    return {};
  }
  template <int size>
  __device__ void add(Lanes<Pair<A>, size>& pairs, A, int64_t element, const Lanes<A, size>&) const {
    const Lanes<A, size> grads = load<size>(grad + element), values = load<size>(x + element);
#pragma unroll
    for (int i = 0; i < size; ++i) pairs.at[i].first += grads.at[i] * values.at[i], pairs.at[i].second += grads.at[i];
  }
  __device__ static void merge(Pair<A>& pair, A, const Pair<A>& other, A) {
    pair.first += other.first, pair.second += other.second;
  }
};

// table[channel][chunk]
template <class F, bool channels_last, int size>
__global__ void chunk_kernel(const F f, const Chunks<channels_last, size> chunks, Pair<double>* table) {
  using A = typename F::A;
  __shared__ Lanes<Pair<A>, size> pairs[kThreads];
  __shared__ A counts[kThreads];
  Lanes<Pair<A>, size> mine{};
  A count = 0;
  const Lanes<A, size> origins = chunks.has_channels() ? f.origins(chunks) : Lanes<A, size>{};
  chunks.each([&](int64_t element) {
    count += A(1);
    f.add(mine, count, element, origins);
  });
  if constexpr (!channels_last) {  // one channel
#pragma unroll
    for (int i = 1; i < size; ++i) F::merge(mine.at[0], static_cast<A>(i) * count, mine.at[i], count);
    count *= static_cast<A>(size);
  }
  pairs[threadIdx.x] = mine, counts[threadIdx.x] = count;
  for (int half = chunks.lanes() / 2; half > 0; half /= 2) {
    __syncthreads();
    if (chunks.lane() >= half) continue;
    const int self = threadIdx.x, other = self + half * chunks.tile;
#pragma unroll
    for (int i = 0; i < (channels_last ? size : 1); ++i)
      F::merge(pairs[self].at[i], counts[self], pairs[other].at[i], counts[other]);
    counts[self] += counts[other];
  }
  if (chunks.lane() > 0 || !chunks.has_channels()) return;
#pragma unroll
  for (int i = 0; i < (channels_last ? size : 1); ++i) {  // its own, which no other thread wrote
    const Pair<A>& pair = pairs[threadIdx.x].at[i];
    table[chunks.channel(i) * chunks.count + blockIdx.y] = {static_cast<double>(pair.first), static_cast<double>(pair.second)};
  }
}

// ---- One number for each channel: a warp sums over its chunks ----

template <class F>
__device__ double sum_of_warp(int64_t count, const F& term) {  // the same in all lanes
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x % kWarp; i < count; i += kWarp) sum += term(i);
  for (int other = kWarp / 2; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
  return sum;
}

// coefficients: C factors, then C biases
template <class T, bool channels_last, int size>
__global__ void statistics_kernel(const Forward<T> f, const Chunks<channels_last, size> chunks, const Pair<double>* table,
                                  computing_t<T>* coefficients) {
  using A = computing_t<T>;
  const double total = static_cast<double>(f.shape.count());
  for (int64_t c = thread_number() / kWarp; c < chunks.channels; c += thread_count() / kWarp) {
    const Pair<double>* pairs = table + c * chunks.count;
    const double mean = sum_of_warp(chunks.count, [&](int64_t i) {
      return static_cast<double>(chunks.values(i)) * pairs[i].first;
    }) / total;
    const double squares = sum_of_warp(chunks.count, [&](int64_t i) {
      const double shift = pairs[i].first - mean;
      return pairs[i].second + static_cast<double>(chunks.values(i)) * shift * shift;
    });
    if (threadIdx.x % kWarp > 0) continue;
    const T origin = f.x[channels_last ? c : c * chunks.pixels];
    f.mean[c] = static_cast<A>(static_cast<double>(widened(origin)) + mean);
    const A var = static_cast<A>(squares / total);
    f.var[c] = var;
    coefficients[c] = (f.weight ? f.weight[c] : A(1)) / std::sqrt(var + f.eps);
    coefficients[chunks.channels + c] = f.bias ? f.bias[c] : A(0);
  }
}

// coefficients: C factors, then C pulls, then C means
template <class T, bool channels_last, int size>
__global__ void coefficients_kernel(const Backward<T> b, const Chunks<channels_last, size> chunks, const Pair<double>* table,
                                    computing_t<T>* coefficients) {
  using A = computing_t<T>;
  for (int64_t c = thread_number() / kWarp; c < chunks.channels; c += thread_count() / kWarp) {
    const Pair<double>* pairs = table + c * chunks.count;
    const double products = sum_of_warp(chunks.count, [&](int64_t i) { return pairs[i].first; });
    const double grads = sum_of_warp(chunks.count, [&](int64_t i) { return pairs[i].second; });
    if (threadIdx.x % kWarp > 0) continue;
    const double inverse = 1 / std::sqrt(static_cast<double>(b.var[c]) + static_cast<double>(b.eps));
    const double factor = (b.weight ? static_cast<double>(b.weight[c]) : 1.0) * inverse;
    if (b.grad_weight) b.grad_weight[c] = static_cast<A>(products * inverse);
    if (b.grad_bias) b.grad_bias[c] = static_cast<A>(grads);
    coefficients[c] = static_cast<A>(factor);
    coefficients[chunks.channels + c] =
        static_cast<A>(-factor * inverse * inverse * products / static_cast<double>(b.shape.count()));
    coefficients[2 * chunks.channels + c] = b.mean[c];
  }
}

// ---- Results ----

// The i-th coefficient of each channel of a pack
template <class A, bool channels_last, int size>
__device__ Lanes<A, size> of_channels(const A* coefficients, int i, const Chunks<channels_last, size>& chunks) {
  const A* here = coefficients + i * chunks.channels + chunks.channel(0);
  if constexpr (channels_last)
    return load<size>(here);
  else
    return repeated<size>(*here);
}

template <class T, bool channels_last, int size>
__global__ void result_kernel(const Forward<T> f, const Chunks<channels_last, size> chunks,
                              const computing_t<T>* coefficients) {
  using A = computing_t<T>;
  if (!chunks.has_channels()) return;
  const Lanes<A, size> factors = of_channels(coefficients, 0, chunks), biases = of_channels(coefficients, 1, chunks);
  chunks.each([&](int64_t element) {
    Lanes<A, size> values = load<size>(f.x + element);
#pragma unroll
    for (int i = 0; i < size; ++i) values.at[i] = values.at[i] * factors.at[i] + biases.at[i];
    store(f.y + element, values);
  });
}

template <class T, bool channels_last, int size>
__global__ void gradient_kernel(const Backward<T> b, const Chunks<channels_last, size> chunks,
                                const computing_t<T>* coefficients) {
  using A = computing_t<T>;
  if (!chunks.has_channels()) return;
  const Lanes<A, size> factors = of_channels(coefficients, 0, chunks), pulls = of_channels(coefficients, 1, chunks),
                       means = of_channels(coefficients, 2, chunks);
  chunks.each([&](int64_t element) {
    Lanes<A, size> grads = load<size>(b.grad + element);
#pragma unroll
    for (int i = 0; i < size; ++i) grads.at[i] *= factors.at[i];
    if (!b.detach) {
      const Lanes<A, size> values = load<size>(b.x + element);
#pragma unroll
      for (int i = 0; i < size; ++i) grads.at[i] += (values.at[i] - means.at[i]) * pulls.at[i];
    }
    store(b.grad_x + element, grads);
  });
}

Tensor scratch(const Tensor& like, int64_t size, ScalarType type) {
  return torch::stable::new_empty(like, std::vector<int64_t>{size}, type);
}

Pair<double>* pairs_of(const Tensor& table) { return reinterpret_cast<Pair<double>*>(table.mutable_data_ptr<double>()); }

struct Cuda {
  using Guard = cuda::Guard;

  template <class T>
  static void forward(const Forward<T>& f, const Tensor& like) {
    with_chunks<T>(f.shape, is_aligned(f.x) && is_aligned(f.y), [&](auto chunks) { forward(f, chunks, like); });
  }

  template <class T, bool channels_last, int size>
  static void forward(const Forward<T>& f, const Chunks<channels_last, size>& chunks, const Tensor& like) {
    using A = computing_t<T>;
    const Tensor table = scratch(like, 2 * chunks.count * chunks.channels, ScalarType::Double);
    const Tensor coefficients = scratch(like, 2 * chunks.channels, computing_type(like.scalar_type()));
    launch(chunk_kernel<MomentsOf<T>, channels_last, size>, chunks.grid(), MomentsOf<T>{f.x}, chunks, pairs_of(table));
    launch(statistics_kernel<T, channels_last, size>, blocks_for(chunks.channels * kWarp), f, chunks, pairs_of(table),
           coefficients.mutable_data_ptr<A>());
    launch(result_kernel<T, channels_last, size>, chunks.grid(), f, chunks, coefficients.const_data_ptr<A>());
  }

  template <class T>
  static void backward(const Backward<T>& b, const Tensor& like) {
    const bool aligned = is_aligned(b.grad) && is_aligned(b.x) && is_aligned(b.grad_x);
    with_chunks<T>(b.shape, aligned, [&](auto chunks) { backward(b, chunks, like); });
  }

  template <class T, bool channels_last, int size>
  static void backward(const Backward<T>& b, const Chunks<channels_last, size>& chunks, const Tensor& like) {
    using A = computing_t<T>;
    const Tensor table = scratch(like, 2 * chunks.count * chunks.channels, ScalarType::Double);
    const Tensor coefficients = scratch(like, 3 * chunks.channels, computing_type(like.scalar_type()));
    launch(chunk_kernel<ProductsOf<T>, channels_last, size>, chunks.grid(), ProductsOf<T>{b.grad, b.x}, chunks, pairs_of(table));
    launch(coefficients_kernel<T, channels_last, size>, blocks_for(chunks.channels * kWarp), b, chunks, pairs_of(table),
           coefficients.mutable_data_ptr<A>());
    if (b.grad_x)
      launch(gradient_kernel<T, channels_last, size>, chunks.grid(), b, chunks, coefficients.const_data_ptr<A>());
  }
};

}  // namespace
}  // namespace batch_norm
}  // namespace bcos

STABLE_TORCH_LIBRARY_IMPL(bcos_kernels, BCOS_CUDA_KEY, m) {
  m.impl("batch_norm", TORCH_BOX(&bcos::batch_norm::forward<bcos::batch_norm::Cuda>));
  m.impl("batch_norm_backward", TORCH_BOX(&bcos::batch_norm::backward<bcos::batch_norm::Cuda>));
}
