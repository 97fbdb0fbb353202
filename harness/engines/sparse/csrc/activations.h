// Rows of activations, interleaved so that one step of a tile finds the rows it multiplies side by side.
#pragma once

#include "kernels.h"
#include "layout.h"

namespace sparsebench {

// What one 32-bit unit of a row holds: a float32, two bfloat16, or four int8.
enum class Form : uint32_t { floats, pairs, bytes };

constexpr int64_t kManyRows = 12;    // rows side by side when there are more than kFewRows
constexpr int64_t kChunkUnits = 16;  // units of a row in a chunk: 64 bytes, a row of a tile of AMX
constexpr int64_t kChunkRows = 16;   // rows whose chunks lie together

// Rows side by side: what the registers hold with their sums. Up to kFewRows rows are split evenly, so that a block has
// as many rows as the kernel that runs it and at most one is padding.
static constexpr int64_t rows_per_block(Value value, int64_t rows) {
  if (rows > kFewRows) return kManyRows;
  const int64_t most = value == Value::i8 ? kFewRows : value == Value::bf16 ? 6 : 8;
  const int64_t blocks = (rows + most - 1) / most;
  return (rows + blocks - 1) / blocks;
}

// How rows are laid out: `block` side by side unit by unit, or kChunkRows of them in chunks of kChunkUnits units, which
// are what AMX loads: one after another, as the memory likes it. (Were they rows apart instead, the rows of one load
// would meet in the same few places of the cache.)
struct Arrangement {
  Form form;
  int64_t block;
  bool chunks;
};

struct Activations {
  Form form;
  bool chunks;
  int64_t rows;
  int64_t block;   // rows side by side; what the last block lacks is zero
  int64_t blocks;
  int64_t units;   // of a row: inputs, padded with zeros to whole steps (and chunks), in 32-bit units
  int64_t groups;  // i4: as the matrix; otherwise 1
  uint32_t* lanes;   // [blocks][units][block]; in chunks: [][units / kChunkUnits][kChunkRows][kChunkUnits]
  float* scales;     // bytes: [blocks][groups][block]
  int32_t* offsets;  // bytes: like scales, minus the weights' offset times the sum of the group's activations

  int64_t lane(int64_t row, int64_t unit) const {
    if (chunks)
      return (row / kChunkRows * units + unit / kChunkUnits * kChunkUnits) * kChunkRows +
             row % kChunkRows * kChunkUnits + unit % kChunkUnits;
    return (row / block * units + unit) * block + row % block;
  }
  int64_t scale(int64_t row, int64_t group) const { return (row / block * groups + group) * block + row % block; }
};

// int8 of `count` values: scale max|x| / divisor (or `fixed`, if that is not 0), half to even, clamped. A value that is
// not finite makes the scale NaN, and so the results. Returns the sum of the quantized values.
using Quantize = int32_t (*)(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized,
                             float* scale);
int32_t quantize_portable(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale);

// `count` float32 as bfloat16: the nearest, or the even one of two; a NaN stays one.
using Round = void (*)(const float* x, int64_t count, uint16_t* rounded);
void round_portable(const float* x, int64_t count, uint16_t* rounded);

size_t activation_bytes(const Matrix& matrix, int64_t rows);
Activations* place(const Matrix& matrix, int64_t rows, const Arrangement& arrangement, void* scratch);
// The blocks [first, last) of rows.
void fill(const Matrix& matrix, const float* rows_in, int64_t stride, Quantize quantize, Round round, int64_t first,
          int64_t last, Activations& activations);

}  // namespace sparsebench
