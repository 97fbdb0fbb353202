#define SPARSEBENCH_OPS ops_avx2
#include "ops.inc"
