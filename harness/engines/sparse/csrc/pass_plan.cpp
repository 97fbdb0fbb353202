#include "pass_plan.h"

#include <algorithm>
#include <initializer_list>

namespace sparsebench {
namespace {

size_t prepared_bytes(std::initializer_list<const Linear*> linears, int64_t rows) {
  size_t bytes = 0;
  for (auto linear = linears.begin(); linear != linears.end(); ++linear) {
    const auto same = [&](const Linear* earlier) { return share_input(earlier->matrix, (*linear)->matrix); };
    if (std::none_of(linears.begin(), linear, same)) {
      bytes += static_cast<size_t>(round_to(static_cast<int64_t>(activation_bytes((*linear)->matrix, rows)), 64));
    }
  }
  return bytes;
}

size_t prepared_bytes(const Decoder& decoder, int64_t rows) {
  size_t most = prepared_bytes({&decoder.head}, rows);
  for (const Layer& layer : decoder.layers) {
    const Linear& gate = decoder.gated ? layer.gate : layer.up;
    most = std::max({most, prepared_bytes({&layer.query, &layer.key, &layer.value}, rows),
                     prepared_bytes({&layer.output}, rows), prepared_bytes({&gate, &layer.up}, rows),
                     prepared_bytes({&layer.down}, rows)});
    for (const Linear* shortcut : {&layer.attention_shortcut, &layer.mlp_shortcut}) {
      if (exists(*shortcut)) most = std::max(most, prepared_bytes({shortcut}, rows));
    }
  }
  return most;
}

std::vector<Block> blocks_of(const std::vector<Item>& items, const std::vector<int64_t>& chosen, int64_t longest) {
  std::vector<Block> blocks;
  for (size_t at = 0; at < chosen.size(); ++at) {
    const int64_t item = chosen[at];
    Block* open = blocks.empty() ? nullptr : &blocks.back();
    if (open && open->count < longest && open->item + open->count == item && items[open->item].row == items[item].row) {
      ++open->count;
    } else {
      blocks.push_back({item, 1, static_cast<int64_t>(at)});
    }
  }
  return blocks;
}

}  // namespace

void Pass::plan() {
  std::vector<int64_t> all(items.size());
  int64_t longest = 0;
  for (size_t at = 0; at < items.size(); ++at) {
    all[at] = static_cast<int64_t>(at);
    longest = std::max(longest, items[at].position + 1);
    if (at && items[at].row == items[at - 1].row) one_each = false;
  }
  const int64_t together = std::max<int64_t>(1, kQueries / group());
  blocks = blocks_of(items, all, together);
  kept_blocks = blocks_of(items, kept, together);
  score_stride = round_to(longest, kPage) + 2 * kPage;
}

void Pass::allocate(Scratch& scratch) {
  const int64_t rows = static_cast<int64_t>(items.size()), few = std::min(rows, kFewRows);
  const auto bytes = [&](int64_t count) {
    auto found = scratch.prepared_bytes.find(count);
    if (found == scratch.prepared_bytes.end()) {
      found = scratch.prepared_bytes.emplace(count, prepared_bytes(decoder, count)).first;
    }
    return found->second;
  };
  const int64_t results = static_cast<int64_t>(kept.size());
  const auto room_for = [&](Scratch::Rows& room, int64_t count, size_t prepared) {
    return Rows{room.x.floats(count * hidden_stride), room.normed.floats(count * hidden_stride),
                room.prepared.bytes(prepared)};
  };
  // The rows that are left after the last attention may be few although the pass began with many.
  if (rows > kFewRows) shared = room_for(scratch.shared, rows, std::max(bytes(rows), results ? bytes(results) : 0));
  scratch.own.resize(std::max(scratch.own.size(), static_cast<size_t>(threads)));
  scratch.scores.resize(scratch.own.size());
  const size_t few_bytes = std::max(rows <= kFewRows ? bytes(rows) : 0,
                                    results && results <= kFewRows ? bytes(results) : 0);
  for (int rank = 0; rank < threads; ++rank) {
    own.push_back(room_for(scratch.own[rank], few, few_bytes));
    scores.push_back(scratch.scores[rank].floats(kQueries * score_stride));
  }
  qkv = scratch.qkv.floats(rows * qkv_stride);
  mixed = scratch.mixed.floats(rows * mixed_stride);
  gate = scratch.gate.floats(rows * inner_stride);
  up = scratch.up.floats(rows * inner_stride);
  delta = scratch.delta.floats(rows * hidden_stride);
  const auto sliced = [](const Layer& layer) { return exists(layer.attention_shortcut) || exists(layer.mlp_shortcut); };
  if (std::any_of(decoder.layers.begin(), decoder.layers.end(), sliced)) {
    carried = scratch.carried.floats(rows * hidden_stride);
  }
}

uint8_t* Room::bytes(size_t wanted) {
  if (!memory_ || wanted > memory_->size()) {
    memory_.reset();
    memory_ = std::make_unique<Buffer>(std::max<size_t>(wanted, 64));
  }
  return memory_->data();
}

}  // namespace sparsebench
