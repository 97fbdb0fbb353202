// What a decoder computes between its matrices, on float32 vectors: norms, gates, rotary embedding, attention.
// Compiled once per instruction set from ops.inc; the sets differ by the order of sums and by fused multiply-adds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace sparsebench {

enum class Activation : uint32_t { silu = 0, gelu_tanh = 1, gelu = 2, relu = 3 };

constexpr int64_t kLanes = 16;    // tokens of a block of keys; whole vectors of every instruction set
constexpr int64_t kPage = 64;     // tokens of a cache page
constexpr int kQueries = 8;       // queries that one call of `attend` serves
constexpr int64_t round_to(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Where one key/value head of one layer lies inside a cache page. Keys are stored in blocks of kLanes tokens, dimension
// by dimension, so that scores need no sum across lanes; values token by token, padded to whole vectors.
struct HeadPlace {
  size_t keys = 0;                // bytes from the start of the page
  size_t values = 0;
};

// Up to kQueries queries that share a key/value head. Query r sees the tokens [first[r], last[r]), never none.
struct AttentionBlock {
  int queries = 0;
  const float* query[kQueries];
  float* out[kQueries];
  int64_t first[kQueries];
  int64_t last[kQueries];
  const uint8_t* const* pages = nullptr;
  HeadPlace place;
  int64_t head_dim = 0;
  float scale = 1.0f;
  float cap = 0.0f;               // scores become cap * tanh(score / cap); 0: they stay
  bool sloped = false;            // ALiBi: a score falls by slope[r] per token of distance
  float slope[kQueries];
  float* scores = nullptr;        // scratch: kQueries * score_stride floats
  int64_t score_stride = 0;       // at least the tokens seen + 2 * kPage
};

struct Ops {
  // out = x / sqrt(mean(x^2) + eps) * weight; `out` may be `x`.
  void (*norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  // out = (x - mean) / sqrt(variance + eps) * weight + bias; without a bias if it is null.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out);
  void (*add)(float* x, const float* other, int64_t n);
  // x = act(x), times `up` if there is one.
  void (*activate)(Activation act, float* x, const float* up, int64_t n);
  // Rotates the pairs (x[i], x[i + half]) by the angles of which cosine and sine are given.
  void (*rotate)(float* x, const float* cosine, const float* sine, int64_t half);
  // x = cap * tanh(x / cap)
  void (*soft_cap)(float* x, float cap, int64_t n);
  // Index of the first largest of n > 0 floats, or -1 where one is NaN or infinite.
  int64_t (*likeliest)(const float* x, int64_t n);
  // Writes one token's key and value to its place in a page, as float32 or bfloat16 (half to even).
  void (*store)(uint8_t* page, const HeadPlace& place, int64_t slot, const float* key, const float* value,
                int64_t head_dim);
  void (*store_bf16)(uint8_t* page, const HeadPlace& place, int64_t slot, const float* key, const float* value,
                     int64_t head_dim);
  void (*attend)(const AttentionBlock& block);
  void (*attend_bf16)(const AttentionBlock& block);
};

const Ops& ops_for(Isa isa);

}  // namespace sparsebench
