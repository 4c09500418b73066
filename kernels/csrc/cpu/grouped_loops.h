// The loops of grouped.h, written once for all instruction sets; included after product_loops.h by the files that are
// compiled for one each, of which they use Scratch and Isa::V, lanes, load and store.
namespace {

using bcos::cpu::GroupedBackward;
using bcos::cpu::GroupedForward;
using bcos::cpu::GroupedLayer;
using bcos::cpu::GroupedLoops;
using bcos::cpu::Plane;

// One for all layers, so that a thread holds no more than the largest of them needs.
inline Scratch& planes_of_thread() {
  static thread_local Scratch scratch;
  return scratch;
}

// T: the elements of x and y; group: the channels of a group.
template <class Isa, class T, int group>
struct Grouped {
  using V = typename Isa::V;
  using Formula = Powers<Isa>;
  static constexpr int lanes = Isa::lanes;
  static_assert(lanes % group == 0, "a vector holds whole groups");
  static constexpr int kGroups = lanes / group;  // of a vector
  static constexpr int kColumns = 7;  // places computed together, whose sums fill registers; ImageNet's widths are multiples
  static constexpr int kChannels = group < 8 ? group : 8;  // of a group, whose gradients are summed together
  static constexpr int kTaps = group == 1 ? 4 : 8 / kChannels;  // elements of the window, likewise
  typedef uint32_t Words __attribute__((vector_size(4 * lanes)));
  using Lanes = std::make_integer_sequence<int, lanes>;
  template <int... i>
  using Sequence = std::integer_sequence<int, i...>;

  static BCOS_INLINE void clear(V* p, int64_t count) { std::memset(static_cast<void*>(p), 0, sizeof(V) * count); }
  static BCOS_INLINE float* floats(V* p) { return reinterpret_cast<float*>(p); }

  // ---- Elements in memory ----

  static BCOS_INLINE V load(const T* p) {
    if constexpr (std::is_same_v<T, float>) {
      return Isa::load(p);
    } else {
      V v{};
      float* values = floats(&v);
#pragma omp simd
      for (int i = 0; i < lanes; ++i) values[i] = bcos::widened(p[i]);
      return v;
    }
  }
  static BCOS_INLINE void store(T* p, V v) {
    if constexpr (std::is_same_v<T, float>) {
      Isa::store(p, v);
    } else {
      const float* values = floats(&v);
#pragma omp simd
      for (int i = 0; i < lanes; ++i) p[i] = bcos::narrowed<T>(values[i]);
    }
  }

  // ---- Lanes of a group ----

  template <int... from>
  static BCOS_INLINE V shuffled(V v) {
#if defined(__clang__)
    return __builtin_shufflevector(v, v, from...);
#else
    return __builtin_shuffle(v, Words{static_cast<uint32_t>(from)...});
#endif
  }

  // One channel of each group, for all its lanes: to be multiplied with a vector.
  template <int channel, int... i>
  static BCOS_INLINE auto of_channel(const V* p, Sequence<i...>) {
    if constexpr (group == 1)
      return *p;
    else if constexpr (group == lanes)
      return reinterpret_cast<const float*>(p)[channel];
    else
      return shuffled<(i - i % group + channel)...>(*p);
  }

  template <int distance, int... i>
  static BCOS_INLINE V add_lanes(V v, Sequence<i...> all) {
    if constexpr (distance < group)
      return add_lanes<2 * distance>(v + shuffled<(i ^ distance)...>(v), all);
    else
      return v;
  }
  // The sum over a group, in all its lanes.
  static BCOS_INLINE V sum_of_group(V v) { return add_lanes<1>(v, Lanes{}); }

  // One number for each group, from and into all its lanes; whole vectors are written and read.
  template <int... i>
  static BCOS_INLINE void pack(V v, float* out, Sequence<i...>) {
    Isa::store(out, group == 1 ? v : shuffled<(i * group % lanes)...>(v));
  }
  template <int... i>
  static BCOS_INLINE V unpacked(const float* p, Sequence<i...>) {
    return group == 1 ? Isa::load(p) : shuffled<(i / group)...>(Isa::load(p));
  }

  // ---- Planes and windows ----

  // x of an image into its padded plane.
  static void load_plane(const GroupedLayer& s, const T* x, V* plane) {
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
      const T* from = x + (row * s.width - s.axis[1].padding) * s.channels;
      clear(out, left);
      for (int64_t j = left; j < end; ++j) out[j] = load(from + j * s.channels);
      clear(out + end, size.width - end);
    }
  }

