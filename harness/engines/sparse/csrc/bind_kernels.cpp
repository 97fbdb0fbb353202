// Python's view of packed matrices: numpy arrays in and out, everything checked, the GIL released while C++ works.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <string>

#include "bandwidth.h"
#include "bind_matrix.h"
#include "layout.h"
#include "pack.h"
#include "threads.h"

namespace nb = nanobind;

namespace sparsebench {
namespace {

using Array = nb::ndarray<nb::ro>;

constexpr const char* kKinds[] = {"f32", "bf16", "i8", "i4"};
constexpr Isa kIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

[[noreturn]] void fail(const std::string& what) { throw nb::value_error(what.c_str()); }

Value parse_kind(const std::string& name) {
  for (size_t i = 0; i < 4; ++i)
    if (name == kKinds[i]) return static_cast<Value>(i);
  fail("kind must be f32, bf16, i8 or i4, not " + name);
}

Isa parse_isa(const std::string& name) {
  if (name.empty()) return best_isa();
  for (const Isa isa : kIsas)
    if (name == isa_name(isa)) {
      if (!supports(isa)) fail("this processor has no " + name);
      return isa;
    }
  fail("isa must be scalar, avx2, avx512, avx512_bf16 or amx, not " + name);
}

int parse_threads(int threads) {
  if (threads < 1 || threads > 4096) fail("threads must be between 1 and 4096, not " + std::to_string(threads));
  return threads;
}

std::string shape_text(const Array& array) {
  std::string text = "(";
  for (size_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
  return text + ")";
}

// `shape`: -1 is any size. Raises what is wrong with the array, by the name of the argument.
const void* checked(const Array& array, const char* name, nb::dlpack::dtype dtype, const char* dtype_name,
                    std::initializer_list<int64_t> shape) {
  if (array.device_type() != nb::device::cpu::value) fail(std::string(name) + " must be in CPU memory");
  if (array.dtype() != dtype) throw nb::type_error((std::string(name) + " must have dtype " + dtype_name).c_str());
  bool fits = array.ndim() == shape.size();
  size_t i = 0;
  std::string wanted;
  for (const int64_t size : shape) {
    fits = fits && (size < 0 || array.shape(i) == static_cast<size_t>(size));
    wanted += (i++ ? ", " : "") + (size < 0 ? std::string("any") : std::to_string(size));
  }
  if (!fits) fail(std::string(name) + " has shape " + shape_text(array) + " instead of (" + wanted + ")");
  int64_t stride = 1;
  for (size_t axis = array.ndim(); axis-- > 0;) {
    if (array.size() != 0 && array.shape(axis) > 1 && array.stride(axis) != stride)
      fail(std::string(name) + " must be contiguous (C order)");
    stride *= static_cast<int64_t>(array.shape(axis));
  }
  if (reinterpret_cast<uintptr_t>(array.data()) % (dtype.bits / 8) != 0) fail(std::string(name) + " must be aligned");
  return array.data();
}

template <class T>
const T* checked(const Array& array, const char* name, const char* dtype_name, std::initializer_list<int64_t> shape) {
  return static_cast<const T*>(checked(array, name, nb::dtype<T>(), dtype_name, shape));
}

// Numpy has no bfloat16, and a mask may be bool or uint8.
const uint8_t* checked_mask(const Array& mask, int64_t outputs, int64_t inputs) {
  if (mask.dtype() == nb::dtype<uint8_t>()) return checked<uint8_t>(mask, "mask", "bool", {outputs, inputs});
  return static_cast<const uint8_t*>(checked(mask, "mask", nb::dtype<bool>(), "bool", {outputs, inputs}));
}

template <class T>
nb::ndarray<nb::numpy, T> allocate(int64_t rows, int64_t columns) {
  T* data = new T[static_cast<size_t>(std::max<int64_t>(1, rows * columns))];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(data, {static_cast<size_t>(rows), static_cast<size_t>(columns)}, owner);
}

template <class T>
nb::object array_view(const T* data, size_t size, nb::handle owner) {
  return nb::cast(nb::ndarray<nb::numpy, const T>(data, {size}, owner));
}

struct AlignedFree {
  void operator()(void* p) const { std::free(p); }
};

PackedMatrix* pack_matrix(const Array& weight, const std::string& kind, bool sparse, const nb::object& scales,
                      int64_t group, float input_scale, const nb::object& mask, int threads) {
  Plain plain;
  plain.value = parse_kind(kind);
  if (weight.ndim() != 2 || weight.shape(0) == 0 || weight.shape(1) == 0)
    fail("weight must be a matrix (outputs, inputs), not of shape " + shape_text(weight));
  plain.outputs = static_cast<int64_t>(weight.shape(0));
  plain.inputs = static_cast<int64_t>(weight.shape(1));
  plain.input_scale = input_scale;
  plain.group = group;
  switch (plain.value) {
    case Value::f32: plain.weight = checked<float>(weight, "weight", "float32", {-1, -1}); break;
    case Value::bf16: plain.weight = checked<uint16_t>(weight, "weight", "uint16 (bfloat16 bits)", {-1, -1}); break;
    case Value::i8:
    case Value::i4: plain.weight = checked<int8_t>(weight, "weight", "int8", {-1, -1}); break;
  }
  if (plain.value == Value::i4) {
    if (group < 8 || group % 8 || plain.inputs % group)
      fail("group must be a multiple of 8 that divides the " + std::to_string(plain.inputs) + " inputs, not " +
           std::to_string(group));
  } else if (group != 0) {
    fail("only int4 has groups");
  }
  if (plain.value != Value::i8 && input_scale != 0.0f) fail("only int8 has a static input scale");
  if (!(input_scale >= 0.0f && input_scale <= 3.4e38f)) fail("input_scale must be finite and positive, or 0");
  if (plain.inputs > kMaxInputs || plain.outputs > kMaxOutputs) fail("weight is too large: at most 131071 inputs");
  Array scale_array, mask_array;
  if (plain.value == Value::i8 || plain.value == Value::i4) {
    if (scales.is_none()) fail("int8 and int4 need scales");
    scale_array = nb::cast<Array>(scales);
    plain.scales = plain.value == Value::i8
                       ? checked<float>(scale_array, "scales", "float32", {plain.outputs})
                       : checked<float>(scale_array, "scales", "float32", {plain.outputs, plain.inputs / group});
  } else if (!scales.is_none()) {
    fail("only int8 and int4 have scales");
  }
  if (!mask.is_none()) {
    if (!sparse) fail("a mask needs sparse=True");
    mask_array = nb::cast<Array>(mask);
    plain.mask = checked_mask(mask_array, plain.outputs, plain.inputs);
  }
  threads = parse_threads(threads);
  auto matrix = std::make_unique<PackedMatrix>();
  {
    nb::gil_scoped_release release;
    matrix->packed = pack(plain, sparse, threads);
    matrix->view = matrix->packed.matrix;
    matrix->kept = density(matrix->view);
  }
  return matrix.release();
}

PackedMatrix* view_matrix(const std::string& kind, bool sparse, int64_t outputs, int64_t inputs, int64_t group,
                      bool wide_scales, const Array& data, const Array& offsets, const nb::object& scales,
                      float input_scale) {
  auto result = std::make_unique<PackedMatrix>();
  Matrix& m = result->view;
  m.value = parse_kind(kind);
  m.sparse = sparse;
  m.outputs = outputs;
  m.inputs = inputs;
  m.group = group;
  m.wide_scales = wide_scales;
  m.input_scale = input_scale;
  if (outputs < 1 || outputs > kMaxOutputs) fail("outputs must be between 1 and 2^31");
  m.data = checked<uint8_t>(data, "data", "uint8", {-1});
  if (data.shape(0) < kSlack) fail("data are shorter than the 64 bytes that end them");
  m.bytes = data.shape(0) - kSlack;
  const bool is_signed = offsets.dtype() == nb::dtype<int64_t>();
  m.offsets = static_cast<const uint64_t*>(checked(offsets, "offsets",
                                                   is_signed ? nb::dtype<int64_t>() : nb::dtype<uint64_t>(),
                                                   "int64 or uint64", {m.tiles() + 1}));
  result->owners = nb::make_tuple(nb::cast(data), nb::cast(offsets), scales);
  if (m.value == Value::i8) {
    if (scales.is_none()) fail("int8 needs scales");
    const Array array = nb::cast<Array>(scales);
    m.scales = checked<float>(array, "scales", "float32", {m.tiles() * kTile});
  } else if (!scales.is_none()) {
    fail("only int8 has scales beside its data");
  }
  const char* wrong;
  {
    nb::gil_scoped_release release;
    wrong = check(m);
    if (!wrong) result->kept = density(m);
  }
  if (wrong) fail(std::string("the packed matrix is corrupt: ") + wrong);
  return result.release();
}

void multiply_into(const Matrix& m, const float* x, int64_t rows, const float* bias, float* y, int threads, Isa isa) {
  std::unique_ptr<void, AlignedFree> scratch(
      std::aligned_alloc(64, static_cast<size_t>(round_up(static_cast<int64_t>(activation_bytes(m, rows)), 64))));
  if (!scratch) throw std::bad_alloc();
  Activations* activations = start_prepare(m, rows, scratch.get(), isa);
  // Waking a thread for a few rows would cost more than preparing them.
  const int64_t shares = rows <= kFewRows ? 1 : threads;
  run_parts(threads, shares, [&](int64_t share) { prepare_part(m, x, m.inputs, *activations, share, shares, isa); });
  const int64_t tiles = m.tiles();
  const int64_t parts = std::min<int64_t>(threads, tiles);
  run_parts(threads, parts, [&](int64_t part) {
    const int64_t first = tiles * part / parts;
    const int64_t last = tiles * (part + 1) / parts;
    multiply(m, *activations, rows, first, last, y, m.outputs, isa);
    if (!bias) return;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t output = first * kTile; output < std::min(last * kTile, m.outputs); ++output)
        y[row * m.outputs + output] += bias[output];
  });
}

void refuse_overlap(const float* out, int64_t out_size, const float* in, int64_t in_size, const char* name) {
  if (out < in + in_size && in < out + out_size) fail(std::string("out and ") + name + " overlap");
}

nb::object multiply_matrix(const PackedMatrix& self, const Array& x, const nb::object& bias, const nb::object& out,
                           int threads, const std::string& isa_text) {
  const Matrix& m = self.view;
  const Isa isa = parse_isa(isa_text);
  threads = parse_threads(threads);
  const float* rows_in = checked<float>(x, "x", "float32", {-1, m.inputs});
  const int64_t rows = static_cast<int64_t>(x.shape(0));
  Array bias_array;
  const float* bias_data = nullptr;
  if (!bias.is_none()) {
    bias_array = nb::cast<Array>(bias);
    bias_data = checked<float>(bias_array, "bias", "float32", {m.outputs});
  }
  nb::object result = out;
  float* y;
  if (out.is_none()) {
    auto fresh = allocate<float>(rows, m.outputs);
    y = fresh.data();
    result = nb::cast(fresh);
  } else {
    nb::ndarray<> target;
    try {
      target = nb::cast<nb::ndarray<>>(out);
    } catch (const nb::cast_error&) {
      throw nb::type_error("out must be a writable float32 array");
    }
    y = const_cast<float*>(checked<float>(Array(target), "out", "float32", {rows, m.outputs}));
    refuse_overlap(y, rows * m.outputs, rows_in, rows * m.inputs, "x");
    if (bias_data) refuse_overlap(y, rows * m.outputs, bias_data, m.outputs, "bias");
  }
  if (rows > 0) {
    nb::gil_scoped_release release;
    multiply_into(m, rows_in, rows, bias_data, y, threads, isa);
  }
  return result;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Isa isa : kIsas)
    if (supports(isa)) names.emplace_back(isa_name(isa));
  return names;
}

}  // namespace
}  // namespace sparsebench

