// The operators on the CPU: loops in memory order, shared between threads so that y and the gradient of x do not depend on
// how many; sums over positions, of filters and of B, may differ in rounding.
#include <algorithm>

#include "operators.h"
#include "fused_layer.h"
#include "grouped_layer.h"
#include "instruction_set.h"

namespace bcos {
namespace {

// Tasks per thread such that starting one is worth it (the order of ATen's own grain size).
int64_t grain(int64_t elements_per_task) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements_per_task));
}

// ---- Loops over a range of tasks, for each instruction set ----

struct FilterRange {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
    for (int64_t filter = begin; filter < end; ++filter) {
      const int64_t first = filter * f.length;
      double squares = 0, products = 0;
#pragma omp simd reduction(+ : squares, products)
      for (int64_t i = first; i < first + f.length; ++i) {
        const FilterSums term = f.term(i);
        squares += term.squares, products += term.products;
      }
      const FilterSums sums{squares, products};
      const double factor = f.factor(sums);
#pragma omp simd
      for (int64_t i = first; i < first + f.length; ++i) f.write(sums, factor, i);
    }
  }
};

struct ReduceItems {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
    for (int64_t item = begin; item < end; ++item) reduce_item<int64_t>(f, item);
  }
};

struct ReducePixels {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
    const Extent e = f.extent;
    int64_t n = begin / e.pixels, s = begin % e.pixels;
    for (int64_t pixel = begin; pixel < end; ++pixel, ++s) {
      if (s == e.pixels) s = 0, ++n;
      for (int64_t g = 0; g < e.groups; ++g) {
        const auto context = f.context(n, g, s);
        typename F::A sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = g * e.width; c < (g + 1) * e.width; ++c) sum += f.term(n, c, s, context);
        f.finish(n, g, s, context, sum);
      }
    }
  }
};

constexpr int64_t kTile = 512;  // pixels whose sums stay in the first-level cache

struct ReduceTiles {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
    const Extent e = f.extent;
    const int64_t tiles = (e.pixels + kTile - 1) / kTile;
    typename F::A sums[kTile];
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / tiles / e.groups, g = task / tiles % e.groups;
      const int64_t first = task % tiles * kTile, count = std::min(kTile, e.pixels - first);
      for (int64_t i = 0; i < count; ++i) sums[i] = 0;
      for (int64_t c = g * e.width; c < (g + 1) * e.width; ++c) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) sums[i] += f.term(n, c, first + i, f.context(n, g, first + i));
      }
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) f.finish(n, g, first + i, f.context(n, g, first + i), sums[i]);
    }
  }
};

struct ApplyItems {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
    for (int64_t item = begin; item < end; ++item) apply_item(f, item);
  }
};

struct ApplyPixels {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
    const Extent e = f.extent;
    int64_t n = begin / e.pixels, s = begin % e.pixels;
    for (int64_t pixel = begin; pixel < end; ++pixel, ++s) {
      if (s == e.pixels) s = 0, ++n;
      for (int64_t g = 0; g < e.groups; ++g) {
        const auto context = f.context(n, g, s);
#pragma omp simd
        for (int64_t c = g * e.width; c < (g + 1) * e.width; ++c) f.apply(n, c, s, context);
      }
    }
  }
};

struct ApplyPlanes {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
    const Extent e = f.extent;
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t n = plane / e.channels(), c = plane % e.channels(), g = c / e.width;
#pragma omp simd
      for (int64_t s = 0; s < e.pixels; ++s) f.apply(n, c, s, f.context(n, g, s));
    }
  }
};

struct WindowRows {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
    constexpr int kLanes = 8;
    for (int64_t row = begin; row < end; ++row) {
      int64_t column = 0;
      for (; column + kLanes <= f.columns; column += kLanes) f.template at<kLanes>(row / f.rows, row % f.rows, column);
      for (; column < f.columns; ++column) window_item(f, row * f.columns + column);
    }
  }
};

struct AddElements {
  template <class F>
  static BCOS_INLINE void run(const F* functor, int64_t begin, int64_t end) {
    const F f = *functor;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) f.at(i);
  }
};

struct Cpu {
  // Layers that our own products take from end to end.
  static std::optional<Responses> responses(const Problem& problem, const Tensor& x, const Tensor& weight,
                                            const std::optional<Tensor>& exponent, double eps) {
    if (problem.type == ScalarType::Float) return responses_of<float>(problem, x, weight, exponent, eps);
    if (problem.type != ScalarType::BFloat16) return std::nullopt;
    const bool planes = in_planes(problem, x, weight);
    auto all = responses_of<torch::headeronly::BFloat16>(problem, planes ? channels_last(x) : x, weight, exponent, eps);
    if (all && planes) {
      all->y = as_contiguous(all->y);
      if (problem.max_out > 1) all->winner = as_contiguous(all->winner);
    }
    return all;
  }
  static std::optional<Gradients> gradients(const Problem& problem, const Tensor& grad, const Tensor& x,
                                            const Tensor& weight, const std::optional<Tensor>& exponent, const Tensor& y,
                                            const Tensor& norm, const Tensor& winner, const Needs& needs) {
    if (problem.type == ScalarType::Float)
      return gradients_of<float>(problem, grad, x, weight, exponent, y, norm, winner, needs);
    if (problem.type != ScalarType::BFloat16) return std::nullopt;
    const bool planes = in_planes(problem, x, weight);
    auto all = gradients_of<torch::headeronly::BFloat16>(problem, grad, planes ? channels_last(x) : x, weight, exponent, y, norm,
                                                         winner, needs);
    if (all && planes && needs.x) all->x = as_contiguous(all->x);
    return all;
  }

