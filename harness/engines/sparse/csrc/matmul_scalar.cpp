// The portable path: a tile is expanded once, then every row runs over it. Written for compilers that vectorize.
#include <algorithm>
#include <vector>

#include "dispatch.h"

namespace sparsebench {
namespace {

// The integer weights of a tile as [input][output], without their offset; floats as they are.
template <Value V, class Number>
void expand(const Matrix& m, const Layout& layout, int64_t tile, Number* panel) {
  constexpr int64_t kLane = inputs_per_lane(V);
  const uint8_t* base = m.data + m.offsets[tile];
  const uint8_t* next[2] = {base + layout.head, base + layout.head};
  std::fill(panel, panel + layout.steps * kLane * kTile, Number{0});
  for (int64_t step = 0; step < layout.steps; ++step) {
    const bool odd = V == Value::i4 && step % 2;
    uint64_t mask = m.sparse ? load_mask(layout.mask_at(base, step), layout.mask) : ~uint64_t{0};
    const uint8_t*& from = next[odd];
    for (int64_t lane = 0; lane < kTile * kLane; ++lane, mask >>= 1) {
      if (!(mask & 1)) continue;
      Number& to = panel[(step * kLane + lane % kLane) * kTile + lane / kLane];
      if constexpr (V == Value::f32) {
        to = load<float>(from);
        from += 4;
      } else if constexpr (V == Value::bf16) {
        to = from_bf16(load<uint16_t>(from));
        from += 2;
      } else if constexpr (V == Value::i8) {
        to = *from++ - kOffset8;
      } else {
        to = ((odd ? *from >> 4 : *from & 15)) - kOffset4;
        ++from;
      }
    }
  }
}

void store(const Matrix& m, int64_t tile, const float* sums, float* y) {
  std::copy(sums, sums + std::min(kTile, m.outputs - tile * kTile), y + tile * kTile);
}

template <Value V>
void float_tile(const Matrix& m, const Layout& layout, const Activations& a, int64_t tile, float* panel, float* y,
                int64_t stride) {
  expand<V>(m, layout, tile, panel);
  for (int64_t row = 0; row < a.rows; ++row) {
    float sums[kTile] = {};
    const uint32_t* x = a.lanes + a.lane(row, 0);
    for (int64_t input = 0; input < a.units; ++input) {
      float value;
      std::memcpy(&value, x + input * a.block, sizeof value);
      for (int64_t output = 0; output < kTile; ++output) sums[output] += value * panel[input * kTile + output];
    }
    store(m, tile, sums, y + row * stride);
  }
}

template <Value V>
void integer_tile(const Matrix& m, const Layout& layout, const Activations& a, int64_t tile, int32_t* panel, float* y,
                  int64_t stride) {
  expand<V>(m, layout, tile, panel);
  const uint8_t* base = m.data + m.offsets[tile];
  for (int64_t row = 0; row < a.rows; ++row) {
    float sums[kTile] = {};
    for (int64_t group = 0; group < layout.groups; ++group) {
      int32_t products[kTile] = {};
      for (int64_t step = group * layout.group_steps; step < (group + 1) * layout.group_steps; ++step) {
        int8_t x[4];
        std::memcpy(x, a.lanes + a.lane(row, step), sizeof x);
        const int32_t* w = panel + step * 4 * kTile;
        for (int64_t i = 0; i < 4; ++i)
          for (int64_t output = 0; output < kTile; ++output) products[output] += x[i] * w[i * kTile + output];
      }
      const float scale = a.scales[a.scale(row, group)];
      for (int64_t output = 0; output < kTile; ++output) {
        const float product = static_cast<float>(products[output]);
        if constexpr (V == Value::i8)
          sums[output] = product * scale * m.scales[tile * kTile + output];
        else
          sums[output] += product * (scale * layout.scale_at(base, group, output));
      }
    }
    store(m, tile, sums, y + row * stride);
  }
}

void multiply(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride) {
  const Layout layout(m);
  const size_t size = static_cast<size_t>(layout.steps * inputs_per_lane(m.value) * kTile);
  const bool integers = a.form == Form::bytes;
  std::vector<float> floats(integers ? 0 : size);
  std::vector<int32_t> ints(integers ? size : 0);
  for (int64_t tile = first; tile < last; ++tile) switch (m.value) {
      case Value::f32: float_tile<Value::f32>(m, layout, a, tile, floats.data(), y, stride); break;
      case Value::bf16: float_tile<Value::bf16>(m, layout, a, tile, floats.data(), y, stride); break;
      case Value::i8: integer_tile<Value::i8>(m, layout, a, tile, ints.data(), y, stride); break;
      case Value::i4: integer_tile<Value::i4>(m, layout, a, tile, ints.data(), y, stride); break;
    }
}

}  // namespace

const Kernels& scalar_kernels() {
  static const Kernels kernels{quantize_portable, nullptr, false, multiply};
  return kernels;
}

}  // namespace sparsebench
