// The products of product.h with AVX-512, in float32.
#include "product_files.h"

#if BCOS_HAS_PRODUCTS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#include "powers.h"
#include "powers_avx512.h"
#include "product_loops.h"
#include "grouped_loops.h"

namespace {

struct Avx512 : Avx512Powers {
  using Element = float;
  typedef float Unaligned __attribute__((vector_size(64), aligned(4), may_alias));
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  static constexpr int step = 1, lanes = 16, tile_rows = 14, outer_rows = 8, outer_vectors = 3;

  static BCOS_INLINE V load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
  // the first `count` of a vector, zeros behind them
  static BCOS_INLINE V load_some(const float* p, int64_t count) { return load_words_some(p, count); }
  static BCOS_INLINE V load_words_some(const float* p, int64_t count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
  }
  static BCOS_INLINE void store_words_some(float* p, V v, int64_t count) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
  }
  static BCOS_INLINE float sum(V v) { return _mm512_reduce_add_ps(v); }
  static BCOS_INLINE void store(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }
  static BCOS_INLINE V multiply_add(float a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V multiply_add_once(float a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V multiply_add_words(V a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V halves(const float* lower, const float* upper) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(lower)), _mm256_loadu_ps(upper), 1);
  }
  static BCOS_INLINE V root(V v) { return _mm512_sqrt_ps(v); }
  static BCOS_INLINE void interleave(const float*, const float*, float*) {}  // a word is one element
};

}  // namespace

namespace bcos {
namespace cpu {
extern const Products<float> kAvx512Products;
const Products<float> kAvx512Products = Loops<Avx512>::table();
extern const GroupedLoops<float> kAvx512Grouped;
const GroupedLoops<float> kAvx512Grouped = AllGrouped<Avx512, float>::table();
extern const GroupedLoops<torch::headeronly::BFloat16> kAvx512GroupedBf16;
const GroupedLoops<torch::headeronly::BFloat16> kAvx512GroupedBf16 = AllGrouped<Avx512, torch::headeronly::BFloat16>::table();
}  // namespace cpu
}  // namespace bcos
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
