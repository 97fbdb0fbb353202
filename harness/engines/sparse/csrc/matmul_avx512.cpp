// One to sixteen rows: every weight vector is expanded once, in a register, and multiplied with each row.
#include "matmul_avx512.h"

#include <utility>

#include "avx512.h"

namespace sparsebench {
namespace {

constexpr int64_t kChunk = 16;  // steps between decisions about what to prefetch

struct Job {
  const Matrix& m;
  const Layout& layout;
  const Activations& a;
  int64_t row;  // the first
  float* y;     // of the first row
  int64_t stride;
};

static inline __m512 broadcast(const uint32_t* at) { return _mm512_set1_ps(load<float>(reinterpret_cast<const uint8_t*>(at))); }
static inline __m512i broadcast_bytes(const uint32_t* at) { return _mm512_set1_epi32(static_cast<int>(*at)); }

// The sums of Rows rows over the steps of a tile. A row's order of additions does not depend on Rows.
template <Value V, int Rows>
struct Sums;

template <int Rows>
struct Sums<Value::f32, Rows> {
  static constexpr int64_t kUnits = 1;
  __m512 sum[2][Rows];  // even and odd steps, for two chains of additions

  Sums(const Job&) {
    for (int row = 0; row < Rows; ++row) sum[0][row] = sum[1][row] = _mm512_setzero_ps();
  }
  template <int Odd>
  void add(__m512i weights, const uint32_t* x, int64_t) {
    for (int row = 0; row < Rows; ++row)
      sum[Odd][row] = _mm512_fmadd_ps(_mm512_castsi512_ps(weights), broadcast(x + row), sum[Odd][row]);
  }
  __m512 result(const Job&, int64_t, int row) const { return _mm512_add_ps(sum[0][row], sum[1][row]); }
};

template <int Rows>
struct Sums<Value::bf16, Rows> {
  static constexpr int64_t kUnits = 2;
  __m512 sum[2][Rows];  // even and odd inputs

  Sums(const Job&) {
    for (int row = 0; row < Rows; ++row) sum[0][row] = sum[1][row] = _mm512_setzero_ps();
  }
  template <int>
  void add(__m512i weights, const uint32_t* x, int64_t block) {
    const __m512 low = low_half(weights), high = high_half(weights);
    for (int row = 0; row < Rows; ++row) {
      sum[0][row] = _mm512_fmadd_ps(low, broadcast(x + row), sum[0][row]);
      sum[1][row] = _mm512_fmadd_ps(high, broadcast(x + block + row), sum[1][row]);
    }
  }
  __m512 result(const Job&, int64_t, int row) const { return _mm512_add_ps(sum[0][row], sum[1][row]); }
};

template <int Rows>
struct Sums<Value::i8, Rows> {
  static constexpr int64_t kUnits = 1;
  static constexpr int kChains = Rows <= 8 ? 2 : 1;  // integers: the order does not matter
  __m512i sum[kChains][Rows];

