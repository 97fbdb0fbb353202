// What Python's Matrix holds, for other bindings that take one.
#pragma once

#include <nanobind/nanobind.h>

#include "kernels.h"
#include "pack.h"

namespace sparsebench {

struct PackedMatrix {
  Matrix view;
  Packed packed;             // what pack() made; empty over a caller's arrays
  nanobind::object owners;   // the caller's arrays
  double kept = 1.0;
};

}  // namespace sparsebench
