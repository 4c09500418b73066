// Loops compiled for several instruction sets, and the choice between them when the program runs.
//
// Only the loops are compiled so: a header's inline function compiled with -mavx2 could be the copy that the linker keeps
// for everyone. A loop is Body::run(...), inlined into one function for each instruction set.
#pragma once

#include <cstdlib>
#include <cstring>

#if defined(__GNUC__)  // clang too
#define BCOS_INLINE __attribute__((always_inline)) inline
#else
#define BCOS_INLINE inline
#endif

namespace bcos {
namespace cpu {

enum class InstructionSet { kPortable, kAvx2, kAvx512 };

#if defined(__x86_64__) && defined(__GNUC__)
#define BCOS_AVX2 __attribute__((target("avx2,fma,f16c")))
#define BCOS_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))

inline InstructionSet best_instruction_set() {
  __builtin_cpu_init();
  const char* wanted = std::getenv("ATEN_CPU_CAPABILITY");  // PyTorch's own switch: default, avx2, avx512
  if (wanted && !std::strcmp(wanted, "default")) return InstructionSet::kPortable;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return InstructionSet::kPortable;
  if (wanted && !std::strcmp(wanted, "avx2")) return InstructionSet::kAvx2;
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return has_avx512 ? InstructionSet::kAvx512 : InstructionSet::kAvx2;
}

inline InstructionSet instruction_set() {
  static const InstructionSet set = best_instruction_set();
  return set;
}

template <class Body, class... Args>
BCOS_AVX2 void run_avx2(Args... args) {
  Body::run(args...);
}

template <class Body, class... Args>
BCOS_AVX512 void run_avx512(Args... args) {
  Body::run(args...);
}

template <class Body, class... Args>
void run(Args... args) {
  switch (instruction_set()) {
    case InstructionSet::kAvx512: return run_avx512<Body>(args...);
    case InstructionSet::kAvx2: return run_avx2<Body>(args...);
    default: return Body::run(args...);
  }
}
#else
inline InstructionSet instruction_set() { return InstructionSet::kPortable; }

template <class Body, class... Args>
void run(Args... args) {
  Body::run(args...);
}
#endif

}  // namespace cpu
}  // namespace bcos
