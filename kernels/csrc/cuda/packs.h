// Neighbouring elements as 16-byte words: what a thread loads and stores at once where sizes, strides and addresses allow it,
// and the functors of bcos_math.h for such packs. Channels-last, a pack is of channels of one pixel; in planes, of pixels of
// one channel. Layers with MaxOut, and sizes that packs do not divide, go element by element.
#pragma once

#include <cstring>
#include <type_traits>

#include "../bcos_math.h"
#include "launch.h"

namespace bcos {
namespace cuda {

// ---- Division by a number known when the kernel starts: a multiplication and a shift, for dividends below 2^31 ----
// (Granlund and Montgomery 1994, as in section 10 of Hacker's Delight.)

class Divisor {
 public:
  explicit Divisor(int64_t divisor) : divisor_(static_cast<uint32_t>(divisor)), shift_(0) {
    while (shift_ < 31 && (uint64_t{1} << shift_) < divisor_) ++shift_;
    magic_ = divisor_ ? static_cast<uint32_t>((((uint64_t{1} << shift_) - divisor_) << 32) / divisor_ + 1) : 0;
  }
  __device__ uint32_t quotient(uint32_t dividend) const { return (__umulhi(dividend, magic_) + dividend) >> shift_; }
  __device__ uint32_t remainder(uint32_t dividend, uint32_t quotient) const { return dividend - quotient * divisor_; }

 private:
  uint32_t divisor_, magic_, shift_;
};

// ---- Packs ----

constexpr int kWord = 16;  // bytes

template <class T>
constexpr int kPack = kWord / static_cast<int>(sizeof(T));

template <class T>
struct alignas(kWord) Word {
  T at[kPack<T>];
};

template <class T>
__device__ const Word<T>& word_at(const T* from) {
#if defined(BCOS_CUDA_ON_CPU)  // a GPU traps
  if (reinterpret_cast<uintptr_t>(from) % kWord) cuda_on_cpu::fail("a word at an address that is no multiple of 16 bytes");
#endif
  return *reinterpret_cast<const Word<T>*>(from);
}

template <class T>
__device__ void store_word(T* to, const Word<T>& word) {
#if defined(__CUDA_ARCH__)  // an assignment is split in some of the kernels
  uint4 bits;
  std::memcpy(&bits, &word, kWord);
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(bits.x), "r"(bits.y), "r"(bits.z),
               "r"(bits.w)
               : "memory");
#else
  const_cast<Word<T>&>(word_at(to)) = word;
#endif
}

template <class A, int count>
struct Lanes {
  A at[count];
};

// Whole words, or one element.
template <int count, class T>
__device__ Lanes<computing_t<T>, count> load(const T* from) {
  static_assert(count == 1 || count % kPack<T> == 0, "whole words");
  Lanes<computing_t<T>, count> result;
  if constexpr (count == 1) {
    result.at[0] = widened(*from);
  } else {
#pragma unroll
    for (int first = 0; first < count; first += kPack<T>) {
      const Word<T> word = word_at(from + first);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) result.at[first + i] = widened(word.at[i]);
    }
  }
  return result;
}

template <class T, int count>
__device__ void store(T* to, const Lanes<computing_t<T>, count>& values) {
  static_assert(count == 1 || count % kPack<T> == 0, "whole words");
  if constexpr (count == 1) {
    *to = narrowed<T>(values.at[0]);
  } else {
#pragma unroll
    for (int first = 0; first < count; first += kPack<T>) {
      Word<T> word;
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) word.at[i] = narrowed<T>(values.at[first + i]);
      store_word(to + first, word);
    }
  }
}

template <int count, class A>
__device__ Lanes<A, count> repeated(A value) {
  Lanes<A, count> result;
#pragma unroll
  for (int i = 0; i < count; ++i) result.at[i] = value;
  return result;
}

// ---- Which layers packs are possible for ----

