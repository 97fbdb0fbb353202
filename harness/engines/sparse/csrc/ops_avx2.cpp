#define SPARSEBENCH_OPS ops_avx2
#define SPARSEBENCH_WIDTH 8
#include "ops.inc"