  // Asks for a row's vectors. They lie as far apart as there are channels, where no cache expects them.
  template <bool to_write>
  static BCOS_INLINE void fetch(const T* row, int64_t places, int64_t channels) {
    for (int64_t i = 0; i < places; ++i) __builtin_prefetch(row + i * channels, to_write, 2);
  }
  // The rows of x that a task begins with, a share of them for each of `steps`.
  static void fetch_share(const GroupedLayer& s, const T* x, int64_t step, int64_t steps) {
    for (int64_t h = s.height * step / steps; h < s.height * (step + 1) / steps; ++h)
      fetch<false>(x + h * s.width * s.channels, s.width, s.channels);
  }

  template <int count, int... channel>
  static BCOS_INLINE void add_products(const V* at, int64_t stride, const V* filter, V* sums, Sequence<channel...>) {
    (
        [&] {
          const V w = filter[channel];
#pragma GCC unroll 8
          for (int k = 0; k < count; ++k) sums[k] += of_channel<channel>(at + k * stride, Lanes{}) * w;
        }(),
        ...);
  }

  // Sums of filter times plane at `count` places, `stride` apart; first: the first place's first element. Neighbours
  // have a stride known to the compiler: with as many addresses as sums it would keep them in memory.
  template <int count, bool neighbours>
  static BCOS_INLINE void window_products(const V* first, int64_t width, int64_t any_stride, const bcos::AxisWindow* axis,
                                          const V* filter, V* out) {
    const int64_t stride = neighbours ? 1 : any_stride;
    V sums[count];
#pragma GCC unroll 8
    for (int k = 0; k < count; ++k) sums[k] = V{};
    for (int64_t i = 0; i < axis[0].kernel; ++i) {
      const V* line = first + i * axis[0].dilation * width;
      for (int64_t j = 0; j < axis[1].kernel; ++j, filter += group)
        add_products<count>(line + j * axis[1].dilation, stride, filter, sums, std::make_integer_sequence<int, group>{});
    }
#pragma GCC unroll 8
    for (int k = 0; k < count; ++k) out[k] = sums[k];
  }

  template <bool neighbours>
  static void products_of(const V* row, int64_t width, int64_t places, int64_t stride, const bcos::AxisWindow* axis,
                          const V* filter, V* out) {
    int64_t q = 0;
    for (; q + kColumns <= places; q += kColumns)
      window_products<kColumns, neighbours>(row + q * stride, width, stride, axis, filter, out + q);
    for (; q + 4 <= places; q += 4) window_products<4, neighbours>(row + q * stride, width, stride, axis, filter, out + q);
    for (; q < places; ++q) window_products<1, neighbours>(row + q * stride, width, stride, axis, filter, out + q);
  }

