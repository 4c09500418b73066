// Vectors of AVX-512, whatever the elements of x and y are: what product_loops.h and powers.h ask for that is of float32.
namespace {

struct Avx512Words {
  typedef float V __attribute__((vector_size(64)));
  typedef int32_t I __attribute__((vector_size(64)));
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  static constexpr int lanes = 16, tile_rows = 14, outer_rows = 8, outer_vectors = 3;

  // the first `count` of a vector, zeros behind them
  static BCOS_INLINE V load_words_some(const float* p, int64_t count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
  }
  static BCOS_INLINE void store_words_some(float* p, V v, int64_t count) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
  }
  static BCOS_INLINE V halves(const float* lower, const float* upper) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(lower)), _mm256_loadu_ps(upper), 1);
  }
  static BCOS_INLINE float sum(V v) { return _mm512_reduce_add_ps(v); }
  static BCOS_INLINE V root(V v) { return _mm512_sqrt_ps(v); }

  // AVX-512 has instructions for a float's parts, which know zeros, subnormal numbers, infinity and NaN.
  // x = 2^whole m with m from 3/4 to 3/2. The table has a k near 1/m by m's first four binary places, so that
  // log2 m = -log2 k + log2(1 + r) with r = k m - 1 within +-0.032; each k is chosen such that its logarithm is a float to 1e-12.
  static BCOS_INLINE bcos::Log2<V> log2_parts(V x) {
    const V k = {0x1.f02c0ep-1f, 0x1.d38ee4p-1f, 0x1.bb54b2p-1f, 0x1.a3e3c4p-1f, 0x1.901e88p-1f, 0x1.7d3916p-1f, 0x1.6c81aap-1f, 0x1.5d064p-1f,
                 0x1.4ec874p+0f, 0x1.40f572p+0f, 0x1.353b88p+0f, 0x1.29b16cp+0f, 0x1.1fbd3ap+0f, 0x1.15af66p+0f, 0x1.0d0686p+0f, 0x1.03a16ap+0f};
    const V of_k = {0x1.731fc2p-5f,  0x1.0c48a8p-3f,  0x1.a97e1ep-3f,  0x1.250026p-2f,  0x1.6c4038p-2f,  0x1.b3b88cp-2f,  0x1.f5f6ccp-2f,  0x1.1b0aaep-1f,
                    -0x1.8c5f5ep-2f, -0x1.4e12f4p-2f, -0x1.1716eap-2f, -0x1.bdcfeep-3f, -0x1.59544ap-3f, -0x1.e07c7cp-4f, -0x1.254504p-4f, -0x1.4cdc4cp-6f};
    const V whole = _mm512_getexp_ps(x * 1.33333333f), m = _mm512_scalef_ps(x, -whole);
    const __m512i entry = _mm512_srli_epi32(_mm512_castps_si512(m), 19);  // of which four bits count
    const V r = _mm512_fmsub_ps(_mm512_permutexvar_ps(entry, k), m, _mm512_set1_ps(1));
    V p = r * -0.361023098f + 0.481272608f;  // log2(1 + r) / r to 2e-9
    p = p * r - 0.721347392f;
    p = p * r + 1.4426949f;
    return {whole, p * r + static_cast<V>(_mm512_permutexvar_ps(entry, of_k))};
  }
  static BCOS_INLINE V times_power_of_two(V x, V n) { return _mm512_scalef_ps(x, n); }
  static BCOS_INLINE V multiply_subtract(V a, V b, V c) { return _mm512_fmsub_ps(a, b, c); }
  static BCOS_INLINE V nearest(V x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static BCOS_INLINE V reciprocal(V x) {
    const V near = _mm512_rcp14_ps(x);
    return near * (2.0f - x * near);
  }
  static BCOS_INLINE V at_most(V x, float limit) { return _mm512_min_ps(_mm512_set1_ps(limit), x); }  // NaN stays
  static BCOS_INLINE bool all(I mask) { return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) == 0xffff; }
};

}  // namespace
