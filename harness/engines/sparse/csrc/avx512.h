// What the AVX-512 kernels share: reading the steps of a tile. Included only by files compiled with those flags, so
// everything has internal linkage: no other file may end up with its code.
#pragma once

#include <immintrin.h>

#include <type_traits>
#include <utility>

#include "layout.h"

namespace sparsebench {
namespace {

#if defined(__SANITIZE_ADDRESS__)
#define SPARSEBENCH_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SPARSEBENCH_ADDRESS_SANITIZER
#endif
#endif

// For lambdas that refer to sums: were one not inlined, the sums would live in memory instead of registers.
#define SPARSEBENCH_INLINE __attribute__((always_inline))

// Calls body(0), ..., body(N - 1) with constants. A loop would do, but compilers unroll it after they have decided to
// keep the array of sums in memory.
template <class Body, int... I>
SPARSEBENCH_INLINE static inline void repeat(const Body& body, std::integer_sequence<int, I...>) {
  (body(std::integral_constant<int, I>()), ...);
}
template <int N, class Body>
SPARSEBENCH_INLINE static inline void repeat(const Body& body) {
  repeat(body, std::make_integer_sequence<int, N>());
}

// Prefetch into the first and the second cache. Both streams of a tile, its head and its values, run this far ahead;
// tiles follow one another, so together the two windows sweep all bytes once. Measured: one level alone reaches 82 % of
// the read bandwidth, both 96 %.
constexpr int64_t kNear = 2048;
constexpr int64_t kFar = 24 << 10;

static inline void prefetch(const uint8_t* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at + kNear), _MM_HINT_T0);
  _mm_prefetch(reinterpret_cast<const char*>(at + kFar), _MM_HINT_T1);
}

// Survivors to their places, zeros elsewhere. Not the zero-masking intrinsics: AMD's Zen 4 lets them wait for what the
// register held before, five cycles a step. A register that was just cleared is waited for by nobody.
// The load stays apart from the instruction, where the address sanitizer sees it.
static inline __m512i expand32(uint16_t mask, __m512i packed) {
  __m512i all = _mm512_setzero_si512();
  __asm__("vpexpandd %2, %0 %{%1%}" : "+v"(all) : "Yk"(mask), "v"(packed));
  return all;
}
static inline __m512i expand16(uint32_t mask, __m512i packed) {
  __m512i all = _mm512_setzero_si512();
  __asm__("vpexpandw %2, %0 %{%1%}" : "+v"(all) : "Yk"(mask), "v"(packed));
  return all;
}

// The masks of the steps of a chunk, a word of 64 bits at a time. Two loads of every mask (one for the mask register,
// one to count) would do, but with so many loads in a loop a Xeon read at 75 % or 86 % of the bandwidth with the same
// code, by the address of its caller, and out of the second cache at one speed: its own prefetcher, it seems.
template <int64_t Bytes>
class Masks {
 public:
  explicit Masks(const uint8_t* at) : at_(at) {}

  // Of the next step, in the low bits; a constant Step, counted from the first.
  uint64_t take(int64_t step) {
    if (step * Bytes % 8 == 0) {
      word_ = load<uint64_t>(at_ + step * Bytes);
      __asm__("" : "+r"(word_));  // a register, not a second load
    } else {
      word_ >>= Bytes * 8 % 64;
    }
    return word_;
  }

 private:
  const uint8_t* at_;
  uint64_t word_ = 0;
};

template <>
class Masks<0> {
 public:
  explicit Masks(const uint8_t*) {}
  uint64_t take(int64_t) { return 0; }
};

// Reads the steps of a tile one after the other as vectors of 64 bytes: f32, bf16, or unsigned integers with their
// offset (i4: even steps w + 8, odd steps 16 * (w + 8)).
template <Value V, bool Sparse>
class Steps {
 public:
  explicit Steps(const uint8_t* values = nullptr) : low_(values), high_(values) {}

  // `mask`: of this step, in the low bits; ignored when dense.
  template <int Odd>
  __m512i next(uint64_t mask) {
    if constexpr (!Sparse) {
      const __m512i all = _mm512_loadu_si512(low_);
      if constexpr (V == Value::i4) {
        if constexpr (Odd) {
          low_ += kStepBytes;
          return _mm512_and_si512(all, _mm512_set1_epi8(static_cast<char>(0xf0)));
        }
        return _mm512_and_si512(all, _mm512_set1_epi8(0x0f));
      }
      low_ += kStepBytes;
      return all;
    } else if constexpr (V == Value::f32) {
      const auto bits = static_cast<uint16_t>(mask);
      const __m512i packed = _mm512_loadu_si512(low_);
      low_ += 4 * population(bits);
      return expand32(bits, packed);
    } else if constexpr (V == Value::bf16) {
      const auto bits = static_cast<uint32_t>(mask);
      const __m512i packed = _mm512_loadu_si512(low_);
      low_ += 2 * population(bits);
      return expand16(bits, packed);
    } else if constexpr (V == Value::i8) {
      const __m512i packed = _mm512_loadu_si512(low_);
      low_ += population(mask);
      return _mm512_mask_expand_epi8(_mm512_set1_epi8(static_cast<char>(kOffset8)), mask, packed);
    } else {
      const uint8_t*& from = Odd ? high_ : low_;
      const __m512i half = _mm512_set1_epi8(static_cast<char>(Odd ? 0xf0 : 0x0f));
      const __m512i packed = _mm512_and_si512(_mm512_loadu_si512(from), half);
      from += population(mask);
      return _mm512_mask_expand_epi8(_mm512_set1_epi8(static_cast<char>(Odd ? 16 * kOffset4 : kOffset4)), mask, packed);
    }
  }

  const uint8_t* at() const { return low_; }

 private:
  const uint8_t* low_;
  const uint8_t* high_;
};

// sum + unsigned weights times signed activations, by fours. Not the intrinsic: gcc 12 then copies every sum, and
// stores it, in every turn of a loop.
static inline __m512i add_bytes(__m512i sum, __m512i weights, __m512i x) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(x));
  return sum;
}
// The same with four bytes of x for all lanes: read by the instruction itself, but where the address sanitizer watches.
static inline __m512i add_bytes(__m512i sum, __m512i weights, const uint32_t* x) {
#ifdef SPARSEBENCH_ADDRESS_SANITIZER
  return add_bytes(sum, weights, _mm512_set1_epi32(static_cast<int>(*x)));
#else
  __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*x));
  return sum;
#endif
}

static inline __m512 low_half(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
static inline __m512 high_half(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

// The 16 scales of a group of i4.
static inline __m512 group_scales(const uint8_t* at, bool wide) {
  if (wide) return _mm512_loadu_ps(at);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

template <int64_t Bytes>
static inline uint64_t mask_of(const uint8_t* at) {
  if constexpr (Bytes == 2) return load<uint16_t>(at);
  if constexpr (Bytes == 4) return load<uint32_t>(at);
  if constexpr (Bytes == 8) return load<uint64_t>(at);
  return 0;
}

static inline __mmask16 outputs_of(const Matrix& m, int64_t tile) {
  const int64_t left = m.outputs - tile * kTile;
  return static_cast<__mmask16>(left >= kTile ? 0xffff : (1 << left) - 1);
}

}  // namespace
}  // namespace sparsebench