template <class T>
bool is_aligned(const T* data) {
  return reinterpret_cast<uintptr_t>(data) % kWord == 0;
}

// Whether every pack of this tensor is a whole word; what is not there has none.
template <class T, Layout layout>
bool is_aligned(const View<T, layout>& view, const Extent& extent) {
  constexpr int kStep = kPack<std::remove_const_t<T>>;
  const int64_t across = layout == Layout::kChannels ? view.pixel_stride : view.channel_stride;
  const int64_t count = layout == Layout::kChannels ? extent.pixels : extent.channels();
  return !view.data || (is_aligned(view.data) && (extent.batch == 1 || view.batch_stride % kStep == 0) &&
                        (count == 1 || across % kStep == 0));
}

template <class T, Layout layout>
bool divides(const Extent& extent) {
  const int64_t run = layout == Layout::kChannels ? extent.width : extent.pixels;
  const int64_t positions = layout == Layout::kChannels ? extent.channels() : extent.pixels;  // counted in 32 bits
  return run % kPack<T> == 0 && positions <= INT32_MAX && extent.batch * extent.channels() * extent.pixels / kPack<T> <= kMostItems;
}

// Functors that have a form for packs, below.
template <class F>
struct CanPack : std::false_type {};
template <class T, Layout layout>
struct CanPack<Energy<T, layout>> : std::bool_constant<layout != Layout::kStrided> {};
template <class T, Layout layout, Power power, bool has_terms>
struct CanPack<Pull<T, layout, power, false, has_terms>> : std::bool_constant<layout != Layout::kStrided> {};
template <class T, Layout layout, Power power>
struct CanPack<Respond<T, layout, power, false>> : std::bool_constant<layout != Layout::kStrided> {};
template <class T, Layout layout>
struct CanPack<NormGradient<T, layout>> : std::bool_constant<layout != Layout::kStrided> {};

template <class T, Layout layout>
bool packs(const Energy<T, layout>& f) {
  return divides<T, layout>(f.extent) && is_aligned(f.x, f.extent);
}
template <class T, Layout layout, Power power, bool has_terms>
bool packs(const Pull<T, layout, power, false, has_terms>& f) {
  return divides<T, layout>(f.extent) && is_aligned(f.grad, f.extent) && is_aligned(f.y, f.extent) &&
         is_aligned(f.grad_lin, f.extent) && is_aligned(f.exponent_terms, f.extent) && is_aligned(f.norm) &&
         is_aligned(f.exponent);
}
template <class T, Layout layout, Power power>
bool packs(const Respond<T, layout, power, false>& f) {
  return divides<T, layout>(f.extent) && is_aligned(f.lin, f.extent) && is_aligned(f.y, f.extent) && is_aligned(f.norm) &&
         is_aligned(f.exponent);
}
template <class T, Layout layout>
bool packs(const NormGradient<T, layout>& f) {
  return divides<T, layout>(f.extent) && is_aligned(f.x, f.extent) && is_aligned(f.linear_part, f.extent) &&
         is_aligned(f.out, f.extent) && is_aligned(f.spread);
}

// ---- The functors ----

// The (N, G, S) values beside a pack.
template <Layout layout, int count, class A>
__device__ Lanes<A, count> beside(const A* values, const Extent& extent, int64_t n, int64_t g, int64_t s) {
  const A* here = values + extent.group_index(n, g, s);
  if constexpr (layout == Layout::kChannels)
    return repeated<count>(*here);
  else
    return load<count>(here);
}

template <class A, int count>
__device__ Lanes<A, count> inverses(Lanes<A, count> values) {
#pragma unroll
  for (int i = 0; i < count; ++i) values.at[i] = ratio_of(A(1), values.at[i]);
  return values;
}

// B of a pack's outputs
template <Layout layout, Power power, int count, class A>
__device__ Lanes<A, count> exponents_of(const A* exponent, int64_t c) {
  if constexpr (power != Power::kPower)
    return repeated<count>(A(0));
  else if constexpr (layout == Layout::kChannels)
    return load<count>(exponent + c);
  else
    return repeated<count>(exponent[c]);
}

