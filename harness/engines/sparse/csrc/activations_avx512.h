#pragma once

#include <cstdint>

namespace sparsebench {

// As quantize_portable and round_pairs_portable, to the bit.
int32_t quantize_avx512(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale);
void round_pairs_avx512(const float* x, int64_t count, uint16_t* rounded);

}  // namespace sparsebench
