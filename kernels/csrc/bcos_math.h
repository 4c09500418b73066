// The B-cos scaling, item by item: the arithmetic and the index arithmetic that the CPU and the CUDA kernels share.
//
// Every tensor is seen as (N, C, S): S runs over the pixels of a plane. Six steps make the two operators, each a
// functor here; the drivers in cpu/ and cuda/ only decide who computes which item:
//
//   Energy        x            -> e(n,g,s) = sum of x^2 over the group's channels           (reduction over channels)
//   BoxNorm       e            -> n(n,g,p,q) = sqrt(sum of e under the window + eps)         (one item per position)
//   Multiply      a, lin, n    -> a * (|lin|/n)^(b-1): forward (a = lin), detached backward  (one item per element)
//   Pull          grad, lin, n -> grad_lin, and r(n,g,s) = -(dL/dn) / n                      (reduction over channels)
//   BoxTranspose  r            -> t(n,g,h,w), the adjoint of the window sum                  (one item per position)
//   InputGradient x, t         -> grad_x = -x t                                              (one item per element)
//
// Half precision is computed in float32 and rounded once; indices are 64 bits wide. The derivation is in docs/maths.md.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define BCOS_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define BCOS_HOST_DEVICE inline
#endif

namespace bcos {

template <class T>
struct Computing {
  using type = float;
};
template <>
struct Computing<double> {
  using type = double;
};
template <class T>
using computing_t = typename Computing<T>::type;

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

struct Window {
  int64_t kernel[2], stride[2], padding[2], dilation[2];

  // every output pixel sees its own input pixel and nothing else
  bool is_identity() const {
    for (int i = 0; i < 2; ++i)
      if (kernel[i] != 1 || stride[i] != 1 || padding[i] != 0) return false;
    return true;
  }
};

// y = l s with s = (c + delta)^(b-1), c = |l|/n. For b = 2 it is exact, s = c; otherwise delta keeps the slope finite.
template <class A, bool is_square>
struct Formula {
  A exponent;  // b - 1

  static BCOS_HOST_DEVICE A offset() { return A(1e-6); }

  BCOS_HOST_DEVICE A factor(A lin, A norm) const {
    const A cosine = std::fabs(lin) / norm;
    if constexpr (is_square)
      return cosine;
    else
      return std::pow(cosine + offset(), exponent);
  }

  // (d log s / d log c) = (b-1) rho with rho = c / (c + delta)
  BCOS_HOST_DEVICE A rho(A lin, A norm) const {
    if constexpr (is_square) {
      return A(1);
    } else {
      const A cosine = std::fabs(lin) / norm;
      return cosine / (cosine + offset());
    }
  }
};

// ---- Reductions over a group's channels: context(n,g,s), sum of term(n,c,s,context), finish(n,g,s,context,sum) ----

template <class T, Layout layout_>
struct Energy {
  using A = computing_t<T>;
  static constexpr Layout layout = layout_;
  Extent extent;
  View<const T, layout> x;
  A* out;      // (N, G, S)
  bool root;   // the window is one pixel: this is the norm already
  A eps;

  BCOS_HOST_DEVICE A context(int64_t, int64_t, int64_t) const { return A(0); }
  BCOS_HOST_DEVICE A term(int64_t n, int64_t c, int64_t s, A) const {
    const A value = static_cast<A>(x.at(n, c, s));
    return value * value;
  }
  BCOS_HOST_DEVICE void finish(int64_t n, int64_t g, int64_t s, A, A sum) const {
    out[extent.group_index(n, g, s)] = root ? std::sqrt(sum + eps) : sum;
  }
};

template <class T, Layout layout_, bool is_square>
struct Pull {
  using A = computing_t<T>;
  static constexpr Layout layout = layout_;
  Extent extent;
  View<const T, layout> grad, lin;
  View<T, layout> grad_lin;
  const A* norm;  // (N, G, S)
  A* out;         // (N, G, S), or null where the gradient of x is not wanted
  Formula<A, is_square> formula;

