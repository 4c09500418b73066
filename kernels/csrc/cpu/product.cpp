// The choice among the instruction sets' products.
#include "product_files.h"

namespace bcos {
namespace cpu {

#if BCOS_HAS_PRODUCTS
extern const Products<float> kAvx2Products, kAvx512Products;
extern const Products<torch::headeronly::BFloat16> kAvx512Bf16Products;
extern const GroupedLoops<float> kAvx2Grouped, kAvx512Grouped;
extern const GroupedLoops<torch::headeronly::BFloat16> kAvx2GroupedBf16, kAvx512GroupedBf16;

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

const GroupedLoops<float>* grouped_float_loops() {
  switch (instruction_set()) {
    case InstructionSet::kAvx512: return &kAvx512Grouped;
    case InstructionSet::kAvx2: return &kAvx2Grouped;
    default: return nullptr;
  }
}

const GroupedLoops<torch::headeronly::BFloat16>* grouped_bfloat16_loops() {
  switch (instruction_set()) {
    case InstructionSet::kAvx512: return &kAvx512GroupedBf16;
    case InstructionSet::kAvx2: return &kAvx2GroupedBf16;
    default: return nullptr;
  }
}
#else
const Products<float>* float_products() { return nullptr; }
const Products<torch::headeronly::BFloat16>* bfloat16_products() { return nullptr; }
const GroupedLoops<float>* grouped_float_loops() { return nullptr; }
const GroupedLoops<torch::headeronly::BFloat16>* grouped_bfloat16_loops() { return nullptr; }
#endif

}  // namespace cpu
}  // namespace bcos
