// How fast this machine reads memory, as a yardstick for the kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsebench {

// Reads all bytes once with `threads` threads; returns 1e9 bytes per second.
double read_bandwidth(const uint8_t* data, size_t bytes, int threads);

}  // namespace sparsebench
