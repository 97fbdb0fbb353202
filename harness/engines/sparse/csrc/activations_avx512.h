#pragma once

#include <cstdint>

namespace sparsebench {

// As quantize_portable, to the bit.
int32_t quantize_avx512(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale);
// As round_portable, to the bit.
void round_avx512(const float* x, int64_t count, uint16_t* rounded);

}  // namespace sparsebench
