// Many rows: a block of a tile's steps is expanded once into a panel that stays in the first cache, and every block of
// rows runs over it. The steps are the outer loop, so that the activations they meet stay in the second cache; sums go
// through y between them (as int32 for int8).
#pragma once

#include <new>

#include "activations.h"
#include "avx512.h"

namespace sparsebench {
namespace {

constexpr int64_t kPanelUnits = 256;   // 32 KB for two tiles
constexpr int64_t kPassRows = 516;     // half a megabyte of activations
constexpr int64_t kGroupRows = 6;      // int4: sums in integers and in floats at once

template <Form>
struct Dot;

template <>
struct Dot<Form::floats> {
  using Sum = __m512;
  static Sum add(Sum sum, __m512i weights, __m512i x) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(weights), _mm512_castsi512_ps(x), sum);
  }
};

template <>
struct Dot<Form::bytes> {
  using Sum = __m512i;
  static Sum add(Sum sum, __m512i weights, __m512i x) { return add_bytes(sum, weights, x); }
};

template <Form F, int Tiles, int Rows>
SPARSEBENCH_INLINE static inline void dot(typename Dot<F>::Sum (&sums)[Tiles][Rows], const uint8_t* panel,
                                          const uint32_t* x, int64_t units) {
  for (int64_t unit = 0; unit < units; ++unit, x += kManyRows, panel += Tiles * kStepBytes) {
    __m512i weights[Tiles];
    repeat<Tiles>([&](auto tile) SPARSEBENCH_INLINE { weights[tile] = _mm512_load_si512(panel + tile * kStepBytes); });
    repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
      const __m512i value = _mm512_set1_epi32(static_cast<int>(x[row]));
      repeat<Tiles>([&](auto tile) SPARSEBENCH_INLINE {
        sums[tile][row] = Dot<F>::add(sums[tile][row], weights[tile], value);
      });
    });
  }
}

// What a block of rows needs to know of the matrix, beside the panel.
struct Target {
  float* y;         // of the first row and output
  int64_t stride;
  int64_t rows;     // that are stored
  __mmask16 outputs[2];
  bool start, end;  // the first and the last steps of the matrix
  const float* scales;
  const int32_t* offsets;
  const float* weight_scales;  // int8, of the first tile

  float* at(int tile, int row) const { return y + row * stride + tile * kTile; }
};

// Calls body(tile, row) for all sums, with constants.
template <int Tiles, int Rows, class Body>
SPARSEBENCH_INLINE static inline void each(const Body& body) {
  repeat<Rows>([&](auto row) SPARSEBENCH_INLINE {
    repeat<Tiles>([&](auto tile) SPARSEBENCH_INLINE { body(tile, row); });
  });
}

// Sums come and go through memory, so that the compiler has nothing to keep in registers but this loop.
template <Form F, int Tiles, int Rows>
__attribute__((noinline)) void add_products(typename Dot<F>::Sum* memory, const uint8_t* panel, const uint32_t* x,
                                   int64_t units) {
  typename Dot<F>::Sum sums[Tiles][Rows];
  each<Tiles, Rows>([&](auto tile, auto row) SPARSEBENCH_INLINE { sums[tile][row] = memory[row * Tiles + tile]; });
  dot<F, Tiles, Rows>(sums, panel, x, units);
  each<Tiles, Rows>([&](auto tile, auto row) SPARSEBENCH_INLINE { memory[row * Tiles + tile] = sums[tile][row]; });
}

// sums: [kManyRows][Tiles]
template <Form F, int Tiles>
void add_rows(typename Dot<F>::Sum* sums, const uint8_t* panel, const uint32_t* x, int64_t units, int64_t rows) {
  if (rows <= 4)
    add_products<F, Tiles, 4>(sums, panel, x, units);
  else if (rows <= 8)
    add_products<F, Tiles, 8>(sums, panel, x, units);
  else
    add_products<F, Tiles, 12>(sums, panel, x, units);
}

