// The B-cos transform, item by item: the arithmetic and the index arithmetic that the CPU and the CUDA kernels share.
//
// Every tensor is seen as (N, C, S): S runs over the pixels of a plane, or over the rows of a linear layer. Between the
// vendor's convolutions and products the two operators are made of seven steps, each a functor here; the drivers in
// cpu/ and cuda/ only decide who computes which item:
//
//   UnitFilters   w            -> u = w / |w|                                             (reduction over a filter)
//   Energy        x            -> e(n,g,s) = sum of x^2 over the group's channels         (reduction over channels)
//   WindowSum     e            -> n(n,g,p,q) = sqrt(sum of e under the window + eps), one axis at a time
//   Respond       l, n         -> y = l (|l|/n)^(B-1), of the largest of M responses      (one item per element)
//   Pull          G, y, n      -> dL/dl, and r(n,g,s) = -(dL/dn) / n                      (reduction over channels)
//   WindowSum     r            -> t(n,g,h,w), the adjoint of the window sum
//   NormGradient  x, t         -> dL/dx -= x t                                            (one item per element)
//   Project       w, dL/du     -> dL/dw = (g - u <u, g>) / |w|                            (reduction over a filter)
//
// Half precision is computed in float32 and rounded once; indices are 64 bits wide. The derivation is in docs/maths.md.
#pragma once

#include "numbers.h"

namespace bcos {

// Which neighbours in memory are known at compile time to be one element apart.
enum class Layout { kStrided, kRows /* pixels: NCHW */, kChannels /* channels: NHWC */ };

// A tensor as (N, C, S); strides in elements. The compile-time stride of 1 is what lets a compiler vectorise.
template <class T, Layout layout>
struct View {
  T* data;
  int64_t batch_stride, channel_stride, pixel_stride;

  BCOS_HOST_DEVICE T& at(int64_t n, int64_t c, int64_t s) const {
    return data[n * batch_stride + (layout == Layout::kChannels ? c : c * channel_stride) +
                (layout == Layout::kRows ? s : s * pixel_stride)];
  }
};

struct Extent {
  int64_t batch, groups, width /* channels per group */, pixels;

