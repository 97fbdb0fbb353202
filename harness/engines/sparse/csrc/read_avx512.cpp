#include <immintrin.h>

#include "bandwidth.h"

namespace sparsebench {

// Eight sums, or the additions would wait for one another.
uint64_t sum_lines_avx512(const uint8_t* data, size_t bytes) {
  __m512i sums[8];
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (size_t at = 0; at + 512 <= bytes; at += 512)
    for (size_t i = 0; i < 8; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(data + at + i * 64 + 4096), _MM_HINT_T0);
      sums[i] = _mm512_add_epi64(sums[i], _mm512_loadu_si512(data + at + i * 64));
    }
  for (size_t i = 1; i < 8; ++i) sums[0] = _mm512_add_epi64(sums[0], sums[i]);
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(sums[0]));
}

}  // namespace sparsebench
