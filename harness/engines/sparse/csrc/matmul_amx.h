#pragma once

#include "activations.h"

namespace sparsebench {

// Many rows of bf16 (as pairs) or int8, in chunks. `scratch`: panel_bytes_amx(activations) bytes, aligned to 64.
size_t panel_bytes_amx(const Activations& activations);
void multiply_many_amx(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                       int64_t stride, uint8_t* scratch);

}  // namespace sparsebench
