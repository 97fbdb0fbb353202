// Keys and values of a batch of rows that have different lengths: pages of kPage tokens, taken as a row grows and given
// back to the others when it is dropped, so that nothing is copied and nothing is padded.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops.h"

namespace sparsebench {

struct CacheShape {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  bool bf16 = false;
};

class KvCache {
 public:
  KvCache(const CacheShape& shape, int64_t rows, int64_t capacity);
  const CacheShape& shape() const { return shape_; }
  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }
  int64_t capacity() const { return capacity_; }
  int64_t length(int64_t row) const { return rows_[row].length; }
  size_t bytes() const { return pages_.size() * page_bytes_; }  // of all pages, the free ones included

  // Makes room for `length` tokens in a row; its length stays.
  void reserve(int64_t row, int64_t length);
  // Sets a row's length (at most what was reserved); pages that it no longer needs are free for other rows.
  void resize(int64_t row, int64_t length);
  // Gives a row the tokens of another, in place of its own.
  void copy(int64_t from, int64_t to);
  uint8_t* const* pages(int64_t row) const { return rows_[row].pages.data(); }
  HeadPlace place(int64_t layer, int64_t kv_head) const;

 private:
  struct Release {
    void operator()(uint8_t* page) const;
  };
  struct Row {
    std::vector<uint8_t*> pages;
    int64_t length = 0;
  };
  CacheShape shape_;
  int64_t capacity_;
  size_t key_bytes_, head_bytes_, page_bytes_;
  std::vector<Row> rows_;
  std::vector<std::unique_ptr<uint8_t, Release>> pages_;
  std::vector<uint8_t*> free_;
};

}  // namespace sparsebench
