#pragma once

#include "activations.h"

namespace sparsebench {

// Up to kFewRows rows.
void multiply_few_avx512(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                         int64_t stride);

}  // namespace sparsebench
