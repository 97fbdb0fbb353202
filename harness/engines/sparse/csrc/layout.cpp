#include "layout.h"

#include <algorithm>

namespace sparsebench {
namespace {

const char* check_shape(const Matrix& m) {
  if (static_cast<uint32_t>(m.value) > static_cast<uint32_t>(Value::i4)) return "unknown kind of values";
  if (m.outputs < 1 || m.outputs > kMaxOutputs) return "outputs must be between 1 and 2^31";
  if (m.inputs < 1 || m.inputs > kMaxInputs) return "inputs must be between 1 and 131071";
  if (m.value == Value::i4) {
    if (m.group < 8 || m.group % 8 != 0 || m.inputs % m.group != 0)
      return "the group of int4 must be a multiple of 8 that divides the inputs";
  } else if (m.group != 0 || m.wide_scales) {
    return "only int4 has groups";
  }
  if (m.value == Value::i8 ? m.scales == nullptr : m.scales != nullptr)
    return "int8 has one scale per output, other kinds have none";
  if (m.value != Value::i8 && m.input_scale != 0.0f) return "only int8 has a static input scale";
  if (!(m.input_scale >= 0.0f && m.input_scale <= 3.4e38f)) return "the static input scale must be finite and positive";
  if (m.data == nullptr || m.offsets == nullptr) return "data or offsets are missing";
  return nullptr;
}

// Bits that a mask may have: lanes beyond the last output and inputs beyond the last one are never stored.
uint64_t allowed_bits(const Matrix& m, int64_t tile, int64_t step) {
  const int64_t lane = inputs_per_lane(m.value);
  const int64_t outputs = std::min(kTile, m.outputs - tile * kTile);
  const int64_t inputs = std::min(lane, m.inputs - step * lane);
  const uint64_t one = (uint64_t{1} << inputs) - 1;
  uint64_t bits = 0;
  for (int64_t output = 0; output < outputs; ++output) bits |= one << (output * lane);
  return bits;
}

const char* check_tile(const Matrix& m, const Layout& layout, int64_t tile) {
  const uint8_t* base = m.data + m.offsets[tile];
  const uint64_t inner = allowed_bits(m, tile, 0);
  const uint64_t last = allowed_bits(m, tile, layout.steps - 1);
  int64_t counts[2] = {0, 0};
  for (int64_t step = 0; step < layout.steps; ++step) {
    const uint64_t mask = load_mask(layout.mask_at(base, step), layout.mask);
    if (mask & ~(step + 1 == layout.steps ? last : inner)) return "a mask keeps weights outside the matrix";
    counts[step % 2] += population(mask);
  }
  const int64_t width = m.value == Value::f32 ? 4 : m.value == Value::bf16 ? 2 : 1;
  const int64_t values = m.value == Value::i4 ? std::max(counts[0], counts[1]) : (counts[0] + counts[1]) * width;
  if (m.offsets[tile] + static_cast<uint64_t>(layout.head + round_up(values, 64)) != m.offsets[tile + 1])
    return "a tile's masks do not match the bytes that follow them";
  return nullptr;
}

}  // namespace

const char* check(const Matrix& m) {
  if (const char* wrong = check_shape(m)) return wrong;
  const Layout layout(m);
  const int64_t tiles = m.tiles();
  if (m.bytes / static_cast<uint64_t>(layout.head ? layout.head : 64) < static_cast<uint64_t>(tiles))
    return "data are shorter than the tiles' heads";
  if (m.offsets[0] != 0) return "the first tile does not start at 0";
  if (m.offsets[tiles] != m.bytes) return "the last tile does not end where data end";
  // First all offsets, so that no tile is read before it is known to lie inside the data.
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const uint64_t size = m.offsets[tile + 1] - m.offsets[tile];
    if (m.offsets[tile + 1] < m.offsets[tile] || m.offsets[tile + 1] > m.bytes ||
        size < static_cast<uint64_t>(layout.head))
      return "tile offsets are out of order";
    if (!m.sparse && size != static_cast<uint64_t>(layout.head + layout.dense_values))
      return "a dense tile has the wrong size";
  }
  for (int64_t tile = 0; m.sparse && tile < tiles; ++tile)
    if (const char* wrong = check_tile(m, layout, tile)) return wrong;
  return nullptr;
}

}  // namespace sparsebench
