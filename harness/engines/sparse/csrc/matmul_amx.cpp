// Many rows of bf16 and int8 with tiles. Four tiles of outputs are expanded, a block of their steps at a time, into a
// panel that stays in the first cache: 16 steps are the right operand of a product, a chunk of 16 rows the left one.
// The rows of a pass stay in the second cache while all outputs meet them, and so do the sums of four tiles. What comes
// from there limits the speed: so a chunk of rows, once loaded, is multiplied with four tiles, not two by two.
#include "matmul_amx.h"

#include <algorithm>
#include <utility>

#include "amx.h"
#include "avx512.h"

namespace sparsebench {
namespace {

constexpr int kTiles = 4;
constexpr int64_t kTileBytes = kTile * kStepBytes;
constexpr int64_t kBlockSteps = 128;           // 32 KB of panel
constexpr int64_t kRowBytes = int64_t{5} << 18;  // of a pass, if they hold kFewestRows: the second cache has 2 MB
constexpr int64_t kFewestRows = 192, kMostRows = 512;

// Rows of a pass: as many as fit, in passes of about one size.
int64_t pass_rows(const Activations& a) {
  const int64_t fit = std::clamp(kRowBytes / (a.units * 4), kFewestRows, kMostRows);
  const int64_t passes = (a.rows + fit - 1) / fit;
  return round_up((a.rows + passes - 1) / passes, kChunkRows);
}

template <Value V, bool Sparse>
class Products {
 public:
  Products(const Matrix& m, const Activations& a, float* y, int64_t stride, uint8_t* scratch)
      : m_(m), a_(a), layout_(m), y_(y), stride_(stride), panel_(scratch),
        sums_(scratch + kTiles * kBlockSteps * kStepBytes) {}

  void run(int64_t first, int64_t last) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.set(tile, kTile);
    tile_configure(config);
    const int64_t rows = pass_rows(a_);
    for (int64_t row = 0; row < a_.rows; row += rows) {
      const int64_t count = std::min(rows, a_.rows - row);
      int64_t tile = first;
      for (; tile + kTiles <= last; tile += kTiles) run_tiles<kTiles>(tile, row, count);
      for (; tile < last; ++tile) run_tiles<1>(tile, row, count);
    }
    tile_release();
  }

 private:
  static constexpr int64_t kMask = Sparse ? mask_bytes(V) : 0;

  template <int Tiles>
  void run_tiles(int64_t tile, int64_t row, int64_t rows) {
    const uint8_t* heads[Tiles];
    Steps<V, Sparse> cursors[Tiles];
    for (int i = 0; i < Tiles; ++i) {
      heads[i] = m_.data + m_.offsets[tile + i];
      cursors[i] = Steps<V, Sparse>(heads[i] + layout_.head);
    }
    for (int64_t step = 0; step < layout_.steps; step += kBlockSteps) {
      const int64_t count = std::min(kBlockSteps, layout_.steps - step);
      const int64_t chunks = (count + kChunkUnits - 1) / kChunkUnits;
      int64_t lines = 0;  // that the values of a tile took; about as many come next
      for (int i = 0; i < Tiles; ++i) {
        const uint8_t* before = cursors[i].at();
        expand<Tiles>(heads[i] + step * kMask, cursors[i], count, panel_ + i * kTileBytes);
        lines = std::max(lines, (cursors[i].at() - before) / 64 + 1);
      }
      const int64_t share = lines * kChunkRows / rows + 1;
      for (int64_t at = 0; at < rows; at += kChunkRows) {
        // The memory works while the tiles do.
        const int64_t from = at / kChunkRows * share, until = std::min(from + share, lines);
        for (int i = 0; i < Tiles; ++i)
          for (int64_t line = from; line < until; ++line)
            _mm_prefetch(reinterpret_cast<const char*>(cursors[i].at() + line * 64), _MM_HINT_T1);
        add<Tiles>(sums(at), a_.lanes + a_.lane(row + at, step), panel_, chunks, step == 0);
      }
    }
    for (int i = 0; i < Tiles; ++i) {
      const __mmask16 outputs = outputs_of(m_, tile + i);
      for (int64_t at = 0; at < rows; ++at) {
        const uint8_t* sum = sums(at) + i * kTileBytes + at % kChunkRows * kStepBytes;
        _mm512_mask_storeu_ps(y_ + (row + at) * stride_ + (tile + i) * kTile, outputs,
                              result(_mm512_load_si512(sum), tile + i, row + at));
      }
    }
  }