  BCOS_HOST_DEVICE A context(int64_t n, int64_t g, int64_t s) const { return norm[extent.group_index(n, g, s)]; }
  BCOS_HOST_DEVICE A term(int64_t n, int64_t c, int64_t s, A norm_here) const {
    const A l = static_cast<A>(lin.at(n, c, s));
    const A scaled = static_cast<A>(grad.at(n, c, s)) * formula.factor(l, norm_here);
    const A slope = formula.exponent * formula.rho(l, norm_here);
    grad_lin.at(n, c, s) = static_cast<T>(scaled * (A(1) + slope));
    return scaled * l * slope;
  }
  BCOS_HOST_DEVICE void finish(int64_t n, int64_t g, int64_t s, A norm_here, A sum) const {
    if (out) out[extent.group_index(n, g, s)] = sum / (norm_here * norm_here);
  }
};

// ---- Elementwise: context(n,g,s), then apply(n,c,s,context) for each of the group's channels ----

template <class T, Layout layout_, bool is_square>
struct Multiply {
  using A = computing_t<T>;
  static constexpr Layout layout = layout_;
  Extent extent;
  View<const T, layout> a, lin;
  View<T, layout> out;
  const A* norm;  // (N, G, S)
  Formula<A, is_square> formula;

  BCOS_HOST_DEVICE A context(int64_t n, int64_t g, int64_t s) const { return norm[extent.group_index(n, g, s)]; }
  BCOS_HOST_DEVICE void apply(int64_t n, int64_t c, int64_t s, A norm_here) const {
    const A l = static_cast<A>(lin.at(n, c, s));
    out.at(n, c, s) = static_cast<T>(static_cast<A>(a.at(n, c, s)) * formula.factor(l, norm_here));
  }
};

template <class T, Layout layout_>
struct InputGradient {
  using A = computing_t<T>;
  static constexpr Layout layout = layout_;
  Extent extent;
  View<const T, layout> x;
  View<T, layout> out;
  const A* spread;  // (N, G, S)

  BCOS_HOST_DEVICE A context(int64_t n, int64_t g, int64_t s) const { return spread[extent.group_index(n, g, s)]; }
  BCOS_HOST_DEVICE void apply(int64_t n, int64_t c, int64_t s, A spread_here) const {
    out.at(n, c, s) = static_cast<T>(-static_cast<A>(x.at(n, c, s)) * spread_here);
  }
};

// ---- Windows: at<lanes>(plane, row, column), for that many neighbouring columns, over contiguous planes ----
// Several lanes give a CPU independent sums to work on at once; a CUDA thread takes one.

template <class A>
struct BoxNorm {
  int64_t planes, rows, columns;          // of the output: N * G, P, Q
  int64_t source_rows, source_columns;    // of the input: H, W
  Window window;
  const A* energy;
  A* norm;
  A eps;

  template <int lanes>
  BCOS_HOST_DEVICE void at(int64_t plane, int64_t p, int64_t q) const {
    const int64_t step = window.stride[1];
    A sums[lanes] = {};
    for (int64_t i = 0; i < window.kernel[0]; ++i) {
      const int64_t h = p * window.stride[0] - window.padding[0] + i * window.dilation[0];
      if (h < 0 || h >= source_rows) continue;  // the padding adds nothing
      const A* row = energy + (plane * source_rows + h) * source_columns;
      for (int64_t j = 0; j < window.kernel[1]; ++j) {
        const int64_t w = q * step - window.padding[1] + j * window.dilation[1];
        if (step == 1 && w >= 0 && w + lanes <= source_columns) {
          for (int lane = 0; lane < lanes; ++lane) sums[lane] += row[w + lane];
        } else {
          for (int lane = 0; lane < lanes; ++lane) {
            const int64_t column = w + lane * step;
            if (column >= 0 && column < source_columns) sums[lane] += row[column];
          }
        }
      }
    }
    for (int lane = 0; lane < lanes; ++lane) norm[(plane * rows + p) * columns + q + lane] = std::sqrt(sums[lane] + eps);
  }
};

template <class A>
struct BoxTranspose {
  int64_t planes, rows, columns;          // of the output: N * G, H, W
  int64_t source_rows, source_columns;    // of the input: P, Q
  Window window;
  const A* pull;
  A* spread;

