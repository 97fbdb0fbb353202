// The Python module: each part of it is bound where it is written.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_kernels(nb::module_& module);
void bind_decoder(nb::module_& module);

NB_MODULE(_kernels, module) {
  module.doc() = "Kernels on packed sparse and dense weights, and a decoder that runs on them.";
  bind_kernels(module);
  bind_decoder(module);
}
