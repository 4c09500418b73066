// The loops of product.h, written once for all instruction sets; a file for each of them includes this one with the
// compiler told so, and gives
//   Isa::Element   of x and y
//   Isa::step      elements in a word: products are of words of 32 bits, one float or two of half precision
//   Isa::V, Bytes  vectors of `lanes` float32 and uint8
//   Isa::tile_rows, outer_rows, outer_vectors   of how many sums fit the registers
//   Isa::load, load_some, store, multiply_add, multiply_add_once, multiply_add_words, halves, root, sum,
//   interleave
//   and what powers.h asks for
// Everything here is local to that file: one copy for each instruction set, none for the linker to choose among.
namespace {

using bcos::cpu::Backward;
using bcos::cpu::Filters;
using bcos::cpu::Forward;
using bcos::cpu::Layer;
using bcos::cpu::Products;

// Memory of a thread that stays from call to call: a fresh page costs more than what is computed into it.
class Scratch {
 public:
  // room for `count` numbers, and behind them for a vector that begins with the last one
  template <class N>
  N* take(int64_t count) {
    const size_t begin = (used_ + 63) / 64 * 64;
    used_ = begin + sizeof(N) * static_cast<size_t>(count) + 256;
    return used_ <= size_ ? reinterpret_cast<N*>(data_ + begin) : nullptr;
  }
  // lay(scratch) takes what it needs: once more where there was not enough
  template <class F>
  void lay_out(const F& lay) {
    used_ = 0;
    lay(*this);
    if (used_ <= size_) return;
    const size_t wanted = used_;
    size_ = 0;  // should there be no memory
    memory_.reset(new char[wanted + 64]);
    size_ = wanted;
    data_ = memory_.get() + (64 - reinterpret_cast<uintptr_t>(memory_.get()) % 64) % 64;
    used_ = 0;
    lay(*this);
  }

 private:
  std::unique_ptr<char[]> memory_;
  char* data_ = nullptr;
  size_t size_ = 0, used_ = 0;
};

inline int64_t up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// ---- Windows along one axis ----

// Places `first`, `first + step`, ... whose windows hold the same elements, none of them in the padding.
struct Phase {
  int64_t first, step, count;
  int64_t source, source_step;     // where the first place's first element is, and how much further the next place's
  std::vector<int64_t> elements;   // of the window
  std::vector<int64_t> distances;  // from the first element

  // those of the places [begin, end) only; may be empty
  Phase within(int64_t begin, int64_t end) const {
    Phase part = *this;
    const int64_t skipped = std::min(count, std::max<int64_t>(0, (begin - first + step - 1) / step));
    const int64_t stop = std::max(skipped, std::min(count, (end - first + step - 1) / step));
    part.first += skipped * step, part.source += skipped * source_step, part.count = stop - skipped;
    return part;
  }
};

// find(place, element): position in the source, or -1; those that are found are evenly spaced. Places a `step` apart go
// together.
template <class F>
std::vector<Phase> phases_of(int64_t places, int64_t step, int64_t kernel, int64_t source_step, bool reversed, const F& find) {
  std::vector<Phase> all;
  const auto element_at = [&](int64_t i) { return reversed ? kernel - 1 - i : i; };
  for (int64_t residue = 0; residue < std::min(step, places); ++residue) {
    int64_t first_before = -1, count_before = -1;
    for (int64_t place = residue; place < places; place += step) {
      int64_t first = kernel, count = 0;
      for (int64_t i = kernel - 1; i >= 0; --i)
        if (find(place, element_at(i)) >= 0) first = i, ++count;
      if (first == first_before && count == count_before) {
        ++all.back().count;
        continue;
      }
      first_before = first, count_before = count;
      Phase phase{place, step, 1, 0, source_step, {}, {}};
      for (int64_t i = first; i < kernel; ++i) {
        const int64_t at = find(place, element_at(i));
        if (at < 0) continue;
        if (phase.elements.empty()) phase.source = at;
        phase.elements.push_back(element_at(i)), phase.distances.push_back(at - phase.source);
      }
      all.push_back(phase);
    }
  }
  return all;
}

inline std::vector<Phase> one_phase(int64_t places) { return {Phase{0, 1, places, 0, 1, {0}, {0}}}; }

// Output places and what of x their windows see.
inline std::vector<Phase> forward_phases(const Layer& y, int axis) {
  const int64_t size = axis ? y.width : y.height;
  if (y.is_pointwise()) return one_phase(size);
  return phases_of(axis ? y.columns : y.rows, 1, y.kernel[axis], y.stride[axis], false, [&](int64_t place, int64_t element) {
    const int64_t at = place * y.stride[axis] - y.padding[axis] + element * y.dilation[axis];
    return at < size ? at : -1;
  });
}

// Places of x and the windows that see them.
inline std::vector<Phase> backward_phases(const Layer& y, int axis) {
  const int64_t windows = axis ? y.columns : y.rows, stride = y.stride[axis];
  if (y.is_pointwise()) return one_phase(windows);
  return phases_of(axis ? y.width : y.height, stride, y.kernel[axis], 1, true, [&](int64_t place, int64_t element) {
    const int64_t at = place + y.padding[axis] - element * y.dilation[axis];
    return at >= 0 && at % stride == 0 && at / stride < windows ? at / stride : -1;
  });
}

// A map of pixels, one number each, summed over windows: (height, width) -> places of the phases in rows of out_width.
inline void window_sums(const std::vector<Phase>& down, const std::vector<Phase>& across, const float* map, int64_t width,
                        float* sums, float* out, int64_t out_width) {
  for (const Phase& vertical : down)
    for (int64_t i = 0; i < vertical.count; ++i) {
      const float* first = map + (vertical.source + i * vertical.source_step) * width;
      if (vertical.elements.empty())
        for (int64_t w = 0; w < width; ++w) sums[w] = 0;
      for (size_t a = 0; a < vertical.elements.size(); ++a) {
        const float* row = first + vertical.distances[a] * width;
        if (a == 0) {
          for (int64_t w = 0; w < width; ++w) sums[w] = row[w];
        } else {
#pragma omp simd
          for (int64_t w = 0; w < width; ++w) sums[w] += row[w];
        }
      }
      float* row = out + (vertical.first + i * vertical.step) * out_width;
      for (const Phase& horizontal : across) {
        float* places = row + horizontal.first;
        const int64_t step = horizontal.step, source_step = horizontal.source_step, count = horizontal.count;
        for (int64_t w = 0; w < count; ++w) places[w * step] = 0;
        for (const int64_t distance : horizontal.distances) {
          const float* from = sums + horizontal.source + distance;
          if (step == 1 && source_step == 1) {
#pragma omp simd
            for (int64_t w = 0; w < count; ++w) places[w] += from[w];
          } else {
            for (int64_t w = 0; w < count; ++w) places[w * step] += from[w * source_step];
          }
        }
      }
    }
}

// What the next task will read, asked for while this one computes.
class Ahead {
 public:
  void add(const void* data, int64_t bytes) {
    if (bytes <= 0 || count_ == 3) return;
    data_[count_] = static_cast<const char*>(data), bytes_[count_++] = bytes;
  }
  void share(int64_t steps) { steps_ = std::max<int64_t>(1, steps); }
  void clear() { count_ = 0; }
  BCOS_INLINE void step() {
    for (int i = 0; i < count_; ++i) {
      const int64_t some = std::min(bytes_[i], (bytes_[i] / steps_ + 63) / 64 * 64);
      for (int64_t byte = 0; byte < some; byte += 64) __builtin_prefetch(data_[i] + byte, 0, 2);
      data_[i] += some, bytes_[i] -= some;
    }
    if (steps_ > 1) --steps_;
  }