  BCOS_HOST_DEVICE int64_t channels() const { return groups * width; }
  // position of (n, g, s) in a contiguous (N, G, S) tensor
  BCOS_HOST_DEVICE int64_t group_index(int64_t n, int64_t g, int64_t s) const { return (n * groups + g) * pixels + s; }
};

// ---- The formula ----

// kPlain: y = l (B = 1). kSquare: y = l c (B = 2, exact). kPower: y = l (c + delta)^(B-1), any B, one for each output or
// one for all; delta keeps the slope finite at c = 0.
enum class Power { kPlain, kSquare, kPower };

template <class A>
BCOS_HOST_DEVICE constexpr A cosine_offset() {
  return A(1e-6);
}

template <class A, Power power>
BCOS_HOST_DEVICE A scale_of(A cosine, A b) {
  if constexpr (power == Power::kSquare)
    return cosine;
  else
    return power_of(cosine + cosine_offset<A>(), b - A(1));
}

// What backward needs of l, from y and n alone.
template <class A>
struct Recovered {
  A scale;  // s
  A slope;  // (B-1) rho = d log s / d log c, rho = c / (c + delta)
  A log;    // of c + delta: d log s / dB
};

// c solves c (c + delta)^(B-1) = u = |y|/n. Beside c0 = u^(1/B), which it is without delta, that says t (t + e)^(B-1) = 1
// with t = c / c0 and e = delta / c0. In d = log2 t this is a root of f(d) = d + (B-1) log2(2^d + e), which is monotone,
// and convex for B >= 1 (concave below): from beyond the root Newton's steps approach it from one side and cannot
// overshoot. Dropping e, or t beside e, gives two bounds; the nearer is the start. For any B from 1/2 to 5 three steps
// reach float32's precision, and up to B = 20 seven that of float64.
template <class A>
BCOS_HOST_DEVICE A cosine_from(A u, A b) {
  constexpr A kLargest = A(1e38);
  constexpr int kSteps = sizeof(A) == 8 ? 7 : 3;
  const A start = power_of(u, ratio_of(A(1), b)), slope = b - 1;
  const A quotient = ratio_of(cosine_offset<A>(), start), e = quotient < kLargest ? quotient : kLargest;
  const A bound = -slope * log2_of(e);
  A d = (slope >= 0) == (bound < 0) ? bound : A(0);
  for (int i = 0; i < kSteps; ++i) {
    const A t = exp2_of(d);
    d -= ratio_of(d + slope * log2_of(t + e), 1 + slope * ratio_of(t, t + e));
  }
  return u > 0 && start < kLargest ? start * exp2_of(d) : u;  // 0, NaN, infinity
}

// The same with one step, where the offset is small beside the cosine: the scale is then u / c and no further power is
// needed. What the series leave out is below 6e-7 for e < kSmallOffset and B up to 4. A GPU's warp takes this way where all
// of its threads can. A CPU's vectors have the same choice in cpu/powers.h; its loops over elements have none.
constexpr float kSmallOffset = 1e-2f;

BCOS_HOST_DEVICE Recovered<float> recovered_beside_small_offset(float u, float b, float log2_start, float start, float e) {
  constexpr float kLog2 = 0.693147181f;
  const float slope = b - 1;
  const float step = ratio_of(slope * (e - 0.5f * e * e), 1 + ratio_of(slope, 1 + e));  // of log c, downwards
  const float c = start * (1 - step + 0.5f * step * step);
  const float rest = ratio_of(cosine_offset<float>(), c);
  return {ratio_of(u, c), slope * ratio_of(c, c + cosine_offset<float>()), log2_start * kLog2 - step + (rest - 0.5f * rest * rest)};
}

// u = |y| / n
template <class A, Power power>
BCOS_HOST_DEVICE Recovered<A> recovered(A u, A b) {
  if constexpr (power == Power::kSquare) {
    return {root_of(u), A(1), A(0)};
  } else {
#if defined(__CUDACC__) || defined(BCOS_CUDA_ON_CPU)
    if constexpr (sizeof(A) == sizeof(float)) {
      const float log2_start = ratio_of(log2_of(u), b), start = exp2_of(log2_start);
      const float e = ratio_of(cosine_offset<float>(), start);
      if (e < kSmallOffset && start < 1e30f && u < 1e30f) return recovered_beside_small_offset(u, b, log2_start, start, e);  // not NaN
    }
#endif
    constexpr A kLog2 = A(0.693147180559945309);
    const A c = cosine_from(u, b), offset = c + cosine_offset<A>();
    return {power_of(offset, b - 1), (b - 1) * ratio_of(c, offset), kLog2 * log2_of(offset)};
  }
}

// ---- Filters: one filter is `length` neighbouring elements; squares and products are summed in double precision, ----
// ---- so that no norm of a filter over- or underflows                                                             ----

struct FilterSums {
  double squares, products;
};

template <class W, class T>
struct UnitFilters {
  int64_t filters, length;
  const W* weight;
  T* unit;

  BCOS_HOST_DEVICE FilterSums term(int64_t i) const {
    const double w = static_cast<double>(weight[i]);
    return {w * w, 0};
  }
  // a filter of zeros has no direction and stays what it is
  BCOS_HOST_DEVICE double factor(const FilterSums& sums) const {
    return sums.squares > 0 ? 1 / std::sqrt(sums.squares) : 1;
  }
  BCOS_HOST_DEVICE void write(const FilterSums&, double factor, int64_t i) const {
    unit[i] = static_cast<T>(static_cast<computing_t<T>>(static_cast<double>(weight[i]) * factor));
  }
};

template <class W, class T>
struct Project {
  int64_t filters, length;
  const W* weight;
  const T* unit_gradient;
  W* gradient;

  BCOS_HOST_DEVICE FilterSums term(int64_t i) const {
    const double w = static_cast<double>(weight[i]);
    return {w * w, w * static_cast<double>(unit_gradient[i])};
  }
  BCOS_HOST_DEVICE double factor(const FilterSums& sums) const { return 1 / std::sqrt(sums.squares); }
  BCOS_HOST_DEVICE void write(const FilterSums& sums, double factor, int64_t i) const {
    const double along = static_cast<double>(weight[i]) * (sums.products / sums.squares);
    const double value = (static_cast<double>(unit_gradient[i]) - along) * factor;
    gradient[i] = static_cast<W>(sums.squares == 0 ? computing_t<W>(0) : static_cast<computing_t<W>>(value));
  }
};

// ---- Reductions over a group's channels: context(n,g,s), sum of term(n,c,s,context), finish(n,g,s,context,sum) ----

template <class T, Layout layout_>
struct Energy {
  using Element = T;
  using A = computing_t<T>;
  static constexpr Layout layout = layout_;
  Extent extent;
  View<const T, layout> x;
  A* out;      // (N, G, S)
  bool root;   // the window is one pixel: this is the norm already
  A eps;

