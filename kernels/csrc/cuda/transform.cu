// The operators on NVIDIA GPUs, as passes around cuDNN's and cuBLAS' own: each pass over x or y reads and writes it once, in
// 16-byte words where it can (packs.h). No atomics, and sums in an order that shapes, strides and alignment decide: the same
// result in every run.
#include "launch.h"

#include "../operators.h"
#include "packs.h"

namespace bcos {
namespace cuda {
namespace {

// ---- Packs ----

// Packs, or elements, by their numbers, neighbours first.
template <Layout layout>
struct Numbers {
  Divisor inner, outer, width;  // packs of a pixel or a plane; pixels of an image or its planes; channels of a group
  int64_t groups;

  Numbers(const Extent& e, int pack)
      : inner((layout == Layout::kChannels ? e.channels() : e.pixels) / pack),
        outer(layout == Layout::kChannels ? e.pixels : e.channels()),
        width(e.width),
        groups(e.groups) {}

  // f(n, g, c, s) of a pack's first element
  template <class F>
  __device__ void at(uint32_t number, int pack, const F& f) const {
    const uint32_t run = inner.quotient(number), first = pack * inner.remainder(number, run);
    const uint32_t n = outer.quotient(run), rest = outer.remainder(run, n);
    const uint32_t c = layout == Layout::kChannels ? first : rest, s = layout == Layout::kChannels ? rest : first;
    f(n, groups == 1 ? 0 : width.quotient(c), c, s);
  }
};

template <class F>
__global__ void apply_packs_kernel(const F f, const Numbers<F::layout> numbers, uint32_t count) {
  constexpr int kSize = kPack<typename F::Element>;
  for (int64_t i = thread_number(); i < count; i += thread_count())
    numbers.at(static_cast<uint32_t>(i), kSize, [&](int64_t n, int64_t g, int64_t c, int64_t s) {
      apply(f, n, c, s, contexts(f, n, g, s));
    });
}

template <class A>
__device__ A sum_of_lanes(A value, int lanes) {  // the same in all of them; lanes: a power of 2, of one warp
  for (int other = lanes / 2; other > 0; other /= 2) value += __shfl_xor_sync(0xffffffffu, value, other);
  return value;
}

// Channels-last: some lanes of a warp, a power of 2, share a group's channels at one pixel.
template <class F>
__global__ void reduce_channels_kernel(const F f, Divisor pixels, Divisor groups, uint32_t items, int log2_lanes) {
  using A = typename F::A;
  constexpr int kSize = kPack<typename F::Element>;
  const int lanes = 1 << log2_lanes, lane = threadIdx.x & (lanes - 1), per_warp = kWarp >> log2_lanes;
  for (int64_t first = thread_number() / kWarp * per_warp; first < items; first += thread_count() / kWarp * per_warp) {
    const int64_t item = first + (threadIdx.x % kWarp >> log2_lanes);
    const bool exists = item < items;  // the others take part in the shuffles
    A sum = 0;
    uint32_t n = 0, g = 0, s = 0;
    if (exists) {
      const uint32_t pixel = groups.quotient(static_cast<uint32_t>(item));
      g = groups.remainder(static_cast<uint32_t>(item), pixel);
      n = pixels.quotient(pixel), s = pixels.remainder(pixel, n);
      const auto context = contexts(f, n, g, s);
      Lanes<A, kSize> sums = repeated<kSize>(A(0));
#pragma unroll 2
      for (int64_t c = lane * kSize; c < f.extent.width; c += lanes * kSize) {
        const Lanes<A, kSize> terms = term(f, n, g * f.extent.width + c, s, context);
#pragma unroll
        for (int i = 0; i < kSize; ++i) sums.at[i] += terms.at[i];
      }
#pragma unroll
      for (int i = 0; i < kSize; ++i) sum += sums.at[i];
    }
    sum = sum_of_lanes(sum, lanes);
    if (exists && lane == 0) f.finish(n, g, s, f.context(n, g, s), sum);
  }
}

constexpr int kSlices = kThreads / kWarp;

// Planes: the lanes of a warp take neighbouring packs of pixels, the warps of a block share the channels.
template <class F>
__global__ void reduce_planes_kernel(const F f, Divisor packs_of_plane, Divisor groups, uint32_t items) {
  using A = typename F::A;
  constexpr int kSize = kPack<typename F::Element>;
  __shared__ A sums[kSlices][kSize][kWarp];
  const int lane = threadIdx.x % kWarp, slice = threadIdx.x / kWarp;
  for (int64_t first = int64_t{blockIdx.x} * kWarp; first < items; first += int64_t{gridDim.x} * kWarp) {
    const bool exists = first + lane < items;
    const uint32_t item = exists ? static_cast<uint32_t>(first + lane) : 0, plane = packs_of_plane.quotient(item);
    const uint32_t s = kSize * packs_of_plane.remainder(item, plane), n = groups.quotient(plane), g = groups.remainder(plane, n);
    Lanes<A, kSize> mine = repeated<kSize>(A(0));
    if (exists) {
      const auto context = contexts(f, n, g, s);
#pragma unroll 2
      for (int64_t c = slice; c < f.extent.width; c += kSlices) {
        const Lanes<A, kSize> terms = term(f, n, g * f.extent.width + c, s, context);
#pragma unroll
        for (int i = 0; i < kSize; ++i) mine.at[i] += terms.at[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kSize; ++i) sums[slice][i][lane] = mine.at[i];
    __syncthreads();
    if (exists && slice < kSize) {  // a warp for each pixel of a pack
      A sum = 0;
      for (int other = 0; other < kSlices; ++other) sum += sums[other][slice][lane];
      f.finish(n, g, s + slice, f.context(n, g, s + slice), sum);
    }
    __syncthreads();  // before the sums are written anew
  }
}
static_assert(kSlices >= kPack<torch::headeronly::Half>, "a warp for each pixel of a pack");

// ---- Elements ----

template <class F>
__global__ void apply_kernel(const F f, const Numbers<F::layout> numbers, uint32_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count())
    numbers.at(static_cast<uint32_t>(i), 1,
               [&](int64_t n, int64_t g, int64_t c, int64_t s) { f.apply(n, c, s, f.context(n, g, s)); });
}

template <class F>
__global__ void apply_to_many_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) apply_item(f, i);
}

template <class F>
__global__ void windows_kernel(const F f, Divisor rows, Divisor columns, uint32_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) {
    const uint32_t item = static_cast<uint32_t>(i), line = columns.quotient(item), plane = rows.quotient(line);
    f.template at<1>(plane, rows.remainder(line, plane), columns.remainder(item, line));
  }
}

template <class F>
__global__ void many_windows_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) window_item(f, i);
}

