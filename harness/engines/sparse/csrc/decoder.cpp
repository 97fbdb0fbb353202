#include "decoder.h"

#include <algorithm>
#include <cmath>

#include "pass.h"

namespace sparsebench {
namespace {

// Tokens of one row that go through the layers together: enough for the kernels of many rows to reach their speed, few
// enough for their activations to stay in the cache.
constexpr int64_t kChunk = 512;

std::string wrong_shape(const std::string& name, const Matrix& matrix, int64_t outputs, int64_t inputs) {
  if (matrix.outputs == outputs && matrix.inputs == inputs) return "";
  return name + " is " + std::to_string(matrix.outputs) + " x " + std::to_string(matrix.inputs) + ", not " +
         std::to_string(outputs) + " x " + std::to_string(inputs);
}

std::string wrong_norm(const std::string& name, const Norm& norm, int64_t size) {
  if (!norm.weight || norm.size == size) return "";
  return name + " has " + std::to_string(norm.size) + " elements, not " + std::to_string(size);
}

std::string check_layer(const Decoder& decoder, const Layer& layer, int64_t width, const std::string& name) {
  const int64_t queries = decoder.heads * decoder.head_dim, keys = decoder.kv_heads * decoder.head_dim;
  const auto behind = [](const Linear& shortcut, int64_t before) {
    return exists(shortcut) ? shortcut.matrix.outputs : before;
  };
  const int64_t inner = behind(layer.attention_shortcut, width), outer = behind(layer.mlp_shortcut, inner);
  const auto wrong_shortcut = [&](const char* which, const Linear& shortcut, int64_t before) {
    return exists(shortcut) ? wrong_shape(name + which, shortcut.matrix, shortcut.matrix.outputs, before) : "";
  };
  for (const std::string& error : {
           wrong_shape(name + "query", layer.query.matrix, queries, width),
           wrong_shape(name + "key", layer.key.matrix, keys, width),
           wrong_shape(name + "value", layer.value.matrix, keys, width),
           wrong_shape(name + "output", layer.output.matrix, inner, queries),
           wrong_shortcut("attention_shortcut", layer.attention_shortcut, width),
           decoder.gated ? wrong_shape(name + "gate", layer.gate.matrix, decoder.inner, inner) : "",
           wrong_shape(name + "up", layer.up.matrix, decoder.inner, inner),
           wrong_shape(name + "down", layer.down.matrix, outer, decoder.inner),
           wrong_shortcut("mlp_shortcut", layer.mlp_shortcut, inner),
       }) {
    if (!error.empty()) return error;
  }
  if (std::max({width, inner, outer}) > decoder.hidden) return name + "wider than hidden";
  if (!layer.attention_norm.weight || !layer.mlp_norm.weight) return name + "a norm is missing";
  for (const std::string& error : {
           wrong_norm(name + "attention_norm", layer.attention_norm, width),
           wrong_norm(name + "attention_output_norm", layer.attention_output_norm, inner),
           wrong_norm(name + "mlp_norm", layer.mlp_norm, inner),
           wrong_norm(name + "mlp_output_norm", layer.mlp_output_norm, outer),
           wrong_norm(name + "query_norm", layer.query_norm, decoder.head_dim),
           wrong_norm(name + "key_norm", layer.key_norm, decoder.head_dim),
       }) {
    if (!error.empty()) return error;
  }
  if (layer.rotary < 0 || layer.rotary >= static_cast<int64_t>(decoder.rotaries.size())) return name + "unknown rotary";
  if (layer.window < 0) return name + "negative window";
  return "";
}

}  // namespace

std::string check(const Decoder& decoder) {
  for (const int64_t size : {decoder.hidden, decoder.inner, decoder.heads, decoder.kv_heads, decoder.head_dim,
                             decoder.vocabulary}) {
    if (size < 1 || size > (int64_t{1} << 31)) return "a size is below 1 or absurd";
  }
  if (decoder.heads % decoder.kv_heads != 0) return "heads are not a multiple of the key/value heads";
  if (decoder.layers.empty()) return "no layers";
  if (!decoder.final_norm.weight || (!decoder.embedding && !decoder.embedding_bf16)) return "embedding or last norm is missing";
  if (!decoder.slopes.empty() && static_cast<int64_t>(decoder.slopes.size()) != decoder.heads) {
    return "not one slope per head";
  }
  for (const Rotary& rotary : decoder.rotaries) {
    if (static_cast<int64_t>(rotary.frequencies.size()) * 2 > decoder.head_dim) return "more angles than head_dim / 2";
  }
  int64_t width = decoder.embedding_width;
  for (size_t index = 0; index < decoder.layers.size(); ++index) {
    const std::string error = check_layer(decoder, decoder.layers[index], width, "layer " + std::to_string(index) + ": ");
    if (!error.empty()) return error;
    width = decoder.layers[index].outer_width();
  }
  const std::string error = wrong_norm("final_norm", decoder.final_norm, width);
  return error.empty() ? wrong_shape("head", decoder.head.matrix, decoder.vocabulary, width) : error;
}

State::State(const Decoder& decoder, int64_t rows, int64_t capacity, bool bf16)
    : decoder_(decoder),
      cache_({static_cast<int64_t>(decoder.layers.size()), decoder.kv_heads, decoder.head_dim, bf16}, rows, capacity),
      cosines_(decoder.rotaries.size()),
      sines_(decoder.rotaries.size()),
      scratch_(std::make_unique<Scratch>()) {
  if (decoder.positions && capacity > decoder.position_count) {
    throw std::invalid_argument("a capacity of " + std::to_string(capacity) + " is more than the model's " +
                                std::to_string(decoder.position_count) + " positions");
  }
}

State::~State() = default;

void State::check_row(int64_t row) const {
  if (row >= 0 && row < rows()) return;
  throw std::invalid_argument("row " + std::to_string(row) + " is not one of the state's " + std::to_string(rows()) +
                              " rows");
}

void State::check_segments(const std::vector<Segment>& segments) const {
  std::vector<bool> seen(static_cast<size_t>(rows()));
  for (const Segment& segment : segments) {
    const std::string row = "row " + std::to_string(segment.row);
    check_row(segment.row);
    if (seen[segment.row]) throw std::invalid_argument(row + " was given twice");
    seen[segment.row] = true;
    if (segment.count < 1) throw std::invalid_argument(row + " was given no tokens");
    if (segment.keep < 0 || segment.keep > segment.count) {
      throw std::invalid_argument(row + ": logits of " + std::to_string(segment.keep) + " tokens were asked for, of " +
                                  std::to_string(segment.count) + " given");
    }
    if (segment.count > capacity() - cache_.length(segment.row)) {
      throw std::invalid_argument(row + " has " + std::to_string(cache_.length(segment.row)) + " tokens and a capacity of " +
                                  std::to_string(capacity()) + ": no room for " + std::to_string(segment.count) + " more");
    }
    for (int64_t i = 0; i < segment.count; ++i) {
      if (segment.tokens[i] < 0 || segment.tokens[i] >= decoder_.vocabulary) {
        throw std::invalid_argument(row + ": token " + std::to_string(segment.tokens[i]) +
                                    " is outside the vocabulary of " + std::to_string(decoder_.vocabulary));
      }
    }
  }
}

void State::extend_angles(int64_t tokens) {
  tokens = round_to(tokens, kPage);
  for (size_t which = 0; which < decoder_.rotaries.size(); ++which) {
    const Rotary& rotary = decoder_.rotaries[which];
    const int64_t half = static_cast<int64_t>(rotary.frequencies.size());
    for (int64_t at = static_cast<int64_t>(cosines_[which].size()); at < tokens * half; ++at) {
      const float angle = static_cast<float>(at / half) * rotary.frequencies[at % half];
      cosines_[which].push_back(std::cos(angle) * rotary.scale);
      sines_[which].push_back(std::sin(angle) * rotary.scale);
    }
  }
}

void State::forward(const std::vector<Segment>& segments, float* logits, int threads, Isa isa) {
  std::lock_guard<std::mutex> turn(mutex_);
  check_segments(segments);
  forward_locked(segments, logits, threads, isa);
}

void State::forward_locked(const std::vector<Segment>& segments, float* logits, int threads, Isa isa) {
  int64_t longest = 0;
  for (const Segment& segment : segments) {
    const int64_t length = cache_.length(segment.row) + segment.count;
    cache_.reserve(segment.row, length);
    longest = std::max(longest, length);
  }
  extend_angles(longest);
  const Angles angles{cosines_, sines_};
  std::vector<Item> items;
  std::vector<int64_t> kept;
  const auto take = [&](const Segment& segment, int64_t from, int64_t until) {
    for (int64_t i = from; i < until; ++i) {
      if (i >= segment.count - segment.keep) kept.push_back(static_cast<int64_t>(items.size()));
      items.push_back({segment.row, cache_.length(segment.row) + i, segment.tokens[i]});
    }
  };
  const auto run = [&] {
    run_pass(decoder_, cache_, angles, items, kept, logits, *scratch_, threads, isa, timed_ ? &times_ : nullptr);
    if (logits) logits += static_cast<int64_t>(kept.size()) * decoder_.vocabulary;
    items.clear();
    kept.clear();
  };
  for (size_t at = 0; at < segments.size(); ++at) {
    const Segment& segment = segments[at];
    if (segment.count == 1) {
      take(segment, 0, 1);
      const bool full = static_cast<int64_t>(items.size()) == kFewRows;
      if (full || at + 1 == segments.size() || segments[at + 1].count != 1) run();
      continue;
    }
    const int64_t chunks = (segment.count + kChunk - 1) / kChunk;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      take(segment, segment.count * chunk / chunks, segment.count * (chunk + 1) / chunks);
      run();
    }
  }
  for (const Segment& segment : segments) cache_.resize(segment.row, cache_.length(segment.row) + segment.count);
}