  BCOS_HOST_DEVICE A context(int64_t, int64_t, int64_t) const { return A(0); }
  BCOS_HOST_DEVICE A term(int64_t n, int64_t c, int64_t s, A) const {
    const A value = widened(x.at(n, c, s));
    return value * value;
  }
  BCOS_HOST_DEVICE void finish(int64_t n, int64_t g, int64_t s, A, A sum) const {
    out[extent.group_index(n, g, s)] = root ? std::sqrt(sum + eps) : sum;
  }
};

// The channels are those of y; dL/dl has max_out times as many, zero but for the winners.
template <class T, Layout layout_, Power power, bool has_max_out, bool has_terms>
struct Pull {
  using Element = T;
  using A = computing_t<T>;
  static constexpr Layout layout = layout_;
  Extent extent;
  View<const T, layout> grad, y;
  View<T, layout> grad_lin;
  View<const uint8_t, layout> winner;
  View<A, layout> exponent_terms;  // G y log(c + delta), with has_terms
  int64_t max_out;
  const A* norm;  // (N, G, S)
  A* out;         // (N, G, S), or null where the gradient of x is not wanted or the scale is a constant
  A not_detached;  // 1, or 0 where the scale is a constant
  const A* exponent;  // B of each output, for kPower

  BCOS_HOST_DEVICE A context(int64_t n, int64_t g, int64_t s) const {
    return power == Power::kPlain ? A(1) : norm[extent.group_index(n, g, s)];
  }
  BCOS_HOST_DEVICE A term(int64_t n, int64_t c, int64_t s, A norm_here) const {
    const A g = widened(grad.at(n, c, s));
    A along_lin = g, along_norm = A(0);
    if constexpr (power != Power::kPlain) {
      const A value = widened(y.at(n, c, s));
      const Recovered<A> at = recovered<A, power>(std::fabs(value) / norm_here, power == Power::kPower ? exponent[c] : A(0));
      along_lin = g * at.scale * (A(1) + not_detached * at.slope);
      along_norm = g * value * at.slope;
      if constexpr (has_terms) exponent_terms.at(n, c, s) = g * value * at.log;
    }
    if constexpr (has_max_out) {
      const int64_t won = winner.at(n, c, s);
      for (int64_t m = 0; m < max_out; ++m)
        grad_lin.at(n, c * max_out + m, s) = narrowed<T>(m == won ? along_lin : A(0));
    } else {
      grad_lin.at(n, c, s) = narrowed<T>(along_lin);
    }
    return along_norm;
  }
  BCOS_HOST_DEVICE void finish(int64_t n, int64_t g, int64_t s, A norm_here, A sum) const {
    if (out) out[extent.group_index(n, g, s)] = sum / (norm_here * norm_here);
  }
};

// ---- Elementwise: context(n,g,s), then apply(n,c,s,context) for each of the group's channels ----

// The channels are those of y; lin has max_out times as many. Without MaxOut y may be lin itself.
template <class T, Layout layout_, Power power, bool has_max_out>
struct Respond {
  using Element = T;
  using A = computing_t<T>;
  static constexpr Layout layout = layout_;
  Extent extent;
  View<const T, layout> lin;
  View<T, layout> y;
  View<uint8_t, layout> winner;
  int64_t max_out;
  const A* norm;  // (N, G, S)
  const A* exponent;  // B of each output, for kPower

  BCOS_HOST_DEVICE A context(int64_t n, int64_t g, int64_t s) const {
    return power == Power::kPlain ? A(1) : norm[extent.group_index(n, g, s)];
  }
  BCOS_HOST_DEVICE void apply(int64_t n, int64_t c, int64_t s, A norm_here) const {
    A l;
    if constexpr (has_max_out) {
      int64_t won = 0;
      l = widened(lin.at(n, c * max_out, s));
      for (int64_t m = 1; m < max_out; ++m) {
        const A other = widened(lin.at(n, c * max_out + m, s));
        if (other > l || (other != other && l == l)) l = other, won = m;  // the first NaN wins, as in torch.max
      }
      winner.at(n, c, s) = static_cast<uint8_t>(won);
    } else {
      l = widened(lin.at(n, c, s));
    }
    if constexpr (power != Power::kPlain) l *= scale_of<A, power>(std::fabs(l) / norm_here, power == Power::kPower ? exponent[c] : A(0));
    y.at(n, c, s) = narrowed<T>(l);
  }
};

template <class T, Layout layout_>
struct NormGradient {
  using Element = T;
  using A = computing_t<T>;
  static constexpr Layout layout = layout_;
  Extent extent;
  View<const T, layout> x, linear_part;
  View<T, layout> out;
  const A* spread;  // (N, G, S)

