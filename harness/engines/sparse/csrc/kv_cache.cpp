#include "kv_cache.h"

#include <cstring>
#include <new>

namespace sparsebench {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void KvCache::Release::operator()(uint8_t* page) const { ::operator delete(page, kAlignment); }

KvCache::KvCache(const CacheShape& shape, int64_t rows, int64_t capacity)
    : shape_(shape), capacity_(capacity), rows_(static_cast<size_t>(rows)) {
  const size_t item = shape.bf16 ? sizeof(uint16_t) : sizeof(float);
  key_bytes_ = static_cast<size_t>(kPage * shape.head_dim) * item;
  head_bytes_ = key_bytes_ + static_cast<size_t>(kPage * round_to(shape.head_dim, kLanes)) * item;
  page_bytes_ = head_bytes_ * static_cast<size_t>(shape.layers * shape.kv_heads);
}

void KvCache::reserve(int64_t row, int64_t length) {
  Row& mine = rows_[row];
  const size_t wanted = static_cast<size_t>((length + kPage - 1) / kPage);
  mine.pages.reserve(wanted);
  while (mine.pages.size() < wanted) {
    if (free_.empty()) {
      pages_.reserve(pages_.size() + 1);
      free_.reserve(pages_.size() + 1);
      pages_.emplace_back(static_cast<uint8_t*>(::operator new(page_bytes_, kAlignment)));
      // Zeros, because what was there may be slow (denormal) or infinite as a float where a block is partly filled.
      std::memset(pages_.back().get(), 0, page_bytes_);
      free_.push_back(pages_.back().get());
    }
    mine.pages.push_back(free_.back());
    free_.pop_back();
  }
}

void KvCache::resize(int64_t row, int64_t length) {
  Row& mine = rows_[row];
  mine.length = length;
  const size_t wanted = static_cast<size_t>((length + kPage - 1) / kPage);
  while (mine.pages.size() > wanted) {
    free_.push_back(mine.pages.back());
    mine.pages.pop_back();
  }
}

void KvCache::copy(int64_t from, int64_t to) {
  if (from == to) return;
  const int64_t length = rows_[from].length;
  resize(to, 0);
  reserve(to, length);
  for (size_t page = 0; page < rows_[to].pages.size(); ++page) {
    std::memcpy(rows_[to].pages[page], rows_[from].pages[page], page_bytes_);
  }
  resize(to, length);
}

HeadPlace KvCache::place(int64_t layer, int64_t kv_head) const {
  const size_t keys = head_bytes_ * static_cast<size_t>(layer * shape_.kv_heads + kv_head);
  return {keys, keys + key_bytes_};
}

}  // namespace sparsebench
