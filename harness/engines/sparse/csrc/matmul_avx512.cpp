// One to sixteen rows: every weight vector is expanded once, in a register, and multiplied with each row.
#include "matmul_avx512.h"

#include <utility>

#include "avx512.h"
#include "cpu.h"

namespace sparsebench {
namespace {

constexpr int64_t kChunk = 16;  // steps of an unrolled loop

// One block of rows, as many as the kernel has sums for.
struct Job {
  const Matrix& m;
  const Layout& layout;
  const uint32_t* lanes;
  const float* scales;
  const int32_t* offsets;
  int64_t rows;  // that are stored
  float* y;      // of the first
  int64_t stride;
  bool ahead;    // whether to prefetch dense values; tiles of two streams (sparse, int4) always are
};

// As floats: compilers make it a part of the multiplication.
static inline __m512 broadcast(const uint32_t* at) {
  float value;
  std::memcpy(&value, at, sizeof value);
  return _mm512_set1_ps(value);
}

// The sums of Rows rows over the steps of a tile. A row's order of additions does not depend on Rows.
template <Value V, int Rows>
struct Sums;

template <int Rows>
struct Sums<Value::f32, Rows> {
  static constexpr int64_t kUnits = 1;
  __m512 sum[2][Rows];  // even and odd steps, for two chains of additions

  Sums(const Job&) {
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE { sum[0][row] = sum[1][row] = _mm512_setzero_ps(); });
  }
  template <int Odd>
  void add(__m512i weights, const uint32_t* x) {
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      sum[Odd][row] = _mm512_fmadd_ps(_mm512_castsi512_ps(weights), broadcast(x + row), sum[Odd][row]);
    });
  }
  __m512 result(const Job&, int64_t, int row) const { return _mm512_add_ps(sum[0][row], sum[1][row]); }
};

template <int Rows>
struct Sums<Value::bf16, Rows> {
  static constexpr int64_t kUnits = 2;
  __m512 sum[4][Rows];  // even and odd steps, even and odd inputs

  Sums(const Job&) {
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      sum[0][row] = sum[1][row] = sum[2][row] = sum[3][row] = _mm512_setzero_ps();
    });
  }
  template <int Odd>
  void add(__m512i weights, const uint32_t* x) {
    const __m512 low = low_half(weights), high = high_half(weights);
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      sum[2 * Odd][row] = _mm512_fmadd_ps(low, broadcast(x + row), sum[2 * Odd][row]);
      sum[2 * Odd + 1][row] = _mm512_fmadd_ps(high, broadcast(x + Rows + row), sum[2 * Odd + 1][row]);
    });
  }
  __m512 result(const Job&, int64_t, int row) const {
    return _mm512_add_ps(_mm512_add_ps(sum[0][row], sum[1][row]), _mm512_add_ps(sum[2][row], sum[3][row]));
  }
};

template <int Rows>
struct Sums<Value::i8, Rows> {
  static constexpr int64_t kUnits = 1;
  static constexpr int kChains = Rows <= 8 ? 2 : 1;  // integers: the order does not matter
  __m512i sum[kChains][Rows];

  Sums(const Job& job) {
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      sum[0][row] = _mm512_set1_epi32(job.offsets[row]);
      if (kChains == 2) sum[kChains - 1][row] = _mm512_setzero_si512();
    });
  }
  template <int Odd>
  void add(__m512i weights, const uint32_t* x) {
    constexpr int kChain = Odd % kChains;
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      sum[kChain][row] = add_bytes(sum[kChain][row], weights, x + row);
    });
  }
  __m512 result(const Job& job, int64_t tile, int row) const {
    __m512i all = sum[0][row];
    if (kChains == 2) all = _mm512_add_epi32(all, sum[kChains - 1][row]);
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(all), _mm512_set1_ps(job.scales[row]));
    return _mm512_mul_ps(scaled, _mm512_loadu_ps(job.m.scales + tile * kTile));
  }
};

template <int Rows, class Result>
void store(const Job& job, int64_t tile, const Result& result) {
  const __mmask16 outputs = outputs_of(job.m, tile);
  repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
    if (row < job.rows) _mm512_mask_storeu_ps(job.y + row * job.stride + tile * kTile, outputs, result(row));
    });
}

template <Value V, bool Sparse, int Rows>
void plain_tile(const Job& job, int64_t tile) {
  constexpr int64_t kMask = Sparse ? mask_bytes(V) : 0;
  constexpr int64_t kUnit = Sums<V, Rows>::kUnits * Rows;
  const uint8_t* mask = job.m.data + job.m.offsets[tile];
  Steps<V, Sparse> steps(mask + job.layout.head);
  Sums<V, Rows> sums(job);
  const uint32_t* x = job.lanes;
  int64_t left = job.layout.steps;
  for (; left >= kChunk; left -= kChunk) {
    for (int64_t at = 0; at < kChunk * kMask; at += 64) prefetch(mask + at);
    Masks<kMask> masks(mask);
#pragma GCC unroll 8
    for (int64_t step = 0; step < kChunk; step += 2) {
      if (Sparse || job.ahead) prefetch(steps.at());
      sums.template add<0>(steps.template next<0>(masks.take(step)), x + step * kUnit);
      if (!Sparse && job.ahead) prefetch(steps.at());
      sums.template add<1>(steps.template next<1>(masks.take(step + 1)), x + (step + 1) * kUnit);
    }
    mask += kChunk * kMask;
    x += kChunk * kUnit;
  }
  for (; left >= 2; left -= 2) {
    sums.template add<0>(steps.template next<0>(mask_of<kMask>(mask)), x);
    sums.template add<1>(steps.template next<1>(mask_of<kMask>(mask + kMask)), x + kUnit);
    mask += 2 * kMask;
    x += 2 * kUnit;
  }
  if (left) sums.template add<0>(steps.template next<0>(mask_of<kMask>(mask)), x);
  store<Rows>(job, tile, [&](int row) { return sums.result(job, tile, row); });
}

