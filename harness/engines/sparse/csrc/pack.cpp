#include "pack.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "layout.h"
#include "threads.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace sparsebench {

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr int64_t kTilesPerPart = 8;

// Half a huge page or more is rounded up to whole ones: a part of one would get small pages.
size_t alignment(size_t size) { return size >= kHugePage / 2 ? kHugePage : 64; }
size_t whole(size_t size) { return (size + alignment(size) - 1) / alignment(size) * alignment(size); }
}  // namespace

Buffer::Buffer(size_t size) : size_(size) {
  const size_t unit = alignment(size);
  void* data = std::aligned_alloc(unit, whole(size));
  if (!data) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (unit == kHugePage) madvise(data, whole(size), MADV_HUGEPAGE);  // a hint: without huge pages it is only slower
#endif
  data_.reset(static_cast<uint8_t*>(data));
}

void Buffer::Free::operator()(uint8_t* data) const { std::free(data); }

namespace {

template <Value>
struct Kind;
template <>
struct Kind<Value::f32> {
  using Element = uint32_t;  // as bits: a NaN comes back as it was
  static constexpr uint32_t kSign = 0x80000000;
  static float widen(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
};
template <>
struct Kind<Value::bf16> {
  using Element = uint16_t;
  static constexpr uint16_t kSign = 0x8000;
  static float widen(uint16_t bits) { return from_bf16(bits); }
};
template <>
struct Kind<Value::i8> {
  using Element = int8_t;
  static constexpr int8_t kSign = 0;
};
template <>
struct Kind<Value::i4> {
  using Element = int8_t;
  static constexpr int8_t kSign = 0;
};

// A negative zero is a zero: pruning by multiplication with a mask leaves them behind.
template <Value V>
bool is_zero(typename Kind<V>::Element value) {
  return (value & ~Kind<V>::kSign) == 0;
}

bool all_bf16(const float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (float_bits(values[i]) & 0xffff) return false;
  return true;
}

// Writes one tile after another. Rows and their masks are first copied into a block with the padding of a tile, so that
// the loop over weights has no bounds to mind.
template <Value V>
class TileWriter {
  using Element = typename Kind<V>::Element;
  static constexpr int64_t kLane = inputs_per_lane(V);

 public:
  TileWriter(const Plain& plain, const Matrix& matrix)
      : plain_(plain),
        matrix_(matrix),
        layout_(matrix),
        columns_(layout_.steps * kLane),
        block_(static_cast<size_t>(kTile * columns_)),
        keep_(plain.mask ? static_cast<size_t>(kTile * columns_) : 0),
        tile_(static_cast<size_t>(layout_.head + layout_.steps * kStepBytes)) {}

  void append(int64_t tile, std::vector<uint8_t>& out) {
    read_rows(tile);
    std::fill(tile_.begin(), tile_.end(), uint8_t{0});
    write_scales(tile);
    filled_[0] = filled_[1] = 0;
    for (int64_t step = 0; step < layout_.steps; ++step) write_step(step);
    const int64_t size = layout_.head + round_up(std::max(filled_[0], filled_[1]), 64);
    out.insert(out.end(), tile_.begin(), tile_.begin() + size);
  }

 private:
  void read_rows(int64_t tile) {
    const auto* weight = static_cast<const Element*>(plain_.weight);
    const int64_t rows = std::min(kTile, plain_.outputs - tile * kTile);
    std::fill(block_.begin(), block_.end(), Element{0});
    std::fill(keep_.begin(), keep_.end(), uint8_t{0});
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t from = (tile * kTile + row) * plain_.inputs;
      std::memcpy(&block_[static_cast<size_t>(row * columns_)], weight + from,
                  static_cast<size_t>(plain_.inputs) * sizeof(Element));
      if (plain_.mask)
        std::memcpy(&keep_[static_cast<size_t>(row * columns_)], plain_.mask + from,
                    static_cast<size_t>(plain_.inputs));
    }
    if (V == Value::i4)
      for (const Element value : block_)
        if (static_cast<int>(value) < -kOffset4 || static_cast<int>(value) >= kOffset4)
          throw std::invalid_argument("int4 weights must lie between -8 and 7");
  }

