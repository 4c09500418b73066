// Uncentred batch norm on the CPU: one pass over memory for the statistics, one for the result.
//
// The tensor is cut into blocks that stay in the second-level cache; the shape alone says where, and their results are
// merged in one order, so nothing depends on the number of threads. In a block the mean comes first, then the squares
// about it: no cancellation where the mean is much larger than the spread.
//
// The loops over a block are compiled for several instruction sets. Only they are: a header's inline function compiled
// with -mavx2 could be the copy that the linker keeps for everyone.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "../batch_norm.h"
#include "instruction_set.h"

namespace bcos {
namespace batch_norm {
namespace {
using cpu::run;

// ---- Loops over one block: Body::run, inlined into a function for each instruction set ----

// A block is `rows` rows of `width` channels. Where these are few, `fold` rows (a power of two) are taken as one.
struct Block {
  int64_t rows, width, fold;
  int64_t folded() const { return width * fold; }
};

// f.add<n>(i, step, c) adds the elements i, i + step, ... (n of them) to the sums at c.
template <class F>
BCOS_INLINE void reduce(const F f, const Block b) {
  constexpr int kRows = 8;  // loads for each load and store of the sums
  const int64_t step = b.fold * b.width, full = b.rows / b.fold;
  int64_t row = 0;
  for (; row + kRows <= full; row += kRows) {
#pragma omp simd
    for (int64_t c = 0; c < step; ++c) f.template add<kRows>(row * step + c, step, c);
  }
  for (; row < full; ++row) {
#pragma omp simd
    for (int64_t c = 0; c < step; ++c) f.template add<1>(row * step + c, step, c);
  }
  for (row = full * b.fold; row < b.rows; ++row) {
#pragma omp simd
    for (int64_t c = 0; c < b.width; ++c) f.template add<1>(row * b.width + c, b.width, c);
  }
}

// f.set(i, c) for each element i of a block; c is its place in arrays of fold * width.
template <class F>
BCOS_INLINE void apply(const F f, const Block b) {
  const int64_t step = b.fold * b.width, full = b.rows / b.fold;
  for (int64_t row = 0; row < full; ++row) {
#pragma omp simd
    for (int64_t c = 0; c < step; ++c) f.set(row * step + c, c);
  }
  for (int64_t row = full * b.fold; row < b.rows; ++row) {
#pragma omp simd
    for (int64_t c = 0; c < b.width; ++c) f.set(row * b.width + c, c);
  }
}

// The sums of `fold` rows side by side, added up into the first; pairwise.
template <class A>
BCOS_INLINE void unfold(A* sums, const Block b) {
  for (int64_t half = b.fold / 2; half > 0; half /= 2) {
    const int64_t size = half * b.width;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) sums[i] += sums[i + size];
  }
}

template <class A>
BCOS_INLINE void set_zero(A* values, int64_t size) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) values[i] = A(0);
}

template <class A>
BCOS_INLINE void copy(const A* from, A* to, int64_t size) {
#pragma omp simd
  for (int64_t i = 0; i < size; ++i) to[i] = from[i];
}

template <class T, class A>
struct Sum {
  const T* x;
  A* sums;
  template <int n>
  BCOS_INLINE void add(int64_t i, int64_t step, int64_t c) const {
    A sum = widened(x[i]);
    for (int r = 1; r < n; ++r) sum += widened(x[i + r * step]);
    sums[c] += sum;
  }
};

template <class T, class A>
struct CentredSums {
  const T* x;
  const A* centre;
  A *first, *second;
  template <int n>
  BCOS_INLINE void add(int64_t i, int64_t step, int64_t c) const {
    const A d = widened(x[i]) - centre[c];
    A sum = d, squares = d * d;
    for (int r = 1; r < n; ++r) {
      const A e = widened(x[i + r * step]) - centre[c];
      sum += e, squares += e * e;
    }
    first[c] += sum, second[c] += squares;
  }
};

// A centre near the mean, and the sums of (x - centre) and its square: the rounding of the centre does no harm.
struct BlockStatistics {
  template <class T, class A>
  static BCOS_INLINE void run(const T* x, Block b, A* scratch, A* centre_out, A* first_out, A* second_out) {
    const int64_t step = b.fold * b.width;
    A *centre = scratch, *first = centre + step, *second = first + step;
    set_zero(centre, 3 * step);
    reduce(Sum<T, A>{x, centre}, b);
    unfold(centre, b);
    const A rows = static_cast<A>(b.rows);
#pragma omp simd
    for (int64_t c = 0; c < b.width; ++c) centre[c] /= rows;
    for (int64_t done = b.width; done < step; done *= 2) copy(centre, centre + done, done);
    reduce(CentredSums<T, A>{x, centre, first, second}, b);
    unfold(first, b);
    unfold(second, b);
    copy(centre, centre_out, b.width);
    copy(first, first_out, b.width);
    copy(second, second_out, b.width);
  }
};