  BCOS_HOST_DEVICE A context(int64_t n, int64_t g, int64_t s) const { return spread[extent.group_index(n, g, s)]; }
  BCOS_HOST_DEVICE void apply(int64_t n, int64_t c, int64_t s, A spread_here) const {
    out.at(n, c, s) =
        narrowed<T>(widened(linear_part.at(n, c, s)) - widened(x.at(n, c, s)) * spread_here);
  }
};

// ---- Sums over pieces ----

template <class A>
struct Add {
  int64_t size;
  const A* term;
  A* sum;

  BCOS_HOST_DEVICE void at(int64_t i) const { sum[i] += term[i]; }
};

// ---- Windows: sums along one axis of contiguous planes, at<lanes>(plane, row, column) for neighbouring columns ----
// A window's sum is that of its columns' sums. Several lanes give a CPU independent sums to work on at once; a CUDA
// thread takes one.

template <class Int>
struct AxisWindowOf {
  Int kernel, stride, padding, dilation;

  bool is_identity() const { return kernel == 1 && stride == 1 && padding == 0; }

  // Whether the elements' positions are first(at), first(at) + step()...; those that the source has
  template <bool transposed>
  BCOS_HOST_DEVICE bool steps() const {
    return !transposed || stride == 1;
  }
  template <bool transposed>
  BCOS_HOST_DEVICE Int first(Int at) const {
    return transposed ? at + padding : at * stride - padding;
  }
  template <bool transposed>
  BCOS_HOST_DEVICE Int step() const {
    return transposed ? -dilation : dilation;
  }

  // The source's position for the given element of the window of `at`, or -1. Transposed: of the window that has the pixel
  // `at` as that element, so that no two items write one place.
  template <bool transposed>
  BCOS_HOST_DEVICE Int position(Int at, Int element, Int source_size) const {
    if constexpr (transposed) {
      const Int start = at + padding - element * dilation;
      if (start < 0) return -1;
      const Int origin = stride == 1 ? start : start / stride;
      return origin < source_size && origin * stride == start ? origin : -1;
    } else {
      const Int pixel = at * stride - padding + element * dilation;
      return pixel < source_size ? pixel : -1;  // below 0: none either; the padding adds nothing
    }
  }
};
using AxisWindow = AxisWindowOf<int64_t>;

template <class A, int axis, bool transposed>
struct WindowSum {
  int64_t planes, rows, columns;  // of the output
  int64_t source_size;            // of the input, along the axis; along the other it is the output's
  AxisWindow window;
  const A* source;
  A* out;
  bool root;  // finish with sqrt(sum + eps)
  A eps;

  BCOS_HOST_DEVICE int64_t position(int64_t at, int64_t element) const {
    return window.template position<transposed>(at, element, source_size);
  }

  template <int lanes>
  BCOS_HOST_DEVICE void at(int64_t plane, int64_t row, int64_t column) const {
    A sums[lanes] = {};
    for (int64_t i = 0; i < window.kernel; ++i) {
      if constexpr (axis == 0) {
        const int64_t line = position(row, i);
        if (line < 0) continue;
        const A* values = source + (plane * source_size + line) * columns + column;
        for (int lane = 0; lane < lanes; ++lane) sums[lane] += values[lane];
      } else {
        const A* values = source + (plane * rows + row) * source_size;
        const int64_t first = window.stride == 1 ? column + (transposed ? window.padding - i * window.dilation
                                                                        : i * window.dilation - window.padding)
                                                 : -1;
        if (first >= 0 && first + lanes <= source_size) {
          for (int lane = 0; lane < lanes; ++lane) sums[lane] += values[first + lane];
        } else {
          for (int lane = 0; lane < lanes; ++lane) {
            const int64_t pixel = position(column + lane, i);
            if (pixel >= 0) sums[lane] += values[pixel];
          }
        }
      }
    }
    for (int lane = 0; lane < lanes; ++lane)
      out[(plane * rows + row) * columns + column + lane] = root ? std::sqrt(sums[lane] + eps) : sums[lane];
  }
};

// Both axes at once, for windows so small that reading a value for each element is cheaper than a pass in between; or one of
// them, where the other's window is one pixel.
template <class A, bool transposed>
struct WholeWindowSum {
  static constexpr int64_t kMostElements = 16;
  static constexpr int64_t kMostPositions = int64_t{1} << 29;  // along an axis: what is added to them stays in 32 bits
  int64_t planes, rows, columns;        // of the output
  int32_t source_rows, source_columns;  // of the input
  AxisWindowOf<int32_t> vertical, horizontal;
  const A* source;
  A* out;
  bool root;
  A eps;