template <class T, Layout layout>
__device__ auto contexts(const Energy<T, layout>&, int64_t, int64_t, int64_t) {
  return Lanes<computing_t<T>, kPack<T>>{};
}
template <class T, Layout layout, Power power, bool has_terms>
__device__ auto contexts(const Pull<T, layout, power, false, has_terms>& f, int64_t n, int64_t g, int64_t s) {
  return inverses(beside<layout, kPack<T>>(f.norm, f.extent, n, g, s));
}
template <class T, Layout layout, Power power>
__device__ auto contexts(const Respond<T, layout, power, false>& f, int64_t n, int64_t g, int64_t s) {
  return inverses(beside<layout, kPack<T>>(f.norm, f.extent, n, g, s));
}
template <class T, Layout layout>
__device__ auto contexts(const NormGradient<T, layout>& f, int64_t n, int64_t g, int64_t s) {
  return beside<layout, kPack<T>>(f.spread, f.extent, n, g, s);
}

template <class T, Layout layout, class A, int count>
__device__ Lanes<A, count> term(const Energy<T, layout>& f, int64_t n, int64_t c, int64_t s, const Lanes<A, count>&) {
  Lanes<A, count> x = load<count>(&f.x.at(n, c, s));
#pragma unroll
  for (int i = 0; i < count; ++i) x.at[i] *= x.at[i];
  return x;
}

template <class T, Layout layout, Power power, bool has_terms, class A, int count>
__device__ Lanes<A, count> term(const Pull<T, layout, power, false, has_terms>& f, int64_t n, int64_t c, int64_t s,
                               const Lanes<A, count>& inverse_norm) {
  const Lanes<A, count> grad = load<count>(&f.grad.at(n, c, s)), y = load<count>(&f.y.at(n, c, s));
  const Lanes<A, count> b = exponents_of<layout, power, count>(f.exponent, c);
  Lanes<A, count> along_lin, along_norm, terms;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const Recovered<A> at = recovered<A, power>(std::fabs(y.at[i]) * inverse_norm.at[i], b.at[i]);
    along_lin.at[i] = grad.at[i] * at.scale * (A(1) + f.not_detached * at.slope);
    along_norm.at[i] = grad.at[i] * y.at[i] * at.slope;
    if constexpr (has_terms) terms.at[i] = grad.at[i] * y.at[i] * at.log;
  }
  store(&f.grad_lin.at(n, c, s), along_lin);
  if constexpr (has_terms) store(&f.exponent_terms.at(n, c, s), terms);
  return along_norm;
}

template <class T, Layout layout, Power power, class A, int count>
__device__ void apply(const Respond<T, layout, power, false>& f, int64_t n, int64_t c, int64_t s,
                      const Lanes<A, count>& inverse_norm) {
  Lanes<A, count> l = load<count>(&f.lin.at(n, c, s));
  const Lanes<A, count> b = exponents_of<layout, power, count>(f.exponent, c);
#pragma unroll
  for (int i = 0; i < count; ++i) l.at[i] *= scale_of<A, power>(std::fabs(l.at[i]) * inverse_norm.at[i], b.at[i]);
  store(&f.y.at(n, c, s), l);
}

template <class T, Layout layout, class A, int count>
__device__ void apply(const NormGradient<T, layout>& f, int64_t n, int64_t c, int64_t s, const Lanes<A, count>& spread) {
  Lanes<A, count> out = load<count>(&f.linear_part.at(n, c, s));
  const Lanes<A, count> x = load<count>(&f.x.at(n, c, s));
#pragma unroll
  for (int i = 0; i < count; ++i) out.at[i] -= x.at[i] * spread.at[i];
  store(&f.out.at(n, c, s), out);
}

}  // namespace cuda
}  // namespace bcos
