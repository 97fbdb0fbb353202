#include "dispatch.h"

#include <cstdlib>
#include <initializer_list>

#include "cpu.h"

namespace sparsebench {
namespace {

const Kernels& kernels(Isa isa) {
#ifdef SPARSEBENCH_X86
#ifdef SPARSEBENCH_AMX
  if (isa == Isa::amx) return amx_kernels();
#endif
#ifdef SPARSEBENCH_AVX512_BF16
  if (isa == Isa::avx512_bf16) return avx512_bf16_kernels();
#endif
  if (isa >= Isa::avx512) return avx512_kernels();
  if (isa == Isa::avx2) return avx2_kernels();
#endif
  (void)isa;
  return scalar_kernels();
}

Isa choose() {
  Isa best = Isa::scalar;
  for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx})
    if (supports(isa)) best = isa;
  const char* wanted = std::getenv("SPARSEBENCH_ISA");
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx})
    if (wanted && std::strcmp(wanted, isa_name(isa)) == 0 && isa < best) best = isa;
  return best;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
    case Isa::amx: return "amx";
  }
  return "unknown";
}

bool supports(Isa isa) {
  switch (isa) {
    case Isa::scalar: return true;
    case Isa::avx2: return cpu().avx2;
    case Isa::avx512: return cpu().avx512;
#ifdef SPARSEBENCH_AVX512_BF16
    case Isa::avx512_bf16: return cpu().avx512_bf16;
#else
    case Isa::avx512_bf16: return false;
#endif
#ifdef SPARSEBENCH_AMX
    case Isa::amx: return cpu().avx512 && cpu().amx;
#else
    case Isa::amx: return false;
#endif
  }
  return false;
}

Isa best_isa() {
  static const Isa best = choose();
  return best;
}

Activations* start_prepare(const Matrix& matrix, int64_t rows, void* scratch, Isa isa) {
  const bool integers = matrix.value == Value::i8 || matrix.value == Value::i4;
  const bool many = rows > kFewRows, bf16 = matrix.value == Value::bf16;
  const bool chunks = kernels(isa).chunks && many && (bf16 || matrix.value == Value::i8);
  const Form form = integers ? Form::bytes : kernels(isa).round && many && bf16 ? Form::pairs : Form::floats;
  return place(matrix, rows, {form, chunks ? 1 : rows_per_block(matrix.value, rows), chunks}, scratch);
}

void prepare_part(const Matrix& matrix, const float* rows_in, int64_t stride, Activations& activations, int64_t part,
                  int64_t parts, Isa isa) {
  const int64_t blocks = activations.blocks;
  const Kernels& own = kernels(isa);
  fill(matrix, rows_in, stride, own.quantize, own.round, blocks * part / parts, blocks * (part + 1) / parts,
       activations);
}

const Activations* prepare(const Matrix& matrix, const float* rows_in, int64_t rows, int64_t stride, void* scratch,
                           Isa isa) {
  Activations* activations = start_prepare(matrix, rows, scratch, isa);
  prepare_part(matrix, rows_in, stride, *activations, 0, 1, isa);
  return activations;
}

void multiply(const Matrix& matrix, const Activations& activations, int64_t rows, int64_t first, int64_t last, float* y,
              int64_t stride, Isa isa) {
  (void)rows;
  kernels(isa).multiply(matrix, activations, first, last, y, stride);
}

}  // namespace sparsebench
