// Where the bytes of a packed tile are.
//
//   tile    = head, values; both padded to 64 bytes
//   head    = per group: [i4: 16 scales, bfloat16 or float32] [sparse: one mask per step]; kinds other than i4 have one
//             group
//   mask    = one bit per weight of a step, bit output * inputs_per_lane + input
//   values  = the steps' survivors (dense: all 64 bytes of a step), in the order of the bits
//             i8 holds w + 128. i4 holds w + 8 in two streams of nibbles: even steps in the low halves of the bytes, odd
//             steps in the high halves, so that one step is one load and one AND; the longer stream sets the length.
//
// Integers carry an offset because the dot instructions want unsigned weights: zeros expand to the offset, and the sum
// of a row's activations times the offset is taken off again.
#pragma once

#include <cstring>

#include "kernels.h"

namespace sparsebench {

constexpr int64_t kStepBytes = 64;
constexpr int kOffset8 = 128;
constexpr int kOffset4 = 8;
// Above this a sum of 8-bit products may leave 32 bits.
constexpr int64_t kMaxInputs = (1 << 17) - 1;
constexpr int64_t kMaxOutputs = int64_t{1} << 31;

// Internal linkage from here on: files compiled for different processors include this, and none may use another's code.
namespace {

static constexpr int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

static constexpr int64_t mask_bytes(Value value) { return kTile * inputs_per_lane(value) / 8; }

template <class T>
static inline T load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

static inline float from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

static inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

struct Layout {
  explicit Layout(const Matrix& m)
      : steps((m.inputs + inputs_per_lane(m.value) - 1) / inputs_per_lane(m.value)),
        groups(m.value == Value::i4 ? m.inputs / m.group : 1),
        group_steps(steps / groups),
        scale_bytes(m.value == Value::i4 ? kTile * (m.wide_scales ? 4 : 2) : 0),
        mask(m.sparse ? mask_bytes(m.value) : 0),
        group_head(scale_bytes + group_steps * mask),
        head(round_up(groups * group_head, 64)),
        dense_values(m.value == Value::i4 ? steps / 2 * kStepBytes : steps * kStepBytes) {}

  int64_t steps, groups, group_steps;
  int64_t scale_bytes;   // of one group
  int64_t mask;          // bytes of one step's mask, 0 when dense
  int64_t group_head;
  int64_t head;
  int64_t dense_values;  // bytes of a tile's values without zeros

  const uint8_t* mask_at(const uint8_t* tile, int64_t step) const {
    return tile + step / group_steps * group_head + scale_bytes + step % group_steps * mask;
  }
  float scale_at(const uint8_t* tile, int64_t group, int64_t output) const {
    const uint8_t* scales = tile + group * group_head;
    return scale_bytes == kTile * 4 ? load<float>(scales + output * 4) : from_bf16(load<uint16_t>(scales + output * 2));
  }
};

static inline uint64_t load_mask(const uint8_t* from, int64_t bytes) {
  uint64_t mask = 0;
  for (int64_t i = 0; i < bytes; ++i) mask |= uint64_t{from[i]} << (8 * i);
  return mask;
}

// Portable; compiles to one instruction where the file's flags have it.
static inline int population(uint64_t mask) {
#if defined(__GNUC__) || defined(__clang__)
  return __builtin_popcountll(mask);
#else
  int count = 0;
  for (; mask; mask &= mask - 1) ++count;
  return count;
#endif
}

}  // namespace

}  // namespace sparsebench
