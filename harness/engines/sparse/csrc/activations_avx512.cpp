#include "activations_avx512.h"

#include <immintrin.h>

namespace sparsebench {
namespace {

static inline __mmask16 first(int64_t count) { return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1); }

}  // namespace

int32_t quantize_avx512(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    const __m512i bits = _mm512_castps_si512(_mm512_maskz_loadu_ps(first(count - i), x + i));
    largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, magnitude));
  }
  const uint32_t top = _mm512_reduce_max_epu32(largest);
  const bool finite = top < 0x7f800000;
  const float most = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(top))));
  float step = fixed != 0.0f ? fixed : most / divisor;
  if (step == 0.0f) step = 1.0f;
  *scale = finite ? step : __builtin_nanf("");
  const __mmask16 keep = finite ? 0xffff : 0;
  const __m512 divide = _mm512_set1_ps(step);
  const __m512 low = _mm512_set1_ps(-128.0f), high = _mm512_set1_ps(127.0f);
  __m512i sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 some = first(count - i);
    const __m512 ratio = _mm512_div_ps(_mm512_maskz_loadu_ps(some & keep, x + i), divide);
    const __m512 clamped = _mm512_min_ps(_mm512_max_ps(ratio, low), high);
    const __m512i integers = _mm512_cvt_roundps_epi32(clamped, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    sum = _mm512_add_epi32(sum, integers);
    _mm512_mask_cvtepi32_storeu_epi8(quantized + i, some, integers);
  }
  return _mm512_reduce_add_epi32(sum);
}

void round_avx512(const float* x, int64_t count, uint16_t* rounded) {
  const __m512i one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff), quiet = _mm512_set1_epi32(64);
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 some = first(count - i);
    const __m512 value = _mm512_maskz_loadu_ps(some, x + i);
    const __m512i bits = _mm512_castps_si512(value), upper = _mm512_srli_epi32(bits, 16);
    const __m512i nearest = _mm512_add_epi32(bits, _mm512_add_epi32(half, _mm512_and_si512(upper, one)));
    const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    const __m512i all = _mm512_mask_or_epi32(_mm512_srli_epi32(nearest, 16), nan, upper, quiet);
    _mm512_mask_cvtepi32_storeu_epi16(rounded + i, some, all);
  }
}

}  // namespace sparsebench