 private:
  const char* data_[3];
  int64_t bytes_[3], steps_ = 1;
  int count_ = 0;
};

template <class Isa>
struct Loops {
  using T = typename Isa::Element;
  using V = typename Isa::V;
  static constexpr int L = Isa::lanes, R = Isa::tile_rows, kStep = Isa::step;
  static constexpr int kVectors = 2;       // of columns in a panel
  static constexpr int kNarrow = std::min(R, 12);  // rows of a tile one vector wide: a register for each row's address
  static constexpr int64_t kTiles = 8;     // that read a panel one after the other
  static constexpr int64_t kMost = kTiles * R;
  typedef int32_t I __attribute__((vector_size(4 * L)));
  using Bytes = typename Isa::Bytes;
  using Formula = Powers<Isa>;
  using Exponents = typename Formula::Exponents;
  typedef float U __attribute__((vector_size(4 * L), aligned(4), may_alias));

  // ---- Vectors ----

  static BCOS_INLINE V load_words(const float* p) { return *reinterpret_cast<const U*>(p); }
  static BCOS_INLINE void store_words(float* p, V v) { *reinterpret_cast<U*>(p) = v; }
  static BCOS_INLINE V broadcast(float x) { return V{} + x; }
  struct Behind {  // L zeros, then L ones
    float of[2 * L];
    constexpr Behind() : of() {
      for (int i = L; i < 2 * L; ++i) of[i] = 1;
    }
  };

  // The squares of a pixel's elements, summed into lanes; the last word may be half of zeros.
  static BCOS_INLINE V squares(const T* x, int64_t count) {
    const float* words = reinterpret_cast<const float*>(x);
    const int64_t size = (count + kStep - 1) / kStep;
    V sums = {};
    int64_t c = 0;
    for (; c + L <= size; c += L) {
      const V v = load_words(words + c);
      sums = Isa::multiply_add_words(v, v, sums);
    }
    if (c < size) {
      const V v = Isa::load_words_some(words + c, size - c);
      sums = Isa::multiply_add_words(v, v, sums);
    }
    return sums;
  }

  template <int distance, size_t... lane>
  static BCOS_INLINE V fold(V a, V b, std::index_sequence<lane...>) {
#if defined(__clang__)
    const V own = __builtin_shufflevector(a, b, (lane & distance ? L + lane : lane)...);
    const V other = __builtin_shufflevector(a, b, (lane & distance ? L + (lane ^ distance) : lane ^ distance)...);
#else
    const V own = __builtin_shuffle(a, b, I{(lane & distance ? L + lane : lane)...});
    const V other = __builtin_shuffle(a, b, I{(lane & distance ? L + (lane ^ distance) : lane ^ distance)...});
#endif
    return own + other;
  }

  // Lane i of the result is the sum of all lanes of v[i], where there are as many vectors as lanes: each step halves the
  // vectors, where one after the other would take as many steps for each. Of half as many vectors it is the sum of the lower
  // lanes of v[i], or of the upper ones of v[i - L / 2].
  template <int distance = 1, int count>
  static BCOS_INLINE V sums_of_lanes(V (&v)[count]) {
    if constexpr (distance < count) {
#pragma GCC unroll 16
      for (int i = 0; i < count; i += 2 * distance)
        v[i] = fold<distance>(v[i], v[i + distance], std::make_index_sequence<L>{});
      return sums_of_lanes<2 * distance>(v);
    } else {
      return v[0];
    }
  }

  // Of `count` pixels a `step` of elements apart
  static BCOS_INLINE void sums_of_squares(const T* x, int64_t step, int64_t channels, int64_t count, float* out) {
    int64_t i = 0;
    if (channels == L / 2 * kStep) {  // two pixels in a vector
      for (; i + L <= count; i += L) {
        V v[L / 2];
#pragma GCC unroll 16
        for (int lane = 0; lane < L / 2; ++lane) {
          const T* pixel = x + (i + lane) * step;
          const V both = Isa::halves(reinterpret_cast<const float*>(pixel), reinterpret_cast<const float*>(pixel + L / 2 * step));
          v[lane] = Isa::multiply_add_words(both, both, V{});
        }
        store_words(out + i, sums_of_lanes(v));
      }
    } else {
      for (; i + L <= count; i += L) {
        V v[L];
#pragma GCC unroll 16
        for (int lane = 0; lane < L; ++lane) v[lane] = squares(x + (i + lane) * step, channels);
        store_words(out + i, sums_of_lanes(v));
      }
    }
    for (; i < count; ++i) out[i] = Isa::sum(squares(x + i * step, channels));
  }

  // ---- Products ----

  struct Segment {  // words that follow each other in every row of a tile, and in the panel
    int64_t offset, words, column;
  };

  // What the windows of one row phase and one column phase see; `tap` numbers the panel's words.
  template <class Tap>
  static void find_segments(const Phase& vertical, const Phase& horizontal, int64_t row_words, int64_t pixel_words,
                            int64_t tap_words, const Tap& tap, std::vector<Segment>& segments) {
    segments.clear();
    for (size_t a = 0; a < vertical.elements.size(); ++a)
      for (size_t b = 0; b < horizontal.elements.size(); ++b) {
        const int64_t offset = vertical.distances[a] * row_words + horizontal.distances[b] * pixel_words;
        const int64_t column = tap(vertical.elements[a], horizontal.elements[b]) * tap_words;
        if (!segments.empty()) {
          Segment& last = segments.back();
          if (last.offset + last.words == offset && last.column + last.words == column) {
            last.words += tap_words;
            continue;
          }
        }
        segments.push_back({offset, tap_words, column});
      }
    if (segments.empty()) segments.push_back({0, 0, 0});  // a window of padding only
  }

  template <bool once>
  static BCOS_INLINE V multiply_add(const float& word, V b, V c) {
    if constexpr (once) return Isa::multiply_add_once(word, b, c);
    return Isa::multiply_add(word, b, c);
  }

