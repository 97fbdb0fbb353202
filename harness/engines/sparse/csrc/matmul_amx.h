#pragma once

#include "activations.h"

namespace sparsebench {

// Many rows of bf16 (as pairs) or int8, not interleaved. `scratch`: as for multiply_many_avx512.
void multiply_many_amx(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                       int64_t stride, uint8_t* scratch);

}  // namespace sparsebench