template <class T, class A>
struct ProductSums {
  const T *grad, *x;
  A* sums;
  template <int n>
  BCOS_INLINE void add(int64_t i, int64_t step, int64_t c) const {
    A sum = widened(grad[i]) * widened(x[i]);
    for (int r = 1; r < n; ++r) sum += widened(grad[i + r * step]) * widened(x[i + r * step]);
    sums[c] += sum;
  }
};

struct BlockProducts {
  template <class T, class A>
  static BCOS_INLINE void run(const T* grad, const T* x, Block b, A* scratch, A* products_out, A* grads_out) {
    if (products_out) {
      set_zero(scratch, b.fold * b.width);
      reduce(ProductSums<T, A>{grad, x, scratch}, b);
      unfold(scratch, b);
      copy(scratch, products_out, b.width);
    }
    if (grads_out) {
      set_zero(scratch, b.fold * b.width);
      reduce(Sum<T, A>{grad, scratch}, b);
      unfold(scratch, b);
      copy(scratch, grads_out, b.width);
    }
  }
};

template <class T, class A>
struct Scaled {
  const T* x;
  const A* factor;
  T* y;
  BCOS_INLINE void set(int64_t i, int64_t c) const { y[i] = narrowed<T>(widened(x[i]) * factor[c]); }
};

template <class T, class A>
struct ScaledWithBias {
  const T* x;
  const A *factor, *bias;
  T* y;
  BCOS_INLINE void set(int64_t i, int64_t c) const {
    y[i] = narrowed<T>(widened(x[i]) * factor[c] + bias[c]);
  }
};

struct BlockResult {
  template <class T, class A>
  static BCOS_INLINE void run(const T* x, const A* factor, const A* bias, Block b, T* y) {
    if (bias)
      apply(ScaledWithBias<T, A>{x, factor, bias, y}, b);
    else
      apply(Scaled<T, A>{x, factor, y}, b);
  }
};

template <class T, class A>
struct Gradient {
  const T *grad, *x;
  const A *factor, *pull, *mean;
  T* out;
  BCOS_INLINE void set(int64_t i, int64_t c) const {
    out[i] = narrowed<T>(widened(grad[i]) * factor[c] + (widened(x[i]) - mean[c]) * pull[c]);
  }
};

struct BlockGradient {
  template <class T, class A>
  static BCOS_INLINE void run(const T* grad, const T* x, const A* factor, const A* pull, const A* mean, Block b,
                              T* out) {
    apply(Gradient<T, A>{grad, x, factor, pull, mean, out}, b);
  }
};

// ---- Results of blocks, one row of a table for each, merged in double and in order ----

struct AddRow {
  template <class A>
  static BCOS_INLINE void run(const A* row, int64_t size, double* sums) {
#pragma omp simd
    for (int64_t c = 0; c < size; ++c) sums[c] += static_cast<double>(row[c]);
  }
};

// Sum of x from the sum of (x - centre)
struct AddMean {
  template <class A>
  static BCOS_INLINE void run(const A* centre, const A* first, double count, int64_t size, double* sums) {
#pragma omp simd
    for (int64_t c = 0; c < size; ++c)
      sums[c] += count * static_cast<double>(centre[c]) + static_cast<double>(first[c]);
  }
};

// Sum of (x - mean)^2 = ((x - centre) + shift)^2, shift = centre - mean
struct AddSquares {
  template <class A>
  static BCOS_INLINE void run(const A* centre, const A* first, const A* second, double count, const double* mean,
                              int64_t size, double* sums) {
#pragma omp simd
    for (int64_t c = 0; c < size; ++c) {
      const double shift = static_cast<double>(centre[c]) - mean[c];
      sums[c] += static_cast<double>(second[c]) + shift * (2 * static_cast<double>(first[c]) + count * shift);
    }
  }
};

// ---- The blocks of a tensor ----

// Tasks per thread such that starting one is worth it (the order of ATen's own grain size).
int64_t grain(int64_t elements_per_task) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements_per_task));
}

// NHWC: one run of N * H * W rows of C. NCHW: N * C runs, the planes, of H * W rows of 1. A run is cut into blocks.
struct Blocks {
  Shape shape;
  int64_t run_rows, width, fold, block_rows, blocks_per_run, count;
  int64_t table_rows;  // the table has C columns: what the blocks say of each channel

