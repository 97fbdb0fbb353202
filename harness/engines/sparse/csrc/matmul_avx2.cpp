// AVX2 and FMA. There is no instruction that expands, so eight weights at a time go through a table of permutations into
// a panel in the first cache, over which the rows run. Bytes are multiplied as 16-bit integers: the 8-bit instruction of
// AVX2 saturates.
#include "matmul_avx2.h"

#include <immintrin.h>

namespace sparsebench {
namespace {

constexpr int64_t kPanelSteps = 128;  // 8 KB, twice that for bfloat16
constexpr int64_t kRows = 4;          // of a kernel: two registers of sums each
constexpr int kAbsent = 8;            // index of a weight that is not stored

// For every mask of 8 weights, where in the packed survivors each of them is.
struct Expansion {
  alignas(64) uint8_t index[256][8];
  constexpr Expansion() : index() {
    for (int mask = 0; mask < 256; ++mask) {
      int next = 0;
      for (int i = 0; i < 8; ++i) index[mask][i] = static_cast<uint8_t>(mask >> i & 1 ? next++ : kAbsent);
    }
  }
};
constexpr Expansion kExpansion;

static inline __m128i load_half(const void* from) { return _mm_loadl_epi64(static_cast<const __m128i*>(from)); }
static inline __m256i load_whole(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

// Eight weights of one step: their survivors at `from`, the sought order in `index`.
template <Value V>
void expand_eight(const uint8_t* from, __m128i index, bool odd, uint8_t* to) {
  if constexpr (V == Value::f32) {
    const __m256i lanes = _mm256_cvtepu8_epi32(index);
    const __m256i stored = _mm256_cmpgt_epi32(_mm256_set1_epi32(kAbsent), lanes);
    const __m256i values = _mm256_permutevar8x32_epi32(load_whole(from), lanes);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_and_si256(values, stored));
  } else if constexpr (V == Value::bf16) {
    // Pairs of byte indices; an absent one gets its top bit set, which shuffles in a zero.
    const __m128i twice = _mm_add_epi8(index, index);
    const __m128i bytes = _mm_add_epi8(_mm_unpacklo_epi8(twice, twice), _mm_set1_epi16(0x0100));
    const __m128i absent = _mm_cmpgt_epi8(bytes, _mm_set1_epi8(2 * kAbsent - 1));
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_shuffle_epi8(values, _mm_or_si128(bytes, absent)));
  } else {
    __m128i values = load_half(from);
    if (V == Value::i4) {
      if (odd) values = _mm_srli_epi16(values, 4);
      values = _mm_and_si128(values, _mm_set1_epi8(15));
    }
    const __m128i offset = _mm_set1_epi8(static_cast<char>(V == Value::i8 ? kOffset8 : kOffset4));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_shuffle_epi8(_mm_unpacklo_epi64(values, offset), index));
  }
}

template <Value V>
class Panel {
  static constexpr int64_t kWidth = V == Value::f32 ? 4 : V == Value::bf16 ? 2 : 1;
  static constexpr int64_t kUnits = V == Value::bf16 ? 2 : 1;

 public:
  Panel(const Matrix& m, const Layout& layout, int64_t tile, uint8_t* memory)
      : m_(m), layout_(layout), head_(m.data + m.offsets[tile]), memory_(memory) {
    next_[0] = next_[1] = head_ + layout.head;
  }