// Index: 32 bits where the items' numbers fit, see group_item.
template <class Index, class F>
__global__ void reduce_kernel(const F f, int64_t items) {
  for (int64_t i = thread_number(); i < items; i += thread_count()) reduce_item(f, static_cast<Index>(i));
}

// The lanes of a warp take neighbouring pixels, the warps of a block share the channels.
template <class Index, class F>
__global__ void reduce_by_blocks_kernel(const F f, int64_t items) {
  using A = typename F::A;
  __shared__ A sums[kSlices][kWarp];
  const int lane = threadIdx.x % kWarp, slice = threadIdx.x / kWarp;
  for (int64_t first = int64_t{blockIdx.x} * kWarp; first < items; first += int64_t{gridDim.x} * kWarp) {
    const bool exists = first + lane < items;
    const GroupItem i = group_item(f, static_cast<Index>(exists ? first + lane : 0));
    const A context = f.context(i.n, i.g, i.s);
    sums[slice][lane] = exists ? partial_sum(f, i, context, slice, kSlices) : A(0);
    __syncthreads();
    if (exists && slice == 0) {
      A sum = 0;
      for (int other = 0; other < kSlices; ++other) sum += sums[other][lane];
      f.finish(i.n, i.g, i.s, context, sum);
    }
    __syncthreads();  // before the sums are written anew
  }
}

// Channels-last: the lanes of a warp read neighbouring channels of one pixel.
template <class Index, class F>
__global__ void reduce_by_warps_kernel(const F f, int64_t items) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t item = thread_number() / kWarp; item < items; item += thread_count() / kWarp) {  // whole warps at once
    const GroupItem i = group_item(f, static_cast<Index>(item));
    const typename F::A context = f.context(i.n, i.g, i.s);
    const typename F::A sum = sum_of_lanes(partial_sum(f, i, context, lane, kWarp), kWarp);
    if (lane == 0) f.finish(i.n, i.g, i.s, context, sum);
  }
}

// ---- Filters: a warp for each, or a block for each long one ----

constexpr int64_t kLongFilter = 1024;

__device__ FilterSums sum_of_warp(const FilterSums& sums) {
  return {sum_of_lanes(sums.squares, kWarp), sum_of_lanes(sums.products, kWarp)};
}

template <class F>
__device__ FilterSums filter_sums(const F& f, int64_t filter, int lane, int lanes) {
  const int64_t first = filter * f.length, end = first + f.length;
  FilterSums sums{0, 0};
#pragma unroll 4
  for (int64_t i = first + lane; i < end; i += lanes) {
    const FilterSums term = f.term(i);
    sums.squares += term.squares, sums.products += term.products;
  }
  return sum_of_warp(sums);
}

template <class F>
__device__ void write_filter(const F& f, int64_t filter, const FilterSums& sums, int lane, int lanes) {
  const int64_t first = filter * f.length, end = first + f.length;
  const double factor = f.factor(sums);
#pragma unroll 4
  for (int64_t i = first + lane; i < end; i += lanes) f.write(sums, factor, i);
}

