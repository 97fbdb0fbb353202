// Choices drawn from a fuzzer's input, and arrays whose ends the address sanitizer knows to the byte.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

class Source {
 public:
  Source(const uint8_t* bytes, size_t size) : bytes_(bytes), size_(size) {}

  // In [0, below); 0 when the input has ended.
  uint64_t number(uint64_t below) {
    uint32_t value = 0;
    take(&value, below <= 256 ? 1 : below <= 65536 ? 2 : 4);
    return value % below;
  }
  int64_t wide() {
    int64_t value = 0;
    take(&value, 8);
    return value;
  }
  // What is left of the input, again and again; zeros where nothing is left.
  void fill(void* to, size_t size) {
    auto* out = static_cast<uint8_t*>(to);
    const size_t length = size_ - at_;
    if (length == 0) {
      std::memset(out, 0, size);
      return;
    }
    for (size_t done = 0; done < size; done += length)
      std::memcpy(out + done, bytes_ + at_, std::min(length, size - done));
  }

 private:
  void take(void* to, size_t size) {
    size = std::min(size, size_ - at_);
    std::memcpy(to, bytes_ + at_, size);
    at_ += size;
  }
  const uint8_t* bytes_;
  size_t size_, at_ = 0;
};

template <class T>
class Exact {
 public:
  explicit Exact(size_t size) : size_(size), data_(static_cast<T*>(::operator new(size * sizeof(T), kAlign))) {
    std::memset(data_, 0, size * sizeof(T));
  }
  ~Exact() { ::operator delete(data_, kAlign); }
  Exact(const Exact&) = delete;
  Exact& operator=(const Exact&) = delete;
  T* data() { return data_; }
  size_t size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  size_t size_;
  T* data_;
};