  struct Place {
    Block block;
    int64_t first;    // element
    int64_t channel;  // of its first column
    int64_t entry;    // in the table
  };

  Blocks(const Shape& s, int64_t element_size) : shape(s) {
    constexpr int64_t kWidth = 256, kBytes = 64 * 1024, kLeastRows = 32;
    const int64_t runs = s.channels_last ? 1 : s.batch * s.channels;
    run_rows = s.channels_last ? s.count() : s.pixels;
    width = s.channels_last ? s.channels : 1;
    const int64_t wanted = std::min(kWidth / width, std::max<int64_t>(8, run_rows / 8));
    for (fold = 1; 2 * fold <= wanted;) fold *= 2;
    block_rows = fold * std::max(kLeastRows, kBytes / (element_size * fold * width) / 8 * 8);
    blocks_per_run = (run_rows + block_rows - 1) / block_rows;
    count = runs * blocks_per_run;
    table_rows = s.channels_last ? blocks_per_run : s.batch * blocks_per_run;
  }

  int64_t folded() const { return fold * width; }
  int64_t rows_of(int64_t i) const { return std::min(block_rows, run_rows - i * block_rows); }  // i-th of a run

  Place at(int64_t task) const {
    const int64_t run = task / blocks_per_run, i = task % blocks_per_run;
    const int64_t n = shape.channels_last ? 0 : run / shape.channels;
    const int64_t c = shape.channels_last ? 0 : run % shape.channels;
    return {{rows_of(i), width, fold},
            (run * run_rows + i * block_rows) * width,
            c,
            (n * blocks_per_run + i) * shape.channels + c};
  }

  template <class F>
  void for_each(const F& f) const {
    torch::stable::parallel_for(0, count, grain(std::min(block_rows, run_rows) * width), f);
  }

  // f(begin, end): channels, each of which runs through the table's rows
  template <class F>
  void for_channels(const F& f) const {
    torch::stable::parallel_for(0, shape.channels, grain(8 * table_rows), f);
  }
};

// Per-channel numbers of a block, repeated `fold` times; for NHWC they are the same for every block.
template <class A>
class Repeated {
 public:
  Repeated(const Blocks& blocks, const A* values)
      : blocks_(blocks), values_(values), data_(values ? blocks.folded() : 0) {}

  const A* at(const typename Blocks::Place& place) {
    if (!values_) return nullptr;
    if (place.channel != channel_) {
      channel_ = place.channel;
      for (int64_t i = 0; i < blocks_.fold; ++i)
        std::copy_n(values_ + channel_, blocks_.width, data_.begin() + i * blocks_.width);
    }
    return data_.data();
  }

 private:
  const Blocks& blocks_;
  const A* values_;
  std::vector<A> data_;
  int64_t channel_ = -1;
};

struct Cpu {
  struct Guard {
    explicit Guard(const Tensor&) {}
  };

  template <class T>
  static void statistics(const Forward<T>& f, const Blocks& blocks) {
    using A = computing_t<T>;
    const int64_t channels = f.shape.channels, size = blocks.table_rows * channels;
    const std::unique_ptr<A[]> table(new A[3 * size]);
    A *centres = table.get(), *firsts = centres + size, *seconds = firsts + size;
    // backwards: the next pass begins where this one ends, in the cache
    blocks.for_each([&](int64_t begin, int64_t end) {
      std::vector<A> scratch(3 * blocks.folded());
      for (int64_t task = end - 1; task >= begin; --task) {
        const auto place = blocks.at(task);
        run<BlockStatistics>(f.x + place.first, place.block, scratch.data(), centres + place.entry,
                             firsts + place.entry, seconds + place.entry);
      }
    });
    blocks.for_channels([&](int64_t begin, int64_t end) {
      const int64_t width = end - begin;
      const double total = static_cast<double>(f.shape.count());
      std::vector<double> means(width), squares(width);
      const auto count = [&](int64_t row) { return static_cast<double>(blocks.rows_of(row % blocks.blocks_per_run)); };
      for (int64_t row = 0; row < blocks.table_rows; ++row) {
        const int64_t at = row * channels + begin;
        run<AddMean>(static_cast<const A*>(centres + at), static_cast<const A*>(firsts + at), count(row), width,
                     means.data());
      }
      for (double& mean : means) mean /= total;
      for (int64_t row = 0; row < blocks.table_rows; ++row) {
        const int64_t at = row * channels + begin;
        run<AddSquares>(static_cast<const A*>(centres + at), static_cast<const A*>(firsts + at),
                        static_cast<const A*>(seconds + at), count(row), static_cast<const double*>(means.data()),
                        width, squares.data());
      }
      for (int64_t i = 0; i < width; ++i) {
        f.mean[begin + i] = static_cast<A>(means[i]);
        f.var[begin + i] = static_cast<A>(squares[i] / total);
      }
    });
  }

