// What the processor and the operating system offer.
#pragma once

namespace sparsebench {

struct Cpu {
  bool avx2 = false;         // with FMA
  bool avx512 = false;       // F, BW, DQ, VL, VBMI2, VNNI
  bool avx512_bf16 = false;
  bool amx = false;          // tiles of int8 and bf16, and the permission to use them
  // Its own prefetcher keeps a plain stream of reads (dense tiles) at the memory's speed, and software that prefetches
  // it too gets in its way. Measured at 1 thread: on AMD's Zen 4 dense int8 reads at 75 % of the bandwidth with it and
  // at 100 % without; Intel's server cores gain by it.
  bool follows_streams = false;
};

const Cpu& cpu();

}  // namespace sparsebench