  uint8_t* sums(int64_t row) { return sums_ + row / kChunkRows * kTiles * kTileBytes; }

  // `count` steps, with zeros up to a whole chunk; the chunks of the tiles take turns.
  template <int Tiles>
  static void expand(const uint8_t* mask, Steps<V, Sparse>& steps, int64_t count, uint8_t* to) {
    int64_t left = count;
    for (; left >= kChunkUnits; left -= kChunkUnits) {
      for (int64_t at = 0; at < kChunkUnits * kMask; at += 64) prefetch(mask + at);
      Masks<kMask> masks(mask);
#pragma GCC unroll 8
      for (int64_t step = 0; step < kChunkUnits; step += 2) {
        prefetch(steps.at());
        _mm512_store_si512(to + step * kStepBytes, steps.template next<0>(masks.take(step)));
        _mm512_store_si512(to + (step + 1) * kStepBytes, steps.template next<1>(masks.take(step + 1)));
      }
      mask += kChunkUnits * kMask;
      to += Tiles * kTileBytes;
    }
    if (left == 0) return;
    for (int64_t step = 0; step < kChunkUnits; ++step, to += kStepBytes)
      _mm512_store_si512(to, step < left ? steps.template next<0>(mask_of<kMask>(mask + step * kMask))
                                         : _mm512_setzero_si512());
  }

  // Sums are tiles 0 to 3, rows 4, weights 5 to 7.
  template <int Tiles>
  static void add(uint8_t* sums, const uint32_t* x, const uint8_t* weights, int64_t chunks, bool fresh) {
    repeat<Tiles>([&](auto tile) SPARSEBENCH_INLINE {
      fresh ? tile_zero<tile>() : tile_load<tile>(sums + tile * kTileBytes, kStepBytes);
    });
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      tile_load<4>(x, kStepBytes);
      repeat<Tiles>([&](auto tile) SPARSEBENCH_INLINE {
        constexpr int kWeights = 5 + tile % 3;
        tile_load<kWeights>(weights + tile * kTileBytes, kStepBytes);
        if constexpr (V == Value::i8)
          tile_dot_bytes<tile, 4, kWeights>();
        else
          tile_dot_pairs<tile, 4, kWeights>();
      });
      x += kChunkRows * kChunkUnits;
      weights += Tiles * kTileBytes;
    }
    repeat<Tiles>([&](auto tile) SPARSEBENCH_INLINE { tile_store<tile>(sums + tile * kTileBytes, kStepBytes); });
  }

  __m512 result(__m512i sum, int64_t tile, int64_t row) const {
    if constexpr (V == Value::i8) {
      const __m512i all = _mm512_add_epi32(sum, _mm512_set1_epi32(a_.offsets[row]));
      const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(all), _mm512_set1_ps(a_.scales[row]));
      return _mm512_mul_ps(scaled, _mm512_loadu_ps(m_.scales + tile * kTile));
    } else {
      return _mm512_castsi512_ps(sum);
    }
  }

  const Matrix& m_;
  const Activations& a_;
  const Layout layout_;
  float* const y_;
  const int64_t stride_;
  uint8_t* const panel_;
  uint8_t* const sums_;
};

template <Value V>
void run(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride,
         uint8_t* scratch) {
  if (m.sparse)
    Products<V, true>(m, a, y, stride, scratch).run(first, last);
  else
    Products<V, false>(m, a, y, stride, scratch).run(first, last);
}

}  // namespace

size_t panel_bytes_amx(const Activations& a) {
  return static_cast<size_t>(kTiles * (kBlockSteps * kStepBytes + pass_rows(a) / kChunkRows * kTileBytes));
}

void multiply_many_amx(const Matrix& m, const Activations& a, int64_t first, int64_t last, float* y, int64_t stride,
                       uint8_t* scratch) {
  if (m.value == Value::i8)
    run<Value::i8>(m, a, first, last, y, stride, scratch);
  else
    run<Value::bf16>(m, a, first, last, y, stride, scratch);
}

}  // namespace sparsebench
