// From plain weights to packed ones, and back.
#pragma once

#include <memory>
#include <vector>

#include "kernels.h"

namespace sparsebench {

// Bytes on huge pages where the system gives them: a token reads every weight once, and page walks cost bandwidth.
class Buffer {
 public:
  explicit Buffer(size_t size);
  uint8_t* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* data) const;
  };
  size_t size_;
  std::unique_ptr<uint8_t[], Free> data_;
};

// A plain weight, row-major and contiguous.
struct Plain {
  Value value = Value::f32;
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t group = 0;               // i4
  const void* weight = nullptr;    // float, bfloat16 as uint16_t, int8_t (i8 and i4)
  const float* scales = nullptr;   // i8: one per output; i4: outputs x (inputs / group)
  const uint8_t* mask = nullptr;   // sparse: what to keep, one byte per weight; null keeps all that is not zero
  float input_scale = 0.0f;
};

struct Packed {
  Matrix matrix;                   // over the arrays below
  std::unique_ptr<Buffer> data;    // matrix.bytes + kSlack
  std::vector<uint64_t> offsets;
  std::vector<float> scales;
};

// Throws std::invalid_argument: int4 beyond -8..7, or a weight that is not zero outside the mask.
Packed pack(const Plain& plain, bool sparse, int threads);

// The weights as float32 (outputs x inputs), scales applied: exactly what was packed, times its scale.
void unpack(const Matrix& matrix, float* weight, int threads);

// Share of weights that a checked matrix stores.
double density(const Matrix& matrix);

}  // namespace sparsebench
