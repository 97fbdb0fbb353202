// libFuzzer target: any weights are packed, the packing is sound, and unpacking gives them back.
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels.h"
#include "pack.h"
#include "source.h"

using namespace sparsebench;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Source in(bytes, size);
  Plain plain;
  plain.value = static_cast<Value>(in.number(4));
  const bool sparse = in.number(2);
  plain.outputs = 1 + static_cast<int64_t>(in.number(40));
  plain.group = plain.value == Value::i4 ? 8 * (1 + static_cast<int64_t>(in.number(4))) : 0;
  plain.inputs = plain.group ? plain.group * (1 + static_cast<int64_t>(in.number(4))) : 1 + static_cast<int64_t>(in.number(90));
  const size_t count = static_cast<size_t>(plain.outputs * plain.inputs);
  const size_t width = plain.value == Value::f32 ? 4 : plain.value == Value::bf16 ? 2 : 1;
  Exact<uint8_t> weight(count * width);
  in.fill(weight.data(), weight.size());
  const bool fits = plain.value != Value::i4 || in.number(8) != 0;
  if (plain.value == Value::i4 && fits)
    for (size_t i = 0; i < count; ++i) weight.data()[i] = static_cast<uint8_t>(weight.data()[i] % 16 - 8);
  const size_t groups = plain.group ? count / static_cast<size_t>(plain.group) : static_cast<size_t>(plain.outputs);
  Exact<float> scales(groups);
  const bool wide = in.number(2);
  for (size_t i = 0; i < groups; ++i)
    scales.data()[i] = wide ? 0.1f + 0.001f * static_cast<float>(i) : std::ldexp(1.0f, static_cast<int>(i % 7) - 3);
  plain.weight = weight.data();
  if (plain.value == Value::i8 || plain.value == Value::i4) plain.scales = scales.data();

  Packed packed;
  try {
    packed = pack(plain, sparse, 1);
  } catch (const std::invalid_argument&) {
    if (fits) __builtin_trap();
    return 0;
  }
  const Matrix& m = packed.matrix;
  if (check(m)) __builtin_trap();
  std::vector<float> back(count);
  unpack(m, back.data(), 1);
  for (size_t i = 0; i < count; ++i) {
    float value = 0.0f;
    if (plain.value == Value::f32) {
      std::memcpy(&value, weight.data() + 4 * i, 4);
    } else if (plain.value == Value::bf16) {
      uint32_t bits = 0;
      std::memcpy(reinterpret_cast<uint8_t*>(&bits) + 2, weight.data() + 2 * i, 2);
      std::memcpy(&value, &bits, 4);
    } else {
      const size_t scale = plain.group ? i / static_cast<size_t>(plain.group) : i / static_cast<size_t>(plain.inputs);
      value = static_cast<float>(static_cast<int8_t>(weight.data()[i])) * scales.data()[scale];
    }
    if (!(value == back[i] || (std::isnan(value) && std::isnan(back[i])))) __builtin_trap();
  }
  return 0;
}
