// The tile instructions that the AMX kernels use; tile numbers are constants. With SPARSEBENCH_AMX_EMULATION plain C++
// stands in for them, so that the blocking is tested on machines without AMX.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace sparsebench {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};  // of a row
  uint8_t rows[16] = {};

  void set(int tile, int64_t count) {
    rows[tile] = static_cast<uint8_t>(count);
    bytes[tile] = 64;
  }
};
static_assert(sizeof(TileConfig) == 64, "the processor reads 64 bytes");

#ifdef SPARSEBENCH_AMX_EMULATION

struct Tiles {
  TileConfig config;
  uint8_t data[8][16][64];
};
thread_local Tiles tiles;

static inline void tile_configure(const TileConfig& config) {
  tiles.config = config;
  std::memset(tiles.data, 0, sizeof tiles.data);
}
static inline void tile_release() { tiles.config = TileConfig(); }

template <int T>
void tile_zero() {
  std::memset(tiles.data[T], 0, sizeof tiles.data[T]);
}
template <int T>
void tile_load(const void* from, int64_t stride) {
  for (int row = 0; row < tiles.config.rows[T]; ++row)
    std::memcpy(tiles.data[T][row], static_cast<const uint8_t*>(from) + row * stride, 64);
}
template <int T>
void tile_store(void* to, int64_t stride) {
  for (int row = 0; row < tiles.config.rows[T]; ++row)
    std::memcpy(static_cast<uint8_t*>(to) + row * stride, tiles.data[T][row], 64);
}

// Calls body(sum, a, b) for every sum of tile C and the 32-bit units of A and B that go into it.
template <int C, int A, int B, class Sum, class Body>
void each_unit(const Body& body) {
  for (int row = 0; row < tiles.config.rows[C]; ++row)
    for (int column = 0; column < 16; ++column) {
      Sum sum;
      std::memcpy(&sum, tiles.data[C][row] + 4 * column, 4);
      for (int unit = 0; unit < tiles.config.rows[B]; ++unit)
        body(sum, tiles.data[A][row] + 4 * unit, tiles.data[B][unit] + 4 * column);
      std::memcpy(tiles.data[C][row] + 4 * column, &sum, 4);
    }
}
template <int C, int A, int B>
void tile_dot_bytes() {
  each_unit<C, A, B, int32_t>([](int32_t& sum, const uint8_t* a, const uint8_t* b) {
    for (int i = 0; i < 4; ++i) sum += static_cast<int8_t>(a[i]) * b[i];
  });
}
template <int C, int A, int B>
void tile_dot_pairs() {
  each_unit<C, A, B, float>([](float& sum, const uint8_t* a, const uint8_t* b) {
    for (int i = 0; i < 4; i += 2) {
      const uint32_t left = (a[i] | uint32_t{a[i + 1]} << 8) << 16, right = (b[i] | uint32_t{b[i + 1]} << 8) << 16;
      float x, w;
      std::memcpy(&x, &left, 4);
      std::memcpy(&w, &right, 4);
      sum += x * w;
    }
  });
}

#else

// As assembly: the intrinsics of gcc spell the tile's number as it stands in the source, and do not take a constant's.
static inline void tile_configure(const TileConfig& config) { __asm__ volatile("ldtilecfg %0" ::"m"(config)); }
static inline void tile_release() { __asm__ volatile("tilerelease" ::: "memory"); }
template <int T>
void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(T));
}
template <int T>
void tile_load(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
void tile_store(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
}
// C += A times B: signed activations times unsigned weights.
template <int C, int A, int B>
void tile_dot_bytes() {
  __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B>
void tile_dot_pairs() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

#endif

}  // namespace
}  // namespace sparsebench
