// The portable kernels without Python, for processors that tests cannot run on: packs matrices of every kind, multiplies,
// and holds the results against sums in double precision. Prints a digest of all results, which must be the same on
// every processor.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "pack.h"

namespace {

using namespace sparsebench;

struct Random {
  uint64_t state = 0x9e3779b97f4a7c15u;
  uint32_t bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 33);
  }
  float real() { return static_cast<float>(static_cast<int32_t>(bits() % 2001) - 1000) / 1000.0f; }
};

struct Case {
  Value value;
  bool sparse;
  int64_t outputs, inputs, group, rows;
};

const char* name_of(Value value) {
  const char* const names[] = {"f32", "bf16", "i8", "i4"};
  return names[static_cast<int>(value)];
}

// Storage of one weight in the form that `pack` takes.
void put(Value value, std::vector<uint8_t>& to, float weight) {
  if (value == Value::f32 || value == Value::bf16) {
    uint8_t bytes[4];
    std::memcpy(bytes, &weight, 4);
    const int first = value == Value::f32 ? 0 : 2;  // little-endian: the upper half is bfloat16
    to.insert(to.end(), bytes + first, bytes + 4);
  } else {
    to.push_back(static_cast<uint8_t>(static_cast<int8_t>(weight * (value == Value::i8 ? 127.0f : 7.0f))));
  }
}

// The largest error that rounding the activations allows, as a share of sum |x| |w|.
double bound_of(Value value) {
  if (value == Value::i8) return 0.5 / 127.0;
  if (value == Value::i4) return 0.5 / 127.0;
  return 1e-5;
}

uint64_t digest = 1469598103934665603u;
void add_to_digest(const std::vector<float>& values) {
  for (const float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    digest = (digest ^ bits) * 1099511628211u;
  }
}

bool holds(const Case& c, Random& random) {
  std::vector<uint8_t> weight;
  for (int64_t i = 0; i < c.outputs * c.inputs; ++i)
    put(c.value, weight, c.sparse && random.bits() % 10 < 7 ? 0.0f : random.real());
  const int64_t scales_of_row = c.group ? c.inputs / c.group : 1;
  std::vector<float> scales(static_cast<size_t>(c.outputs * scales_of_row));
  for (float& scale : scales) scale = static_cast<float>(1 + random.bits() % 8) / 256.0f;
  Plain plain;
  plain.value = c.value;
  plain.outputs = c.outputs;
  plain.inputs = c.inputs;
  plain.group = c.group;
  plain.weight = weight.data();
  if (c.value == Value::i8 || c.value == Value::i4) plain.scales = scales.data();
  const Packed packed = pack(plain, c.sparse, 2);
  const Matrix& m = packed.matrix;
  if (const char* wrong = check(m)) return std::printf("check: %s\n", wrong), false;
  std::vector<float> dense(static_cast<size_t>(c.outputs * c.inputs));
  unpack(m, dense.data(), 2);
  std::vector<float> x(static_cast<size_t>(c.rows * c.inputs)), y(static_cast<size_t>(c.rows * c.outputs), -1.0f);
  for (float& value : x) value = random.real();
  const Buffer scratch(activation_bytes(m, c.rows) + 64);
  const Activations* prepared = prepare(m, x.data(), c.rows, c.inputs, scratch.data(), Isa::scalar);
  multiply(m, *prepared, c.rows, 0, m.tiles(), y.data(), c.outputs, Isa::scalar);
  add_to_digest(dense);
  add_to_digest(y);
  for (int64_t row = 0; row < c.rows; ++row) {
    // The step of a row's (i4: at most its) integer activations is its largest value over 127.
    double largest = 0.0;
    for (int64_t k = 0; k < c.inputs; ++k) largest = std::max(largest, std::fabs(double{x[row * c.inputs + k]}));
    for (int64_t output = 0; output < c.outputs; ++output) {
      double sum = 0.0, size = 0.0;
      for (int64_t k = 0; k < c.inputs; ++k) {
        const double w = dense[output * c.inputs + k], value = x[row * c.inputs + k];
        sum += w * value;
        size += std::fabs(w) * (bound_of(c.value) > 1e-4 ? largest : std::fabs(value));
      }
      if (!(std::fabs(y[row * c.outputs + output] - sum) <= bound_of(c.value) * size + 1e-6)) {
        std::printf("row %lld output %lld: %g, expected %g\n", static_cast<long long>(row),
                    static_cast<long long>(output), y[row * c.outputs + output], sum);
        return false;
      }
    }
  }
  return true;
}

}  // namespace

int main() {
  Random random;
  int failed = 0, cases = 0;
  for (const Value value : {Value::f32, Value::bf16, Value::i8, Value::i4})
    for (const bool sparse : {false, true})
      for (const int64_t rows : {1, 5, 16, 40})
        for (const int64_t outputs : {1, 16, 37})
          for (const int64_t inputs : {32, 96, 160}) {
            const Case c{value, sparse, outputs, inputs, value == Value::i4 ? 32 : 0, rows};
            ++cases;
            if (holds(c, random)) continue;
            ++failed;
            std::printf("FAILED: %s %s, %lld x %lld, %lld rows\n", name_of(value), sparse ? "sparse" : "dense",
                        static_cast<long long>(outputs), static_cast<long long>(inputs), static_cast<long long>(rows));
          }
  std::printf("%d of %d cases hold; digest %016llx\n", cases - failed, cases, static_cast<unsigned long long>(digest));
  return failed != 0;
}