  // acc[r][v] = sum over the words of the segments of rows[r] with the panel's vectors
  template <int rows, int vectors>
  static BCOS_INLINE void dot(const float* const* pixels, const std::vector<Segment>& segments, const float* panel,
                              V (&acc)[rows][vectors]) {
#pragma GCC unroll 32
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) acc[r][v] = V{};
    }
    const Segment *segment = segments.data(), *end = segment + segments.size();
    do {  // at least one: the sums can be in registers
      const float* row[rows];
      for (int r = 0; r < rows; ++r) row[r] = pixels[r] + segment->offset;
      const float* column = panel + segment->column * vectors * L;
      const int64_t words = segment->words;
#pragma GCC unroll 2
      for (int64_t k = 0; k < words; ++k, column += vectors * L) {
        V w[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) w[v] = load_words(column + v * L);
#pragma GCC unroll 32
        for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) acc[r][v] = multiply_add<vectors == 1>(row[r][k], w[v], acc[r][v]);
        }
      }
    } while (++segment < end);
  }

  // ---- Panels: the right-hand sides of `dot`, (panel, word, vector, lane) ----

  struct Panels {
    int64_t columns;  // filters in forward, channels in backward
    int64_t taps, depth /* elements for each tap, padded to words */;

    int64_t words() const { return taps * depth / kStep; }
    int64_t count() const { return (columns + kVectors * L - 1) / (kVectors * L); }
    int64_t width(int64_t panel) const {  // in vectors
      return columns - panel * kVectors * L > L ? kVectors : 1;
    }
    int64_t first(int64_t panel) const { return panel * kVectors * L * words(); }  // float
    int64_t size() const { return count() * kVectors * L * words(); }
  };

  static Panels forward_panels(const Layer& y) {
    // with MaxOut every panel holds the two filters of L outputs
    const int64_t columns = y.max_out == 1 ? y.outputs : up(y.outputs, L) * 2;
    return {columns, y.taps(), up(y.channels, kStep)};
  }
  static Panels backward_panels(const Layer& y) { return {y.channels, y.taps(), depth_of_filters(y)}; }
  static int64_t depth_of_filters(const Layer& y) { return up(y.filters(), std::max(kStep, Isa::outer_rows)); }

  static int64_t filter_at(const Layer& y, int64_t panel, int64_t v, int64_t lane) {  // or beyond the last
    return y.max_out == 1 ? (panel * kVectors + v) * L + lane : 2 * (panel * L + lane) + v;
  }

  template <class W>
  static BCOS_INLINE T element(const Filters<W>& w, int64_t at, double factor) {
    const W raw = w.data[at];
    return w.factor ? static_cast<T>(static_cast<float>(static_cast<double>(raw) * factor)) : static_cast<T>(raw);
  }

  template <class W>
  static void pack_forward(const Layer& y, const Filters<W>& w, float* panels, int64_t begin, int64_t end) {
    const Panels p = forward_panels(y);
    constexpr int64_t kBlock = 32;  // channels: what is written stays in the first-level cache
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t width = p.width(panel) * L;
      for (int64_t tap = 0; tap < p.taps; ++tap) {
        const int64_t at = tap / y.kernel[1] * w.stride[2] + tap % y.kernel[1] * w.stride[3];
        T* words = reinterpret_cast<T*>(panels + p.first(panel) + tap * p.depth / kStep * width);
        for (int64_t c0 = 0; c0 < p.depth; c0 += kBlock) {
          const int64_t c1 = std::min(p.depth, c0 + kBlock), there = std::min(c1, y.channels);
          T line[kBlock];
          for (int64_t column = 0; column < width; ++column) {
            const int64_t f = filter_at(y, panel, column / L, column % L);
            const int64_t some = f < y.filters() ? std::max<int64_t>(0, there - c0) : 0, first = f * w.stride[0] + at + c0 * w.stride[1];
            const double factor = w.factor && some ? w.factor[f] : 1;
            if (w.stride[1] == 1) {
#pragma omp simd
              for (int64_t c = 0; c < some; ++c) line[c] = element(w, first + c, factor);
            } else {
              for (int64_t c = 0; c < some; ++c) line[c] = element(w, first + c * w.stride[1], factor);
            }
            for (int64_t c = some; c < c1 - c0; ++c) line[c] = T(0.0f);
            T* out = words + (c0 / kStep * width + column) * kStep;
            for (int64_t c = 0; c < c1 - c0; c += kStep, out += width * kStep)
              for (int i = 0; i < kStep; ++i) out[i] = line[c + i];
          }
        }
      }
    }
  }

  // The taps of a row in reverse: the order in which the windows that see a pixel lie in memory.
  static int64_t backward_tap(const Layer& y, int64_t row, int64_t column) {
    return row * y.kernel[1] + y.kernel[1] - 1 - column;
  }

  template <class W>
  static void pack_backward(const Layer& y, const Filters<W>& w, float* panels, int64_t begin, int64_t end) {
    const Panels p = backward_panels(y);
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t width = p.width(panel) * L, first = panel * kVectors * L;
      for (int64_t tap = 0; tap < p.taps; ++tap) {
        const int64_t row = tap / y.kernel[1], column = tap % y.kernel[1];
        const int64_t at = row * w.stride[2] + column * w.stride[3] + first * w.stride[1];
        T* words = reinterpret_cast<T*>(panels + p.first(panel) + backward_tap(y, row, column) * p.depth / kStep * width);
        for (int64_t f = 0; f < p.depth; f += kStep, words += width * kStep) {
          T lines[kStep][kVectors * L];
          for (int i = 0; i < kStep; ++i) {
            const int64_t there = f + i < y.filters() ? std::min(width, y.channels - first) : 0;
            const double factor = w.factor && there ? w.factor[f + i] : 1;
            const int64_t from = at + (f + i) * w.stride[0];
            T* line = kStep == 1 ? words : lines[i];
            if (w.stride[1] == 1) {
#pragma omp simd
              for (int64_t c = 0; c < there; ++c) line[c] = element(w, from + c, factor);
            } else {
              for (int64_t c = 0; c < there; ++c) line[c] = element(w, from + c * w.stride[1], factor);
            }
            for (int64_t c = there; c < width; ++c) line[c] = T(0.0f);
          }
          for (int64_t c = 0; kStep > 1 && c < width; c += L)
            Isa::interleave(lines[0] + c, lines[kStep - 1] + c, words + c * kStep);
        }
      }
    }
  }

  // One number for each filter, in the order of the panels' columns.
  static void arrange(const Layer& y, const double* values, float* out) {
    for (int64_t column = 0; column < arranged_size(y); ++column) {
      const int64_t f = filter_at(y, column / (kVectors * L), column / L % kVectors, column % L);
      out[column] = f < y.filters() ? static_cast<float>(values[f]) : 0;
    }
  }
  static int64_t arranged_size(const Layer& y) { return forward_panels(y).count() * kVectors * L; }

  // f(rows of a tile, vectors of a panel), with the smallest tile for so many pixels
  template <class F>
  static BCOS_INLINE void with_tile(int64_t vectors, int64_t pixels, const F& f) {
    if (vectors == 1) return with_rows<kNarrow, 1>(pixels, f);
    with_rows<R, kVectors>(pixels, f);
  }
  static int64_t rows_of(int64_t vectors) { return vectors == 1 ? kNarrow : R; }
  template <int rows, int vectors, class F>
  static BCOS_INLINE void with_rows(int64_t pixels, const F& f) {
    if constexpr (rows > 2)
      if (pixels <= rows - 2) return with_rows<rows - 2, vectors>(pixels, f);
    f(std::integral_constant<int, rows>{}, std::integral_constant<int, vectors>{});
  }

  // Pixels of some images as rows of tiles. Where a pixel's elements are a multiple of half a first-level cache's way
  // apart, the rows of a tile would fight for a few places in it.
  struct Map {
    const T* data;
    int64_t image_stride, row_stride, pixel_stride;  // elements

    const T* at(int64_t image, int64_t h, int64_t w) const {
      return data + image * image_stride + h * row_stride + w * pixel_stride;
    }
  };
  static bool collides(int64_t elements) { return elements * static_cast<int64_t>(sizeof(T)) % 2048 == 0; }
  static int64_t spaced(int64_t elements) {
    return elements + (collides(elements) ? 64 / static_cast<int64_t>(sizeof(T)) : 0);
  }

  // The places of two phases in some images, up to kMost at a time: f(count, their first elements, their places in
  // (image, row, column) with rows of `width` places and images of `area`)
  template <class F>
  static void for_places(int64_t images, const Phase& vertical, const Phase& horizontal, const Map& map, int64_t area,
                         int64_t width, const F& f) {
    const float* base[kMost];
    int64_t place[kMost], count = 0;
    const auto flush = [&] {
      for (int64_t i = count; i < std::min(kMost, count + 2); ++i) base[i] = base[0], place[i] = place[0];
      if (count) f(count, base, place);
      count = 0;
    };
    for (int64_t n = 0; n < images; ++n)
      for (int64_t i = 0; i < vertical.count; ++i) {
        const T* first = map.at(n, vertical.source + i * vertical.source_step, horizontal.source);
        const int64_t row = n * area + (vertical.first + i * vertical.step) * width + horizontal.first;
        const int64_t step = horizontal.source_step * map.pixel_stride;
        for (int64_t j = 0; j < horizontal.count;) {
          const int64_t some = std::min(horizontal.count - j, kMost - count);
          for (int64_t k = 0; k < some; ++k, ++j) {
            base[count + k] = reinterpret_cast<const float*>(first + j * step);
            place[count + k] = row + j * horizontal.step;
          }
          count += some;
          if (count == kMost) flush();
        }
      }
    flush();
  }

  // ---- Forward ----

  // A row of responses to `count` outputs from `first` on, in whole vectors, scaled and stored.
  static BCOS_INLINE void respond(const Forward<T>& f, const float* lin, float inverse, int64_t first, int64_t count,
                                  T* y) {
    if (!f.exponent) {
#pragma omp simd
      for (int64_t o = 0; o < count; ++o) y[o] = bcos::narrowed<T>(lin[o] * (std::fabs(lin[o]) * inverse));
      return;
    }
    const float* b = f.exponent + first;
    int64_t o = 0;
    for (; o + L <= count; o += L)
      Isa::store(y + o, Formula::response(load_words(lin + o), broadcast(inverse), load_words(b + o) - 1));
    if (o == count) return;
    alignas(64) float last[L];
    store_words(last, Formula::response(load_words(lin + o), broadcast(inverse), Isa::load_words_some(b + o, count - o) - 1));
    for (int64_t i = 0; o + i < count; ++i) y[o + i] = bcos::narrowed<T>(last[i]);
  }

  // The pages' and lines' way from memory takes about as long as the product: asked for before it, they are there after.
  template <int rows, int bytes>
  static BCOS_INLINE void fetch(const T* data, const int64_t* places, int64_t width, int64_t column) {
    for (int r = 0; r < rows; ++r)
      for (int byte = 0; byte < bytes; byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(data + places[r] * width + column) + byte, 1);
  }

  template <int rows, int vectors>
  static void forward_tile(const Forward<T>& f, const float* const* pixels, const std::vector<Segment>& segments,
                           const float* panel, int64_t column, const int64_t* places, int64_t count,
                           const float* inverses) {
    const Layer& y = f.layer;
    const bool pairs = vectors == 2 && y.max_out == 2;
    const int64_t first = y.max_out == 2 ? column / 2 : column;
    fetch<rows, vectors * L * sizeof(T)>(f.y, places, y.y_step(), first);
    V acc[rows][vectors];
    dot<rows, vectors>(pixels, segments, panel, acc);
    if (f.filter_scale) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const V scale = load_words(f.filter_scale + column + v * L);
#pragma GCC unroll 32
        for (int r = 0; r < rows; ++r) acc[r][v] *= scale;
      }
    }
    if (pairs) {
      const int64_t there = std::min<int64_t>(L, y.outputs - first);
#pragma GCC unroll 32
      for (int r = 0; r < rows; ++r) {
        const V a = acc[r][0], b = acc[r][vectors - 1];
        const I second = (b > a) | ((b != b) & (a == a));  // the first NaN wins, as in torch.max
        acc[r][0] = second ? b : a;
        if (r >= count) continue;
        uint8_t* winner = f.winner + places[r] * y.y_step() + first;
        const Bytes bytes = __builtin_convertvector(-second, Bytes);
        if (there == L)
          std::memcpy(winner, &bytes, L);
        else
          for (int64_t o = 0; o < there; ++o) winner[o] = bytes[o];
      }
      return finish<rows, vectors, 1>(f, acc, first, there, places, count, inverses);
    }
    finish<rows, vectors, vectors>(f, acc, first, std::min<int64_t>(vectors * L, y.outputs - first), places, count, inverses);
  }

  // Scales the first `width` vectors of responses and stores them.
  template <int rows, int vectors, int width>
  static BCOS_INLINE void finish(const Forward<T>& f, const V (&acc)[rows][vectors], int64_t first, int64_t there,
                                 const int64_t* places, int64_t count, const float* inverses) {
    const int64_t step = f.layer.y_step();
    if (!f.exponent && there == width * L) {
#pragma GCC unroll 32
      for (int r = 0; r < rows; ++r) {
        if (r >= count) return;
        T* out = f.y + places[r] * step + first;
        const float inverse = inverses[places[r]];
#pragma GCC unroll 4
        for (int v = 0; v < width; ++v) Isa::store(out + v * L, acc[r][v] * (Formula::absolute(acc[r][v]) * inverse));
      }
      return;
    }
    alignas(64) float lin[rows][width * L];
#pragma GCC unroll 32
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < width; ++v) store_words(&lin[r][v * L], acc[r][v]);
    }
    for (int64_t r = 0; r < count; ++r)
      respond(f, lin[r], inverses[places[r]], first, there, f.y + places[r] * step + first);
  }

  // Rows of x that a band of output rows sees.
  struct Reach {
    int64_t first, count;
  };
  static Reach reach(const Layer& y, int64_t first, int64_t rows) {
    const int64_t top = first * y.stride[0] - y.padding[0];
    const int64_t bottom = top + (rows - 1) * y.stride[0] + (y.kernel[0] - 1) * y.dilation[0] + 1;
    const int64_t begin = std::min(y.height, std::max<int64_t>(0, top));
    return {begin, std::max<int64_t>(0, std::min(y.height, bottom) - begin)};
  }

  static void forward(const Forward<T>& f, int64_t begin, int64_t end) {
    const Layer& y = f.layer;
    const Panels panels = forward_panels(y);
    const int64_t depth = panels.depth, stride = spaced(depth), area = y.rows * y.columns;
    const bool copied = depth != y.channels || (collides(y.x_step()) && y.outputs > 2 * L);
    const std::vector<Phase> down = forward_phases(y, 0), across = forward_phases(y, 1);
    // Of a layer with windows of one pixel only the pixels that are read have an energy.
    const bool single = y.is_single();
    const int64_t most = single ? y.band * y.columns : 0;
    const int64_t high = std::min(y.height, (y.band - 1) * y.stride[0] + (y.kernel[0] - 1) * y.dilation[0] + 1);
    static thread_local Scratch memory;
    T* copy;
    float *energies, *sums, *inverses;
    memory.lay_out([&](Scratch& m) {
      copy = m.take<T>(copied ? y.images * high * y.width * stride : 0);
      energies = m.take<float>(single ? most : high * y.width);
      sums = m.take<float>(y.width);
      inverses = m.take<float>(y.images * area);
    });
    if (copied) std::memset(static_cast<void*>(copy), 0, sizeof(T) * y.images * high * y.width * stride);
    std::vector<Segment> segments;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / y.bands() * y.images, images = std::min(y.images, y.batch - n);
      const int64_t first = task % y.bands() * y.band, rows = std::min(y.band, y.rows - first);
      const Reach seen = reach(y, first, rows);
      const T* x = f.x + n * y.height * y.width * y.x_step();
      Map map{x, y.height * y.width * y.x_step(), y.width * y.x_step(), y.x_step()};
      if (copied) {
        map = {copy - seen.first * y.width * stride, high * y.width * stride, y.width * stride, stride};
        for (int64_t i = 0; i < images; ++i)
          for (int64_t pixel = 0; pixel < seen.count * y.width; ++pixel)
            std::memcpy(static_cast<void*>(copy + (i * high * y.width + pixel) * stride),
                        x + ((i * y.height + seen.first) * y.width + pixel) * y.x_step(), sizeof(T) * y.channels);
      }
      std::vector<Phase> bands;
      for (const Phase& phase : down) {
        bands.push_back(phase.within(first, first + rows));
        if (!bands.back().count) bands.pop_back();
      }
      for (int64_t i = 0; i < images; ++i) {
        float* norm = f.norm + (n + i) * y.norm_step();
        if (single) {  // windows without padding; those that have some see nothing in it
          for (int64_t place = first * y.columns; place < (first + rows) * y.columns; ++place) norm[place] = 0;
          for (const Phase& vertical : bands)
            for (const Phase& horizontal : across) {
              if (vertical.elements.empty() || horizontal.elements.empty()) continue;
              for (int64_t r = 0; r < vertical.count; ++r) {
                float* out = norm + (vertical.first + r) * y.columns + horizontal.first;
                sums_of_squares(map.at(i, vertical.source + r * vertical.source_step, horizontal.source),
                                horizontal.source_step * map.pixel_stride, y.channels, horizontal.count, out);
              }
            }
        } else {
          for (int64_t h = 0; h < seen.count; ++h)
            sums_of_squares(map.at(i, seen.first + h, 0), map.pixel_stride, y.channels, y.width, energies + h * y.width);
          window_sums(bands, across, energies - seen.first * y.width, y.width, sums, norm, y.columns);
        }
        float* inverse = inverses + i * area;
#pragma omp simd
        for (int64_t place = first * y.columns; place < (first + rows) * y.columns; ++place) {
          norm[place] = std::sqrt(norm[place] + f.eps);
          inverse[place] = 1 / norm[place];
        }
      }
      Ahead ahead;
      if (task + 1 < end && y.groups == 1) {  // else most of it would be other groups'
        const int64_t next = (task + 1) / y.bands() * y.images, next_row = (task + 1) % y.bands() * y.band;
        const Reach then = reach(y, next_row, std::min(y.band, y.rows - next_row));
        const int64_t known = next == n ? seen.first + seen.count : 0, from = std::max(then.first, known);
        ahead.add(f.x + (next * y.height + from) * y.width * y.channels,
                  static_cast<int64_t>(sizeof(T)) * y.width * y.channels *
                      ((std::min(y.images, y.batch - next) - 1) * y.height + then.first + then.count - from));
      }
      ahead.share(images * rows * y.columns / R * panels.count());
      Forward<T> part = f;
      part.y += n * area * y.y_step();
      if (part.winner) part.winner += n * area * y.y_step();
      for (const Phase& vertical : bands)
        for (const Phase& horizontal : across) {
          find_segments(vertical, horizontal, map.row_stride / kStep, map.pixel_stride / kStep, depth / kStep,
                        [&](int64_t a, int64_t b) { return a * y.kernel[1] + b; }, segments);
          for_places(images, vertical, horizontal, map, area, y.columns,
                     [&](int64_t count, const float* const* base, const int64_t* places) {
                       for (int64_t panel = 0; panel < panels.count(); ++panel)
                         for (int64_t i = 0; i < count; i += rows_of(panels.width(panel)))
                           with_tile(panels.width(panel), count - i, [&](auto tile, auto vectors) {
                             ahead.step();
                             forward_tile<decltype(tile)::value, decltype(vectors)::value>(
                                 part, base + i, segments, f.panels + panels.first(panel), panel * kVectors * L,
                                 places + i, std::min<int64_t>(decltype(tile)::value, count - i), inverses);
                           });
                     });
        }
    }
  }

  // ---- Backward: dL/dl of a task's images or rows ----

  static constexpr Behind kBehind{};

  // One pixel's dL/dl into `out` (filters); answers r.
  static BCOS_INLINE float pull_pixel(const Backward<T>& b, const Exponents* exponents, const T* grad, const T* y,
                                      const uint8_t* winner, float norm, float* out, double* exponent_sums) {
    const int64_t outputs = b.layer.outputs;
    const float inverse = 1 / norm;
    float total = 0;
    if (!b.exponent) {
      const float slope = b.detached ? 1.0f : 2.0f;
      V sums = {};
      int64_t o = 0;
      for (; o + L <= outputs; o += L) {
        const V g = Isa::load(grad + o), value = Isa::load(y + o);
        sums += g * value;
        store_words(out + o, g * (Isa::root(Formula::absolute(value) * inverse) * slope));
      }
      total = Isa::sum(sums);
      for (; o < outputs; ++o) {
        const float g = bcos::widened(grad[o]), value = bcos::widened(y[o]);
        total += g * value;
        out[o] = g * (std::sqrt(std::fabs(value) * inverse) * slope);
      }
    } else {
      const float attached = b.detached ? 0.0f : 1.0f;
      V sums = {};
      for (int64_t o = 0; o < outputs; o += L) {
        const int64_t some = std::min<int64_t>(L, outputs - o);
        const V g = Isa::load_some(grad + o, some), value = Isa::load_some(y + o, some);
        const V ratio = Formula::absolute(value) * inverse + load_words(kBehind.of + L - some);  // what is behind is ordinary, and times 0
        const auto pulled = Formula::pull(g, value, ratio, exponents[o / L], attached);
        sums += pulled.along_norm;
        if (some == L)
          store_words(out + o, pulled.along_lin);
        else
          Isa::store_words_some(out + o, pulled.along_lin, some);
        if (!exponent_sums) continue;
        alignas(64) float terms[L];
        store_words(terms, pulled.along_exponent);
        for (int64_t i = 0; i < some; ++i) exponent_sums[o + i] += static_cast<double>(terms[i]);
      }
      total = Isa::sum(sums);
    }
    if (b.layer.max_out == 2)
      for (int64_t o = outputs - 1; o >= 0; --o) {
        const float value = out[o];
        out[2 * o] = winner[o] ? 0.0f : value, out[2 * o + 1] = winner[o] ? value : 0.0f;
      }
    return total * inverse * inverse;
  }

  // `count` pixels from number `first` on, with their norms, into rows of `stride` elements, and r of each
  static void pull(const Backward<T>& b, const Exponents* exponents, int64_t first, const float* norms, int64_t count, T* rows,
                   int64_t stride, float* pulls, float* line, double* exponent_sums) {
    const Layer& y = b.layer;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (first + i) * y.y_step();
      T* row = rows + i * stride;
      float* out = line;
      if constexpr (kStep == 1) out = reinterpret_cast<float*>(row);
      const float r =
          pull_pixel(b, exponents, b.grad + at, b.y + at, b.winner ? b.winner + at : nullptr, norms[i], out, exponent_sums);
      pulls[i] = b.detached ? 0 : r;
      if constexpr (kStep > 1) {
        int64_t f = 0;
        for (; f + L <= y.filters(); f += L) Isa::store(row + f, load_words(line + f));
        for (; f < y.filters(); ++f) row[f] = static_cast<T>(line[f]);
      }
    }
  }

  // ---- Gradient of x: dL/dl under the transposed filters, less x times what its windows' r add up to ----

  template <int rows, int vectors>
  static void backward_tile(const Backward<T>& b, const float* const* pixels, const std::vector<Segment>& segments,
                            const float* panel, int64_t column, const int64_t* places, int64_t count,
                            const float* spread) {
    const int64_t step = b.layer.x_step();
    fetch<rows, vectors * L * sizeof(T)>(b.grad_x, places, step, column);
    fetch<rows, vectors * L * sizeof(T)>(b.x, places, step, column);
    V acc[rows][vectors];
    dot<rows, vectors>(pixels, segments, panel, acc);
    const int64_t there = std::min<int64_t>(vectors * L, b.layer.channels - column);
    if (there == vectors * L) {
#pragma GCC unroll 32
      for (int r = 0; r < rows; ++r) {
        if (r >= count) return;
        const int64_t at = places[r] * step + column;
        const float s = spread[places[r]];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v)
          Isa::store(b.grad_x + at + v * L, b.detached ? acc[r][v] : acc[r][v] - Isa::load(b.x + at + v * L) * s);
      }
      return;
    }
    alignas(64) float linear[rows][vectors * L];
