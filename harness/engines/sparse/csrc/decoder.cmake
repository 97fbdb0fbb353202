# The native decoder. Its vector code is compiled once per instruction set and chosen when it runs.
target_sources(_kernels PRIVATE bind_decoder.cpp decoder.cpp pass.cpp pass_plan.cpp kv_cache.cpp ops_scalar.cpp)
# GCC notes that wide vectors are passed differently without AVX-512; ours never cross a call.
set(ops_options -Wno-psabi)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  target_sources(_kernels PRIVATE ops_avx2.cpp ops_avx512.cpp)
  set_source_files_properties(ops_avx2.cpp PROPERTIES COMPILE_OPTIONS "${ops_options};-mavx2;-mfma")
  set_source_files_properties(ops_avx512.cpp PROPERTIES COMPILE_OPTIONS
    "${ops_options};-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mfma;-mprefer-vector-width=512")
endif()
set_source_files_properties(ops_scalar.cpp PROPERTIES COMPILE_OPTIONS "${ops_options}")
