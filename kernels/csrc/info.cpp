// The Python module object (importing it registers the operators) and what it was built with.
#include <pybind11/pybind11.h>

#if defined(__clang__)
#define BCOS_COMPILER __VERSION__  // "Clang 18.1.8", "Apple LLVM 16.0.0 ..."
#else
#define BCOS_COMPILER "g++ " __VERSION__
#endif

#if defined(BCOS_CUDA_ON_CPU)
#define BCOS_CPU "CUDA on the CPU"  // for the tests
#else
#define BCOS_CPU "C++"
#endif

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.attr("cpu") = BCOS_CPU;
  m.attr("compiler") = BCOS_COMPILER;
  m.attr("cxx_standard") = static_cast<long>(__cplusplus);
  m.attr("built_for_torch") = BCOS_TORCH_VERSION;
  m.attr("cuda_archs") = BCOS_CUDA_ARCHS;
}