  // The next `count` steps, from `step` on, as units of 64 bytes: float32, or bytes with their offset.
  void fill(int64_t step, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      uint8_t* to = memory_ + i * kUnits * kStepBytes;
      uint8_t* eights = V == Value::bf16 ? to + kStepBytes : to;
      fill_step(step + i, eights);
      if (V == Value::bf16) widen(eights, to);
    }
  }
  const uint8_t* head() const { return head_; }
  const uint8_t* memory() const { return memory_; }

 private:
  void fill_step(int64_t step, uint8_t* to) {
    const bool odd = V == Value::i4 && step % 2;
    const uint8_t*& next = next_[odd];
    const uint8_t* mask = layout_.mask_at(head_, step);
    for (int64_t i = 0; i < kTile * inputs_per_lane(V) / 8; ++i, to += 8 * kWidth) {
      const int bits = m_.sparse ? mask[i] : 255;
      expand_eight<V>(next, load_half(kExpansion.index[bits]), odd, to);
      next += population(static_cast<uint64_t>(bits)) * kWidth;
    }
  }

  // 16 pairs of bfloat16 to the 16 first and the 16 second inputs.
  static void widen(const uint8_t* pairs, uint8_t* to) {
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    const __m256i a = load_whole(pairs), b = load_whole(pairs + 32);
    auto* out = reinterpret_cast<__m256i*>(to);
    _mm256_storeu_si256(out, _mm256_slli_epi32(a, 16));
    _mm256_storeu_si256(out + 1, _mm256_slli_epi32(b, 16));
    _mm256_storeu_si256(out + 2, _mm256_and_si256(a, high));
    _mm256_storeu_si256(out + 3, _mm256_and_si256(b, high));
  }

  const Matrix& m_;
  const Layout& layout_;
  const uint8_t* head_;
  uint8_t* memory_;
  const uint8_t* next_[2];
};

// Sums of Rows rows over `units` units of a panel. Per row two vectors of 8 outputs.
template <int Rows>
void add(const uint8_t* panel, const uint32_t* x, int64_t block, int64_t units, float* memory) {
  __m256 sums[Rows][2];
  for (int row = 0; row < Rows; ++row)
    for (int half = 0; half < 2; ++half) sums[row][half] = _mm256_loadu_ps(memory + row * kTile + half * 8);
  for (int64_t unit = 0; unit < units; ++unit, x += block, panel += kStepBytes) {
    const auto* weights = reinterpret_cast<const float*>(panel);
    const __m256 low = _mm256_loadu_ps(weights), high = _mm256_loadu_ps(weights + 8);
    for (int row = 0; row < Rows; ++row) {
      const __m256 value = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(x[row])));
      sums[row][0] = _mm256_fmadd_ps(low, value, sums[row][0]);
      sums[row][1] = _mm256_fmadd_ps(high, value, sums[row][1]);
    }
  }
  for (int row = 0; row < Rows; ++row)
    for (int half = 0; half < 2; ++half) _mm256_storeu_ps(memory + row * kTile + half * 8, sums[row][half]);
}

template <int Rows>
void add(const uint8_t* panel, const uint32_t* x, int64_t block, int64_t units, int32_t* memory) {
  const __m256i low_byte = _mm256_set1_epi16(0xff);
  __m256i sums[Rows][2];
  for (int row = 0; row < Rows; ++row)
    for (int half = 0; half < 2; ++half) sums[row][half] = load_whole(memory + row * kTile + half * 8);
  for (int64_t unit = 0; unit < units; ++unit, x += block, panel += kStepBytes) {
    __m256i even[2], odd[2];
    for (int half = 0; half < 2; ++half) {
      const __m256i weights = load_whole(panel + half * 32);
      even[half] = _mm256_and_si256(weights, low_byte);
      odd[half] = _mm256_srli_epi16(weights, 8);
    }
    for (int row = 0; row < Rows; ++row) {
      const __m256i value = _mm256_set1_epi32(static_cast<int>(x[row]));
      const __m256i first = _mm256_srai_epi16(_mm256_slli_epi16(value, 8), 8);
      const __m256i second = _mm256_srai_epi16(value, 8);
      for (int half = 0; half < 2; ++half)
        sums[row][half] = _mm256_add_epi32(sums[row][half], _mm256_add_epi32(_mm256_madd_epi16(even[half], first),
                                                                             _mm256_madd_epi16(odd[half], second)));
    }
  }
  for (int row = 0; row < Rows; ++row)
    for (int half = 0; half < 2; ++half)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(memory + row * kTile + half * 8), sums[row][half]);
}