  template <class T>
  static void forward(const Forward<T>& f, const Tensor&) {
    using A = computing_t<T>;
    const Blocks blocks(f.shape, sizeof(T));
    statistics(f, blocks);
    std::vector<A> factor(f.shape.channels);
    for (int64_t c = 0; c < f.shape.channels; ++c)
      factor[c] = (f.weight ? f.weight[c] : A(1)) / std::sqrt(f.var[c] + f.eps);
    blocks.for_each([&](int64_t begin, int64_t end) {
      Repeated<A> factors(blocks, factor.data()), biases(blocks, f.bias);
      for (int64_t task = begin; task < end; ++task) {
        const auto place = blocks.at(task);
        run<BlockResult>(f.x + place.first, factors.at(place), biases.at(place), place.block, f.y + place.first);
      }
    });
  }

  template <class T>
  static void backward(const Backward<T>& b, const Tensor&) {
    using A = computing_t<T>;
    const Blocks blocks(b.shape, sizeof(T));
    const int64_t channels = b.shape.channels, size = blocks.table_rows * channels;
    const bool need_products = (b.grad_x && !b.detach) || b.grad_weight;
    const std::unique_ptr<A[]> table(new A[2 * size]);
    A *products = need_products ? table.get() : nullptr, *grads = b.grad_bias ? table.get() + size : nullptr;
    // backwards: the next pass begins where this one ends, in the cache
    blocks.for_each([&](int64_t begin, int64_t end) {
      std::vector<A> scratch(blocks.folded());
      for (int64_t task = end - 1; task >= begin; --task) {
        const auto place = blocks.at(task);
        run<BlockProducts>(b.grad + place.first, b.x + place.first, place.block, scratch.data(),
                           products ? products + place.entry : nullptr, grads ? grads + place.entry : nullptr);
      }
    });
    const auto merged = [&](const A* rows) {
      std::vector<double> sums(rows ? channels : 0);
      if (rows)
        blocks.for_channels([&](int64_t begin, int64_t end) {
          for (int64_t row = 0; row < blocks.table_rows; ++row)
            run<AddRow>(rows + row * channels + begin, end - begin, sums.data() + begin);
        });
      return sums;
    };
    if (b.grad_bias) {
      const std::vector<double> sums = merged(grads);
      for (int64_t c = 0; c < channels; ++c) b.grad_bias[c] = static_cast<A>(sums[c]);
    }
    const std::vector<double> sums = merged(products);  // empty where not needed
    std::vector<A> factor(channels), pull(b.detach ? 0 : channels);
    for (int64_t c = 0; c < channels; ++c) {
      const double inverse = 1 / std::sqrt(static_cast<double>(b.var[c]) + static_cast<double>(b.eps));
      const double scale = (b.weight ? static_cast<double>(b.weight[c]) : 1.0) * inverse;
      if (b.grad_weight) b.grad_weight[c] = static_cast<A>(sums[c] * inverse);
      factor[c] = static_cast<A>(scale);
      if (b.grad_x && !b.detach)
        pull[c] = static_cast<A>(-scale * inverse * inverse * sums[c] / static_cast<double>(b.shape.count()));
    }
    if (!b.grad_x) return;
    blocks.for_each([&](int64_t begin, int64_t end) {
      Repeated<A> factors(blocks, factor.data()), means(blocks, b.mean);
      Repeated<A> pulls(blocks, b.detach ? nullptr : pull.data());
      for (int64_t task = begin; task < end; ++task) {
        const auto place = blocks.at(task);
        if (b.detach) {
          run<BlockResult>(b.grad + place.first, factors.at(place), static_cast<const A*>(nullptr), place.block,
                           b.grad_x + place.first);
          continue;
        }
        run<BlockGradient>(b.grad + place.first, b.x + place.first, factors.at(place), pulls.at(place),
                           means.at(place), place.block, b.grad_x + place.first);
      }
    });
  }
};

}  // namespace
}  // namespace batch_norm
}  // namespace bcos

STABLE_TORCH_LIBRARY_IMPL(bcos_kernels, CPU, m) {
  m.impl("batch_norm", TORCH_BOX(&bcos::batch_norm::forward<bcos::batch_norm::Cpu>));
  m.impl("batch_norm_backward", TORCH_BOX(&bcos::batch_norm::backward<bcos::batch_norm::Cpu>));
}