// int4: integers within a group, floats across groups. Odd steps count sixteenfold (their nibbles stay where they are),
// so the even ones are brought up to them, and the end result takes a sixteenth.
template <bool Sparse, int Rows>
struct Group {
  static constexpr int64_t kMask = Sparse ? mask_bytes(Value::i4) : 0;
  __m512i even[Rows], odd[Rows];

  explicit Group(const int32_t* offsets) {
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      even[row] = _mm512_setzero_si512();
      odd[row] = _mm512_set1_epi32(offsets[row]);
    });
  }
  void add_pair(Steps<Value::i4, Sparse>& steps, const uint8_t* mask, const uint32_t* x, int64_t pair) {
    // Half of a sparse pair is zeros, or it would not be sparse: two of them read a line.
    if (!Sparse || pair % 2 == 0) prefetch(steps.at());
    Masks<kMask> masks(mask);
    const __m512i low = steps.template next<0>(masks.take(0));
    const __m512i high = steps.template next<1>(masks.take(1));
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      even[row] = add_bytes(even[row], low, x + row);
      odd[row] = add_bytes(odd[row], high, x + Rows + row);
    });
  }
  __m512 sum(int row) const {
    return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(even[row], 4), odd[row]));
  }
};

// Pairs: of steps in a group, or 0 for any number.
template <bool Sparse, int Rows, int Pairs>
void grouped_tile(const Job& job, int64_t tile) {
  constexpr int64_t kMask = Group<Sparse, Rows>::kMask;
  const int64_t group_head = job.layout.group_head, scale_bytes = job.layout.scale_bytes, groups = job.layout.groups;
  const int64_t pairs = Pairs ? Pairs : job.layout.group_steps / 2;
  const uint8_t* head = job.m.data + job.m.offsets[tile];
  Steps<Value::i4, Sparse> steps(head + job.layout.head);
  const uint32_t* x = job.lanes;
  const float* scales = job.scales;
  const int32_t* offsets = job.offsets;
  __m512 total[Rows];
  repeat<Rows>([&](auto row) SPARSEBENCH_INLINE { total[row] = _mm512_setzero_ps(); });
  for (int64_t group = 0; group < groups; ++group) {
    prefetch(head);
    if (group_head > 64) prefetch(head + 64);
    for (int64_t at = 128; !Pairs && at < group_head; at += 64) prefetch(head + at);
    Group<Sparse, Rows> sums(offsets);
    const uint8_t* mask = head + scale_bytes;
    if constexpr (Pairs) {
      repeat<Pairs>([&](auto pair) SPARSEBENCH_INLINE {
        sums.add_pair(steps, mask + 2 * pair * kMask, x + 2 * pair * Rows, pair);
      });
    } else {
      for (int64_t pair = 0; pair < pairs; ++pair)
        sums.add_pair(steps, mask + 2 * pair * kMask, x + 2 * pair * Rows, pair);
    }
    const __m512 weight_scales = group_scales(head, scale_bytes == kTile * 4);
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      const __m512 scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(scales[row]));
      total[row] = _mm512_fmadd_ps(sums.sum(row), scale, total[row]);
    });
    head += group_head;
    x += 2 * pairs * Rows;
    scales += Rows;
    offsets += Rows;
  }
  const __m512 sixteenth = _mm512_set1_ps(0.0625f);
  store<Rows>(job, tile, [&](int row) SPARSEBENCH_INLINE { return _mm512_mul_ps(total[row], sixteenth); });
}

template <Value V, bool Sparse, int Rows>
void run_tile(const Job& job, int64_t tile) {
  if constexpr (V == Value::i4)
    job.layout.group_steps == 8 ? grouped_tile<Sparse, Rows, 4>(job, tile) : grouped_tile<Sparse, Rows, 0>(job, tile);
  else
    plain_tile<V, Sparse, Rows>(job, tile);
}

using Run = void (*)(const Job&, int64_t);

template <Value V, bool Sparse, int... Rows>
Run choose(int64_t rows, std::integer_sequence<int, Rows...>) {
  static constexpr Run runs[] = {run_tile<V, Sparse, Rows + 1>...};
  return runs[rows - 1];
}

template <Value V>
Run choose(bool sparse, int64_t rows) {
  constexpr auto sequence = std::make_integer_sequence<int, rows_per_block(V, kFewRows)>();
  return sparse ? choose<V, true>(rows, sequence) : choose<V, false>(rows, sequence);
}

Run choose(const Matrix& m, int64_t rows) {
  switch (m.value) {
    case Value::f32: return choose<Value::f32>(m.sparse, rows);
    case Value::bf16: return choose<Value::bf16>(m.sparse, rows);
    case Value::i8: return choose<Value::i8>(m.sparse, rows);
    default: return choose<Value::i4>(m.sparse, rows);
  }
}

}  // namespace

void multiply_few_avx512(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y,
                         int64_t stride) {
  const Layout layout(m);
  const Run run = choose(m, a.block);
  const bool ahead = !cpu().follows_streams;
  for (int64_t tile = first; tile < last; ++tile)
    for (int64_t block = 0; block < a.blocks; ++block) {
      const int64_t row = block * a.block;
      run({m, layout, a.lanes + a.lane(row, 0), a.scales + a.scale(row, 0), a.offsets + a.scale(row, 0), a.rows - row,
           y + row * stride, stride, ahead},
          tile);
    }
}

}  // namespace sparsebench
