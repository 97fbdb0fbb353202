#include "bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "kernels.h"
#include "threads.h"

namespace sparsebench {
namespace {

uint64_t sum_lines(const uint8_t* data, size_t bytes) {
#ifdef SPARSEBENCH_X86
  if (supports(Isa::avx512)) return sum_lines_avx512(data, bytes);
#endif
  uint64_t sums[8] = {};
  for (size_t at = 0; at + 64 <= bytes; at += 64) {
    uint64_t line[8];
    std::memcpy(line, data + at, sizeof line);
    for (int i = 0; i < 8; ++i) sums[i] += line[i];
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

}  // namespace

double read_bandwidth(const uint8_t* data, size_t bytes, int threads) {
  std::atomic<uint64_t> total{0};
  const size_t part = (bytes / static_cast<size_t>(threads) + 63) / 64 * 64;
  const auto start = std::chrono::steady_clock::now();
  run_parts(threads, threads, [&](int64_t index) {
    const size_t from = std::min(bytes, part * static_cast<size_t>(index));
    total += sum_lines(data + from, std::min(part, bytes - from));
  });
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  // The sum must be used, or there would be nothing to read for.
  return static_cast<double>(bytes) / seconds.count() / 1e9 + (total.load() == 1 ? 1e-9 : 0.0);
}

}  // namespace sparsebench
