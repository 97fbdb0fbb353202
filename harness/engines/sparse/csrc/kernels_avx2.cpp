// The table of the AVX2 kernels; compiled without their flags.
#include "dispatch.h"
#include "matmul_avx2.h"
#include "pack.h"

namespace sparsebench {
namespace {

void multiply(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride) {
  const Buffer scratch(scratch_bytes_avx2(m, a));
  multiply_avx2(m, a, first, last, y, stride, scratch.data());
}

}  // namespace

const Kernels& avx2_kernels() {
  static const Kernels kernels{quantize_avx2, nullptr, false, multiply};
  return kernels;
}

}  // namespace sparsebench