  static void row_products(const V* row, int64_t width, int64_t places, int64_t stride, const bcos::AxisWindow* axis,
                           const V* filter, V* out) {
    if (stride == 1)
      products_of<true>(row, width, places, stride, axis, filter, out);
    else
      products_of<false>(row, width, places, stride, axis, filter, out);
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

  // ---- Norms: a row of places with their groups' numbers into the row's places in each group's plane, and back ----

  static void scatter(const float* row, int64_t places, float* planes, int64_t plane_size) {
    constexpr int kFours = kGroups / 4 * 4;
    for (int i = 0; i < kFours; i += 4) {
      float* out[4] = {planes + i * plane_size, planes + (i + 1) * plane_size, planes + (i + 2) * plane_size,
                       planes + (i + 3) * plane_size};
      int64_t q = 0;
      for (; q + 4 <= places; q += 4) {
        __m128 part[4];
        for (int k = 0; k < 4; ++k) part[k] = _mm_load_ps(row + (q + k) * kGroups + i);
        _MM_TRANSPOSE4_PS(part[0], part[1], part[2], part[3]);
        for (int k = 0; k < 4; ++k) _mm_storeu_ps(out[k] + q, part[k]);
      }
      for (; q < places; ++q)
        for (int k = 0; k < 4; ++k) out[k][q] = row[q * kGroups + i + k];
    }
    for (int i = kFours; i < kGroups; ++i)
      for (int64_t q = 0; q < places; ++q) planes[i * plane_size + q] = row[q * kGroups + i];
  }

  static void gather(const float* planes, int64_t plane_size, int64_t places, float* row) {
    constexpr int kFours = kGroups / 4 * 4;
    for (int i = 0; i < kFours; i += 4) {
      const float* from[4] = {planes + i * plane_size, planes + (i + 1) * plane_size, planes + (i + 2) * plane_size,
                              planes + (i + 3) * plane_size};
      int64_t q = 0;
      for (; q + 4 <= places; q += 4) {
        __m128 part[4];
        for (int k = 0; k < 4; ++k) part[k] = _mm_loadu_ps(from[k] + q);
        _MM_TRANSPOSE4_PS(part[0], part[1], part[2], part[3]);
        for (int k = 0; k < 4; ++k) _mm_store_ps(row + (q + k) * kGroups + i, part[k]);
      }
      for (; q < places; ++q)
        for (int k = 0; k < 4; ++k) row[q * kGroups + i + k] = from[k][q];
    }
    for (int i = kFours; i < kGroups; ++i)
      for (int64_t q = 0; q < places; ++q) row[q * kGroups + i] = planes[i * plane_size + q];
  }

  static BCOS_INLINE int64_t norm_at(const GroupedLayer& s, int64_t n, int64_t first, int64_t p) {
    return ((n * s.groups() + first / group) * s.rows + p) * s.columns;
  }

  // ---- Forward ----

  template <bool has_power>
  static void forward_tasks(const GroupedForward<T>& f, int64_t begin, int64_t end) {
    const GroupedLayer& s = f.layer;
    const Plane size = s.padded();
    Scratch& scratch = planes_of_thread();
    V *plane, *of_columns, *energies, *lin;
    float *norms, *inverse;
    const int64_t numbers = s.columns * kGroups;
    scratch.lay_out([&](Scratch& memory) {
      plane = memory.take<V>(size.size()), of_columns = memory.take<V>(size.width);
      energies = memory.take<V>(s.columns), lin = memory.take<V>(s.columns);
      norms = memory.take<float>(numbers), inverse = memory.take<float>(numbers);
    });
    const V* filters = reinterpret_cast<const V*>(f.filters);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / s.blocks(), block = task % s.blocks(), first = s.first(block);
      load_plane(s, f.x + s.image_at(n) + first, plane);
      const V slope = has_power ? Isa::load(f.exponent + first) - 1 : V{};
      for (int64_t p = 0; p < s.rows; ++p) {
        T* y = f.y + (n * s.rows + p) * s.columns * s.channels + first;
        fetch<true>(y, s.columns, s.channels);
        const int64_t next = task + 1;
        if (next < end) fetch_share(s, f.x + s.image_at(next / s.blocks()) + s.first(next % s.blocks()), p, s.rows);
        const V* row = plane + p * s.axis[0].stride * size.width;
        row_products(row, size.width, s.columns, s.axis[1].stride, s.axis, filters + block * s.vectors(), lin);
        row_sums<true>(row, size.width, s.columns, s.axis[1].stride, s.axis, of_columns, energies);
        for (int64_t q = 0; q < s.columns; ++q) pack(sum_of_group(energies[q]), norms + q * kGroups, Lanes{});
#pragma omp simd
        for (int64_t i = 0; i < numbers; ++i) norms[i] = std::sqrt(norms[i] + f.eps), inverse[i] = 1 / norms[i];
        for (int64_t q = 0; q < s.columns; ++q) {
          const V l = lin[q], factor = unpacked(inverse + q * kGroups, Lanes{});
          store(y + q * s.channels, has_power ? Formula::response(l, factor, slope) : l * (Formula::absolute(l) * factor));
        }
        scatter(norms, s.columns, f.norm + norm_at(s, n, first, p), s.rows * s.columns);
      }
    }
  }

  // ---- Backward ----

  template <int taps, int first, int... channel>
  static BCOS_INLINE void add_outer(V g, const V* at, int64_t dilation, V* sums, Sequence<channel...>) {
#pragma GCC unroll 8
    for (int k = 0; k < taps; ++k)
      ((sums[k * kChannels + channel] += g * of_channel<first + channel>(at + k * dilation, Lanes{})), ...);
  }

  // Sums over a row's places of dL/dl times what each of `taps` elements of the window sees, in some channels. They begin
  // anew in each row, and in each image: a sum over all places of a batch at once is not float32's.
  template <int taps, int first>
  static BCOS_INLINE void filter_sums(const V* grad_lin, const V* seen, int64_t places, int64_t stride, int64_t dilation,
                                      V* sums) {
    V all[taps * kChannels];
#pragma GCC unroll 8
    for (int k = 0; k < taps * kChannels; ++k) all[k] = V{};
    for (int64_t q = 0; q < places; ++q)
      add_outer<taps, first>(grad_lin[q], seen + q * stride, dilation, all, std::make_integer_sequence<int, kChannels>{});
#pragma GCC unroll 8
    for (int k = 0; k < taps; ++k)
#pragma GCC unroll 8
      for (int c = 0; c < kChannels; ++c) sums[k * group + first + c] += all[k * kChannels + c];
  }