template <class Sum>
void add_rows(int64_t rows, const uint8_t* panel, const uint32_t* x, int64_t block, int64_t units, Sum* sums) {
  switch (rows) {
    case 1: return add<1>(panel, x, block, units, sums);
    case 2: return add<2>(panel, x, block, units, sums);
    case 3: return add<3>(panel, x, block, units, sums);
    default: return add<4>(panel, x, block, units, sums);
  }
}

// Calls body(row, rows, x) for every four rows or less, all in one block of activations; x: of the first, from `unit` on.
template <class Body>
void each_rows(const Activations& a, int64_t unit, const Body& body) {
  for (int64_t start = 0; start < a.rows; start += a.block)
    for (int64_t row = start; row < a.rows && row < start + a.block; row += kRows) {
      const int64_t end = start + a.block < a.rows ? start + a.block : a.rows;
      body(row, end - row < kRows ? end - row : kRows, a.lanes + a.lane(row, unit));
    }
}

static inline int64_t at_most(int64_t count, int64_t limit) { return count < limit ? count : limit; }

template <Value V>
void float_tile(const Matrix&, const Layout& layout, const Activations& a, Panel<V>& panel, float* sums) {
  constexpr int64_t kUnits = inputs_per_lane(V);
  for (int64_t i = 0; i < a.rows * kTile; ++i) sums[i] = 0.0f;
  for (int64_t step = 0; step < layout.steps; step += kPanelSteps) {
    const int64_t count = at_most(layout.steps - step, kPanelSteps);
    panel.fill(step, count);
    each_rows(a, step * kUnits, [&](int64_t row, int64_t rows, const uint32_t* x) {
      add_rows(rows, panel.memory(), x, a.block, count * kUnits, sums + row * kTile);
    });
  }
}

void integer_tile(const Matrix& m, const Layout& layout, const Activations& a, int64_t tile,
                  Panel<Value::i8>& panel, float* sums) {
  auto* integers = reinterpret_cast<int32_t*>(sums);
  for (int64_t row = 0; row < a.rows; ++row)
    for (int64_t i = 0; i < kTile; ++i) integers[row * kTile + i] = a.offsets[a.scale(row, 0)];
  for (int64_t step = 0; step < layout.steps; step += kPanelSteps) {
    const int64_t count = at_most(layout.steps - step, kPanelSteps);
    panel.fill(step, count);
    each_rows(a, step, [&](int64_t row, int64_t rows, const uint32_t* x) {
      add_rows(rows, panel.memory(), x, a.block, count, integers + row * kTile);
    });
  }
  for (int64_t row = 0; row < a.rows; ++row) {
    const __m256 scale = _mm256_set1_ps(a.scales[a.scale(row, 0)]);
    for (int64_t at = row * kTile, i = 0; i < kTile; i += 8) {
      const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(load_whole(integers + at + i)), scale);
      _mm256_storeu_ps(sums + at + i, _mm256_mul_ps(scaled, _mm256_loadu_ps(m.scales + tile * kTile + i)));
    }
  }
}

void grouped_tile(const Matrix&, const Layout& layout, const Activations& a, Panel<Value::i4>& panel, float* sums) {
  for (int64_t i = 0; i < a.rows * kTile; ++i) sums[i] = 0.0f;
  for (int64_t group = 0; group < layout.groups; ++group) {
    alignas(32) float weight_scales[kTile];
    for (int64_t i = 0; i < kTile; ++i) weight_scales[i] = layout.scale_at(panel.head(), group, i);
    // A large group passes in several panels, its sums waiting in between.
    for (int64_t done = 0; done < layout.group_steps; done += kPanelSteps) {
      const int64_t count = at_most(layout.group_steps - done, kPanelSteps);
      const int64_t step = group * layout.group_steps + done;
      panel.fill(step, count);
      each_rows(a, step, [&](int64_t row, int64_t rows, const uint32_t* x) {
        alignas(32) int32_t products[kRows * kTile] = {};
        add_rows(rows, panel.memory(), x, a.block, count, products);
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t at = a.scale(row + i, group);
          const __m256i offset = _mm256_set1_epi32(done == 0 ? a.offsets[at] : 0);
          const __m256 scale = _mm256_set1_ps(a.scales[at] * 0.0625f);
          for (int64_t half = 0; half < kTile; half += 8) {
            const __m256i sixteenfold = _mm256_slli_epi32(load_whole(products + i * kTile + half), 4);
            const __m256 product = _mm256_cvtepi32_ps(_mm256_add_epi32(sixteenfold, offset));
            const __m256 both = _mm256_mul_ps(_mm256_load_ps(weight_scales + half), scale);
            float* to = sums + (row + i) * kTile + half;
            _mm256_storeu_ps(to, _mm256_fmadd_ps(product, both, _mm256_loadu_ps(to)));
          }
        }
      });
    }
  }
}

