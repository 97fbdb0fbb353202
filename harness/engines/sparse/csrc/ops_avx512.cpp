#define SPARSEBENCH_OPS ops_avx512
#define SPARSEBENCH_WIDTH 16
#include "ops.inc"