  void write_scales(int64_t tile) {
    if (V != Value::i4) return;
    const int64_t rows = std::min(kTile, plain_.outputs - tile * kTile);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t group = 0; group < layout_.groups; ++group) {
        const uint32_t bits = float_bits(plain_.scales[(tile * kTile + row) * layout_.groups + group]);
        uint8_t* to = &tile_[static_cast<size_t>(group * layout_.group_head)];
        const uint16_t high = static_cast<uint16_t>(bits >> 16);
        if (matrix_.wide_scales)
          std::memcpy(to + row * 4, &bits, sizeof bits);
        else
          std::memcpy(to + row * 2, &high, sizeof high);
      }
  }

  void write_step(int64_t step) {
    Element survivors[kTile * kLane + 1];
    uint64_t mask = 0;
    int64_t count = 0;
    for (int64_t row = 0; row < kTile; ++row) {
      const int64_t at = row * columns_ + step * kLane;
      for (int64_t i = 0; i < kLane; ++i) {
        const Element value = block_[static_cast<size_t>(at + i)];
        const bool marked = plain_.mask && keep_[static_cast<size_t>(at + i)];
        const bool zero = is_zero<V>(value);
        if (plain_.mask && !zero && !marked) throw std::invalid_argument("a weight outside the mask is not zero");
        const bool kept = !matrix_.sparse || (plain_.mask ? marked : !zero);
        survivors[count] = value;
        count += kept;
        mask |= static_cast<uint64_t>(kept) << (row * kLane + i);
      }
    }
    if (matrix_.sparse) {
      uint8_t* to = tile_.data() + (layout_.mask_at(tile_.data(), step) - tile_.data());
      for (int64_t i = 0; i < layout_.mask; ++i) to[i] = static_cast<uint8_t>(mask >> (8 * i));
    }
    write_values(step, survivors, count);
  }

  void write_values(int64_t step, const Element* survivors, int64_t count) {
    int64_t& filled = filled_[V == Value::i4 ? step % 2 : 0];
    uint8_t* to = tile_.data() + layout_.head + filled;
    if constexpr (V == Value::i4) {
      for (int64_t i = 0; i < count; ++i)
        to[i] = static_cast<uint8_t>(to[i] | (survivors[i] + kOffset4) << (step % 2 ? 4 : 0));
      filled += count;
    } else if constexpr (V == Value::i8) {
      for (int64_t i = 0; i < count; ++i) to[i] = static_cast<uint8_t>(survivors[i] + kOffset8);
      filled += count;
    } else {
      std::memcpy(to, survivors, static_cast<size_t>(count) * sizeof(Element));
      filled += count * static_cast<int64_t>(sizeof(Element));
    }
  }

  const Plain& plain_;
  const Matrix& matrix_;
  const Layout layout_;
  const int64_t columns_;
  std::vector<Element> block_;
  std::vector<uint8_t> keep_;
  std::vector<uint8_t> tile_;
  int64_t filled_[2] = {0, 0};
};

template <Value V>
std::vector<std::vector<uint8_t>> write_tiles(const Plain& plain, const Matrix& matrix, std::vector<uint64_t>& sizes,
                                              int threads) {
  const int64_t tiles = matrix.tiles();
  const int64_t parts = (tiles + kTilesPerPart - 1) / kTilesPerPart;
  std::vector<std::vector<uint8_t>> chunks(static_cast<size_t>(parts));
  run_parts(threads, parts, [&](int64_t part) {
    TileWriter<V> writer(plain, matrix);
    std::vector<uint8_t>& chunk = chunks[static_cast<size_t>(part)];
    for (int64_t tile = part * kTilesPerPart; tile < std::min(tiles, (part + 1) * kTilesPerPart); ++tile) {
      const size_t before = chunk.size();
      writer.append(tile, chunk);
      sizes[static_cast<size_t>(tile)] = chunk.size() - before;
    }
  });
  return chunks;
}

std::vector<std::vector<uint8_t>> write_tiles(const Plain& plain, const Matrix& matrix, std::vector<uint64_t>& sizes,
                                              int threads) {
  switch (plain.value) {
    case Value::f32: return write_tiles<Value::f32>(plain, matrix, sizes, threads);
    case Value::bf16: return write_tiles<Value::bf16>(plain, matrix, sizes, threads);
    case Value::i8: return write_tiles<Value::i8>(plain, matrix, sizes, threads);
    case Value::i4: return write_tiles<Value::i4>(plain, matrix, sizes, threads);
  }
  throw std::invalid_argument("unknown kind of values");
}

}  // namespace

