// The kernels of each instruction set.
#pragma once

#include "activations.h"

namespace sparsebench {

struct Kernels {
  Quantize quantize;
  RoundPairs round;
  bool pairs;  // bfloat16 weights multiply many rows of activations rounded to bfloat16
  void (*multiply)(const Matrix& matrix, const Activations& activations, int64_t first, int64_t last, float* y,
                   int64_t stride);
};

const Kernels& scalar_kernels();
const Kernels& avx512_kernels();  // only where the processor has it

}  // namespace sparsebench