template <Form F, int Tiles>
void plain_rows(const uint8_t* panel, const uint32_t* x, int64_t units, const Target& to) {
  constexpr int kRows = kManyRows;
  typename Dot<F>::Sum sums[kRows * Tiles];
  const int rows = to.rows < kRows ? static_cast<int>(to.rows) : kRows;
  for (int row = 0; row < kRows; ++row)
    for (int tile = 0; tile < Tiles; ++tile) {
      auto& sum = sums[row * Tiles + tile];
      if constexpr (F == Form::bytes) {
        if (row >= rows)
          sum = _mm512_setzero_si512();
        else
          sum = to.start ? _mm512_set1_epi32(to.offsets[row])
                         : _mm512_maskz_loadu_epi32(to.outputs[tile], to.at(tile, row));
      } else {
        sum = to.start || row >= rows ? _mm512_setzero_ps()
                                      : _mm512_maskz_loadu_ps(to.outputs[tile], to.at(tile, row));
      }
    }
  add_rows<F, Tiles>(sums, panel, x, units, rows);
  for (int row = 0; row < rows; ++row)
    for (int tile = 0; tile < Tiles; ++tile) {
      __m512 result;
      if constexpr (F == Form::bytes) {
        const __m512i sum = sums[row * Tiles + tile];
        const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(to.scales[row]));
        result = to.end ? _mm512_mul_ps(scaled, _mm512_loadu_ps(to.weight_scales + tile * kTile))
                        : _mm512_castsi512_ps(sum);
      } else {
        result = sums[row * Tiles + tile];
      }
      _mm512_mask_storeu_ps(to.at(tile, row), to.outputs[tile], result);
    }
}

// The groups of int4 that a panel holds: integers within a group, floats across them.
template <int Tiles>
void grouped_rows(const uint8_t* panel, const uint32_t* x, int64_t groups, int64_t group_units,
                  const uint8_t* const (&heads)[2], int64_t group_head, bool wide, const Target& to) {
  constexpr int kRows = kGroupRows;
  __m512 total[Tiles][kRows];
  each<Tiles, kRows>([&](auto tile, auto row) SPARSEBENCH_INLINE {
    const bool fresh = to.start || row >= to.rows;
    total[tile][row] = fresh ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(to.outputs[tile], to.at(tile, row));
  });
  const float* scales = to.scales;
  const int32_t* offsets = to.offsets;
  for (int64_t group = 0; group < groups; ++group) {
    __m512i sums[Tiles][kRows];
    each<Tiles, kRows>([&](auto tile, auto row) SPARSEBENCH_INLINE {
      sums[tile][row] = _mm512_set1_epi32(offsets[row]);
    });
    dot<Form::bytes, Tiles, kRows>(sums, panel, x, group_units);
    repeat<Tiles>([&](auto tile) SPARSEBENCH_INLINE {
      const __m512 weight_scales = group_scales(heads[tile] + group * group_head, wide);
      repeat<kRows>([&](auto row) SPARSEBENCH_INLINE {
        const __m512 scale = _mm512_mul_ps(weight_scales, _mm512_set1_ps(scales[row] * 0.0625f));
        total[tile][row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[tile][row]), scale, total[tile][row]);
      });
    });
    panel += group_units * Tiles * kStepBytes;
    x += group_units * kManyRows;
    scales += kManyRows;
    offsets += kManyRows;
  }
  each<Tiles, kRows>([&](auto tile, auto row) SPARSEBENCH_INLINE {
    if (row < to.rows) _mm512_mask_storeu_ps(to.at(tile, row), to.outputs[tile], total[tile][row]);
  });
}

template <Value V, bool Sparse, Form F>
class Panels {
  using Cursor = Steps<V, Sparse>;
  static constexpr int64_t kUnits = V == Value::bf16 && F == Form::floats ? 2 : 1;  // of a step
  static constexpr int64_t kMask = Sparse ? mask_bytes(V) : 0;

 public:
  // `scratch`: aligned; first the cursors of all tiles, then the panel.
  Panels(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride, uint8_t* scratch)
      : m_(m),
        a_(a),
        layout_(m),
        first_(first),
        last_(last),
        y_(y),
        stride_(stride),
        cursors_(reinterpret_cast<Cursor*>(scratch)),
        panel_(scratch + round_up((last - first) * static_cast<int64_t>(sizeof(Cursor)), 64)) {}

  void run() {
    // Whole groups of int4, whole pairs of steps otherwise.
    const int64_t unit = V == Value::i4 ? layout_.group_steps : 2;
    const int64_t block = V == Value::i4 && unit > kPanelUnits ? unit : kPanelUnits / kUnits / unit * unit;
    constexpr int64_t kPass = kPassRows / kManyRows * kManyRows;
    for (int64_t rows = 0; rows < a_.rows; rows += kPass) {
      const int64_t end = rows + kPass < a_.rows ? rows + kPass : a_.rows;
      for (int64_t tile = first_; tile < last_; ++tile)
        new (&cursors_[tile - first_]) Cursor(head(tile) + layout_.head);
      for (int64_t step = 0; step < layout_.steps; step += block) {
        const int64_t count = step + block < layout_.steps ? block : layout_.steps - step;
        int64_t tile = first_;
        for (; tile + 2 <= last_; tile += 2) run_tiles<2>(tile, step, count, rows, end);
        if (tile < last_) run_tiles<1>(tile, step, count, rows, end);
      }
    }
  }