void bind_kernels(nb::module_& module) {
  using namespace sparsebench;
  nb::class_<PackedMatrix>(module, "Matrix", "A packed weight (outputs x inputs), sparse or dense.")
      .def_static("pack", &pack_matrix, nb::arg("weight"), nb::arg("kind"), nb::kw_only(), nb::arg("sparse"),
                  nb::arg("scales") = nb::none(), nb::arg("group") = 0, nb::arg("input_scale") = 0.0f,
                  nb::arg("mask") = nb::none(), nb::arg("threads") = 1)
      .def_static("view", &view_matrix, nb::arg("kind"), nb::arg("sparse"), nb::arg("outputs"), nb::arg("inputs"),
                  nb::arg("group"), nb::arg("wide_scales"), nb::arg("data"), nb::arg("offsets"),
                  nb::arg("scales") = nb::none(), nb::arg("input_scale") = 0.0f)
      .def_prop_ro("kind", [](const PackedMatrix& self) { return kKinds[static_cast<uint32_t>(self.view.value)]; })
      .def_prop_ro("sparse", [](const PackedMatrix& self) { return self.view.sparse; })
      .def_prop_ro("outputs", [](const PackedMatrix& self) { return self.view.outputs; })
      .def_prop_ro("inputs", [](const PackedMatrix& self) { return self.view.inputs; })
      .def_prop_ro("group", [](const PackedMatrix& self) { return self.view.group; })
      .def_prop_ro("wide_scales", [](const PackedMatrix& self) { return self.view.wide_scales; })
      .def_prop_ro("input_scale", [](const PackedMatrix& self) { return self.view.input_scale; })
      .def_prop_ro("density", [](const PackedMatrix& self) { return self.kept; })
      .def_prop_ro("nbytes", [](const PackedMatrix& self) { return self.view.bytes; })
      .def_prop_ro("data",
                   [](nb::handle self) {
                     const Matrix& m = nb::cast<const PackedMatrix&>(self).view;
                     return array_view(m.data, m.bytes + kSlack, self);
                   })
      .def_prop_ro("offsets",
                   [](nb::handle self) {
                     const Matrix& m = nb::cast<const PackedMatrix&>(self).view;
                     return array_view(reinterpret_cast<const int64_t*>(m.offsets),
                                       static_cast<size_t>(m.tiles() + 1), self);
                   })
      .def_prop_ro("scales",
                   [](nb::handle self) -> nb::object {
                     const Matrix& m = nb::cast<const PackedMatrix&>(self).view;
                     if (!m.scales) return nb::none();
                     return array_view(m.scales, static_cast<size_t>(m.tiles() * kTile), self);
                   })
      .def("unpack",
           [](const PackedMatrix& self, int threads) {
             auto weight = allocate<float>(self.view.outputs, self.view.inputs);
             parse_threads(threads);
             nb::gil_scoped_release release;
             unpack(self.view, weight.data(), threads);
             return weight;
           },
           nb::kw_only(), nb::arg("threads") = 1)
      .def("multiply", &multiply_matrix, nb::arg("x"), nb::arg("bias") = nb::none(), nb::arg("out") = nb::none(),
           nb::arg("threads") = 1, nb::arg("isa") = "");
  module.def("isas", &isas, "Instruction sets that this processor has, from the plainest to the best.");
  module.def("best_isa", [] { return isa_name(best_isa()); }, "What is used unless `isa` says otherwise.");
  module.def("read_bandwidth",
             [](const Array& buffer, int threads) {
               const auto* data = checked<uint8_t>(buffer, "buffer", "uint8", {-1});
               parse_threads(threads);
               nb::gil_scoped_release release;
               return read_bandwidth(data, buffer.shape(0), threads);
             },
             nb::arg("buffer"), nb::arg("threads") = 1, "Reads the buffer once: 1e9 bytes per second.");
}