Packed pack(const Plain& plain, bool sparse, int threads) {
  Packed packed;
  Matrix& m = packed.matrix;
  m.value = plain.value;
  m.sparse = sparse;
  m.outputs = plain.outputs;
  m.inputs = plain.inputs;
  m.group = plain.group;
  m.input_scale = plain.input_scale;
  m.wide_scales = m.value == Value::i4 && !all_bf16(plain.scales, plain.outputs * (plain.inputs / plain.group));
  if (m.value == Value::i8) {
    packed.scales.assign(static_cast<size_t>(m.tiles() * kTile), 0.0f);
    std::copy(plain.scales, plain.scales + plain.outputs, packed.scales.begin());
    m.scales = packed.scales.data();
  }

  std::vector<uint64_t> sizes(static_cast<size_t>(m.tiles()));
  std::vector<std::vector<uint8_t>> chunks = write_tiles(plain, m, sizes, threads);
  packed.offsets.assign(sizes.size() + 1, 0);
  for (size_t tile = 0; tile < sizes.size(); ++tile) packed.offsets[tile + 1] = packed.offsets[tile] + sizes[tile];
  m.offsets = packed.offsets.data();
  m.bytes = packed.offsets.back();

  packed.data = std::make_unique<Buffer>(m.bytes + kSlack);
  m.data = packed.data->data();
  run_parts(threads, static_cast<int64_t>(chunks.size()), [&](int64_t part) {
    std::vector<uint8_t>& chunk = chunks[static_cast<size_t>(part)];
    const uint64_t at = packed.offsets[static_cast<size_t>(part * kTilesPerPart)];
    std::copy(chunk.begin(), chunk.end(), packed.data->data() + at);
    chunk = {};
  });
  std::fill_n(packed.data->data() + m.bytes, kSlack, uint8_t{0});
  return packed;
}

namespace {

template <Value V>
void unpack_tile(const Matrix& m, const Layout& layout, int64_t tile, float* weight) {
  constexpr int64_t kLane = inputs_per_lane(V);
  const uint8_t* base = m.data + m.offsets[tile];
  const uint8_t* values = base + layout.head;
  const int64_t rows = std::min(kTile, m.outputs - tile * kTile);
  int64_t taken[2] = {0, 0};
  for (int64_t step = 0; step < layout.steps; ++step) {
    const uint64_t mask = m.sparse ? load_mask(layout.mask_at(base, step), layout.mask) : ~uint64_t{0};
    int64_t& next = taken[V == Value::i4 ? step % 2 : 0];
    for (int64_t row = 0; row < kTile; ++row)
      for (int64_t i = 0; i < kLane; ++i) {
        const bool kept = mask >> (row * kLane + i) & 1;
        const int64_t column = step * kLane + i;
        float value = 0.0f;
        if (kept) {
          if constexpr (V == Value::i4) {
            const int byte = values[next] >> (step % 2 ? 4 : 0) & 15;
            value = static_cast<float>(byte - kOffset4) * layout.scale_at(base, step / layout.group_steps, row);
          } else if constexpr (V == Value::i8) {
            value = static_cast<float>(values[next] - kOffset8) * m.scales[tile * kTile + row];
          } else {
            using Element = typename Kind<V>::Element;
            value = Kind<V>::widen(load<Element>(values + next * int64_t{sizeof(Element)}));
          }
          ++next;
        }
        if (row < rows && column < m.inputs) weight[(tile * kTile + row) * m.inputs + column] = value;
      }
  }
}

}  // namespace

void unpack(const Matrix& m, float* weight, int threads) {
  const Layout layout(m);
  run_parts(threads, m.tiles(), [&](int64_t tile) {
    switch (m.value) {
      case Value::f32: return unpack_tile<Value::f32>(m, layout, tile, weight);
      case Value::bf16: return unpack_tile<Value::bf16>(m, layout, tile, weight);
      case Value::i8: return unpack_tile<Value::i8>(m, layout, tile, weight);
      case Value::i4: return unpack_tile<Value::i4>(m, layout, tile, weight);
    }
  });
}

double density(const Matrix& m) {
  if (!m.sparse) return 1.0;
  const Layout layout(m);
  int64_t kept = 0;
  for (int64_t tile = 0; tile < m.tiles(); ++tile)
    for (int64_t step = 0; step < layout.steps; ++step)
      kept += population(load_mask(layout.mask_at(m.data + m.offsets[tile], step), layout.mask));
  return static_cast<double>(kept) / (static_cast<double>(m.outputs) * static_cast<double>(m.inputs));
}

}  // namespace sparsebench