 private:
  const uint8_t* head(int64_t tile) const { return m_.data + m_.offsets[tile]; }

  void put(uint8_t*& to, int64_t stride, __m512i step) {
    if constexpr (kUnits == 2) {
      _mm512_store_ps(to, low_half(step));
      _mm512_store_ps(to + stride, high_half(step));
    } else {
      _mm512_store_si512(to, step);
    }
    to += kUnits * stride;
  }

  void expand(int64_t tile, int64_t step, int64_t count, uint8_t* to, int64_t stride) {
    Cursor cursor = cursors_[tile - first_];
    const int64_t run = V == Value::i4 ? layout_.group_steps : count;
    for (int64_t from = step; from < step + count; from += run) {
      const uint8_t* mask = layout_.mask_at(head(tile), from);
      int64_t left = run;
      for (; left >= 2; left -= 2, mask += 2 * kMask) {
        prefetch(cursor.at());
        if (Sparse) prefetch(mask);
        const __m512i even = cursor.template next<0>(mask_of<kMask>(mask));
        put(to, stride, V == Value::i4 ? _mm512_slli_epi16(even, 4) : even);
        put(to, stride, cursor.template next<1>(mask_of<kMask>(mask + kMask)));
      }
      if (left) put(to, stride, cursor.template next<0>(mask_of<kMask>(mask)));
    }
    cursors_[tile - first_] = cursor;
  }

  template <int Tiles>
  void run_tiles(int64_t tile, int64_t step, int64_t count, int64_t first_row, int64_t last_row) {
    for (int i = 0; i < Tiles; ++i) expand(tile + i, step, count, panel_ + i * kStepBytes, Tiles * kStepBytes);
    for (int64_t row = first_row; row < last_row; row += kManyRows) {
      const int64_t group = V == Value::i4 ? step / layout_.group_steps : 0;
      Target to;
      to.y = y_ + row * stride_ + tile * kTile;
      to.stride = stride_;
      to.rows = a_.rows - row;
      for (int i = 0; i < Tiles; ++i) to.outputs[i] = outputs_of(m_, tile + i);
      to.start = step == 0;
      to.end = step + count == layout_.steps;
      to.scales = F == Form::bytes ? a_.scales + a_.scale(row, group) : nullptr;
      to.offsets = F == Form::bytes ? a_.offsets + a_.scale(row, group) : nullptr;
      to.weight_scales = V == Value::i8 ? m_.scales + tile * kTile : nullptr;
      run_block<Tiles>(a_.lanes + a_.lane(row, step * kUnits), tile, group, count, to);
    }
  }

  template <int Tiles>
  void run_block(const uint32_t* x, int64_t tile, int64_t group, int64_t count, Target& to) {
    if constexpr (V == Value::i4) {
      const int64_t at = group * layout_.group_head;
      const uint8_t* const heads[2] = {head(tile) + at, head(tile + Tiles - 1) + at};
      for (int64_t row = 0; row < kManyRows && to.rows > 0; row += kGroupRows) {
        grouped_rows<Tiles>(panel_, x + row, count / layout_.group_steps, layout_.group_steps, heads,
                            layout_.group_head, m_.wide_scales, to);
        to.y += kGroupRows * stride_;
        to.scales += kGroupRows;
        to.offsets += kGroupRows;
        to.rows -= kGroupRows;
      }
    } else {
      plain_rows<F, Tiles>(panel_, x, count * kUnits, to);
    }
  }

  const Matrix& m_;
  const Activations& a_;
  const Layout layout_;
  const int64_t first_, last_;
  float* const y_;
  const int64_t stride_;
  Cursor* const cursors_;
  uint8_t* const panel_;
};

template <Value V, Form F>
void run_panels(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride,
                uint8_t* scratch) {
  if (m.sparse)
    Panels<V, true, F>(m, a, first, last, y, stride, scratch).run();
  else
    Panels<V, false, F>(m, a, first, last, y, stride, scratch).run();
}

}  // namespace
}  // namespace sparsebench