  Sums(const Job& job) {
    for (int row = 0; row < Rows; ++row) {
      sum[0][row] = _mm512_set1_epi32(job.a.offsets[job.row + row]);
      if (kChains == 2) sum[kChains - 1][row] = _mm512_setzero_si512();
    }
  }
  template <int Odd>
  void add(__m512i weights, const uint32_t* x, int64_t) {
    __m512i* to = sum[Odd % kChains];
    for (int row = 0; row < Rows; ++row) to[row] = _mm512_dpbusd_epi32(to[row], weights, broadcast_bytes(x + row));
  }
  __m512 result(const Job& job, int64_t tile, int row) const {
    __m512i all = sum[0][row];
    if (kChains == 2) all = _mm512_add_epi32(all, sum[kChains - 1][row]);
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(all), _mm512_set1_ps(job.a.scales[job.row + row]));
    return _mm512_mul_ps(scaled, _mm512_loadu_ps(job.m.scales + tile * kTile));
  }
};

template <Value V, bool Sparse, int Rows>
void plain_tile(const Job& job, int64_t tile) {
  constexpr int64_t kMask = Sparse ? mask_bytes(V) : 0;
  const uint8_t* mask = job.m.data + job.m.offsets[tile];
  const Ahead ahead(job.m, job.layout, tile);
  Steps<V, Sparse> steps(mask + job.layout.head);
  Sums<V, Rows> sums(job);
  const int64_t block = job.a.block;
  const int64_t unit = Sums<V, Rows>::kUnits * block;
  const uint32_t* x = job.a.lanes + job.row;
  int64_t left = job.layout.steps;
  for (; left >= kChunk; left -= kChunk) {
    const int64_t values_ahead = ahead.values(steps.at());
    if (Sparse)
      for (int64_t at = 0; at < kChunk * kMask; at += 64) prefetch(ahead.head(mask) + at);
#pragma GCC unroll 8
    for (int64_t step = 0; step < kChunk; step += 2) {
      prefetch(steps.at() + values_ahead);
      sums.template add<0>(steps.template next<0>(mask), x, block);
      if (!Sparse || V == Value::f32) prefetch(steps.at() + values_ahead);
      sums.template add<1>(steps.template next<1>(mask + kMask), x + unit, block);
      mask += 2 * kMask;
      x += 2 * unit;
    }
  }
  for (; left >= 2; left -= 2) {
    sums.template add<0>(steps.template next<0>(mask), x, block);
    sums.template add<1>(steps.template next<1>(mask + kMask), x + unit, block);
    mask += 2 * kMask;
    x += 2 * unit;
  }
  if (left) sums.template add<0>(steps.template next<0>(mask), x, block);
  const __mmask16 outputs = outputs_of(job.m, tile);
  for (int row = 0; row < Rows; ++row)
    _mm512_mask_storeu_ps(job.y + row * job.stride + tile * kTile, outputs, sums.result(job, tile, row));
}

// int4: integers within a group, floats across groups. Odd steps count sixteenfold (their nibbles stay where they are),
// so the even ones are brought up to them, and the scale takes a sixteenth.
template <bool Sparse, int Rows>
void grouped_tile(const Job& job, int64_t tile) {
  constexpr int64_t kMask = Sparse ? mask_bytes(Value::i4) : 0;
  const Layout& layout = job.layout;
  const uint8_t* head = job.m.data + job.m.offsets[tile];
  const Ahead ahead(job.m, layout, tile);
  Steps<Value::i4, Sparse> steps(head + layout.head);
  const int64_t block = job.a.block;
  const uint32_t* x = job.a.lanes + job.row;
  const float* scales = job.a.scales + job.row;
  const int32_t* offsets = job.a.offsets + job.row;
  __m512 total[Rows];
  for (int row = 0; row < Rows; ++row) total[row] = _mm512_setzero_ps();
  for (int64_t group = 0; group < layout.groups; ++group) {
    __m512i even[Rows], odd[Rows];
    for (int row = 0; row < Rows; ++row) {
      even[row] = _mm512_setzero_si512();
      odd[row] = _mm512_set1_epi32(offsets[row]);
    }
    const int64_t values_ahead = ahead.values(steps.at());
    const uint8_t* head_ahead = ahead.head(head);
    for (int64_t at = 0; at < layout.group_head; at += 64) prefetch(head_ahead + at);
    const uint8_t* mask = head + layout.scale_bytes;
#pragma GCC unroll 4
    for (int64_t step = 0; step < layout.group_steps; step += 2) {
      prefetch(steps.at() + values_ahead);
      const __m512i low = steps.template next<0>(mask);
      const __m512i high = steps.template next<1>(mask + kMask);
      for (int row = 0; row < Rows; ++row) {
        even[row] = _mm512_dpbusd_epi32(even[row], low, broadcast_bytes(x + row));
        odd[row] = _mm512_dpbusd_epi32(odd[row], high, broadcast_bytes(x + block + row));
      }
      mask += 2 * kMask;
      x += 2 * block;
    }
    const __m512 weight_scales = group_scales(head, job.m.wide_scales);
    for (int row = 0; row < Rows; ++row) {
      const __m512i all = _mm512_add_epi32(_mm512_slli_epi32(even[row], 4), odd[row]);
      const __m512 scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(scales[row] * 0.0625f));
      total[row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(all), scale, total[row]);
    }
    head += layout.group_head;
    scales += block;
    offsets += block;
  }
  const __mmask16 outputs = outputs_of(job.m, tile);
  for (int row = 0; row < Rows; ++row)
    _mm512_mask_storeu_ps(job.y + row * job.stride + tile * kTile, outputs, total[row]);
}

template <Value V, bool Sparse, int Rows>
void run_tile(const Job& job, int64_t tile) {
  if constexpr (V == Value::i4)
    grouped_tile<Sparse, Rows>(job, tile);
  else
    plain_tile<V, Sparse, Rows>(job, tile);
}

using Run = void (*)(const Job&, int64_t);

// Rows that fit in the registers with their sums.
constexpr int most_rows(Value value) { return value == Value::i8 ? 16 : 8; }

template <Value V, bool Sparse, int... Rows>
Run choose(int64_t rows, std::integer_sequence<int, Rows...>) {
  static constexpr Run runs[] = {run_tile<V, Sparse, Rows + 1>...};
  return runs[rows - 1];
}

template <Value V>
Run choose(bool sparse, int64_t rows) {
  constexpr auto sequence = std::make_integer_sequence<int, most_rows(V)>();
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
  const int64_t most = most_rows(m.value);
  const int64_t passes = (a.rows + most - 1) / most;
  for (int64_t tile = first; tile < last; ++tile)
    for (int64_t pass = 0; pass < passes; ++pass) {
      const int64_t from = a.rows * pass / passes, to = a.rows * (pass + 1) / passes;
      const Job job{m, layout, a, from, y + from * stride, stride};
      choose(m, to - from)(job, tile);
    }
}

}  // namespace sparsebench