template <class F>
__global__ void filters_kernel(const F f) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t filter = thread_number() / kWarp; filter < f.filters; filter += thread_count() / kWarp)
    write_filter(f, filter, filter_sums(f, filter, lane, kWarp), lane, kWarp);
}

template <class F>
__global__ void long_filters_kernel(const F f) {
  __shared__ FilterSums of_warps[kSlices];
  for (int64_t filter = blockIdx.x; filter < f.filters; filter += gridDim.x) {
    const FilterSums mine = filter_sums(f, filter, threadIdx.x, kThreads);
    if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = mine;
    __syncthreads();
    FilterSums sums{0, 0};
    for (int warp = 0; warp < kSlices; ++warp)
      sums.squares += of_warps[warp].squares, sums.products += of_warps[warp].products;
    write_filter(f, filter, sums, threadIdx.x, kThreads);
    __syncthreads();  // before the sums are written anew
  }
}

template <class F>
__global__ void add_kernel(const F f) {
  for (int64_t i = thread_number(); i < f.size; i += thread_count()) f.at(i);
}

struct Cuda {
  using Guard = cuda::Guard;
  static constexpr bool kWholeWindows = true;

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
    launch(add_kernel<F>, blocks_for(f.size), f);
  }

  template <class F>
  static void filters(const F& f) {
    if (f.filters == 0) return;
    if (f.length < kLongFilter)
      launch(filters_kernel<F>, blocks_for(f.filters * kWarp), f);
    else
      launch(long_filters_kernel<F>, blocks_for(f.filters * kThreads), f);
  }

  template <class F>
  static void reduce(const F& f) {
    const Extent& e = f.extent;
    const int64_t items = e.batch * e.groups * e.pixels;
    if (items == 0) return;
    if constexpr (CanPack<F>::value) {
      constexpr int kSize = kPack<typename F::Element>;
      if (packs(f)) {
        if constexpr (F::layout == Layout::kChannels) {
          int log2_lanes = 0;
          while (1 << log2_lanes < kWarp && (kSize << log2_lanes) < e.width) ++log2_lanes;
          return launch(reduce_channels_kernel<F>, few_blocks_for(items << log2_lanes), f, Divisor(e.pixels), Divisor(e.groups),
                        static_cast<uint32_t>(items), log2_lanes);
        } else {
          const int64_t count = items / kSize;
          return launch(reduce_planes_kernel<F>, blocks_for(count * kSlices), f, Divisor(e.pixels / kSize),
                        Divisor(e.groups), static_cast<uint32_t>(count));
        }
      }
    }
    with_index(items, [&](auto index) {
      using Index = decltype(index);
      if constexpr (F::layout == Layout::kChannels) {
        if (e.width >= kWarp) return launch(reduce_by_warps_kernel<Index, F>, blocks_for(items * kWarp), f, items);
      } else {
        if (e.width >= kSlices) return launch(reduce_by_blocks_kernel<Index, F>, blocks_for(items * kSlices), f, items);
      }
      launch(reduce_kernel<Index, F>, blocks_for(items), f, items);
    });
  }

  template <class F>
  static void apply(const F& f) {
    const Extent& e = f.extent;
    const int64_t items = e.batch * e.channels() * e.pixels;
    if (items == 0) return;
    if constexpr (CanPack<F>::value) {
      constexpr int kSize = kPack<typename F::Element>;
      if (packs(f))
        return launch(apply_packs_kernel<F>, blocks_for(items / kSize), f, Numbers<F::layout>(e, kSize),
                      static_cast<uint32_t>(items / kSize));
    }
    if (items <= kMostItems)
      launch(apply_kernel<F>, blocks_for(items), f, Numbers<F::layout>(e, 1), static_cast<uint32_t>(items));
    else
      launch(apply_to_many_kernel<F>, blocks_for(items), f, items);
  }

  template <class F>
  static void windows(const F& f) {
    const int64_t items = f.planes * f.rows * f.columns;
    if (items == 0) return;
    if (items <= kMostItems)
      launch(windows_kernel<F>, blocks_for(items), f, Divisor(f.rows), Divisor(f.columns), static_cast<uint32_t>(items));
    else
      launch(many_windows_kernel<F>, blocks_for(items), f, items);
  }

 private:
  template <class F>
  static void with_index(int64_t items, const F& f) {
    return items <= kMostItems ? f(uint32_t{}) : f(int64_t{});
  }
};

}  // namespace
}  // namespace cuda
}  // namespace bcos

STABLE_TORCH_LIBRARY_IMPL(bcos_kernels, BCOS_CUDA_KEY, m) {
  m.impl("conv2d", TORCH_BOX(&bcos::conv2d<bcos::cuda::Cuda>));
  m.impl("conv2d_backward", TORCH_BOX(&bcos::conv2d_backward<bcos::cuda::Cuda>));
  m.impl("linear", TORCH_BOX(&bcos::linear<bcos::cuda::Cuda>));
  m.impl("linear_backward", TORCH_BOX(&bcos::linear_backward<bcos::cuda::Cuda>));
}
