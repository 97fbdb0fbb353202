// The contract between packed weights, the kernels on them, and whoever calls them (Python, the native decoder).
//
// Weights are packed in tiles of 16 outputs. One step of a tile is a vector of 64 bytes: 16 outputs by 1 (float32),
// 2 (bfloat16) or 4 (int8, int4) inputs, output-major, so that an input (or pair, or four of them) is broadcast as 32
// bits and no sum runs across lanes. A sparse tile stores one mask bit per weight and only the survivors.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsebench {

enum class Value : uint32_t { f32 = 0, bf16 = 1, i8 = 2, i4 = 3 };

// Instruction sets, in the order of preference; every one gives the same results within the bounds of the tests.
// avx512_bf16 is avx512 with the dot product of pairs of bfloat16.
enum class Isa : uint32_t { scalar = 0, avx2 = 1, avx512 = 2, avx512_bf16 = 3, amx = 4 };

constexpr int64_t kTile = 16;        // outputs of a tile
constexpr size_t kSlack = 64;        // readable bytes that must follow `data`: kernels load whole vectors

// Inputs that one 32-bit lane holds.
constexpr int64_t inputs_per_lane(Value value) { return value == Value::f32 ? 1 : value == Value::bf16 ? 2 : 4; }

// A packed weight (outputs x inputs). A view: it owns nothing.
struct Matrix {
  Value value = Value::f32;
  bool sparse = false;
  bool wide_scales = false;          // i4: group scales are float32, not bfloat16
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t group = 0;                 // i4: inputs that share a scale (divides `inputs`, multiple of 8); otherwise 0
  const uint8_t* data = nullptr;     // tiles, one after the other
  size_t bytes = 0;                  // of `data`, without the slack
  const uint64_t* offsets = nullptr; // tiles() + 1 byte offsets into `data`
  const float* scales = nullptr;     // i8: one per output, padded to tiles() * kTile; otherwise null
  float input_scale = 0.0f;          // i8: static activation scale; 0 is dynamic, per row
  int64_t tiles() const { return (outputs + kTile - 1) / kTile; }
};

// The structure is sound: sizes, offsets, and every mask's population against the bytes that follow it. After this a
// kernel on the matrix reads inside `data` + kSlack whatever the bytes are. Returns null, or what is wrong.
const char* check(const Matrix& matrix);

// Rows of activations in the form that kernels of one kind read. Matrices with the same (value, inputs, group,
// input_scale) share them: query, key and value read one.
struct Activations;

// Bytes of scratch that `rows` activations take.
size_t activation_bytes(const Matrix& matrix, int64_t rows);

// Writes `rows` float32 rows (stride `stride` floats) to `scratch` (64-byte aligned, activation_bytes() long).
//   f32, bf16: as they are (avx512_bf16 and AMX round many rows of bf16 to bfloat16, as torch does)
//   i8:  symmetric per row, scale max|x| / 127.5, half to even, clamped to [-128, 127] (compressed-tensors' rule), or
//        with the static scale
//   i4:  int8 per row and group of inputs, scale max|x| / 127
const Activations* prepare(const Matrix& matrix, const float* rows_in, int64_t rows, int64_t stride, void* scratch,
                           Isa isa);

// The same by several threads: one starts it, then every part in [0, parts) is prepared, by anyone, in any order.
Activations* start_prepare(const Matrix& matrix, int64_t rows, void* scratch, Isa isa);
void prepare_part(const Matrix& matrix, const float* rows_in, int64_t stride, Activations& activations, int64_t part,
                  int64_t parts, Isa isa);

// y[row][output] = sum_k x[row][k] W[output][k] for the outputs of tiles [first, last); `stride` floats between rows of
// y. Outputs beyond matrix.outputs are not written. One thread; tiles are independent, so callers split them.
// A row's result does not depend on how many rows are computed with it for m <= kFewRows.
void multiply(const Matrix& matrix, const Activations& activations, int64_t rows, int64_t first, int64_t last, float* y,
              int64_t stride, Isa isa);

constexpr int64_t kFewRows = 16;     // up to here weights are expanded in registers; above, in panels

// The best instruction set that this processor, the operating system and SPARSEBENCH_ISA (scalar, avx2, avx512,
// avx512_bf16, amx) allow.
Isa best_isa();
bool supports(Isa isa);
const char* isa_name(Isa isa);

}  // namespace sparsebench