  // A layer in bfloat16 that is contiguous beyond doubt, so that y is to be: to change the layout of x and y costs less than
  // what is left otherwise, to convert both to float32 and multiply there.
  static bool in_planes(const Problem& problem, const Tensor& x, const Tensor& weight) {
    const auto in_planes = [](const Tensor& t) {
      int64_t step = 1;
      for (int i = 3; i >= 0; step *= t.size(i), --i)
        if (t.stride(i) != step) return false;
      return t.numel() > 0;
    };
    return problem.is_scaled() && !problem.is_linear && cpu::bfloat16_products() && in_planes(x) && in_planes(weight);
  }
  static Tensor channels_last(const Tensor& t) {
    return torch::stable::contiguous(t, torch::headeronly::MemoryFormat::ChannelsLast);
  }

  template <class T>
  static std::optional<Responses> responses_of(const Problem& problem, const Tensor& x, const Tensor& weight,
                                               const std::optional<Tensor>& exponent, double eps) {
    if (auto all = cpu::grouped_responses<T>(problem, x, weight, exponent, eps)) return all;
    return cpu::fused_responses<T>(problem, x, weight, exponent, eps);
  }
  template <class T>
  static std::optional<Gradients> gradients_of(const Problem& problem, const Tensor& grad, const Tensor& x, const Tensor& weight,
                                               const std::optional<Tensor>& exponent, const Tensor& y, const Tensor& norm,
                                               const Tensor& winner, const Needs& needs) {
    if (auto all = cpu::grouped_gradients<T>(problem, grad, x, weight, exponent, y, norm, needs)) return all;
    return cpu::fused_gradients<T>(problem, grad, x, weight, exponent, y, norm, winner, needs);
  }

  // Few CPUs have products in half precision, and PyTorch's are some hundred times slower than float32 where they are
  // missing; in float32 every result is rounded once.
  static bool widens(ScalarType type) { return is_half(type); }

  // So many that a piece of x, l and y stays in the last-level cache, if there are several such pieces and a piece is
  // much larger than the filters, which each one reads again.
  static int64_t piece(const Problem& problem) {
    constexpr int64_t kBytes = 8 << 20;
    const int64_t size = problem.type == ScalarType::Double ? 8 : 4, length = problem.length();
    const int64_t filters = problem.out_channels * problem.max_out;
    const int64_t bytes = size * problem.batch * (problem.in_channels * problem.height * problem.width +
                                                  filters * problem.rows * problem.columns);
    const int64_t weight = size * filters * problem.in_channels / problem.groups * problem.kernel[0] * problem.kernel[1];
    if (bytes < 2 * kBytes || weight > kBytes / 8) return length;
    const int64_t count = std::max<int64_t>(1, length * kBytes / bytes);
    // with one thread PyTorch gives small batches to a slower convolution
    return problem.is_linear || count >= 16 || torch::stable::get_num_threads() > 1 ? count : length;
  }

  static constexpr bool kWholeWindows = false;

  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <class Range, class F>
  static void share(const F& f, int64_t tasks, int64_t elements_per_task) {
    torch::stable::parallel_for(0, tasks, grain(elements_per_task),
                                [&](int64_t begin, int64_t end) { cpu::run<Range>(&f, begin, end); });
  }

  template <class F>
  static void add(const F& f) {
    share<AddElements>(f, f.size, 1);
  }

  template <class F>
  static void filters(const F& f) {
    share<FilterRange>(f, f.filters, f.length);
  }

  template <class F>
  static void reduce(const F& f) {
    const Extent e = f.extent;
    if constexpr (F::layout == Layout::kStrided)
      share<ReduceItems>(f, e.batch * e.groups * e.pixels, e.width);
    else if constexpr (F::layout == Layout::kChannels)
      share<ReducePixels>(f, e.batch * e.pixels, e.channels());
    else
      share<ReduceTiles>(f, e.batch * e.groups * ((e.pixels + kTile - 1) / kTile), std::min(kTile, e.pixels) * e.width);
  }

  template <class F>
  static void apply(const F& f) {
    const Extent e = f.extent;
    if constexpr (F::layout == Layout::kStrided)
      share<ApplyItems>(f, e.batch * e.channels() * e.pixels, 1);
    else if constexpr (F::layout == Layout::kChannels)
      share<ApplyPixels>(f, e.batch * e.pixels, e.channels());
    else
      share<ApplyPlanes>(f, e.batch * e.channels(), e.pixels);
  }

  template <class F>
  static void windows(const F& f) {
    share<WindowRows>(f, f.planes * f.rows, f.columns * f.window.kernel);
  }
};

}  // namespace
}  // namespace bcos

STABLE_TORCH_LIBRARY_IMPL(bcos_kernels, CPU, m) {
  m.impl("conv2d", TORCH_BOX(&bcos::conv2d<bcos::Cpu>));
  m.impl("conv2d_backward", TORCH_BOX(&bcos::conv2d_backward<bcos::Cpu>));
  m.impl("linear", TORCH_BOX(&bcos::linear<bcos::Cpu>));
  m.impl("linear_backward", TORCH_BOX(&bcos::linear_backward<bcos::Cpu>));
}