void State::greedy(const std::vector<int64_t>& rows, const std::vector<int64_t>& tokens, int64_t steps, int64_t* out,
                   int threads, Isa isa) {
  std::lock_guard<std::mutex> turn(mutex_);
  const Ops& ops = ops_for(isa);
  std::vector<int64_t> next = tokens;
  std::vector<Segment> segments;
  for (size_t at = 0; at < rows.size(); ++at) segments.push_back({rows[at], next.data() + at, 1, 1});
  check_segments(segments);
  for (const int64_t row : rows) {
    if (steps > capacity() - cache_.length(row)) {
      throw std::invalid_argument("row " + std::to_string(row) + " has no room for " + std::to_string(steps) + " tokens");
    }
  }
  float* logits = scratch_->logits.floats(static_cast<int64_t>(rows.size()) * decoder_.vocabulary);
  for (int64_t step = 0; step < steps; ++step) {
    forward_locked(segments, logits, threads, isa);
    for (size_t at = 0; at < rows.size(); ++at) {
      next[at] = ops.likeliest(logits + static_cast<int64_t>(at) * decoder_.vocabulary, decoder_.vocabulary);
      if (next[at] < 0) throw NotFinite("the logits are not finite");
      out[static_cast<int64_t>(at) * steps + step] = next[at];
    }
  }
}

