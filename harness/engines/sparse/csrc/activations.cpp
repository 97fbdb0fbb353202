#include "activations.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <vector>

namespace sparsebench {
namespace {

constexpr uint32_t kInfinity = 0x7f800000;

int64_t units_of(const Matrix& m, Form form) {
  const int64_t lane = inputs_per_lane(m.value);
  const int64_t steps = (m.inputs + lane - 1) / lane;
  return form == Form::floats ? steps * lane : steps;
}

}  // namespace

size_t activation_bytes(const Matrix& m, int64_t rows) {
  const int64_t padded = round_up(rows, rows_per_block(m.value, rows));
  const bool integers = m.value == Value::i8 || m.value == Value::i4;
  const int64_t groups = m.value == Value::i4 ? m.inputs / m.group : 1;
  const int64_t whole = padded * units_of(m, integers ? Form::bytes : Form::floats);
  const int64_t chunked = round_up(rows, kChunkRows) * round_up(units_of(m, Form::pairs), kChunkUnits);
  const int64_t lanes = round_up(std::max(whole, chunked) * 4, 64);
  return static_cast<size_t>(round_up(sizeof(Activations), 64) + lanes +
                             (integers ? 2 * round_up(padded * groups * 4, 64) : 0));
}

Activations* place(const Matrix& m, int64_t rows, const Arrangement& arrangement, void* scratch) {
  Activations* a = new (scratch) Activations;
  a->form = arrangement.form;
  a->chunks = arrangement.chunks;
  a->rows = rows;
  a->block = arrangement.block;
  a->blocks = (rows + a->block - 1) / a->block;
  a->units = units_of(m, a->form);
  if (a->chunks) a->units = round_up(a->units, kChunkUnits);
  a->groups = m.value == Value::i4 ? m.inputs / m.group : 1;
  auto* next = static_cast<uint8_t*>(scratch) + round_up(sizeof(Activations), 64);
  const int64_t padded = a->blocks * a->block;
  a->lanes = reinterpret_cast<uint32_t*>(next);
  next += round_up((a->chunks ? round_up(rows, kChunkRows) : padded) * a->units * 4, 64);
  a->scales = reinterpret_cast<float*>(next);
  next += round_up(padded * a->groups * 4, 64);
  a->offsets = reinterpret_cast<int32_t*>(next);
  return a;
}

namespace {

// One row in its form, one unit after another.
void fill_row(const Matrix& m, const float* x, int64_t row, Quantize quantize, Round round, uint32_t* units,
              Activations& a) {
  if (a.form == Form::floats) {
    std::memcpy(units, x, static_cast<size_t>(m.inputs) * 4);
    return;
  }
  if (a.form == Form::pairs) {
    round(x, m.inputs, reinterpret_cast<uint16_t*>(units));
    return;
  }
  const bool four = m.value == Value::i4;
  const int64_t length = m.inputs / a.groups;
  for (int64_t group = 0; group < a.groups; ++group) {
    float scale;
    const int32_t sum = quantize(x + group * length, length, four ? 127.0f : 127.5f, m.input_scale,
                                 reinterpret_cast<int8_t*>(units) + group * length, &scale);
    a.scales[a.scale(row, group)] = scale;
    // The nibbles of odd steps count sixteenfold, and so does the whole sum of a group: see matmul.
    a.offsets[a.scale(row, group)] = -sum * (four ? 16 * kOffset4 : kOffset8);
  }
}

// The rows of a block side by side; `whole`: the rows, one after another.
template <int64_t Block>
void interleave(const uint32_t* whole, int64_t units, int64_t block, uint32_t* to) {
  const int64_t count = Block ? Block : block;
  for (int64_t unit = 0; unit < units; ++unit)
    for (int64_t row = 0; row < count; ++row) to[unit * count + row] = whole[row * units + unit];
}

void fill_block(const Matrix& m, const float* rows_in, int64_t stride, int64_t block, Quantize quantize, Round round,
                std::vector<uint32_t>& whole, Activations& a) {
  const int64_t first = block * a.block;
  uint32_t* to = a.lanes + a.lane(first, 0);
  uint32_t* rows = a.block == 1 ? to : whole.data();
  for (int64_t i = 0; i < a.block; ++i) {
    uint32_t* units = rows + i * a.units;
    const int64_t row = first + i;
    if (row < a.rows) {
      units[a.units - 1] = 0;  // what pads the last step
      fill_row(m, rows_in + row * stride, row, quantize, round, units, a);
      continue;
    }
    std::fill(units, units + a.units, 0u);
    for (int64_t group = 0; a.form == Form::bytes && group < a.groups; ++group) {
      a.scales[a.scale(row, group)] = 0.0f;
      a.offsets[a.scale(row, group)] = 0;
    }
  }
  if (a.block == kManyRows)
    interleave<kManyRows>(rows, a.units, a.block, to);
  else if (a.block > 1)
    interleave<0>(rows, a.units, a.block, to);
}

}  // namespace

void fill(const Matrix& m, const float* rows_in, int64_t stride, Quantize quantize, Round round, int64_t first,
          int64_t last, Activations& a) {
  if (a.chunks) {
    std::vector<uint32_t> units(static_cast<size_t>(a.units));  // zeros stay where a row has no inputs
    for (int64_t row = first; row < last; ++row) {
      fill_row(m, rows_in + row * stride, row, quantize, round, units.data(), a);
      for (int64_t unit = 0; unit < a.units; unit += kChunkUnits)
        std::memcpy(a.lanes + a.lane(row, unit), units.data() + unit, kChunkUnits * 4);
    }
    return;
  }
  std::vector<uint32_t> whole(a.block == 1 ? 0 : static_cast<size_t>(a.block * a.units));
  for (int64_t block = first; block < last; ++block) fill_block(m, rows_in, stride, block, quantize, round, whole, a);
}

void round_portable(const float* x, int64_t count, uint16_t* rounded) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = float_bits(x[i]);
    const bool nan = (bits & 0x7fffffff) > kInfinity;
    rounded[i] = static_cast<uint16_t>(nan ? bits >> 16 | 64 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}

int32_t quantize_portable(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale) {
  // As bits, larger magnitudes compare larger and NaN largest.
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, float_bits(x[i]) & 0x7fffffff);
  if (largest >= kInfinity) {
    std::fill(quantized, quantized + count, int8_t{0});
    *scale = std::numeric_limits<float>::quiet_NaN();
    return 0;
  }
  float top;
  std::memcpy(&top, &largest, sizeof top);
  float step = fixed != 0.0f ? fixed : top / divisor;
  if (step == 0.0f) step = 1.0f;
  *scale = step;
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = std::min(127.0f, std::max(-128.0f, std::nearbyint(x[i] / step)));
    quantized[i] = static_cast<int8_t>(value);
    sum += quantized[i];
  }
  return sum;
}

}  // namespace sparsebench
