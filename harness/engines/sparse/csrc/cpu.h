// What the processor and the operating system offer.
#pragma once

namespace sparsebench {

struct Cpu {
  bool avx2 = false;         // with FMA
  bool avx512 = false;       // F, BW, DQ, VL, VBMI2, VNNI
};

const Cpu& cpu();

}  // namespace sparsebench
