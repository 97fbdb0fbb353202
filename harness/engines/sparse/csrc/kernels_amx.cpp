// The table of the AMX kernels: AVX-512's, but for many rows of bf16 and int8.
#include "activations_avx512.h"
#include "dispatch.h"
#include "matmul_amx.h"
#include "matmul_avx512.h"
#include "pack.h"

namespace sparsebench {
namespace {

void multiply(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride) {
  if (a.rows <= kFewRows || (m.value != Value::bf16 && m.value != Value::i8))
    return avx512_kernels().multiply(m, a, first, last, y, stride);
  const Buffer scratch(panel_bytes_amx(a));
  multiply_many_amx(m, a, first, last, y, stride, scratch.data());
}

}  // namespace

const Kernels& amx_kernels() {
  static const Kernels kernels{quantize_avx512, round_avx512, true, multiply};
  return kernels;
}

}  // namespace sparsebench
