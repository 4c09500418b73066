// The formula for any B, a vector at a time; included by the loops of each instruction set, whose Isa gives
//   Isa::log2_parts          of x > 0, as a whole number and a fraction
//   Isa::times_power_of_two  x 2^n for whole n, however large
//   Isa::multiply_subtract   a b - c, rounded once
//   Isa::nearest, reciprocal, at_most, all
// numbers.h and bcos_math.h have the same for single numbers.
namespace {

template <class Isa>
struct Powers {
  using V = typename Isa::V;
  static constexpr int L = Isa::lanes;
  typedef int32_t I __attribute__((vector_size(4 * L)));
  static constexpr float kDelta = bcos::cosine_offset<float>();

  static BCOS_INLINE V absolute(V v) { return reinterpret_cast<V>(reinterpret_cast<I>(v) & 0x7fffffff); }

  // 2^(factor log), the factor in two parts; large products lose nothing, since their whole part goes away exactly
  static BCOS_INLINE V exp2_of(const bcos::Log2<V>& log, V factor, V factor_rest) {
    const V of_fraction = factor * log.fraction + factor_rest * log.whole;
    const V whole = Isa::nearest(factor * log.whole + of_fraction);
    const V r = Isa::multiply_subtract(factor, log.whole, whole) + of_fraction;
    V p = r * 1.53707049e-4f + 1.33998482e-3f;  // (2^r - 1) / r to 2e-8, |r| <= 1/2
    p = p * r + 9.61837359e-3f;
    p = p * r + 5.55032901e-2f;
    p = p * r + 2.40226477e-1f;
    p = p * r + 6.93147182e-1f;
    return Isa::times_power_of_two(p * r + 1.0f, whole);
  }

  // l (|l| / n + delta)^(B-1)
  static BCOS_INLINE V response(V lin, V inverse_norm, V slope) {
    const V x = absolute(lin) * inverse_norm + kDelta;
    const V finite = Isa::at_most(x, 3.40282347e38f);  // of infinity the response is infinite all the same
    const V y = lin * exp2_of(Isa::log2_parts(finite), slope, V{});
    return x == x ? y : x;
  }

  // What backward needs of an exponent B: B - 1; 1 - 1/B, and what float32 leaves of it; 1/B.
  struct Exponents {
    V slope, share, share_rest, inverse;
  };
  static Exponents exponents(const float* b, int64_t count) {
    Exponents e;
    for (int i = 0; i < L; ++i) {
      const double exponent = i < count ? static_cast<double>(b[i]) : 2, share = 1 - 1 / exponent;
      e.slope[i] = static_cast<float>(exponent - 1), e.inverse[i] = static_cast<float>(1 / exponent);
      e.share[i] = static_cast<float>(share), e.share_rest[i] = static_cast<float>(share - static_cast<double>(e.share[i]));
    }
    return e;
  }

  // All times dL/dy: dy/dl, y times the slope (B-1) rho, and dy/dB.
  struct Pulled {
    V along_lin, along_norm, along_exponent;
  };

  // Of u = |y| / n. Without delta the cosine is c0 = u^(1/B) and the scale u / c0 = u^(1 - 1/B). With e = delta / c0 small,
  // log c lies `step` below log c0, a series in e: what it leaves out is below 6e-7 for e < 1e-2 and B up to 4. Where a
  // cosine is smaller than that allows, the vector's are found one by one.
  static BCOS_INLINE Pulled pull(V grad, V y, V u, const Exponents& of, float attached) {
    constexpr float kLog2 = 0.693147181f, kLargest = 1e30f;
    const bcos::Log2<V> log = Isa::log2_parts(u);
    const V scale0 = exp2_of(log, of.share, of.share_rest);
    const V e = scale0 * Isa::reciprocal(u) * kDelta;
    if (!Isa::all((e < bcos::kSmallOffset) & (u < kLargest))) return pull_by_element(grad, y, u, of, attached);  // NaN too
    const V step = of.share * e * ((0.5f - of.inverse) * e + 1.0f);
    const V scale = scale0 * ((step * 0.5f + 1.0f) * step + 1.0f);
    const V q = e * ((step * 0.5f + 1.0f) * step + 1.0f);  // delta / c
    const V rising = of.slope * (1.0f - q * (1.0f - q * (1.0f - q)));
    const V log_of = (log.whole + log.fraction) * of.inverse * kLog2 - step + q * (1.0f - q * 0.5f);
    const V along = grad * y;
    return {grad * scale * (rising * attached + 1.0f), along * rising, along * log_of};
  }

  static BCOS_INLINE Pulled pull_by_element(V grad, V y, V u, const Exponents& of, float attached) {
    alignas(64) float g[L], value[L], ratio[L], slope[L], lin[L], norm[L], exponent[L];
    store(g, grad), store(value, y), store(ratio, u), store(slope, of.slope);
#pragma omp simd
    for (int i = 0; i < L; ++i) {
      const auto at = bcos::recovered<float, bcos::Power::kPower>(ratio[i], slope[i] + 1);
      lin[i] = g[i] * at.scale * (1 + attached * at.slope);
      norm[i] = g[i] * value[i] * at.slope;
      exponent[i] = g[i] * value[i] * at.log;
    }
    return {load(lin), load(norm), load(exponent)};
  }

 private:
  static BCOS_INLINE V load(const float* p) { return *reinterpret_cast<const V*>(p); }
  static BCOS_INLINE void store(float* p, V v) { *reinterpret_cast<V*>(p) = v; }
};

}  // namespace
