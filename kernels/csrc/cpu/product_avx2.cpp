// The products of product.h with AVX2, in float32.
#include "product_files.h"

#if BCOS_HAS_PRODUCTS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#include "product_loops.h"
#include "grouped_loops.h"

namespace {

struct Avx2 {
  using Element = float;
  typedef float V __attribute__((vector_size(32)));
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
  static BCOS_INLINE V multiply_add_words(V a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V root(V v) { return _mm256_sqrt_ps(v); }
  static BCOS_INLINE void interleave(const float*, const float*, float*) {}  // a word is one element
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