  // The position whose window has the pixel `at` as its element `element`, or -1. A gather: no two items write one place.
  BCOS_HOST_DEVICE int64_t origin(int axis, int64_t at, int64_t element, int64_t size) const {
    const int64_t start = at + window.padding[axis] - element * window.dilation[axis];
    const int64_t stride = window.stride[axis];
    if (start < 0) return -1;
    const int64_t position = stride == 1 ? start : start / stride;  // a 64-bit division is slow
    return position < size && position * stride == start ? position : -1;
  }

  template <int lanes>
  BCOS_HOST_DEVICE void at(int64_t plane, int64_t h, int64_t w) const {
    A sums[lanes] = {};
    for (int64_t i = 0; i < window.kernel[0]; ++i) {
      const int64_t p = origin(0, h, i, source_rows);
      if (p < 0) continue;
      const A* row = pull + (plane * source_rows + p) * source_columns;
      for (int64_t j = 0; j < window.kernel[1]; ++j) {
        const int64_t start = w + window.padding[1] - j * window.dilation[1];
        if (window.stride[1] == 1 && start >= 0 && start + lanes <= source_columns) {
          for (int lane = 0; lane < lanes; ++lane) sums[lane] += row[start + lane];
        } else {
          for (int lane = 0; lane < lanes; ++lane) {
            const int64_t q = origin(1, w + lane, j, source_columns);
            if (q >= 0) sums[lane] += row[q];
          }
        }
      }
    }
    for (int lane = 0; lane < lanes; ++lane) spread[(plane * rows + h) * columns + w + lane] = sums[lane];
  }
};

// ---- One item by its number: neighbouring numbers are neighbours in memory ----

template <class F>
BCOS_HOST_DEVICE void apply_item(const F& f, int64_t item) {
  const Extent& e = f.extent;
  int64_t n, c, s;
  if constexpr (F::layout == Layout::kChannels) {
    c = item % e.channels(), s = item / e.channels() % e.pixels, n = item / e.channels() / e.pixels;
  } else {
    s = item % e.pixels, c = item / e.pixels % e.channels(), n = item / e.pixels / e.channels();
  }
  f.apply(n, c, s, f.context(n, c / e.width, s));
}

struct GroupItem {
  int64_t n, g, s;
};

template <class F>
BCOS_HOST_DEVICE GroupItem group_item(const F& f, int64_t item) {
  const Extent& e = f.extent;
  if constexpr (F::layout == Layout::kChannels)
    return {item / e.groups / e.pixels, item % e.groups, item / e.groups % e.pixels};
  else
    return {item / e.pixels / e.groups, item / e.pixels % e.groups, item % e.pixels};
}

// The group's channels first, first + step, ...
template <class F>
BCOS_HOST_DEVICE typename F::A partial_sum(const F& f, GroupItem i, typename F::A context, int64_t first, int64_t step) {
  typename F::A sum = 0;
  for (int64_t c = first; c < f.extent.width; c += step) sum += f.term(i.n, i.g * f.extent.width + c, i.s, context);
  return sum;
}

template <class F>
BCOS_HOST_DEVICE void reduce_item(const F& f, int64_t item) {
  const GroupItem i = group_item(f, item);
  const typename F::A context = f.context(i.n, i.g, i.s);
  f.finish(i.n, i.g, i.s, context, partial_sum(f, i, context, 0, 1));
}

template <class F>
BCOS_HOST_DEVICE void window_item(const F& f, int64_t item) {
  f.template at<1>(item / f.columns / f.rows, item / f.columns % f.rows, item % f.columns);
}

}  // namespace bcos