  template <int taps>
  static void row_gradient(const V* grad_lin, const V* seen, int64_t places, int64_t stride, int64_t dilation, V* sums) {
    filter_sums<taps, 0>(grad_lin, seen, places, stride, dilation, sums);
    if constexpr (group > kChannels) filter_sums<taps, kChannels>(grad_lin, seen, places, stride, dilation, sums);
  }

  // sums: of one image
  static void filter_gradient(const GroupedLayer& s, const V* plane, const V* grad_lin, V* sums) {
    const int64_t width = s.padded().width, kernel = s.axis[1].kernel, dilation = s.axis[1].dilation, stride = s.axis[1].stride;
    clear(sums, s.vectors());
    for (int64_t p = 0; p < s.rows; ++p) {
      const V* g = grad_lin + p * s.columns;
      for (int64_t i = 0; i < s.axis[0].kernel; ++i) {
        const V* seen = plane + (p * s.axis[0].stride + i * s.axis[0].dilation) * width;
        V* of_row = sums + i * kernel * group;
        int64_t j = 0;
        for (; j + kTaps <= kernel; j += kTaps)
          row_gradient<kTaps>(g, seen + j * dilation, s.columns, stride, dilation, of_row + j * group);
        if constexpr (kTaps > 2) {
          if (kernel - j == 3) row_gradient<3>(g, seen + j * dilation, s.columns, stride, dilation, of_row + j * group);
          if (kernel - j == 2) row_gradient<2>(g, seen + j * dilation, s.columns, stride, dilation, of_row + j * group);
        }
        if constexpr (kTaps > 1)
          if (kernel - j == 1) row_gradient<1>(g, seen + j * dilation, s.columns, stride, dilation, of_row + j * group);
      }
    }
  }

  // Where a task's responses begin.
  static BCOS_INLINE int64_t first_of(const GroupedLayer& s, int64_t task) {
    return task % s.batch * s.rows * s.columns * s.channels + s.first(task / s.batch);
  }
  static BCOS_INLINE void fetch_responses(const GroupedBackward<T>& f, int64_t row) {
    fetch<false>(f.grad + row, f.layer.columns, f.layer.channels);
    fetch<false>(f.y + row, f.layer.columns, f.layer.channels);
  }

