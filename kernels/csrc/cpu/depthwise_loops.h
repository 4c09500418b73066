// The loops of depthwise.h, written once for all instruction sets; included after product_loops.h by the files that are
// compiled for one each, of which they use Scratch and Isa::V, lanes, load and store.
namespace {

using bcos::cpu::DepthwiseBackward;
using bcos::cpu::DepthwiseForward;
using bcos::cpu::DepthwiseLayer;
using bcos::cpu::DepthwiseLoops;
using bcos::cpu::Plane;

template <class Isa>
struct Depthwise {
  using V = typename Isa::V;
  static constexpr int lanes = Isa::lanes;
  static constexpr int kColumns = 7;  // places computed together, whose sums fill registers; ImageNet's widths are multiples
  static constexpr int kTaps = 4;     // elements of the filters' gradient that are summed together

  static BCOS_INLINE void clear(V* p, int64_t count) { std::memset(static_cast<void*>(p), 0, sizeof(V) * count); }
  static BCOS_INLINE float* floats(V* p) { return reinterpret_cast<float*>(p); }

  // x of an image into its padded plane.
  static void load_plane(const DepthwiseLayer& s, const float* x, V* plane) {
    const Plane size = s.padded();
    const int64_t left = std::min(s.axis[1].padding, size.width);
    const int64_t end = std::max(left, std::min(size.width, s.axis[1].padding + s.width));
    for (int64_t i = 0; i < size.height; ++i) {
      V* out = plane + i * size.width;
      const int64_t row = i - s.axis[0].padding;
      if (row < 0 || row >= s.height) {
        clear(out, size.width);
        continue;
      }
      const float* from = x + (row * s.width - s.axis[1].padding) * s.channels;
      clear(out, left);
      for (int64_t j = left; j < end; ++j) out[j] = Isa::load(from + j * s.channels);
      clear(out + end, size.width - end);
    }
  }

  // Sums of filter times plane at `count` places, `stride` apart; first: the first place's first element.
  template <int count>
  static BCOS_INLINE void window_products(const V* first, int64_t width, int64_t stride, const bcos::AxisWindow* axis,
                                          const V* filter, V* out) {
    V sums[count];
#pragma GCC unroll 8
    for (int k = 0; k < count; ++k) sums[k] = V{};
    for (int64_t i = 0; i < axis[0].kernel; ++i) {
      const V* line = first + i * axis[0].dilation * width;
      for (int64_t j = 0; j < axis[1].kernel; ++j) {
        const V w = *filter++;
        const V* at = line + j * axis[1].dilation;
#pragma GCC unroll 8
        for (int k = 0; k < count; ++k) sums[k] += at[k * stride] * w;
      }
    }
#pragma GCC unroll 8
    for (int k = 0; k < count; ++k) out[k] = sums[k];
  }

  static void row_products(const V* row, int64_t width, int64_t places, int64_t stride, const bcos::AxisWindow* axis,
                           const V* filter, V* out) {
    int64_t q = 0;
    for (; q + kColumns <= places; q += kColumns)
      window_products<kColumns>(row + q * stride, width, stride, axis, filter, out + q);
    for (; q + 4 <= places; q += 4) window_products<4>(row + q * stride, width, stride, axis, filter, out + q);
    for (; q < places; ++q) window_products<1>(row + q * stride, width, stride, axis, filter, out + q);
  }

  // Sums of a plane, or of its squares, under the windows of one row of places.
  template <bool squares>
  static void row_sums(const V* row, int64_t width, int64_t places, int64_t stride, const bcos::AxisWindow* axis, V* of_columns,
                       V* out) {
    for (int64_t j = 0; j < width; ++j) {
      V sum = V{};
      for (int64_t i = 0; i < axis[0].kernel; ++i) {
        const V value = row[i * axis[0].dilation * width + j];
        sum += squares ? value * value : value;
      }
      of_columns[j] = sum;
    }
    for (int64_t q = 0; q < places; ++q) {
      V sum = V{};
      for (int64_t j = 0; j < axis[1].kernel; ++j) sum += of_columns[q * stride + j * axis[1].dilation];
      out[q] = sum;
    }
  }

  // A row of vectors (place, lane) into the row's places in each channel's plane, and back.
  static void scatter(const float* row, int64_t places, float* planes, int64_t plane_size) {
    for (int i = 0; i < lanes; i += 4) {
      float* out[4] = {planes + i * plane_size, planes + (i + 1) * plane_size, planes + (i + 2) * plane_size,
                       planes + (i + 3) * plane_size};
      int64_t q = 0;
      for (; q + 4 <= places; q += 4) {
        __m128 part[4];
        for (int k = 0; k < 4; ++k) part[k] = _mm_load_ps(row + (q + k) * lanes + i);
        _MM_TRANSPOSE4_PS(part[0], part[1], part[2], part[3]);
        for (int k = 0; k < 4; ++k) _mm_storeu_ps(out[k] + q, part[k]);
      }
      for (; q < places; ++q)
        for (int k = 0; k < 4; ++k) out[k][q] = row[q * lanes + i + k];
    }
  }

