#include "avx512_panel.h"
#include "matmul_avx512.h"

namespace sparsebench {
namespace {

template <>
struct Dot<Form::pairs> {
  using Sum = __m512;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Sum add(Sum sum, __m512i weights, __m512i x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)x);
  }
};

}  // namespace

void multiply_many_avx512_bf16(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y,
                               int64_t stride, uint8_t* scratch) {
  run_panels<Value::bf16, Form::pairs>(m, a, first, last, y, stride, scratch);
}

}  // namespace sparsebench