  template <int lanes>
  BCOS_HOST_DEVICE void at(int64_t plane, int64_t row, int64_t column) const {
    static_assert(lanes == 1, "a GPU's thread takes one");
    const A* values = source + plane * source_rows * source_columns;
    const auto y = static_cast<int32_t>(row), x = static_cast<int32_t>(column);
    const bool steps = vertical.template steps<transposed>() && horizontal.template steps<transposed>();
    const A sum = steps ? sum_by_steps(values, y, x) : sum_by_positions(values, y, x);
    out[(plane * rows + row) * columns + column] = root ? std::sqrt(sum + eps) : sum;
  }

 private:
  BCOS_HOST_DEVICE A sum_by_steps(const A* values, int32_t row, int32_t column) const {
    const int32_t down = vertical.template step<transposed>(), across = horizontal.template step<transposed>();
    int32_t line = vertical.template first<transposed>(row);
    A sum = 0;
    for (int32_t i = 0; i < vertical.kernel; ++i, line += down) {
      if (static_cast<uint32_t>(line) >= static_cast<uint32_t>(source_rows)) continue;  // below 0 too
      const A* of_line = values + int64_t{line} * source_columns;
      int32_t pixel = horizontal.template first<transposed>(column);
      for (int32_t j = 0; j < horizontal.kernel; ++j, pixel += across)
        if (static_cast<uint32_t>(pixel) < static_cast<uint32_t>(source_columns)) sum += of_line[pixel];
    }
    return sum;
  }

  BCOS_HOST_DEVICE A sum_by_positions(const A* values, int32_t row, int32_t column) const {
    A sum = 0;
    for (int32_t i = 0; i < vertical.kernel; ++i) {
      const int32_t line = vertical.template position<transposed>(row, i, source_rows);
      if (line < 0) continue;
      const A* of_line = values + int64_t{line} * source_columns;
      for (int32_t j = 0; j < horizontal.kernel; ++j) {
        const int32_t pixel = horizontal.template position<transposed>(column, j, source_columns);
        if (pixel >= 0) sum += of_line[pixel];
      }
    }
    return sum;
  }
};

// ---- One item by its number: neighbouring numbers are neighbours in memory ----
// A GPU divides 64-bit numbers slowly: Index is 32 bits wide where the numbers allow it, and its commonest kernels do
// without these (Numbers and Divisor, cuda/).

struct GroupItem {
  int64_t n, g, s;
};

template <class F>
BCOS_HOST_DEVICE void apply_item(const F& f, int64_t item) {
  const Extent& e = f.extent;
  int64_t n, c, s;
  if constexpr (F::layout == Layout::kChannels) {
    const int64_t pixel = item / e.channels();
    c = item % e.channels(), s = pixel % e.pixels, n = pixel / e.pixels;
  } else {
    const int64_t plane = item / e.pixels;
    s = item % e.pixels, c = plane % e.channels(), n = plane / e.channels();
  }
  f.apply(n, c, s, f.context(n, e.groups == 1 ? 0 : c / e.width, s));
}

template <class Index, class F>
BCOS_HOST_DEVICE GroupItem group_item(const F& f, Index item) {
  const Extent& e = f.extent;
  const Index groups = static_cast<Index>(e.groups), pixels = static_cast<Index>(e.pixels);
  if constexpr (F::layout == Layout::kChannels) {
    const Index pixel = item / groups;
    return {static_cast<int64_t>(pixel / pixels), static_cast<int64_t>(item % groups),
            static_cast<int64_t>(pixel % pixels)};
  } else {
    const Index plane = item / pixels;
    return {static_cast<int64_t>(plane / groups), static_cast<int64_t>(plane % groups),
            static_cast<int64_t>(item % pixels)};
  }
}

// The group's channels first, first + step, ...
template <class F>
BCOS_HOST_DEVICE typename F::A partial_sum(const F& f, GroupItem i, typename F::A context, int64_t first, int64_t step) {
  typename F::A sum = 0;
  for (int64_t c = first; c < f.extent.width; c += step) sum += f.term(i.n, i.g * f.extent.width + c, i.s, context);
  return sum;
}

template <class Index, class F>
BCOS_HOST_DEVICE void reduce_item(const F& f, Index item) {
  const GroupItem i = group_item<Index>(f, item);
  const typename F::A context = f.context(i.n, i.g, i.s);
  f.finish(i.n, i.g, i.s, context, partial_sum(f, i, context, 0, 1));
}

template <class F>
BCOS_HOST_DEVICE void window_item(const F& f, int64_t item) {
  const int64_t line = item / f.columns;
  f.template at<1>(line / f.rows, line % f.rows, item % f.columns);
}

}  // namespace bcos