#pragma GCC unroll 32
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) store_words(&linear[r][v * L], acc[r][v]);
    }
    for (int64_t r = 0; r < count; ++r) {
      const int64_t at = places[r] * step + column;
      for (int64_t c = 0; c < there; ++c)
        b.grad_x[at + c] = bcos::narrowed<T>(
            b.detached ? linear[r][c] : linear[r][c] - bcos::widened(b.x[at + c]) * spread[places[r]]);
    }
  }

  // ---- Gradient of the filters: (row of the window, filter, (column of the window, channel) padded to vectors) ----

  struct Gradient {
    int64_t rows, filters, columns, stride;

    int64_t at(int64_t row, int64_t filter) const { return (row * filters + filter) * stride; }
    int64_t size() const { return rows * filters * stride; }
  };

  static Gradient gradient(const Layer& y) {
    const int64_t columns = y.kernel[1] * y.channels;
    return {y.kernel[0], depth_of_filters(y), columns, up(columns, L)};
  }

  // One side of the outer products: words of places, of a filter or a column each.
  struct Operand {
    const float* data;
    int64_t step;    // from one place to the next, where a place's words lie together
    int64_t places;  // or 0; else blocks of words one after the other, each with this many places
  };
  static constexpr int64_t kColumns = Isa::outer_vectors * L;  // in a block at most

  // Places of dL/dl and of x that belong together: `rows` runs of `count`, and how far they lie apart.
  struct Runs {
    int64_t left, right, rows, left_row, right_row, count, right_step;
  };

  // out[r][v] += sum over the runs of left[r] with the vectors at right, or, first, is that sum; of the last vector `last`
  // words are there
  template <int rows, int vectors>
  static void outer(const std::vector<Runs>& runs, const float* left, int64_t left_step, const float* right, int64_t right_step,
                    int64_t last, bool is_first, float* out, int64_t stride) {
    V acc[rows][vectors];
#pragma GCC unroll 32
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) acc[r][v] = V{};
    }
    for (const Runs& run : runs)
      for (int64_t i = 0; i < run.rows; ++i) {
        const float* l = left + (run.left + i * run.left_row) * left_step;
        const float* x = right + (run.right + i * run.right_row) * right_step;
        const int64_t step = run.right_step * right_step;
        for (int64_t j = 0; j < run.count; ++j, l += left_step, x += step) {
          V columns[vectors];
#pragma GCC unroll 4
          for (int v = 0; v + 1 < vectors; ++v) columns[v] = load_words(x + v * L);
          const float* end = x + (vectors - 1) * L;
          columns[vectors - 1] = last == L ? load_words(end) : Isa::load_words_some(end, last);
#pragma GCC unroll 32
          for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < vectors; ++v) acc[r][v] = multiply_add<vectors == 1>(l[r], columns[v], acc[r][v]);
          }
        }
      }
