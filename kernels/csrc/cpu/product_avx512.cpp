// The products of product.h with AVX-512, in float32.
#include "product_files.h"

#if BCOS_HAS_PRODUCTS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#include "avx512.h"
#include "powers.h"
#include "product_loops.h"
#include "grouped_loops.h"

namespace {

struct Avx512 : Avx512Words {
  using Element = float;
  typedef float Unaligned __attribute__((vector_size(64), aligned(4), may_alias));
  static constexpr int step = 1;

  static BCOS_INLINE V load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
  // the first `count` of a vector, zeros behind them
  static BCOS_INLINE V load_some(const float* p, int64_t count) { return load_words_some(p, count); }
  static BCOS_INLINE void store(float* p, V v) { *reinterpret_cast<Unaligned*>(p) = v; }
  static BCOS_INLINE V multiply_add(float a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V multiply_add_once(float a, V b, V c) { return a * b + c; }
  static BCOS_INLINE V multiply_add_words(V a, V b, V c) { return a * b + c; }
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
