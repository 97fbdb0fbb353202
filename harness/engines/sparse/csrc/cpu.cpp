#include "cpu.h"

#include <cstdint>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SPARSEBENCH_CPUID 1
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sparsebench {
namespace {

#ifdef SPARSEBENCH_CPUID
struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  Leaf(unsigned leaf, unsigned subleaf) {
    if (!__get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx)) eax = ebx = ecx = edx = 0;
  }
};

bool bit(unsigned word, int index) { return word >> index & 1; }

// Registers that the operating system saves; asked for by its opcode, since the intrinsic wants a compiler flag.
uint64_t saved_state() {
  uint32_t low, high;
  __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// The registers of AMX are large, so Linux gives them only to processes that ask.
bool amx_permitted() {
#if defined(SPARSEBENCH_AMX_EMULATION)
  return true;
#elif defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool amx_present(unsigned features, uint64_t state) {
#if defined(SPARSEBENCH_AMX_EMULATION)
  return features != 0 && state != 0;
#else
  return bit(features, 22) && bit(features, 24) && bit(features, 25) && (state >> 17 & 3) == 3;
#endif
}

bool made_by_amd() {
  const Leaf vendor(0, 0);
  return vendor.ebx == 0x68747541 && vendor.edx == 0x69746e65 && vendor.ecx == 0x444d4163;  // "Auth" "enti" "cAMD"
}

Cpu detect() {
  Cpu found;
  found.follows_streams = made_by_amd();
  const Leaf basic(1, 0), extended(7, 0);
  if (!bit(basic.ecx, 27)) return found;  // OSXSAVE
  const uint64_t state = saved_state();
  const bool ymm = (state & 0x6) == 0x6;
  const bool zmm = (state & 0xe6) == 0xe6;
  const bool fma = bit(basic.ecx, 12), popcnt = bit(basic.ecx, 23);
  found.avx2 = ymm && fma && popcnt && bit(extended.ebx, 5);
  found.avx512 = found.avx2 && zmm && bit(extended.ebx, 16) && bit(extended.ebx, 17) && bit(extended.ebx, 30) &&
                 bit(extended.ebx, 31) && bit(extended.ecx, 6) && bit(extended.ecx, 11);
  found.avx512_bf16 = found.avx512 && bit(Leaf(7, 1).eax, 5);
  found.amx = found.avx512 && amx_present(extended.edx, state) && amx_permitted();
  return found;
}
#else
Cpu detect() { return Cpu(); }
#endif

}  // namespace

const Cpu& cpu() {
  static const Cpu found = detect();
  return found;
}

}  // namespace sparsebench
