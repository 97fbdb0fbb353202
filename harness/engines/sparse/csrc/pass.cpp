#include "pass.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "pass_plan.h"

namespace sparsebench {
namespace {

struct Tiles {
  int64_t first = 0;
  int64_t last = 0;
};

// One thread's way through the pass.
class Worker {
 public:
  Worker(Pass& pass, int rank, Times* times)
      : pass_(pass), decoder_(pass.decoder), ops_(pass.ops), rank_(rank), times_(times),
        last_(times ? Clock::now() : Clock::time_point()) {}
  // Nothing throws on the way: a thread that left would keep the others waiting at the barrier.
  void run() noexcept;

 private:
  struct Target {
    const Linear* linear;
    const Activations* input;
    float* y;
    int64_t stride;
  };

  // What goes into the residual stream: x = (shortcut) x + (norm of) delta.
  struct Added {
    const float* delta = nullptr;
    const Norm* norm = nullptr;
    const Linear* shortcut = nullptr;
  };

  using Clock = std::chrono::steady_clock;

  // What was done since the last lap is over.
  void lap(double Times::* phase) {
    if (!times_) return;
    const Clock::time_point now = Clock::now();
    times_->*phase += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  void meet() {
    if (pass_.threads == 1) return;
    pass_.barrier.wait();
    lap(&Times::waiting);
  }
  // Rows of the phases between matrices that this thread sees to: all where it is alone with its copy, else a part.
  int64_t first_row() const { return alone_ ? 0 : rows_ * rank_ / pass_.threads; }
  int64_t last_row() const { return alone_ ? rows_ : rows_ * (rank_ + 1) / pass_.threads; }
  float* x(int64_t row) const { return buffers_.x + row * pass_.hidden_stride; }
  float* normed(int64_t row) const { return buffers_.normed + row * pass_.hidden_stride; }

  void start();
  void apply(const Norm& norm, const float* input, int64_t n, float* out);
  void carry(const Linear& shortcut);
  void add_and_norm(const Added& added, const Norm& norm, int64_t width);
  void prepare(std::initializer_list<const Linear*> linears, const float* input, int64_t stride);
  void multiply_all(std::initializer_list<Target> targets);
  void multiply_tiles(const Target& target, Tiles tiles);
  void multiply_gated(const Layer& layer);
  void multiply_activated(const Layer& layer);
  void write_cache(const Layer& layer, int64_t index);
  void attend(const Layer& layer, int64_t index, const std::vector<Block>& blocks);
  void keep_rows();
  void write_logits();

  Pass& pass_;
  const Decoder& decoder_;
  const Ops& ops_;
  const int rank_;
  Times* const times_;
  Clock::time_point last_;
  int64_t rows_ = 0;
  bool alone_ = false;
  Pass::Rows buffers_{};
  Activations* prepared_[kInputs] = {};
};

void Worker::run() noexcept {
  start();
  Added added;
  for (size_t index = 0; index < decoder_.layers.size(); ++index) {
    const Layer& layer = decoder_.layers[index];
    const bool last = index + 1 == decoder_.layers.size();
    add_and_norm(added, layer.attention_norm, layer.width());
    prepare({&layer.query, &layer.key, &layer.value}, buffers_.normed, pass_.hidden_stride);
    float* keys = pass_.qkv + decoder_.heads * decoder_.head_dim;
    multiply_all({{&layer.query, prepared_[0], pass_.qkv, pass_.qkv_stride},
                  {&layer.key, prepared_[1], keys, pass_.qkv_stride},
                  {&layer.value, prepared_[2], keys + decoder_.kv_heads * decoder_.head_dim, pass_.qkv_stride}});
    meet();
    write_cache(layer, static_cast<int64_t>(index));
    if (last && pass_.kept.empty()) return;
    if (!pass_.one_each) meet();
    attend(layer, static_cast<int64_t>(index), last ? pass_.kept_blocks : pass_.blocks);
    meet();
    if (last) keep_rows();
    prepare({&layer.output}, pass_.mixed, pass_.mixed_stride);
    multiply_all({{&layer.output, prepared_[0], pass_.delta, pass_.hidden_stride}});
    meet();
    carry(layer.attention_shortcut);
    add_and_norm({pass_.delta, &layer.attention_output_norm, &layer.attention_shortcut}, layer.mlp_norm,
                 layer.inner_width());
    if (decoder_.gated) {
      multiply_gated(layer);
    } else {
      multiply_activated(layer);
    }
    meet();
    prepare({&layer.down}, pass_.gate, pass_.inner_stride);
    multiply_all({{&layer.down, prepared_[0], pass_.delta, pass_.hidden_stride}});
    meet();
    carry(layer.mlp_shortcut);
    added = {pass_.delta, &layer.mlp_output_norm, &layer.mlp_shortcut};
  }
  add_and_norm(added, decoder_.final_norm, decoder_.layers.back().outer_width());
  write_logits();
}

void Worker::start() {
  rows_ = static_cast<int64_t>(pass_.items.size());
  alone_ = rows_ <= kFewRows;
  buffers_ = alone_ ? pass_.own[rank_] : pass_.shared;
  const int64_t hidden = decoder_.embedding_width;
  for (int64_t row = first_row(); row < last_row(); ++row) {
    const int64_t token = pass_.items[row].token;
    float* to = x(row);
    if (decoder_.embedding) {
      std::memcpy(to, decoder_.embedding + token * hidden, static_cast<size_t>(hidden) * sizeof(float));
    } else {
      const uint16_t* from = decoder_.embedding_bf16 + token * hidden;
      for (int64_t i = 0; i < hidden; ++i) {
        const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
        std::memcpy(to + i, &bits, sizeof bits);
      }
    }
    if (decoder_.embedding_scale != 1.0f) {
      for (int64_t i = 0; i < hidden; ++i) to[i] *= decoder_.embedding_scale;
    }
    if (decoder_.positions) ops_.add(to, decoder_.positions + pass_.items[row].position * hidden, hidden);
  }
  lap(&Times::other);
}

void Worker::apply(const Norm& norm, const float* input, int64_t n, float* out) {
  if (decoder_.layer_norm) {
    ops_.layer_norm(input, norm.weight, norm.bias, norm.eps, n, out);
  } else {
    ops_.norm(input, norm.weight, norm.eps, n, out);
  }
}

// Multiplies the residual stream by a shortcut, if there is one; x itself stays until what is added is at hand.
void Worker::carry(const Linear& shortcut) {
  if (!exists(shortcut)) return;
  prepare({&shortcut}, buffers_.x, pass_.hidden_stride);
  multiply_all({{&shortcut, prepared_[0], pass_.carried, pass_.hidden_stride}});
  meet();
}

// x = x + delta (see Added); normed = norm(x)
void Worker::add_and_norm(const Added& added, const Norm& norm, int64_t width) {
  for (int64_t row = first_row(); row < last_row(); ++row) {
    if (added.delta) {
      const float* change = added.delta + row * pass_.hidden_stride;
      if (added.norm->weight) {
        apply(*added.norm, change, width, normed(row));
        change = normed(row);
      }
      if (exists(*added.shortcut)) {
        std::memcpy(x(row), pass_.carried + row * pass_.hidden_stride, static_cast<size_t>(width) * sizeof(float));
      }
      ops_.add(x(row), change, width);
    }
    apply(norm, x(row), width, normed(row));
  }
  lap(&Times::other);
}

// Brings an input into the forms that these matrices read; one that several read alike is prepared once.
void Worker::prepare(std::initializer_list<const Linear*> linears, const float* input, int64_t stride) {
  Activations** results = alone_ ? prepared_ : pass_.prepared;
  const auto first_alike = [&](const Linear* const* linear) {
    return std::find_if(linears.begin(), linear, [&](const Linear* earlier) {
      return share_input(earlier->matrix, (*linear)->matrix);
    });
  };
  if (alone_ || rank_ == 0) {
    uint8_t* scratch = buffers_.prepared;
    for (auto linear = linears.begin(); linear != linears.end(); ++linear) {
      const auto alike = first_alike(linear);
      Activations*& result = results[linear - linears.begin()];
      if (alike != linear) {
        result = results[alike - linears.begin()];
      } else {
        result = start_prepare((*linear)->matrix, rows_, scratch, pass_.isa);
        scratch += round_to(static_cast<int64_t>(activation_bytes((*linear)->matrix, rows_)), 64);
      }
    }
  }
  if (!alone_) {
    // Also for the input itself, of which every thread may have written some rows.
    lap(&Times::other);
    meet();
    std::copy(results, results + linears.size(), prepared_);
  }
  const int64_t part = alone_ ? 0 : rank_, parts = alone_ ? 1 : pass_.threads;
  for (auto linear = linears.begin(); linear != linears.end(); ++linear) {
    if (first_alike(linear) != linear) continue;
    prepare_part((*linear)->matrix, input, stride, *prepared_[linear - linears.begin()], part, parts, pass_.isa);
  }
  lap(&Times::other);
  if (!alone_) meet();
}

void Worker::multiply_tiles(const Target& target, Tiles tiles) {
  if (tiles.first >= tiles.last) return;
  const Matrix& matrix = target.linear->matrix;
  multiply(matrix, *target.input, rows_, tiles.first, tiles.last, target.y, target.stride, pass_.isa);
  lap(&Times::matrices);
  if (!target.linear->bias) return;
  const int64_t from = tiles.first * kTile, until = std::min(tiles.last * kTile, matrix.outputs);
  for (int64_t row = 0; row < rows_; ++row) {
    ops_.add(target.y + row * target.stride + from, target.linear->bias + from, until - from);
  }
}

// Splits the bytes of all these matrices, laid end to end, over the threads: a tile belongs to the thread in whose part
// it begins.
void Worker::multiply_all(std::initializer_list<Target> targets) {
  if (pass_.threads == 1) {
    for (const Target& target : targets) multiply_tiles(target, {0, target.linear->matrix.tiles()});
    return;
  }
  uint64_t total = 0;
  for (const Target& target : targets) {
    const Matrix& matrix = target.linear->matrix;
    total += matrix.offsets[matrix.tiles()] - matrix.offsets[0];
  }
  const uint64_t from = total / pass_.threads * rank_;
  const uint64_t until = rank_ + 1 == pass_.threads ? total : total / pass_.threads * (rank_ + 1);
  uint64_t before = 0;
  for (const Target& target : targets) {
    const Matrix& matrix = target.linear->matrix;
    const uint64_t *first = matrix.offsets, *last = first + matrix.tiles();
    const auto tile_at = [&](uint64_t byte) {
      return byte <= before ? 0 : std::lower_bound(first, last, byte - before + *first) - first;
    };
    multiply_tiles(target, {tile_at(from), tile_at(until)});
    before += *last - *first;
  }
}

// Gate and up are split alike, so that each thread multiplies its part of the two results.
void Worker::multiply_gated(const Layer& layer) {
  prepare({&layer.gate, &layer.up}, buffers_.normed, pass_.hidden_stride);
  const Matrix &gate = layer.gate.matrix, &up = layer.up.matrix;
  const int64_t tiles = gate.tiles();
  const auto begin_of = [&](int64_t tile) { return gate.offsets[tile] - gate.offsets[0] + up.offsets[tile] - up.offsets[0]; };
  const auto tile_at = [&](int rank) {
    if (rank == 0 || rank == pass_.threads) return rank ? tiles : 0;
    const uint64_t byte = begin_of(tiles) / pass_.threads * rank;
    int64_t low = 0, high = tiles;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (begin_of(middle) < byte) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  const Tiles mine{tile_at(rank_), tile_at(rank_ + 1)};
  if (mine.first >= mine.last) return;
  multiply_tiles({&layer.gate, prepared_[0], pass_.gate, pass_.inner_stride}, mine);
  multiply_tiles({&layer.up, prepared_[1], pass_.up, pass_.inner_stride}, mine);
  const int64_t from = mine.first * kTile, until = std::min(mine.last * kTile, decoder_.inner);
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t at = row * pass_.inner_stride + from;
    ops_.activate(decoder_.activation, pass_.gate + at, pass_.up + at, until - from);
  }
  lap(&Times::other);
}

// The result goes where a gate's would.
void Worker::multiply_activated(const Layer& layer) {
  prepare({&layer.up}, buffers_.normed, pass_.hidden_stride);
  multiply_all({{&layer.up, prepared_[0], pass_.gate, pass_.inner_stride}});
  meet();
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t from = decoder_.inner * rank_ / pass_.threads, until = decoder_.inner * (rank_ + 1) / pass_.threads;
    ops_.activate(decoder_.activation, pass_.gate + row * pass_.inner_stride + from, nullptr, until - from);
  }
  lap(&Times::other);
}

// Turns queries and keys and puts keys and values into the cache.
void Worker::write_cache(const Layer& layer, int64_t index) {
  const int64_t head_dim = decoder_.head_dim, group = pass_.group();
  const int64_t half = static_cast<int64_t>(decoder_.rotaries[layer.rotary].frequencies.size());
  const auto store = pass_.cache.shape().bf16 ? ops_.store_bf16 : ops_.store;
  for (int64_t item = 0; item < static_cast<int64_t>(pass_.items.size()); ++item) {
    const int64_t position = pass_.items[item].position;
    const float* cosine = pass_.angles.cosines[layer.rotary].data() + position * half;
    const float* sine = pass_.angles.sines[layer.rotary].data() + position * half;
    float* queries = pass_.qkv + item * pass_.qkv_stride;
    float* keys = queries + decoder_.heads * head_dim;
    const float* values = keys + decoder_.kv_heads * head_dim;
    for (int64_t head = 0; head < decoder_.kv_heads; ++head) {
      if ((item * decoder_.kv_heads + head) % pass_.threads != rank_) continue;
      for (int64_t query = head * group; query < (head + 1) * group; ++query) {
        float* vector = queries + query * head_dim;
        if (layer.query_norm.weight) apply(layer.query_norm, vector, head_dim, vector);
        ops_.rotate(vector, cosine, sine, half);
      }
      float* key = keys + head * head_dim;
      if (layer.key_norm.weight) apply(layer.key_norm, key, head_dim, key);
      ops_.rotate(key, cosine, sine, half);
      store(pass_.cache.pages(pass_.items[item].row)[position / kPage], pass_.cache.place(index, head),
            position % kPage, key, values + head * head_dim, head_dim);
    }
  }
  lap(&Times::attention);
}

// A unit of work is a block and a key/value head. Where every row has one token, the thread that wrote a unit's key also
// reads it, so that nobody waits; elsewhere units are dealt out in turn, as later ones see more tokens.
void Worker::attend(const Layer& layer, int64_t index, const std::vector<Block>& blocks) {
  const int64_t head_dim = decoder_.head_dim, group = pass_.group();
  AttentionBlock job;
  job.head_dim = head_dim;
  job.scale = decoder_.attention_scale;
  job.cap = decoder_.attention_cap;
  job.sloped = !decoder_.slopes.empty();
  job.scores = pass_.scores[rank_];
  job.score_stride = pass_.score_stride;
  const auto attend = pass_.cache.shape().bf16 ? ops_.attend_bf16 : ops_.attend;
  for (int64_t at = 0; at < static_cast<int64_t>(blocks.size()); ++at) {
    const Block& block = blocks[at];
    job.pages = pass_.cache.pages(pass_.items[block.item].row);
    for (int64_t head = 0; head < decoder_.kv_heads; ++head) {
      if (((pass_.one_each ? block.item : at) * decoder_.kv_heads + head) % pass_.threads != rank_) continue;
      job.place = pass_.cache.place(index, head);
      job.queries = 0;
      for (int64_t i = 0; i < block.count; ++i) {
        const int64_t last = pass_.items[block.item + i].position + 1;
        for (int64_t query = head * group; query < (head + 1) * group; ++query) {
          const int slot = job.queries++;
          job.query[slot] = pass_.qkv + (block.item + i) * pass_.qkv_stride + query * head_dim;
          job.out[slot] = pass_.mixed + (block.out + i) * pass_.mixed_stride + query * head_dim;
          job.first[slot] = layer.window ? std::max<int64_t>(0, last - layer.window) : 0;
          job.last[slot] = last;
          if (job.sloped) job.slope[slot] = decoder_.slopes[query];
          if (job.queries == kQueries) {
            attend(job);
            job.queries = 0;
          }
        }
      }
      if (job.queries) attend(job);
    }
  }
  lap(&Times::attention);
}

// Goes on with those rows only whose logits are wanted.
void Worker::keep_rows() {
  const int64_t kept = static_cast<int64_t>(pass_.kept.size());
  if (kept == rows_) return;
  const float* from = buffers_.x;
  rows_ = kept;
  alone_ = kept <= kFewRows;
  if (alone_) buffers_ = pass_.own[rank_];
  if (alone_ || rank_ == 0) {
    // Kept rows rise, so in one buffer a row moves down to a place that was read before.
    for (int64_t row = 0; row < kept; ++row) {
      std::memmove(x(row), from + pass_.kept[row] * pass_.hidden_stride,
                   static_cast<size_t>(decoder_.hidden) * sizeof(float));
    }
  }
  lap(&Times::other);
  if (!alone_) meet();
}

void Worker::write_logits() {
  const Linear& head = decoder_.head;
  prepare({&head}, buffers_.normed, pass_.hidden_stride);
  multiply_all({{&head, prepared_[0], pass_.logits, decoder_.vocabulary}});
  if (decoder_.logit_cap == 0.0f) return;
  meet();
  for (int64_t row = 0; row < rows_; ++row) {
    const int64_t from = decoder_.vocabulary * rank_ / pass_.threads;
    const int64_t until = decoder_.vocabulary * (rank_ + 1) / pass_.threads;
    ops_.soft_cap(pass_.logits + row * decoder_.vocabulary + from, decoder_.logit_cap, until - from);
  }
  lap(&Times::other);
}

}  // namespace

void run_pass(const Decoder& decoder, const KvCache& cache, const Angles& angles, const std::vector<Item>& items,
              const std::vector<int64_t>& kept, float* logits, Scratch& scratch, int threads, Isa isa,
              Times* times) {
  Pass pass(decoder, cache, angles, items, kept, logits, threads, isa);
  pass.plan();
  pass.allocate(scratch);
  run_parts(threads, threads, [&](int64_t rank) { Worker(pass, static_cast<int>(rank), rank == 0 ? times : nullptr).run(); });
}

}  // namespace sparsebench
