#include "avx512_panel.h"
#include "matmul_avx512.h"

namespace sparsebench {

size_t panel_bytes_avx512(const Matrix& m, int64_t tiles) {
  const Layout layout(m);
  const int64_t units = m.value == Value::i4 && layout.group_steps > kPanelUnits ? layout.group_steps : kPanelUnits;
  return static_cast<size_t>(round_up(tiles * 2 * static_cast<int64_t>(sizeof(void*)), 64) + 2 * units * kStepBytes);
}

void multiply_many_avx512(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride,
                          uint8_t* scratch) {
  switch (m.value) {
    case Value::f32: return run_panels<Value::f32, Form::floats>(m, a, first, last, y, stride, scratch);
    case Value::bf16: return run_panels<Value::bf16, Form::floats>(m, a, first, last, y, stride, scratch);
    case Value::i8: return run_panels<Value::i8, Form::bytes>(m, a, first, last, y, stride, scratch);
    case Value::i4: return run_panels<Value::i4, Form::bytes>(m, a, first, last, y, stride, scratch);
  }
}

}  // namespace sparsebench
