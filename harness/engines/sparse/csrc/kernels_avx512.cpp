// The table of the AVX-512 kernels; compiled without their flags.
#include "activations_avx512.h"
#include "dispatch.h"
#include "matmul_avx512.h"

namespace sparsebench {
namespace {

void multiply(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride) {
  if (a.rows <= kFewRows)
    multiply_few_avx512(m, a, first, last, y, stride);
  else
    scalar_kernels().multiply(m, a, first, last, y, stride);
}

}  // namespace

const Kernels& avx512_kernels() {
  static const Kernels kernels{quantize_avx512, round_pairs_avx512, false, multiply};
  return kernels;
}

}  // namespace sparsebench
