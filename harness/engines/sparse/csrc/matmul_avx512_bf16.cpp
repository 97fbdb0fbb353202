// Many rows of bf16 as pairs: one instruction multiplies two inputs of an output and adds both products.
#include "avx512_panel.h"
#include "matmul_avx512.h"

namespace sparsebench {
namespace {

template <>
struct Dot<Form::pairs> {
  using Sum = __m512;
  // Not the intrinsic, whose vectors are of a type of their own in every compiler.
  static Sum add(Sum sum, __m512i weights, __m512i x) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(x));
    return sum;
  }
};

}  // namespace

void multiply_many_avx512_bf16(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y,
                               int64_t stride, uint8_t* scratch) {
  run_panels<Value::bf16, Form::pairs>(m, a, first, last, y, stride, scratch);
}

}  // namespace sparsebench