  template <bool has_power, bool has_terms>
  static void backward_tasks(const GroupedBackward<T>& f, int64_t share, int64_t begin, int64_t end) {
    const GroupedLayer& s = f.layer;
    const Plane seen = s.padded(), spread = s.spread();
    Scratch& scratch = planes_of_thread();
    V *plane, *grads, *pulls, *grad_lin, *of_columns, *products, *sums, *of_filters;
    float* inverse;
    const int64_t numbers = s.columns * kGroups;
    scratch.lay_out([&](Scratch& memory) {
      plane = memory.take<V>(seen.size());
      grads = memory.take<V>(spread.size()), pulls = memory.take<V>(spread.size());
      grad_lin = memory.take<V>(s.rows * s.columns), inverse = memory.take<float>(numbers);
      of_columns = memory.take<V>(spread.width), products = memory.take<V>(s.width), sums = memory.take<V>(s.width);
      of_filters = memory.take<V>(s.vectors());
    });
    bcos::AxisWindow axis[2] = {s.axis[0], s.axis[1]};  // over the spread planes
    axis[0].stride = axis[1].stride = 1;
    const float not_detached = f.detached ? 0 : 1;
    const V* flipped = reinterpret_cast<const V*>(f.flipped);
    for (int64_t task = begin; task < end; ++task) {
      // a block's images one after the other: its part of the filters' gradient stays in the cache
      const int64_t block = task / s.batch, n = task % s.batch, first = s.first(block);
      typename Formula::Exponents exponents{};
      if (has_power) exponents = Formula::exponents(f.exponent + first, lanes);
      double terms[lanes] = {};
      if (f.grad_x) clear(grads, spread.size()), clear(pulls, spread.size());
      for (int64_t p = 0; p < s.rows; ++p) {
        gather(f.norm + norm_at(s, n, first, p), s.rows * s.columns, s.columns, inverse);
#pragma omp simd
        for (int64_t i = 0; i < numbers; ++i) inverse[i] = 1 / inverse[i];
        const int64_t line = s.place(0, p), of_row = (n * s.rows + p) * s.columns * s.channels + first;
        fetch_share(s, f.x + s.image_at(n) + first, p, s.rows);
        fetch_responses(f, p + 1 < s.rows ? of_row + s.columns * s.channels : first_of(s, std::min(task + 1, end - 1)));
        for (int64_t q = 0; q < s.columns; ++q) {
          const int64_t at = of_row + q * s.channels;
          const V grad = load(f.grad + at), y = load(f.y + at), factor = unpacked(inverse + q * kGroups, Lanes{});
          const V ratio = Formula::absolute(y) * factor;
          typename Formula::Pulled pulled;
          if constexpr (has_power)
            pulled = Formula::pull(grad, y, ratio, exponents, not_detached);
          else
            pulled = {grad * (Isa::root(ratio) * (1 + not_detached)), grad * y, V{}};
          const V along = pulled.along_lin, pull = pulled.along_norm * factor * factor;
          if constexpr (has_terms) {
            const float* of_exponent = floats(&pulled.along_exponent);
            for (int i = 0; i < lanes; ++i) terms[i] += static_cast<double>(of_exponent[i]);
          }
          grad_lin[p * s.columns + q] = along;
          const int64_t column = s.place(1, q);
          if (f.grad_x && line >= 0 && line < spread.height && column >= 0 && column < spread.width) {
            grads[line * spread.width + column] = along;
            pulls[line * spread.width + column] = sum_of_group(pull);
          }
        }
      }
      if (has_terms)
        for (int i = 0; i < lanes; ++i) f.grad_exponent[(share * s.blocks() + block) * lanes + i] += terms[i];
      const T* x = f.x + s.image_at(n) + first;
      if (f.grad_filters) {
        load_plane(s, x, plane);
        filter_gradient(s, plane, grad_lin, of_filters);
        V* total = reinterpret_cast<V*>(f.grad_filters) + (share * s.blocks() + block) * s.vectors();
        for (int64_t i = 0; i < s.vectors(); ++i) total[i] += of_filters[i];
      }
      if (!f.grad_x) continue;
      T* out = f.grad_x + s.image_at(n) + first;
      for (int64_t h = 0; h < s.height; ++h) {
        const int64_t line = h * spread.width;
        fetch<true>(out + h * s.width * s.channels, s.width, s.channels);
        row_products(grads + line, spread.width, s.width, 1, axis, flipped + block * s.vectors(), products);
        if (!f.detached) row_sums<false>(pulls + line, spread.width, s.width, 1, axis, of_columns, sums);
        for (int64_t w = 0; w < s.width; ++w) {
          const int64_t at = (h * s.width + w) * s.channels;
          store(out + at, f.detached ? products[w] : products[w] - load(x + at) * sums[w]);
        }
      }
    }
  }

  static void forward(const GroupedForward<T>& f, int64_t begin, int64_t end) {
    if (f.exponent)
      forward_tasks<true>(f, begin, end);
    else
      forward_tasks<false>(f, begin, end);
  }

  static void backward(const GroupedBackward<T>& f, int64_t share, int64_t begin, int64_t end) {
    if (!f.exponent)
      backward_tasks<false, false>(f, share, begin, end);
    else if (f.grad_exponent)
      backward_tasks<true, true>(f, share, begin, end);
    else
      backward_tasks<true, false>(f, share, begin, end);
  }
};

// By the channels of a group.
template <class Isa, class T>
struct AllGrouped {
  static constexpr int lanes = Isa::lanes;
  template <int group>
  using Of = Grouped<Isa, T, (group < lanes ? group : lanes)>;

  static void forward(const GroupedForward<T>& f, int64_t begin, int64_t end) {
    switch (f.layer.group) {
      case 1: return Of<1>::forward(f, begin, end);
      case 2: return Of<2>::forward(f, begin, end);
      case 4: return Of<4>::forward(f, begin, end);
      case 8: return Of<8>::forward(f, begin, end);
      default: return Of<16>::forward(f, begin, end);
    }
  }
  static void backward(const GroupedBackward<T>& f, int64_t share, int64_t begin, int64_t end) {
    switch (f.layer.group) {
      case 1: return Of<1>::backward(f, share, begin, end);
      case 2: return Of<2>::backward(f, share, begin, end);
      case 4: return Of<4>::backward(f, share, begin, end);
      case 8: return Of<8>::backward(f, share, begin, end);
      default: return Of<16>::backward(f, share, begin, end);
    }
  }
  static constexpr GroupedLoops<T> table() { return {lanes, forward, backward}; }
};

}  // namespace
