#define SPARSEBENCH_OPS ops_scalar
#define SPARSEBENCH_WIDTH 4
#include "ops.inc"

namespace sparsebench {

#if defined(__x86_64__)
extern const Ops ops_avx2, ops_avx512;
#endif

const Ops& ops_for(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return ops_avx512;
  if (isa == Isa::avx2) return ops_avx2;
#endif
  (void)isa;
  return ops_scalar;
}

}  // namespace sparsebench
