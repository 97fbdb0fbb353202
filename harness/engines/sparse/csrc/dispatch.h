// The kernels of each instruction set.
#pragma once

#include "activations.h"

namespace sparsebench {

struct Kernels {
  Quantize quantize;
  bool pairs;       // many rows of bf16 are rounded to it
  bool whole_rows;  // many rows of bf16 and int8 lie one after another, not interleaved
  void (*multiply)(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                   int64_t stride);
};

const Kernels& scalar_kernels();
const Kernels& avx2_kernels();    // these only where the processor has them
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();
const Kernels& amx_kernels();

}  // namespace sparsebench
