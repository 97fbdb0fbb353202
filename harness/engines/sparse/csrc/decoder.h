// A decoder-only transformer on packed matrices: tokens in, logits out, with nothing of Python in between.
//
// What differs between models is data: which norms there are, gates, how positions enter, windows and caps. Activations
// are float32 throughout.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "kv_cache.h"
#include "ops.h"

namespace sparsebench {

struct Linear {
  Matrix matrix;
  const float* bias = nullptr;
};

// Angles of the rotary embedding: position * frequencies[i] turns the dimensions i and i + size.
struct Rotary {
  std::vector<float> frequencies;  // at most head_dim / 2; dimensions beyond stay as they are
  float scale = 1.0f;              // factor of cosine and sine
};

// The weight multiplies (Gemma's 1 + w is added by the caller); null: there is no such norm.
struct Norm {
  const float* weight = nullptr;
  const float* bias = nullptr;
  int64_t size = 0;
  float eps = 0.0f;
};

struct Layer {
  Linear query, key, value, output, gate, up, down;  // no gate if the decoder is not gated
  Norm attention_norm, mlp_norm;               // of what they read
  Norm query_norm, key_norm;                   // over each head
  Norm attention_output_norm, mlp_output_norm; // of what is added
  // Of a sliced model: what is added to is multiplied by these first, and may change its width. No matrix: as it is.
  Linear attention_shortcut, mlp_shortcut;
  int64_t rotary = 0;                          // which of Decoder::rotaries
  int64_t window = 0;                          // tokens that a token sees, itself included; 0: all

  // Widths of the residual stream in front of the attention, in front of the gates and behind the layer.
  int64_t width() const { return query.matrix.inputs; }
  int64_t inner_width() const { return output.matrix.outputs; }
  int64_t outer_width() const { return down.matrix.outputs; }
};

inline bool exists(const Linear& linear) { return linear.matrix.outputs > 0; }

struct Decoder {
  int64_t hidden = 0;                          // widest that the residual stream is
  int64_t inner = 0, heads = 0, kv_heads = 0, head_dim = 0, vocabulary = 0;
  bool layer_norm = false;                     // norms subtract the mean
  bool gated = true;                           // down(act(gate(x)) * up(x)); otherwise down(act(up(x)))
  Activation activation = Activation::silu;
  float attention_scale = 1.0f, attention_cap = 0.0f, logit_cap = 0.0f, embedding_scale = 1.0f;
  const float* embedding = nullptr;            // (vocabulary, embedding_width), or as bfloat16:
  const uint16_t* embedding_bf16 = nullptr;
  int64_t embedding_width = 0;
  const float* positions = nullptr;            // learned: (position_count, the same width), added to the embedding
  int64_t position_count = 0;
  std::vector<float> slopes;                   // ALiBi: per head, or none
  Norm final_norm;
  Linear head;
  std::vector<Rotary> rotaries;
  std::vector<Layer> layers;
};

// What is wrong with the decoder's shapes, or nothing.
std::string check(const Decoder& decoder);

// The logits are NaN or infinite.
struct NotFinite : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Tokens that are appended to one row.
struct Segment {
  int64_t row = 0;
  const int64_t* tokens = nullptr;
  int64_t count = 0;
  int64_t keep = 0;                // logits wanted of the last `keep` tokens
};

// Where the time of passes went, in seconds of the calling thread.
struct Times {
  double matrices = 0.0;
  double attention = 0.0;          // with the rotary embedding and writing keys and values
  double other = 0.0;              // norms, rounding of activations, gates
  double waiting = 0.0;            // for the other threads of a pass
};

// Working memory of a state (pass.h).
struct Scratch;

// Rows in progress. A state is used by one caller at a time (others wait); different states run side by side.
class State {
 public:
  // The decoder must outlive the state. Throws std::invalid_argument: more capacity than learned positions.
  State(const Decoder& decoder, int64_t rows, int64_t capacity, bool bf16);
  ~State();
  const Decoder& decoder() const { return decoder_; }

  // Appends every segment and writes the wanted logits, rows of `vocabulary` floats in the order of the segments.
  // Rows that get one token each share passes of at most kFewRows; a row that gets several has passes of its own. So a
  // row's results do not depend on which other rows are there.
  // Throws std::invalid_argument before anything has changed: unknown or repeated row, no tokens, token outside the
  // vocabulary, no room left, more kept than given.
  void forward(const std::vector<Segment>& segments, float* logits, int threads, Isa isa);

  // Feeds one token to each row, then each row's likeliest next token, `steps` times; writes them, (rows, steps).
  // Throws NotFinite; the rows keep the tokens of the steps that were finished.
  void greedy(const std::vector<int64_t>& rows, const std::vector<int64_t>& tokens, int64_t steps, int64_t* out,
              int threads, Isa isa);

  // Starts a clock that later passes add to (two dozen nanoseconds a phase), or stops it.
  void set_timed(bool timed);
  bool timed();
  Times times();

  std::vector<int64_t> lengths();
  void truncate(int64_t row, int64_t length);
  void copy(int64_t from, int64_t to);
  int64_t rows() const { return cache_.rows(); }
  int64_t capacity() const { return cache_.capacity(); }
  size_t bytes();

 private:
  void check_row(int64_t row) const;
  void check_segments(const std::vector<Segment>& segments) const;
  void forward_locked(const std::vector<Segment>& segments, float* logits, int threads, Isa isa);
  void extend_angles(int64_t tokens);

  const Decoder& decoder_;
  KvCache cache_;
  std::mutex mutex_;
  std::vector<std::vector<float>> cosines_, sines_;  // per rotary: (tokens, size)
  std::unique_ptr<Scratch> scratch_;
  bool timed_ = false;
  Times times_;
};

}  // namespace sparsebench
