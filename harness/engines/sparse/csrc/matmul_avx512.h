#pragma once

#include "activations.h"

namespace sparsebench {

// Up to kFewRows rows.
void multiply_few_avx512(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                         int64_t stride);

// More rows. `scratch`: panel_bytes_avx512(matrix, last - first) bytes, aligned to 64.
size_t panel_bytes_avx512(const Matrix& matrix, int64_t tiles);
void multiply_many_avx512(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                          int64_t stride, uint8_t* scratch);
void multiply_many_avx512_bf16(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last,
                               float* y, int64_t stride, uint8_t* scratch);

}  // namespace sparsebench
