#pragma once

#include "activations.h"

namespace sparsebench {

// `scratch`: scratch_bytes_avx2(activations) bytes, aligned to 64.
size_t scratch_bytes_avx2(const Matrix& matrix, const Activations& activations);
void multiply_avx2(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                   int64_t stride, uint8_t* scratch);

// As quantize_portable, to the bit.
int32_t quantize_avx2(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale);

}  // namespace sparsebench
