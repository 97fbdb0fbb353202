// Many rows of bf16 and int8 with tiles: a panel's steps are the rows of the right operand as they are, and rows of
// activations, not interleaved, those of the left one. Two tiles of rows times two of outputs: four of sums.
#include "matmul_amx.h"

#include "amx.h"
#include "avx512_panel.h"

namespace sparsebench {
namespace {

template <>
struct Dot<Form::pairs> {
  using Sum = __m512;
};

struct TileProducts {
  static constexpr int64_t kRows = 32;
  static constexpr int64_t kUnits = 16;

  template <Form F, int Tiles>
  static void add(typename Dot<F>::Sum* sums, const uint8_t* panel, const uint32_t* x, int64_t pitch, int64_t units,
                  int64_t rows) {
    if (rows <= kTile)
      run<F, Tiles, 1>(sums, panel, x, pitch, units, rows);
    else
      run<F, Tiles, 2>(sums, panel, x, pitch, units, rows);
  }

 private:
  // Sums are tiles 0 to 3 (first and second rows, times first and second outputs), rows 4 and 5, weights 6 and 7.
  template <Form F, int Tiles, int Halves>
  static void run(typename Dot<F>::Sum* sums, const uint8_t* panel, const uint32_t* x, int64_t pitch, int64_t units,
                  int64_t rows) {
    TileConfig config;
    for (int half = 0; half < Halves; ++half) {
      const int64_t count = half + 1 < Halves ? kTile : rows - half * kTile;
      config.set(4 + half, count);
      for (int tile = 0; tile < Tiles; ++tile) config.set(2 * half + tile, count);
    }
    for (int tile = 0; tile < Tiles; ++tile) config.set(6 + tile, kUnits);
    tile_configure(config);
    auto* at = reinterpret_cast<uint8_t*>(sums);
    constexpr int64_t kStride = Tiles * kStepBytes;
    tile_load<0>(at, kStride);
    if constexpr (Tiles == 2) tile_load<1>(at + kStepBytes, kStride);
    if constexpr (Halves == 2) tile_load<2>(at + kTile * kStride, kStride);
    if constexpr (Tiles == 2 && Halves == 2) tile_load<3>(at + kTile * kStride + kStepBytes, kStride);
    int64_t unit = 0;
    for (; unit + kUnits <= units; unit += kUnits)
      multiply<F, Tiles, Halves>(panel + unit * kStride, x + unit, pitch * 4);
    if (unit < units) {
      // What lies behind a row's last unit is the next row: a copy with zeros instead.
      alignas(64) uint32_t rest[kRows][kUnits] = {};
      for (int64_t row = 0; row < rows; ++row)
        std::memcpy(rest[row], x + row * pitch + unit, static_cast<size_t>(units - unit) * 4);
      multiply<F, Tiles, Halves>(panel + unit * kStride, rest[0], sizeof rest[0]);
    }
    tile_store<0>(at, kStride);
    if constexpr (Tiles == 2) tile_store<1>(at + kStepBytes, kStride);
    if constexpr (Halves == 2) tile_store<2>(at + kTile * kStride, kStride);
    if constexpr (Tiles == 2 && Halves == 2) tile_store<3>(at + kTile * kStride + kStepBytes, kStride);
  }

  template <Form F, int Tiles, int Halves>
  static void multiply(const uint8_t* weights, const uint32_t* x, int64_t stride) {
    tile_load<4>(x, stride);
    if constexpr (Halves == 2) tile_load<5>(reinterpret_cast<const uint8_t*>(x) + kTile * stride, stride);
    tile_load<6>(weights, Tiles * kStepBytes);
    if constexpr (Tiles == 2) tile_load<7>(weights + kStepBytes, Tiles * kStepBytes);
    dot<F, 0, 4, 6>();
    if constexpr (Tiles == 2) dot<F, 1, 4, 7>();
    if constexpr (Halves == 2) dot<F, 2, 5, 6>();
    if constexpr (Tiles == 2 && Halves == 2) dot<F, 3, 5, 7>();
  }

  template <Form F, int C, int A, int B>
  static void dot() {
    if constexpr (F == Form::bytes)
      tile_dot_bytes<C, A, B>();
    else
      tile_dot_pairs<C, A, B>();
  }
};

}  // namespace

void multiply_many_amx(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride,
                       uint8_t* scratch) {
  if (m.value == Value::i8)
    run_panels<Value::i8, Form::bytes, TileProducts>(m, a, first, last, y, stride, scratch);
  else
    run_panels<Value::bf16, Form::pairs, TileProducts>(m, a, first, last, y, stride, scratch);
  tile_release();
}

}  // namespace sparsebench
