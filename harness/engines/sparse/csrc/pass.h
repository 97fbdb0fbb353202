// One pass of a decoder over some tokens: every layer once, by all threads of one section.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "decoder.h"
#include "pack.h"

namespace sparsebench {

// A token of the pass. Those of one row follow each other.
struct Item {
  int64_t row = 0;
  int64_t position = 0;
  int64_t token = 0;
};

// Memory that only grows; what was in it is lost when it grows.
class Room {
 public:
  uint8_t* bytes(size_t wanted);
  float* floats(int64_t wanted) {
    return reinterpret_cast<float*>(bytes(static_cast<size_t>(wanted) * sizeof(float)));
  }

 private:
  std::unique_ptr<Buffer> memory_;
};

// Working memory of a state, kept from pass to pass.
struct Scratch {
  struct Rows {
    Room x, normed, prepared;
  };
  Rows shared;                     // many rows: one copy, rows are split over threads
  std::vector<Rows> own;           // few rows: every thread computes norms for itself, which saves a meeting
  std::vector<Room> scores;
  Room qkv, mixed, gate, up, delta, carried, logits;
  std::map<int64_t, size_t> prepared_bytes;  // by number of rows
};

// Angles of each rotary for every position: (positions, size).
struct Angles {
  const std::vector<std::vector<float>>& cosines;
  const std::vector<std::vector<float>>& sines;
};

// Writes keys and values of `items` to the cache (which has room) and the logits of `kept`, indexes of items in rising
// order, to `logits`, one row of `vocabulary` floats after the other. Adds to `times` unless it is null.
void run_pass(const Decoder& decoder, const KvCache& cache, const Angles& angles, const std::vector<Item>& items,
              const std::vector<int64_t>& kept, float* logits, Scratch& scratch, int threads, Isa isa,
              Times* times);

}  // namespace sparsebench
