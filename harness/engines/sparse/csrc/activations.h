// Rows of activations, interleaved so that one step of a tile finds the rows it multiplies side by side.
#pragma once

#include "kernels.h"
#include "layout.h"

namespace sparsebench {

// What one 32-bit unit of a row holds: a float32, two bfloat16, or four int8.
enum class Form : uint32_t { floats, pairs, bytes };

constexpr int64_t kManyRows = 12;  // rows side by side when there are more than kFewRows

// Rows side by side: what the registers hold with their sums. Up to kFewRows rows are split evenly, so that a block has
// as many rows as the kernel that runs it and at most one is padding.
static constexpr int64_t rows_per_block(Value value, int64_t rows) {
  if (rows > kFewRows) return kManyRows;
  const int64_t most = value == Value::i8 ? kFewRows : value == Value::bf16 ? 6 : 8;
  const int64_t blocks = (rows + most - 1) / most;
  return (rows + blocks - 1) / blocks;
}

struct Activations {
  Form form;
  int64_t rows;
  int64_t block;   // rows side by side; what the last block lacks is zero
  int64_t blocks;
  int64_t units;   // of a row: inputs, padded to whole steps, in 32-bit units
  int64_t groups;  // i4: as the matrix; otherwise 1
  uint32_t* lanes;   // [blocks][units][block]
  float* scales;     // bytes: [blocks][groups][block]
  int32_t* offsets;  // bytes: like scales, minus the weights' offset times the sum of the group's activations

  int64_t lane(int64_t row, int64_t unit) const { return (row / block * units + unit) * block + row % block; }
  int64_t scale(int64_t row, int64_t group) const { return (row / block * groups + group) * block + row % block; }
};

// int8 of `count` values: scale max|x| / divisor (or `fixed`, if that is not 0), half to even, clamped. A value that is
// not finite makes the scale NaN, and so the results. Returns the sum of the quantized values.
using Quantize = int32_t (*)(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized,
                             float* scale);
int32_t quantize_portable(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale);

size_t activation_bytes(const Matrix& matrix, int64_t rows);
Activations* place(const Matrix& matrix, int64_t rows, Form form, int64_t block, void* scratch);
// The blocks [first, last) of rows.
void fill(const Matrix& matrix, const float* rows_in, int64_t stride, Quantize quantize, int64_t first, int64_t last,
          Activations& activations);

}  // namespace sparsebench