  static void gather(const float* planes, int64_t plane_size, int64_t places, float* row) {
    for (int i = 0; i < lanes; i += 4) {
      const float* from[4] = {planes + i * plane_size, planes + (i + 1) * plane_size, planes + (i + 2) * plane_size,
                              planes + (i + 3) * plane_size};
      int64_t q = 0;
      for (; q + 4 <= places; q += 4) {
        __m128 part[4];
        for (int k = 0; k < 4; ++k) part[k] = _mm_loadu_ps(from[k] + q);
        _MM_TRANSPOSE4_PS(part[0], part[1], part[2], part[3]);
        for (int k = 0; k < 4; ++k) _mm_store_ps(row + (q + k) * lanes + i, part[k]);
      }
      for (; q < places; ++q)
        for (int k = 0; k < 4; ++k) row[q * lanes + i + k] = from[k][q];
    }
  }

  template <bcos::Power power>
  static void forward_tasks(const DepthwiseForward& f, int64_t begin, int64_t end) {
    const DepthwiseLayer& s = f.layer;
    const Plane size = s.padded();
    static thread_local Scratch scratch;
    V *plane, *of_columns, *norms, *lin;
    scratch.lay_out([&](Scratch& memory) {
      plane = memory.take<V>(size.size()), of_columns = memory.take<V>(size.width);
      norms = memory.take<V>(s.columns), lin = memory.take<V>(s.columns);
    });
    const V* filters = reinterpret_cast<const V*>(f.filters);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / s.blocks(), block = task % s.blocks(), first = s.first(block);
      load_plane(s, f.x + n * s.height * s.width * s.channels + first, plane);
      float b[lanes] = {};
      if (power == bcos::Power::kPower) std::memcpy(b, f.exponent + first, sizeof(b));
      for (int64_t p = 0; p < s.rows; ++p) {
        const V* row = plane + p * s.axis[0].stride * size.width;
        row_products(row, size.width, s.columns, s.axis[1].stride, s.axis, filters + block * s.taps(), lin);
        row_sums<true>(row, size.width, s.columns, s.axis[1].stride, s.axis, of_columns, norms);
        float* y = f.y + (n * s.rows + p) * s.columns * s.channels + first;
        for (int64_t q = 0; q < s.columns; ++q) {
          float *norm = floats(norms + q), *l = floats(lin + q), *out = y + q * s.channels;
#pragma omp simd
          for (int i = 0; i < lanes; ++i) {
            norm[i] = std::sqrt(norm[i] + f.eps);
            out[i] = l[i] * bcos::scale_of<float, power>(std::fabs(l[i]) / norm[i], b[i]);
          }
        }
        scatter(floats(norms), s.columns, f.norm + ((n * s.channels + first) * s.rows + p) * s.columns, s.rows * s.columns);
      }
    }
  }

  // Sums over a row's places of dL/dl times what each of `count` elements of the window sees.
  template <int count>
  static BCOS_INLINE void filter_sums(const V* grad_lin, const V* seen, int64_t places, int64_t stride, int64_t dilation, V* sums) {
    V all[count];
#pragma GCC unroll 8
    for (int k = 0; k < count; ++k) all[k] = sums[k];
    for (int64_t q = 0; q < places; ++q) {
      const V g = grad_lin[q];
      const V* at = seen + q * stride;
#pragma GCC unroll 8
      for (int k = 0; k < count; ++k) all[k] += g * at[k * dilation];
    }
#pragma GCC unroll 8
    for (int k = 0; k < count; ++k) sums[k] = all[k];
  }

  static void add_filter_gradient(const DepthwiseLayer& s, const V* plane, const V* grad_lin, V* sums) {
    const int64_t width = s.padded().width, kernel = s.axis[1].kernel, dilation = s.axis[1].dilation, stride = s.axis[1].stride;
    for (int64_t p = 0; p < s.rows; ++p) {
      const V* g = grad_lin + p * s.columns;
      for (int64_t i = 0; i < s.axis[0].kernel; ++i) {
        const V* seen = plane + (p * s.axis[0].stride + i * s.axis[0].dilation) * width;
        V* of_row = sums + i * kernel;
        int64_t j = 0;
        for (; j + kTaps <= kernel; j += kTaps)
          filter_sums<kTaps>(g, seen + j * dilation, s.columns, stride, dilation, of_row + j);
        switch (kernel - j) {
          case 3: filter_sums<3>(g, seen + j * dilation, s.columns, stride, dilation, of_row + j); break;
          case 2: filter_sums<2>(g, seen + j * dilation, s.columns, stride, dilation, of_row + j); break;
          case 1: filter_sums<1>(g, seen + j * dilation, s.columns, stride, dilation, of_row + j); break;
          default: break;
        }
      }
    }
  }

