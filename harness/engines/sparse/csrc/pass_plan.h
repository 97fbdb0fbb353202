// What a pass works on, laid out before its threads start: blocks of items, and all buffers.
#pragma once

#include <vector>

#include "pass.h"
#include "threads.h"

namespace sparsebench {

// Rows of a buffer start this far apart: a width that is a power of two would send a column to one set of the cache.
constexpr int64_t stride_of(int64_t width) { return round_to(width, kLanes) + kLanes; }

// Consecutive items of one row whose queries go through the attention together.
struct Block {
  int64_t item = 0;
  int64_t count = 0;
  int64_t out = 0;                 // row of the result
};

constexpr int kInputs = 3;         // matrices that read one input at most: query, key and value

// Whether two matrices read the same prepared form of one input.
inline bool share_input(const Matrix& a, const Matrix& b) {
  return a.value == b.value && a.inputs == b.inputs && a.group == b.group && a.input_scale == b.input_scale;
}

// What all threads of a pass see.
struct Pass {
  const Decoder& decoder;
  const KvCache& cache;
  const Angles& angles;
  const std::vector<Item>& items;
  const std::vector<int64_t>& kept;
  float* logits;
  const Ops& ops;
  const int threads;
  const Isa isa;
  Barrier barrier;
  bool one_each = true;            // no two items are of one row
  std::vector<Block> blocks, kept_blocks;

  struct Rows {
    float *x, *normed;
    uint8_t* prepared;
  };
  Rows shared{};
  std::vector<Rows> own;
  std::vector<float*> scores;
  float *qkv = nullptr, *mixed = nullptr, *gate = nullptr, *up = nullptr, *delta = nullptr;
  float* carried = nullptr;        // what the residual stream is behind a shortcut
  int64_t hidden_stride, qkv_stride, mixed_stride, inner_stride, score_stride = 0;
  Activations* prepared[kInputs] = {};  // of the shared rows

  Pass(const Decoder& decoder, const KvCache& cache, const Angles& angles, const std::vector<Item>& items,
       const std::vector<int64_t>& kept, float* logits, int threads, Isa isa)
      : decoder(decoder), cache(cache), angles(angles), items(items), kept(kept), logits(logits), ops(ops_for(isa)),
        threads(threads), isa(isa), barrier(threads),
        hidden_stride(stride_of(decoder.hidden)),
        qkv_stride(stride_of((decoder.heads + 2 * decoder.kv_heads) * decoder.head_dim)),
        mixed_stride(stride_of(decoder.heads * decoder.head_dim)), inner_stride(stride_of(decoder.inner)) {}

  int64_t group() const { return decoder.heads / decoder.kv_heads; }
  void plan();
  void allocate(Scratch& scratch);
};

}  // namespace sparsebench
