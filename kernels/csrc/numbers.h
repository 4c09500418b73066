// Numbers as the kernels compute with them: every dtype in its computing type, and float32 powers that vectorise.
#pragma once

#include <cmath>
#include <cstdint>

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/bit_cast.h>

#if defined(__CUDACC__)
#define BCOS_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)  // clang too; a loop compiled for an instruction set is to have all of its arithmetic inside
#define BCOS_HOST_DEVICE __attribute__((always_inline)) inline
#else
#define BCOS_HOST_DEVICE inline
#endif

namespace bcos {

template <class T>
struct Computing {
  using type = float;
};
template <>
struct Computing<double> {
  using type = double;
};
template <class T>
using computing_t = typename Computing<T>::type;

// ---- Conversions ----

template <class T>
BCOS_HOST_DEVICE computing_t<T> widened(T value) {
  return static_cast<computing_t<T>>(value);
}

template <class T>
BCOS_HOST_DEVICE T narrowed(computing_t<T> value) {
  return static_cast<T>(value);
}

#if !defined(__CUDACC__)
using c10::bit_cast;
using torch::headeronly::Half;

// c10 converts bfloat16 in a way that vectorises; float16 it does not, so that is done here, without branches.
BCOS_HOST_DEVICE uint32_t select(bool condition, uint32_t yes, uint32_t no) {  // a ?: would become a branch again
  const uint32_t mask = -static_cast<uint32_t>(condition);
  return (yes & mask) | (no & ~mask);
}

BCOS_HOST_DEVICE float widened(Half value) {
  const uint32_t magnitude = uint32_t(value.x & 0x7fff) << 13, sign = uint32_t(value.x & 0x8000) << 16;
  const uint32_t rebased = magnitude + (112u << 23);  // exponent bias 127, not 15
  const uint32_t infinite = select(magnitude >= (31u << 23), 0x7f800000, 0);  // infinity and NaN
  const float subnormal = bit_cast<float>(magnitude + (113u << 23)) - bit_cast<float>(113u << 23);
  const uint32_t finite = select(magnitude < (1u << 23), bit_cast<uint32_t>(subnormal), rebased);
  return bit_cast<float>(sign | finite | infinite);
}

template <>
BCOS_HOST_DEVICE Half narrowed<Half>(float value) {  // to nearest, ties to even
  const uint32_t bits = bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffff;
  const uint32_t normal = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - bit_cast<uint32_t>(0.5f);
  uint32_t result = select(magnitude < (113u << 23), subnormal, normal);
  result = select(magnitude >= (143u << 23), 0x7c00, result);  // 65536 and more
  result = select(magnitude > (255u << 23), 0x7e00, result);    // NaN
  return Half(static_cast<uint16_t>((bits >> 16 & 0x8000) | result), Half::from_bits());
}

#endif

// ---- Elementary functions ----
// On a CPU the float32 ones are written out without branches or tables, since the library's do not vectorise: their
// relative errors are a few 1e-8 more than half an ulp.

#if defined(__CUDACC__)
BCOS_HOST_DEVICE double log2_of(double x) { return std::log2(x); }
BCOS_HOST_DEVICE double exp2_of(double x) { return std::exp2(x); }
BCOS_HOST_DEVICE double power_of(double x, double exponent) { return std::pow(x, exponent); }
BCOS_HOST_DEVICE double ratio_of(double x, double y) { return x / y; }
BCOS_HOST_DEVICE double root_of(double x) { return std::sqrt(x); }

// A GPU has instructions for these: logarithms to 2^-22, of what is near 1 absolutely, else relatively; division to 2 ulp,
// roots to 2^-23.
BCOS_HOST_DEVICE float log2_of(float x) {
#if defined(__CUDA_ARCH__)
  return __log2f(x);
#else
  return std::log2(x);
#endif
}
BCOS_HOST_DEVICE float exp2_of(float x) { return exp2f(x); }
BCOS_HOST_DEVICE float power_of(float x, float exponent) {
  return exponent == 0 ? 1.0f : exp2_of(exponent * log2_of(x));  // of 0 and infinity too
}
BCOS_HOST_DEVICE float ratio_of(float x, float y) {  // |y| < 2^126, beyond it 0 for a finite x
#if defined(__CUDA_ARCH__)
  return __fdividef(x, y);
#else
  return x / y;
#endif
}
BCOS_HOST_DEVICE float root_of(float x) {
#if defined(__CUDA_ARCH__)
  float root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(x));  // std::sqrt's rounding is a branch, and a call for 0
  return root;
#else
  return std::sqrt(x);
#endif
}
#else
template <class A>
BCOS_HOST_DEVICE A ratio_of(A x, A y) {
  return x / y;
}
template <class A>
BCOS_HOST_DEVICE A root_of(A x) {
  return std::sqrt(x);
}
BCOS_HOST_DEVICE double log2_of(double x) { return std::log2(x); }
BCOS_HOST_DEVICE double exp2_of(double x) { return std::exp2(x); }
BCOS_HOST_DEVICE double power_of(double x, double exponent) { return std::pow(x, exponent); }

