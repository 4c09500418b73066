// The operators on the CPU: loops in memory order, shared between threads so that the result does not depend on how many.
#include <algorithm>

#include "operators.h"

namespace bcos {
namespace {

// Tasks per thread such that starting one is worth it (the order of ATen's own grain size).
int64_t grain(int64_t elements_per_task) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements_per_task));
}

struct Cpu {
  static constexpr bool kTakesProblems = false;

  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <class F>
  static void filters(const F& f) {
    torch::stable::parallel_for(0, f.filters, grain(f.length), [&](int64_t begin, int64_t end) {
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
    });
  }

  template <class F>
  static void reduce(const F& f) {
    const Extent e = f.extent;
    if constexpr (F::layout == Layout::kStrided) {
      torch::stable::parallel_for(0, e.batch * e.groups * e.pixels, grain(e.width), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) reduce_item<int64_t>(f, item);
      });
    } else if constexpr (F::layout == Layout::kChannels) {
      torch::stable::parallel_for(0, e.batch * e.pixels, grain(e.channels()), [&](int64_t begin, int64_t end) {
        for (int64_t pixel = begin; pixel < end; ++pixel) {
          const int64_t n = pixel / e.pixels, s = pixel % e.pixels;
          for (int64_t g = 0; g < e.groups; ++g) {
            const auto context = f.context(n, g, s);
            typename F::A sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t c = g * e.width; c < (g + 1) * e.width; ++c) sum += f.term(n, c, s, context);
            f.finish(n, g, s, context, sum);
          }
        }
      });
    } else {
      constexpr int64_t kTile = 512;  // its sums stay in the first-level cache
      const int64_t tiles = (e.pixels + kTile - 1) / kTile;
      const int64_t tile_size = std::min(kTile, e.pixels);
      torch::stable::parallel_for(
          0, e.batch * e.groups * tiles, grain(tile_size * e.width), [&](int64_t begin, int64_t end) {
            typename F::A sums[kTile];
            for (int64_t task = begin; task < end; ++task) {
              const int64_t n = task / tiles / e.groups, g = task / tiles % e.groups;
              const int64_t first = task % tiles * kTile, count = std::min(kTile, e.pixels - first);
              std::fill_n(sums, count, typename F::A(0));
              for (int64_t c = g * e.width; c < (g + 1) * e.width; ++c) {
#pragma omp simd
                for (int64_t i = 0; i < count; ++i) sums[i] += f.term(n, c, first + i, f.context(n, g, first + i));
              }
              for (int64_t i = 0; i < count; ++i)
                f.finish(n, g, first + i, f.context(n, g, first + i), sums[i]);
            }
          });
    }
  }

  template <class F>
  static void apply(const F& f) {
    const Extent e = f.extent;
    if constexpr (F::layout == Layout::kStrided) {
      torch::stable::parallel_for(0, e.batch * e.channels() * e.pixels, grain(1), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) apply_item<int64_t>(f, item);
      });
    } else if constexpr (F::layout == Layout::kChannels) {
      torch::stable::parallel_for(0, e.batch * e.pixels, grain(e.channels()), [&](int64_t begin, int64_t end) {
        for (int64_t pixel = begin; pixel < end; ++pixel) {
          const int64_t n = pixel / e.pixels, s = pixel % e.pixels;
          for (int64_t g = 0; g < e.groups; ++g) {
            const auto context = f.context(n, g, s);
#pragma omp simd
            for (int64_t c = g * e.width; c < (g + 1) * e.width; ++c) f.apply(n, c, s, context);
          }
        }
      });
    } else {
      torch::stable::parallel_for(0, e.batch * e.channels(), grain(e.pixels), [&](int64_t begin, int64_t end) {
        for (int64_t plane = begin; plane < end; ++plane) {
          const int64_t n = plane / e.channels(), c = plane % e.channels(), g = c / e.width;
#pragma omp simd
          for (int64_t s = 0; s < e.pixels; ++s) f.apply(n, c, s, f.context(n, g, s));
        }
      });
    }
  }

  template <class F>
  static void windows(const F& f) {
    constexpr int kLanes = 8;
    torch::stable::parallel_for(0, f.planes * f.rows, grain(f.columns * f.window.kernel), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int64_t column = 0;
        for (; column + kLanes <= f.columns; column += kLanes) f.template at<kLanes>(row / f.rows, row % f.rows, column);
        for (; column < f.columns; ++column) window_item<int64_t>(f, row * f.columns + column);
      }
    });
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
