#pragma once

#include <cstdint>

namespace sparsebench {

// As quantize_portable, to the bit.
int32_t quantize_avx512(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale);

}  // namespace sparsebench