BCOS_HOST_DEVICE float rounded(float x) {  // |x| < 2^22
  constexpr float kOnes = 12582912;        // beyond it floats are the integers
  return (x + kOnes) - kOnes;
}

// log2(x) = whole + fraction, x > 0 and finite; fraction within +-1/2
template <class V>
struct Log2 {
  V whole, fraction;
};
BCOS_HOST_DEVICE Log2<float> log2_parts(float x) {
  const bool is_subnormal = x < 1.17549435e-38f;
  const int32_t bits = bit_cast<int32_t>(is_subnormal ? x * 16777216.0f : x);
  const int32_t whole = (bits - 0x3f3504f3) >> 23;  // the significand from sqrt(1/2) to sqrt(2)
  const float m = bit_cast<float>(bits - whole * (1 << 23));
  const float s = (m - 1) / (m + 1), square = s * s;  // log m = 2 artanh s
  const float series = 0.333333333f + square * (0.2f + square * (0.142857143f + square * 0.111111111f));
  constexpr float kTwoOverLog2 = 2.88539008f;
  return {static_cast<float>(whole) - (is_subnormal ? 24.0f : 0.0f), kTwoOverLog2 * (s + s * square * series)};
}

// 2^(whole + fraction), whole an integer, |fraction| < 2^21
BCOS_HOST_DEVICE float exp2_parts(float whole, float fraction) {
  const float nearest = rounded(fraction), r = fraction - nearest;
  float p = 1.52527338e-5f;  // log(2)^k / k!
  p = p * r + 1.54035304e-4f;
  p = p * r + 1.33335581e-3f;
  p = p * r + 9.61812911e-3f;
  p = p * r + 5.55041087e-2f;
  p = p * r + 2.40226507e-1f;
  p = p * r + 6.93147181e-1f;
  const float wide = whole + nearest;
  const float n = wide < -252 ? -252.0f : wide > 252 ? 252.0f : wide;  // 0 and infinity lie within
  const int32_t power = static_cast<int32_t>(n), half = power >> 1;    // in two factors, for what is subnormal
  return (1 + p * r) * bit_cast<float>((half + 127) << 23) * bit_cast<float>((power - half + 127) << 23);
}

BCOS_HOST_DEVICE float exp2_of(float x) {
  const float clipped = x < -1000 ? -1000.0f : x > 1000 ? 1000.0f : x;
  return x == x ? exp2_parts(0, clipped) : x;
}

// x >= 0
BCOS_HOST_DEVICE float log2_of(float x) {
  constexpr float kInfinity = INFINITY;
  const Log2<float> log = log2_parts(x);
  return x > 0 ? (x < kInfinity ? log.whole + log.fraction : x) : (x == 0 ? -kInfinity : x);
}

// x >= 0
BCOS_HOST_DEVICE float power_of(float x, float exponent) {
  constexpr float kInfinity = INFINITY;
  // The exponent's upper bits times `whole` is exact: no rounding of a large logarithm.
  const float upper = bit_cast<float>(bit_cast<uint32_t>(exponent) & 0xfffffe00u), lower = exponent - upper;
  const Log2<float> log = log2_parts(x);
  const float product = upper * log.whole;
  const float clipped = product < -1000 ? -1000.0f : product > 1000 ? 1000.0f : product, whole = rounded(clipped);
  const float value = exp2_parts(whole, (clipped - whole) + (lower * log.whole + exponent * log.fraction));
  const float limit = exponent > 0 ? x : 1 / x;  // of 0, infinity; NaN stays
  return exponent == 0 ? 1.0f : (x > 0 && x < kInfinity ? value : limit);
}
#endif

}  // namespace bcos