#pragma GCC unroll 32
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        float* at = out + r * stride + v * L;
        const V sum = is_first ? acc[r][v] : load_words(at) + acc[r][v];
        if (v + 1 < vectors || last == L)
          store_words(at, sum);
        else  // what is behind is another filter's, or another thread's
          Isa::store_words_some(at, sum, last);
      }
    }
  }

  static void accumulate(const Gradient& g, const std::vector<Runs>& runs, const Operand& left, const Operand& right,
                         int64_t columns, int64_t filters, bool is_first, float* out) {
    constexpr int kFew = Isa::outer_rows, kMany = 2 * Isa::outer_rows;
    for (int64_t column = 0; column < columns; column += kColumns) {
      const int64_t vectors = std::min<int64_t>(Isa::outer_vectors, (columns - column + L - 1) / L);
      const int64_t last = std::min<int64_t>(L, columns - column - (vectors - 1) * L);
      const float* x = right.data + column * (right.places ? right.places : 1);
      const int64_t step = right.places ? vectors * L : right.step;
      for (int64_t f = 0; f < filters;) {
        const float* l = left.data + (left.places ? f / L * L * left.places + f % L : f);
        float* at = out + f * g.stride + column;
        const bool many = vectors == 1 && filters - f > kFew;
        if (many)
          outer<kMany, 1>(runs, l, left.step, x, step, last, is_first, at, g.stride);
        else if (vectors == 1)
          outer<kFew, 1>(runs, l, left.step, x, step, last, is_first, at, g.stride);
        else if (vectors == 2)
          outer<kFew, 2>(runs, l, left.step, x, step, last, is_first, at, g.stride);
        else
          outer<kFew, Isa::outer_vectors>(runs, l, left.step, x, step, last, is_first, at, g.stride);
        f += many ? kMany : kFew;
      }
    }
  }

  // ---- Half precision: words of two neighbouring places, in blocks. A block's words are read in the order in which they lie
  // in memory, once for each of the other side's; rows of pairs as long as a layer is wide would fight for a few places in
  // the first-level cache. ----

  static int64_t left_words(int64_t places, int64_t depth) { return places * up(depth, L); }
  static int64_t right_words(int64_t places, int64_t columns) { return places * up(columns, L); }

  // Where the word of a column begins that is a multiple of L, in blocks of `width` columns (of fewer: the last).
  static BCOS_INLINE float* word(float* words, int64_t places, int64_t width, int64_t columns, int64_t place, int64_t column) {
    const int64_t block = column / width * width, there = std::min(width, up(columns - block, L));
    return words + block * places + place * there + column - block;
  }
  static BCOS_INLINE float* left_word(float* words, int64_t places, int64_t depth, int64_t place, int64_t f) {
    return word(words, places, L, depth, place, f);
  }
  static BCOS_INLINE float* right_word(float* words, int64_t places, int64_t columns, int64_t place, int64_t column) {
    return word(words, places, kColumns, columns, place, column);
  }

  // at(c): where the words of elements c, c + 1... of both rows go
  template <class At>
  static BCOS_INLINE void interleave(const T* even, const T* odd, int64_t elements, const At& at) {
    int64_t c = 0;
    for (; c + L <= elements; c += L) Isa::interleave(even + c, odd + c, reinterpret_cast<T*>(at(c)));
    if (c == elements) return;
    T* out = reinterpret_cast<T*>(at(c));
    for (int64_t i = 0; c + i < elements; ++i) out[2 * i] = even[c + i], out[2 * i + 1] = odd[c + i];
  }

  // `count` rows, a `stride` apart, of so many elements; a row that is missing is zero. at(pair, c)
  template <class At>
  static BCOS_INLINE void pair_rows(const T* rows, int64_t count, int64_t stride, int64_t elements, const T* zeros, const At& at) {
    for (int64_t i = 0; i < count; i += 2)
      interleave(rows + i * stride, i + 1 < count ? rows + (i + 1) * stride : zeros, elements,
                 [&](int64_t c) { return at(i / 2, c); });
  }

  // What two neighbouring windows see of one row of x: elements are (column of the window, channel). at(pair, element)
  template <class At>
  static BCOS_INLINE void pair_windows(const Layer& y, const T* row, const T* zeros, T* lines, const At& at) {
    const int64_t elements = y.kernel[1] * y.channels;
    for (int64_t q = 0; q < y.columns; q += 2) {
      const int64_t left = q * y.stride[1] - y.padding[1];
      const T* windows[2] = {row + left * y.channels, row + (left + y.stride[1]) * y.channels};
      const bool is_one_piece = y.groups == 1 && y.dilation[1] == 1 && left >= 0 && q + 1 < y.columns &&
                                left + y.stride[1] + y.kernel[1] <= y.width;
      for (int i = 0; i < 2 && !is_one_piece; ++i) {
        T* line = lines + i * elements;
        for (int64_t b = 0; b < y.kernel[1]; ++b) {
          const int64_t w = (q + i) * y.stride[1] - y.padding[1] + b * y.dilation[1];
          const T* pixel = q + i < y.columns && w >= 0 && w < y.width ? row + w * y.x_step() : zeros;
          std::memcpy(static_cast<void*>(line + b * y.channels), pixel, sizeof(T) * y.channels);
        }
        windows[i] = line;
      }
      interleave(windows[0], windows[1], elements, [&](int64_t c) { return at(q / 2, c); });
    }
  }

  // What a task does in backward: the filters' gradient of a band of output rows, and x's gradient of the rows of x from
  // the band's first window to the next band's. For these it looks at more output rows than the band has.
  struct Piece {
    int64_t image, images;
    int64_t first, rows;          // the band
    int64_t x_first, x_rows;      // of x
    int64_t seen_first, seen_rows;  // output rows

    Piece(const Layer& y, int64_t task) {
      image = task / y.bands() * y.images, images = std::min(y.images, y.batch - image);
      first = task % y.bands() * y.band, rows = std::min(y.band, y.rows - first);
      const int64_t stride = y.stride[0], end = first + rows;
      x_first = first ? std::min(y.height, first * stride) : 0;
      const int64_t x_end = end == y.rows ? y.height : std::min(y.height, end * stride);
      x_rows = x_end - x_first;
      const int64_t above = x_first + y.padding[0] - (y.kernel[0] - 1) * y.dilation[0];
      seen_first = std::min(first, std::max<int64_t>(0, above) / stride);
      seen_rows = std::max(end, std::min(y.rows, (x_end - 1 + y.padding[0]) / stride + 1)) - seen_first;
    }
  };

  // Buffers of a thread for all its tasks, and what they have in common.
  struct Workspace {
    const Backward<T>& b;
    const Layer& y;
    Panels panels;
    Gradient gradient;
    int64_t depth, stride /* elements of a row of dL/dl */, area, half /* pairs in an output row */;
    std::vector<Phase> down, across, down_y, across_y;
    int64_t band_pairs, reach_pairs;
    T *rows, *zeros, *lines;
    float *pulls, *spread, *sums, *line, *left_pairs, *right_pairs;
    Exponents* exponents;
    std::vector<Segment> segments;
    std::vector<Runs> runs;

    explicit Workspace(const Backward<T>& backward)
        : b(backward),
          y(b.layer),
          panels(backward_panels(y)),
          gradient(Loops::gradient(y)),
          depth(panels.depth),
          stride(spaced(depth)),
          area(y.height * y.width),
          half((y.columns + 1) / 2),
          down(backward_phases(y, 0)),
          across(backward_phases(y, 1)),
          down_y(forward_phases(y, 0)),
          across_y(forward_phases(y, 1)) {
      static thread_local Scratch memory;
      const bool flat = y.is_pointwise(), pairs = kStep > 1 && b.grad_filters;
      const int64_t reached = (y.kernel[0] - 1) * y.dilation[0];
      const int64_t seen = y.images * y.columns * std::min(y.rows, y.band + 2 * (std::max(reached, y.padding[0]) / y.stride[0] + 1));
      const int64_t x_rows = std::min(y.height, y.band * y.stride[0] + std::max<int64_t>(0, y.height - y.rows * y.stride[0]));
      band_pairs = flat ? (y.band + 1) / 2 : y.images * y.band * half;
      reach_pairs =
          flat ? band_pairs : y.images * std::min(y.height, (y.band - 1) * y.stride[0] + reached + 1) * half;
      const int64_t most = std::max(depth, y.channels);
      memory.lay_out([&](Scratch& m) {
        rows = m.take<T>(seen * stride);
        pulls = m.take<float>(seen);
        spread = m.take<float>(y.images * x_rows * y.width);
        sums = m.take<float>(y.columns);
        line = m.take<float>(depth);
        zeros = m.take<T>(most);
        lines = m.take<T>(pairs ? 2 * gradient.columns : 0);
        left_pairs = m.take<float>(pairs ? left_words(band_pairs, depth) : 0);
        right_pairs = m.take<float>(pairs ? right_words(reach_pairs, gradient.columns) : 0);
        exponents = m.take<Exponents>(b.exponent ? (y.outputs + L - 1) / L : 0);
      });
      for (int64_t o = 0; b.exponent && o < y.outputs; o += L)
        exponents[o / L] = Formula::exponents(b.exponent + o, std::min<int64_t>(L, y.outputs - o));
      std::memset(static_cast<void*>(rows), 0, sizeof(T) * seen * stride);  // what is behind the filters stays zero
      std::memset(static_cast<void*>(zeros), 0, sizeof(T) * most);
    }

    int64_t place(const Piece& p, int64_t row) const { return (p.image * y.rows + row) * y.columns; }

    // dL/dl and r of the rows that the piece sees; a row of B's gradient belongs to one band only
    void pull(const Piece& p, double* exponent_sums) {
      const auto some = [&](int64_t from, int64_t to, double* terms) {
        for (int64_t i = 0; i < p.images; ++i) {
          const int64_t at = (i * y.rows + from - p.seen_first) * y.columns, image = p.image + i;
          Loops::pull(b, exponents, (image * y.rows + from) * y.columns, b.norm + image * y.norm_step() + from * y.columns,
                      (to - from) * y.columns, rows + at * stride, stride, pulls + at, line, terms);
        }
      };
      const int64_t end = p.first + p.rows;  // several images are seen as a whole
      some(p.seen_first, p.first, nullptr);
      some(p.first, end, exponent_sums);
      some(end, p.seen_first + p.seen_rows, nullptr);
    }

    void gradient_of_x(const Piece& p, Ahead& ahead) {
      Backward<T> part = b;
      part.x += p.image * area * y.x_step(), part.grad_x += p.image * area * y.x_step();
      std::vector<Phase> bands;
      for (const Phase& phase : down) {
        bands.push_back(phase.within(p.x_first, p.x_first + p.x_rows));
        if (!bands.back().count) bands.pop_back();
      }
      float* spread_of = spread - p.x_first * y.width;
      const float* pulls_of = pulls - p.seen_first * y.columns;
      for (int64_t i = 0; i < p.images; ++i)
        window_sums(bands, across, pulls_of + i * y.rows * y.columns, y.columns, sums, spread_of + i * area, y.width);
      ahead.share(p.images * p.x_rows * y.width / R * panels.count());
      const Map map{rows - p.seen_first * y.columns * stride, y.rows * y.columns * stride, y.columns * stride, stride};
      for (const Phase& vertical : bands)
        for (const Phase& horizontal : across) {
          find_segments(vertical, horizontal, map.row_stride / kStep, stride / kStep, depth / kStep,
                        [&](int64_t r, int64_t c) { return backward_tap(y, r, c); }, segments);
          for_places(p.images, vertical, horizontal, map, area, y.width,
                     [&](int64_t some, const float* const* base, const int64_t* at) {
                       for (int64_t panel = 0; panel < panels.count(); ++panel)
                         for (int64_t i = 0; i < some; i += rows_of(panels.width(panel)))
                           with_tile(panels.width(panel), some - i, [&](auto tile, auto vectors) {
                             ahead.step();
                             backward_tile<decltype(tile)::value, decltype(vectors)::value>(
                                 part, base + i, segments, b.panels + panels.first(panel), panel * kVectors * L, at + i,
                                 std::min<int64_t>(decltype(tile)::value, some - i), spread_of);
                           });
                     });
        }
    }

    Operand paired_left() const { return {left_pairs, L, band_pairs}; }
    Operand paired_right() const { return {right_pairs, 0, reach_pairs}; }
    float* left_at(int64_t pair, int64_t f) const { return left_word(left_pairs, band_pairs, depth, pair, f); }
    float* right_at(int64_t pair, int64_t column) const {
      return right_word(right_pairs, reach_pairs, gradient.columns, pair, column);
    }
    void add(int64_t row, int64_t column, int64_t columns, const Operand& left, const Operand& right, bool is_first, float* sums_of) {
      accumulate(gradient, runs, left, right, columns, y.filters(), is_first, sums_of + gradient.at(row, 0) + column);
    }

    void gradient_of_pointwise_filters(const Piece& p, bool is_first, float* sums_of) {
      const T* x = b.x + p.first * y.channels;
      if constexpr (kStep > 1) {
        pair_rows(x, p.rows, y.channels, y.channels, zeros, [&](int64_t pair, int64_t c) { return right_at(pair, c); });
        pair_rows(rows, p.rows, stride, depth, zeros, [&](int64_t pair, int64_t f) { return left_at(pair, f); });
        runs.assign(1, {0, 0, 1, 0, 0, (p.rows + 1) / 2, 1});
        add(0, 0, y.channels, paired_left(), paired_right(), is_first, sums_of);
      } else {
        runs.assign(1, {0, 0, 1, 0, 0, p.rows, 1});
        add(0, 0, y.channels, {reinterpret_cast<const float*>(rows), stride, 0},
            {reinterpret_cast<const float*>(x), y.channels, 0}, is_first, sums_of);
      }
    }

    void gradient_of_filters(const Piece& p, bool is_first, float* sums_of) {
      const T* x = b.x + p.image * area * y.x_step();
      const T* band = rows + (p.first - p.seen_first) * y.columns * stride;  // of the first image; others are whole
      const Reach reached = reach(y, p.first, p.rows);
      if constexpr (kStep > 1) {
        for (int64_t r = 0; r < p.images * p.rows; ++r)
          pair_rows(band + r * y.columns * stride, y.columns, stride, depth, zeros,
                    [&](int64_t pair, int64_t f) { return left_at(r * half + pair, f); });
        for (int64_t i = 0; i < p.images; ++i)
          for (int64_t h = 0; h < reached.count; ++h)
            pair_windows(y, x + (i * area + (reached.first + h) * y.width) * y.x_step(), zeros, lines,
                         [&](int64_t pair, int64_t c) { return right_at((i * reached.count + h) * half + pair, c); });
      }
      std::vector<Phase> bands;
      for (const Phase& phase : down_y) {
        bands.push_back(phase.within(p.first, p.first + p.rows));
        if (!bands.back().count) bands.pop_back();
      }
      for (int64_t a = 0; a < y.kernel[0]; ++a) {
        const Place vertical = place_of(bands, a);
        // In float32 a row's columns may come in several parts, one over the other.
        if (is_first && (kStep == 1 || !vertical.count))
          std::memset(sums_of + gradient.at(a, 0), 0, sizeof(float) * gradient.filters * gradient.stride);
        if (!vertical.count) continue;
        runs.clear();
        if constexpr (kStep > 1) {
          for (int64_t i = 0; i < p.images; ++i)
            runs.push_back({(i * p.rows + vertical.first - p.first) * half,
                            (i * reached.count + vertical.source - reached.first) * half, vertical.count, half,
                            y.stride[0] * half, half, 1});
          add(a, 0, gradient.columns, paired_left(), paired_right(), is_first, sums_of);
          continue;
        }
        const Operand left{reinterpret_cast<const float*>(band), stride, 0};
        for (const Phase& horizontal : across_y) {
          runs.clear();
          for (int64_t i = 0; i < p.images; ++i)
            runs.push_back({(i * p.rows + vertical.first - p.first) * y.columns + horizontal.first,
                            i * area + vertical.source * y.width + horizontal.source, vertical.count, y.columns,
                            y.stride[0] * y.width, horizontal.count, y.stride[1]});
          const int64_t taps = static_cast<int64_t>(horizontal.elements.size());
          const bool is_one_piece = y.groups == 1 && y.dilation[1] == 1 && taps;  // taps side by side in memory
          const int64_t times = is_one_piece ? 1 : taps, channels = is_one_piece ? taps * y.channels : y.channels;
          for (int64_t i = 0; i < times; ++i)
            add(a, horizontal.elements[i] * y.channels, channels, left,
                {reinterpret_cast<const float*>(x + horizontal.distances[i] * y.x_step()), y.x_step(), 0}, false, sums_of);
        }
      }
    }
  };

  static void backward(const Backward<T>& b, int64_t begin, int64_t end) {
    const Layer& y = b.layer;
    Workspace w(b);
    for (int64_t task = begin; task < end; ++task) {
      const Piece p(y, task);
      Ahead ahead;
      if (task + 1 < end && y.groups == 1) {
        const Piece next(y, task + 1);
        const int64_t known = w.place(p, p.seen_first + p.images * p.seen_rows), from = std::max(known, w.place(next, next.seen_first));
        const int64_t to = w.place(next, next.seen_first) + next.images * next.seen_rows * y.columns;
        const int64_t bytes = static_cast<int64_t>(sizeof(T)) * (to - from) * y.outputs;
        ahead.add(b.grad + from * y.outputs, bytes);
        ahead.add(b.y + from * y.outputs, bytes);
        if (next.image == p.image && next.x_rows > 0)
          ahead.add(b.x + (p.image * w.area + next.x_first * y.width) * y.channels,
                    static_cast<int64_t>(sizeof(T)) * next.x_rows * y.width * y.channels);
      }
      w.pull(p, b.grad_exponent);
      if (b.panels) w.gradient_of_x(p, ahead);
      if (!b.grad_filters) continue;
      if (y.is_pointwise())
        w.gradient_of_pointwise_filters(p, task == begin, b.grad_filters);
      else
        w.gradient_of_filters(p, task == begin, b.grad_filters);
    }
  }

  // Output places whose windows have the element outside the padding, and where the first one's is.
  struct Place {
    int64_t first, count, source;
  };
  static Place place_of(const std::vector<Phase>& phases, int64_t element) {
    Place found{0, 0, 0};
    for (const Phase& phase : phases)
      for (size_t i = 0; i < phase.elements.size(); ++i) {
        if (phase.elements[i] != element) continue;
        if (!found.count) found.first = phase.first, found.source = phase.source + phase.distances[i];
        found.count += phase.count;
      }
    return found;
  }

  static void unpack(const Layer& y, const float* shares, int64_t count, int64_t step, float* out, const int64_t* stride,
                     int64_t begin, int64_t end) {
    const Gradient g = gradient(y);
    for (int64_t f = begin; f < end; ++f)
      for (int64_t tap = 0; tap < y.taps(); ++tap) {
        const int64_t row = tap / y.kernel[1], column = tap % y.kernel[1];
        const float* from = shares + g.at(row, f) + column * y.channels;
        float* to = out + f * stride[0] + row * stride[2] + column * stride[3];
        for (int64_t c = 0; c < y.channels; ++c) {
          float total = 0;
          for (int64_t i = 0; i < count; ++i) total += from[i * step + c];
          to[c * stride[1]] = total;
        }
      }
  }

  static constexpr Products<T> table() {
    return {[](const Layer& y) { return forward_panels(y).count(); },
            [](const Layer& y) { return backward_panels(y).count(); },
            [](const Layer& y) { return forward_panels(y).size(); },
            [](const Layer& y) { return backward_panels(y).size(); },
            [](const Layer& y) { return gradient(y).size(); },
            arranged_size,
            arrange,
            pack_forward<T>,
            pack_forward<float>,
            pack_backward<T>,
            pack_backward<float>,
            forward,
            backward,
            unpack};
  }
};

}  // namespace
