// The products of product.h with AVX2, in float32.
#include "product_files.h"

#if BCOS_HAS_PRODUCTS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#include "powers.h"
#include "product_loops.h"
#include "grouped_loops.h"

namespace {

struct Avx2 {
  using Element = float;
  typedef float V __attribute__((vector_size(32)));
  typedef int32_t I __attribute__((vector_size(32)));
  typedef float Unaligned __attribute__((vector_size(32), aligned(4), may_alias));
  typedef uint8_t Bytes __attribute__((vector_size(8)));
  static constexpr int step = 1, lanes = 8, tile_rows = 6, outer_rows = 4, outer_vectors = 2;

  static BCOS_INLINE V load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
  // the first `count` of a vector, zeros behind them
  static BCOS_INLINE V load_some(const float* p, int64_t count) { return load_words_some(p, count); }
  static BCOS_INLINE V load_words_some(const float* p, int64_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane));
  }
  static BCOS_INLINE void store_words_some(float* p, V v, int64_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane), v);
  }
  static BCOS_INLINE float sum(V v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static BCOS_INLINE void store(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }
  static BCOS_INLINE V multiply_add(float a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V multiply_add_once(float a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V multiply_add_words(V a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V halves(const float* lower, const float* upper) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(lower)), _mm_loadu_ps(upper), 1);
  }
  static BCOS_INLINE V root(V v) { return _mm256_sqrt_ps(v); }
  static BCOS_INLINE void interleave(const float*, const float*, float*) {}  // a word is one element

  // As in numbers.h; what is not normal becomes some number or other.
  static BCOS_INLINE bcos::Log2<V> log2_parts(V x) {
    const I bits = reinterpret_cast<I>(x), whole = (bits - 0x3f3504f3) >> 23;  // the significand from sqrt(1/2) to sqrt(2)
    const V m = reinterpret_cast<V>(bits - whole * (1 << 23)), s = (m - 1) / (m + 1), square = s * s;
    const V series = ((square * 0.111111111f + 0.142857143f) * square + 0.2f) * square + 0.333333333f;
    return {__builtin_convertvector(whole, V), (s + s * square * series) * 2.88539008f};
  }
  static BCOS_INLINE V times_power_of_two(V x, V n) {  // in two factors, for what is subnormal
    const V limited = _mm256_max_ps(_mm256_min_ps(n, _mm256_set1_ps(252)), _mm256_set1_ps(-252));
    const I power = __builtin_convertvector(limited, I), half = power >> 1;
    return x * reinterpret_cast<V>((half + 127) << 23) * reinterpret_cast<V>((power - half + 127) << 23);
  }
  static BCOS_INLINE V multiply_subtract(V a, V b, V c) { return _mm256_fmsub_ps(a, b, c); }
  static BCOS_INLINE V nearest(V x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static BCOS_INLINE V reciprocal(V x) { return 1 / x; }
  static BCOS_INLINE V at_most(V x, float limit) { return _mm256_min_ps(_mm256_set1_ps(limit), x); }  // NaN stays
  static BCOS_INLINE bool all(I mask) { return _mm256_movemask_ps(reinterpret_cast<V>(mask)) == 0xff; }
};

}  // namespace

namespace bcos {
namespace cpu {
extern const Products<float> kAvx2Products;
const Products<float> kAvx2Products = Loops<Avx2>::table();
extern const GroupedLoops<float> kAvx2Grouped;
const GroupedLoops<float> kAvx2Grouped = AllGrouped<Avx2, float>::table();
extern const GroupedLoops<torch::headeronly::BFloat16> kAvx2GroupedBf16;
const GroupedLoops<torch::headeronly::BFloat16> kAvx2GroupedBf16 = AllGrouped<Avx2, torch::headeronly::BFloat16>::table();
}  // namespace cpu
}  // namespace bcos
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
