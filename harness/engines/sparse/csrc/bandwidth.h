// How fast this machine reads memory, as a yardstick for the kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsebench {

uint64_t sum_lines_avx512(const uint8_t* data, size_t bytes);

// Reads all bytes once with `threads` threads; returns 1e9 bytes per second.
double read_bandwidth(const uint8_t* data, size_t bytes, int threads);

}  // namespace sparsebench
