// What the processor and the operating system offer.
#pragma once

namespace sparsebench {

struct Cpu {
  bool avx2 = false;         // with FMA
  bool avx512 = false;       // F, BW, DQ, VL, VBMI2, VNNI
  bool amx = false;          // tiles of int8 and bf16, and the permission to use them
};

const Cpu& cpu();

}  // namespace sparsebench