template <Value V>
void run(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride,
         uint8_t* scratch) {
  const Layout layout(m);
  auto* sums = reinterpret_cast<float*>(scratch + 2 * kPanelSteps * kStepBytes);
  for (int64_t tile = first; tile < last; ++tile) {
    Panel<V> panel(m, layout, tile, scratch);
    if constexpr (V == Value::i8)
      integer_tile(m, layout, a, tile, panel, sums);
    else if constexpr (V == Value::i4)
      grouped_tile(m, layout, a, panel, sums);
    else
      float_tile(m, layout, a, panel, sums);
    const int64_t outputs = at_most(m.outputs - tile * kTile, kTile);
    for (int64_t row = 0; row < a.rows; ++row)
      std::memcpy(y + row * stride + tile * kTile, sums + row * kTile, static_cast<size_t>(outputs) * sizeof(float));
  }
}

}  // namespace

size_t scratch_bytes_avx2(const Matrix&, const Activations& a) {
  return static_cast<size_t>(2 * kPanelSteps * kStepBytes + round_up(a.rows, kRows) * kTile * 4);
}

void multiply_avx2(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride,
                   uint8_t* scratch) {
  switch (m.value) {
    case Value::f32: return run<Value::f32>(m, a, first, last, y, stride, scratch);
    case Value::bf16: return run<Value::bf16>(m, a, first, last, y, stride, scratch);
    case Value::i8: return run<Value::i8>(m, a, first, last, y, stride, scratch);
    case Value::i4: return run<Value::i4>(m, a, first, last, y, stride, scratch);
  }
}

int32_t quantize_avx2(const float* x, int64_t count, float divisor, float fixed, int8_t* quantized, float* scale) {
  const auto read = [&](int64_t i) {
    if (i + 8 <= count) return _mm256_loadu_ps(x + i);
    alignas(32) float rest[8] = {};
    for (int64_t j = i; j < count; ++j) rest[j - i] = x[j];
    return _mm256_load_ps(rest);
  };
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += 8)
    largest = _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(read(i)), magnitude));
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), largest);
  int32_t top = 0;
  for (const int32_t lane : lanes) top = lane > top ? lane : top;
  const bool finite = top < 0x7f800000;
  float step = fixed != 0.0f ? fixed : _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(top))) / divisor;
  if (step == 0.0f) step = 1.0f;
  *scale = finite ? step : __builtin_nanf("");
  const __m256 divide = _mm256_set1_ps(step), keep = _mm256_castsi256_ps(_mm256_set1_epi32(finite ? -1 : 0));
  const __m256 low = _mm256_set1_ps(-128.0f), high = _mm256_set1_ps(127.0f);
  int32_t sum = 0;
  for (int64_t i = 0; i < count; i += 8) {
    const __m256 ratio = _mm256_div_ps(_mm256_and_ps(read(i), keep), divide);
    const __m256i integers = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(ratio, low), high));
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), integers);
    for (int64_t j = 0; j < 8 && i + j < count; ++j) {
      quantized[i + j] = static_cast<int8_t>(lanes[j]);
      sum += lanes[j];
    }
  }
  return sum;
}

}  // namespace sparsebench
