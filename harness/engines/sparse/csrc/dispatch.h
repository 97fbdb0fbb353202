// The kernels of each instruction set.
#pragma once

#include "activations.h"

namespace sparsebench {

struct Kernels {
  Quantize quantize;
  Round round;  // many rows of bf16 are rounded to it; null: they are not
  bool chunks;  // many rows of bf16 and int8 are laid out in chunks
  void (*multiply)(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                   int64_t stride);
};

const Kernels& scalar_kernels();
const Kernels& avx2_kernels();    // these only where the processor has them
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();
const Kernels& amx_kernels();

}  // namespace sparsebench
