// What the files that include product_loops.h include before they ask for an instruction set: inline functions of these
// headers must not be compiled for it, since the linker keeps one copy for everyone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "../bcos_math.h"
#include "grouped.h"
#include "instruction_set.h"
#include "product.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define BCOS_HAS_PRODUCTS 1
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++'s own header has undefined vectors behind full masks
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
