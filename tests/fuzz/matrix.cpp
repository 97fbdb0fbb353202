// libFuzzer target: any bytes as a packed matrix, or a good one with any edits. What `check` accepts must be computed on
// by every instruction set without a byte read outside of `data` and its slack; the sanitizers hold that.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels.h"
#include "pack.h"
#include "source.h"

namespace {

using namespace sparsebench;

constexpr int64_t kMostWeights = 1 << 15;

void run(const Matrix& m, Source& in) {
  if (m.outputs * m.inputs > kMostWeights) return;
  const double kept = density(m);
  if (!(kept >= 0.0 && kept <= 1.0)) __builtin_trap();
  std::vector<float> weight(static_cast<size_t>(m.outputs * m.inputs));
  unpack(m, weight.data(), 1);
  const int64_t rows_of[] = {1, 3, kFewRows + 1};
  const int64_t rows = rows_of[in.number(3)];
  Exact<float> x(static_cast<size_t>(rows * m.inputs)), y(static_cast<size_t>(rows * m.outputs));
  for (size_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(static_cast<int>(i % 13) - 6) * 0.25f;
  if (in.number(4) == 0) in.fill(x.data(), x.size() * sizeof(float));  // NaN, infinities, denormals
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx}) {
    if (!supports(isa)) continue;
    Exact<uint8_t> scratch(activation_bytes(m, rows));
    const Activations* activations = prepare(m, x.data(), rows, m.inputs, scratch.data(), isa);
    multiply(m, *activations, rows, 0, m.tiles(), y.data(), m.outputs, isa);
  }
}

// Fields, offsets and data as they come.
void any_bytes(Source& in) {
  Matrix m;
  m.value = static_cast<Value>(in.number(4));
  m.sparse = in.number(2);
  m.wide_scales = in.number(2);
  const bool absurd = in.number(8) == 0;
  m.outputs = absurd ? in.wide() : 1 + static_cast<int64_t>(in.number(48));
  m.inputs = absurd ? in.wide() : 1 + static_cast<int64_t>(in.number(80));
  m.group = absurd ? in.wide() : 8 * static_cast<int64_t>(in.number(5));
  if (m.value != Value::i4 && !absurd) m.group = 0;
  if (in.number(8) == 0) in.fill(&m.input_scale, sizeof m.input_scale);
  // Whoever calls `check` has made sure that there are as many offsets and scales as outputs ask for.
  if (m.outputs < 1 || m.outputs > 4096) {
    m.outputs = std::max<int64_t>(1, m.outputs & 4095);
  }
  Exact<uint64_t> offsets(static_cast<size_t>(m.tiles() + 1));
  Exact<float> scales(static_cast<size_t>(m.tiles() * kTile));
  m.bytes = in.number(4096);
  const bool even = in.number(4) != 0;
  for (size_t i = 0; i < offsets.size(); ++i)
    offsets.data()[i] = even ? m.bytes / 64 * i / static_cast<size_t>(m.tiles()) * 64 : in.wide();
  if (even) m.bytes = offsets.data()[offsets.size() - 1];
  if (m.value == Value::i8) in.fill(scales.data(), scales.size() * sizeof(float));
  Exact<uint8_t> data(m.bytes + kSlack);
  in.fill(data.data(), data.size());
  m.data = data.data();
  m.offsets = offsets.data();
  m.scales = m.value == Value::i8 ? scales.data() : nullptr;
  if (!check(m)) run(m, in);
}

// A good matrix, and then edits of its bytes, offsets and fields.
void edited(Source& in) {
  Plain plain;
  plain.value = static_cast<Value>(in.number(4));
  const bool sparse = in.number(2);
  plain.outputs = 1 + static_cast<int64_t>(in.number(40));
  plain.group = plain.value == Value::i4 ? 8 * (1 + static_cast<int64_t>(in.number(4))) : 0;
  plain.inputs = plain.group ? plain.group * (1 + static_cast<int64_t>(in.number(3))) : 1 + static_cast<int64_t>(in.number(70));
  const size_t count = static_cast<size_t>(plain.outputs * plain.inputs);
  const size_t width = plain.value == Value::f32 ? 4 : plain.value == Value::bf16 ? 2 : 1;
  std::vector<float> storage(count);
  auto* weight = reinterpret_cast<uint8_t*>(storage.data());
  const uint64_t seed = in.number(256);
  for (size_t i = 0; i < count; ++i) {
    const auto value = static_cast<uint8_t>((i * 2654435761u + seed) >> 7);
    if (sparse && value % 3) continue;
    for (size_t byte = 0; byte < width; ++byte)
      weight[i * width + byte] = plain.value == Value::i4 ? static_cast<uint8_t>(value % 16 - 8) : value;
  }
  std::vector<float> scales(plain.value == Value::i4 ? count / static_cast<size_t>(plain.group)
                                                     : static_cast<size_t>(plain.outputs), 0.37f);
  plain.weight = weight;
  if (plain.value == Value::i8 || plain.value == Value::i4) plain.scales = scales.data();
  const Packed packed = pack(plain, sparse, 1);
  Matrix m = packed.matrix;
  if (check(m)) __builtin_trap();
  Exact<uint8_t> data(m.bytes + kSlack);
  std::memcpy(data.data(), m.data, m.bytes + kSlack);
  Exact<uint64_t> offsets(static_cast<size_t>(m.tiles() + 1));
  std::memcpy(offsets.data(), m.offsets, offsets.size() * sizeof(uint64_t));
  m.data = data.data();
  m.offsets = offsets.data();
  for (uint64_t edits = in.number(12); edits > 0; --edits) {
    switch (in.number(8)) {
      case 0: offsets.data()[in.number(offsets.size())] = in.number(2) ? in.wide() : 64 * in.number(64); break;
      case 1: m.inputs = in.number(2) ? in.wide() : 1 + static_cast<int64_t>(in.number(80)); break;
      case 2: m.group = in.number(2) ? in.wide() : 8 * static_cast<int64_t>(in.number(5)); break;
      case 3: m.sparse = !m.sparse; break;
      default: data.data()[in.number(data.size())] = static_cast<uint8_t>(in.number(256));
    }
  }
  if (!check(m)) run(m, in);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  Source in(bytes, size);
  if (in.number(2))
    edited(in);
  else
    any_bytes(in);
  return 0;
}