  template <bcos::Power power, bool has_terms>
  static void backward_tasks(const DepthwiseBackward& f, int64_t share, int64_t begin, int64_t end) {
    const DepthwiseLayer& s = f.layer;
    const Plane seen = s.padded(), spread = s.spread();
    static thread_local Scratch scratch;
    V *plane, *grads, *pulls, *grad_lin, *of_columns, *products, *sums, *norms;
    scratch.lay_out([&](Scratch& memory) {
      plane = memory.take<V>(seen.size());
      grads = memory.take<V>(spread.size()), pulls = memory.take<V>(spread.size());
      grad_lin = memory.take<V>(s.rows * s.columns), norms = memory.take<V>(s.columns);
      of_columns = memory.take<V>(spread.width), products = memory.take<V>(s.width), sums = memory.take<V>(s.width);
    });
    bcos::AxisWindow axis[2] = {s.axis[0], s.axis[1]};  // over the spread planes
    axis[0].stride = axis[1].stride = 1;
    const float not_detached = f.detached ? 0 : 1;
    const V* flipped = reinterpret_cast<const V*>(f.flipped);
    for (int64_t task = begin; task < end; ++task) {
      // a block's images one after the other: its part of the filters' gradient stays in the cache
      const int64_t block = task / s.batch, n = task % s.batch, first = s.first(block);
      float b[lanes] = {};
      if (power == bcos::Power::kPower) std::memcpy(b, f.exponent + first, sizeof(b));
      double terms[lanes] = {};
      if (f.grad_x) clear(grads, spread.size()), clear(pulls, spread.size());
      for (int64_t p = 0; p < s.rows; ++p) {
        gather(f.norm + ((n * s.channels + first) * s.rows + p) * s.columns, s.rows * s.columns, s.columns, floats(norms));
        const int64_t line = s.place(0, p);
        for (int64_t q = 0; q < s.columns; ++q) {
          const int64_t at = ((n * s.rows + p) * s.columns + q) * s.channels + first;
          float l[lanes], r[lanes];
          const float *grad = f.grad + at, *y = f.y + at, *norm = floats(norms + q);
#pragma omp simd
          for (int i = 0; i < lanes; ++i) {
            const bcos::Recovered<float> from = bcos::recovered<float, power>(y[i], norm[i], b[i]);
            l[i] = grad[i] * from.scale * (1 + not_detached * from.slope);
            r[i] = grad[i] * y[i] * from.slope / (norm[i] * norm[i]);
            if (has_terms) terms[i] += static_cast<double>(grad[i] * y[i] * from.log);
          }
          const V along = Isa::load(l);
          grad_lin[p * s.columns + q] = along;
          const int64_t column = s.place(1, q);
          if (f.grad_x && line >= 0 && line < spread.height && column >= 0 && column < spread.width) {
            grads[line * spread.width + column] = along;
            pulls[line * spread.width + column] = Isa::load(r);
          }
        }
      }
      if (has_terms)
        for (int i = 0; i < lanes; ++i) f.grad_exponent[(share * s.blocks() + block) * lanes + i] += terms[i];
      const float* x = f.x + n * s.height * s.width * s.channels + first;
      if (f.grad_filters) {
        load_plane(s, x, plane);
        add_filter_gradient(s, plane, grad_lin,
                            reinterpret_cast<V*>(f.grad_filters) + (share * s.blocks() + block) * s.taps());
      }
      if (!f.grad_x) continue;
      float* out = f.grad_x + n * s.height * s.width * s.channels + first;
      for (int64_t h = 0; h < s.height; ++h) {
        const int64_t line = h * spread.width;
        row_products(grads + line, spread.width, s.width, 1, axis, flipped + block * s.taps(), products);
        if (!f.detached) row_sums<false>(pulls + line, spread.width, s.width, 1, axis, of_columns, sums);
        for (int64_t w = 0; w < s.width; ++w) {
          const int64_t at = (h * s.width + w) * s.channels;
          Isa::store(out + at, f.detached ? products[w] : products[w] - Isa::load(x + at) * sums[w]);
        }
      }
    }
  }

  static void forward(const DepthwiseForward& f, int64_t begin, int64_t end) {
    if (f.exponent)
      forward_tasks<bcos::Power::kPower>(f, begin, end);
    else
      forward_tasks<bcos::Power::kSquare>(f, begin, end);
  }

  static void backward(const DepthwiseBackward& f, int64_t share, int64_t begin, int64_t end) {
    if (!f.exponent)
      backward_tasks<bcos::Power::kSquare, false>(f, share, begin, end);
    else if (f.grad_exponent)
      backward_tasks<bcos::Power::kPower, true>(f, share, begin, end);
    else
      backward_tasks<bcos::Power::kPower, false>(f, share, begin, end);
  }

  static constexpr DepthwiseLoops table() { return {lanes, forward, backward}; }
};

}  // namespace
