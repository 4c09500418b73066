// The choice among the instruction sets' products.
#include "product_files.h"

namespace bcos {
namespace cpu {

#if BCOS_HAS_PRODUCTS
extern const Products<float> kAvx2Products, kAvx512Products;
extern const Products<torch::headeronly::BFloat16> kAvx512Bf16Products;
extern const DepthwiseLoops kAvx2Depthwise, kAvx512Depthwise;

const Products<float>* float_products() {
  switch (instruction_set()) {
    case InstructionSet::kAvx512: return &kAvx512Products;
    case InstructionSet::kAvx2: return &kAvx2Products;
    default: return nullptr;
  }
}

const Products<torch::headeronly::BFloat16>* bfloat16_products() {
  static const bool has_products = instruction_set() == InstructionSet::kAvx512 && __builtin_cpu_supports("avx512bf16");
  return has_products ? &kAvx512Bf16Products : nullptr;
}

const DepthwiseLoops* depthwise_loops() {
  switch (instruction_set()) {
    case InstructionSet::kAvx512: return &kAvx512Depthwise;
    case InstructionSet::kAvx2: return &kAvx2Depthwise;
    default: return nullptr;
  }
}
#else
const Products<float>* float_products() { return nullptr; }
const Products<torch::headeronly::BFloat16>* bfloat16_products() { return nullptr; }
const DepthwiseLoops* depthwise_loops() { return nullptr; }
#endif

}  // namespace cpu
}  // namespace bcos
