#define SPARSEBENCH_OPS ops_avx512
#include "ops.inc"
