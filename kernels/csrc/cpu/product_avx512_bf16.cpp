// The products of product.h in bfloat16, on CPUs that multiply it: sums of pairs, in float32.
#include "product_files.h"

#if BCOS_HAS_PRODUCTS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#include "avx512.h"
#include "powers.h"
#include "product_loops.h"

namespace {

struct Avx512Bf16 : Avx512Words {
  using Element = torch::headeronly::BFloat16;
  static constexpr int step = 2;

  static BCOS_INLINE __m512i lower_halves(__m256i elements) { return _mm512_cvtepu16_epi32(elements); }
  static BCOS_INLINE __m512i upper_halves(__m256i elements) { return _mm512_slli_epi32(lower_halves(elements), 16); }
  static BCOS_INLINE __m256i elements(const Element* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

  static BCOS_INLINE V load(const Element* p) { return _mm512_castsi512_ps(upper_halves(elements(p))); }
  // the first `count` of a vector, zeros behind them
  static BCOS_INLINE V load_some(const Element* p, int64_t count) {
    return _mm512_castsi512_ps(upper_halves(_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), p)));
  }
  static BCOS_INLINE void store(Element* p, V v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
  }
  static BCOS_INLINE V multiply_add(const float& a, V b, V c) {  // by reference: a pair of elements is not a float
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(b), reinterpret_cast<__m512bh>(_mm512_set1_ps(a)));
  }
  // Of a pair that is used once: read by the instruction itself, which compilers do not find, it is a quarter faster.
  static BCOS_INLINE V multiply_add_once(const float& a, V b, V c) {
    asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(c) : "v"(b), "m"(a));
    return c;
  }
  static BCOS_INLINE V multiply_add_words(V a, V b, V c) {
    return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  // a0 b0 a1 b1 ... of `lanes` elements
  static BCOS_INLINE void interleave(const Element* a, const Element* b, Element* out) {
    _mm512_storeu_si512(out, _mm512_or_si512(lower_halves(elements(a)), upper_halves(elements(b))));
  }
};

}  // namespace

namespace bcos {
namespace cpu {
extern const Products<torch::headeronly::BFloat16> kAvx512Bf16Products;
const Products<torch::headeronly::BFloat16> kAvx512Bf16Products = Loops<Avx512Bf16>::table();
}  // namespace cpu
}  // namespace bcos
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
