// The table of the AVX-512 kernels with bf16 dot products: AVX-512's, but for many rows of bf16.
#include "activations_avx512.h"
#include "dispatch.h"
#include "matmul_avx512.h"
#include "pack.h"

namespace sparsebench {
namespace {

void multiply(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride) {
  if (a.rows <= kFewRows || m.value != Value::bf16) return avx512_kernels().multiply(m, a, first, last, y, stride);
  const Buffer scratch(panel_bytes_avx512(m, last - first));
  multiply_many_avx512_bf16(m, a, first, last, y, stride, scratch.data());
}

}  // namespace

const Kernels& avx512_bf16_kernels() {
  static const Kernels kernels{quantize_avx512, round_avx512, false, multiply};
  return kernels;
}

}  // namespace sparsebench