void State::set_timed(bool timed) {
  std::lock_guard<std::mutex> turn(mutex_);
  if (timed) times_ = Times();
  timed_ = timed;
}

bool State::timed() {
  std::lock_guard<std::mutex> turn(mutex_);
  return timed_;
}

Times State::times() {
  std::lock_guard<std::mutex> turn(mutex_);
  return times_;
}

std::vector<int64_t> State::lengths() {
  std::lock_guard<std::mutex> turn(mutex_);
  std::vector<int64_t> lengths;
  for (int64_t row = 0; row < rows(); ++row) lengths.push_back(cache_.length(row));
  return lengths;
}

void State::truncate(int64_t row, int64_t length) {
  std::lock_guard<std::mutex> turn(mutex_);
  check_row(row);
  if (length < 0 || length > cache_.length(row)) {
    throw std::invalid_argument("row " + std::to_string(row) + " has " + std::to_string(cache_.length(row)) +
                                " tokens: it cannot be cut to " + std::to_string(length));
  }
  cache_.resize(row, length);
}

void State::copy(int64_t from, int64_t to) {
  std::lock_guard<std::mutex> turn(mutex_);
  check_row(from);
  check_row(to);
  cache_.copy(from, to);
}

size_t State::bytes() {
  std::lock_guard<std::mutex> turn(mutex_);
  return cache_.bytes();
}

}  // namespace sparsebench
