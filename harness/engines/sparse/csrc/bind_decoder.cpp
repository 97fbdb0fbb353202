// Python's view of the decoder. Everything is checked here; the GIL is released while tokens are computed.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "bind_matrix.h"
#include "decoder.h"
#include "layout.h"

namespace nb = nanobind;

namespace sparsebench {
namespace {

using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using HalfTable = nb::ndarray<const uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void fail(const std::string& what) { throw nb::value_error(what.c_str()); }

template <class T>
T cast_as(nb::handle value, const std::string& name, const char* wanted) {
  try {
    return nb::cast<T>(value);
  } catch (const nb::cast_error&) {
    throw nb::type_error((name + " must be " + wanted).c_str());
  }
}

nb::object item(const nb::dict& from, const char* key) {
  if (!from.contains(key)) fail(std::string("a layer has no ") + key);
  return from[key];
}

struct PyDecoder {
  Decoder decoder;
  std::deque<std::vector<float>> small;  // norms and biases, copied
  std::vector<nb::object> owners;        // matrices and the embedding, which are not

  const float* keep(nb::handle array, const std::string& name, int64_t size) {
    const Vector values = cast_as<Vector>(array, name, "a contiguous float32 vector");
    if (static_cast<int64_t>(values.shape(0)) != size) {
      fail(name + " has " + std::to_string(values.shape(0)) + " elements, not " + std::to_string(size));
    }
    small.emplace_back(values.data(), values.data() + size);
    return small.back().data();
  }

  float eps = 0.0f;                      // of norms that have none of their own

  // (weight, bias or None[, eps]); None is no norm.
  Norm norm(nb::handle value, const std::string& name) {
    if (value.is_none()) return {};
    const nb::tuple parts = cast_as<nb::tuple>(value, name, "a tuple (weight, bias[, eps]) or None");
    if (parts.size() != 2 && parts.size() != 3) fail(name + " must be (weight, bias[, eps]) or None");
    Norm norm;
    norm.eps = parts.size() == 3 ? cast_as<float>(parts[2], name + "'s eps", "a number") : eps;
    norm.size = static_cast<int64_t>(cast_as<Vector>(parts[0], name, "a contiguous float32 vector").shape(0));
    norm.weight = keep(parts[0], name, norm.size);
    if (!parts[1].is_none()) norm.bias = keep(parts[1], name + "'s bias", norm.size);
    return norm;
  }

  // (matrix, bias or None), or with the first output and the number of outputs that count: a matrix may be several.
  Linear linear(nb::handle value, const std::string& name) {
    const nb::tuple parts = cast_as<nb::tuple>(value, name, "a tuple (matrix, bias[, first, outputs])");
    if (parts.size() != 2 && parts.size() != 4) fail(name + " must be (matrix, bias) or (matrix, bias, first, outputs)");
    Linear linear;
    linear.matrix = cast_as<PackedMatrix&>(parts[0], name, "a tuple that begins with a Matrix").view;
    owners.push_back(parts[0]);
    const int64_t whole = linear.matrix.outputs;
    int64_t first = 0;
    if (parts.size() == 4) {
      first = cast_as<int64_t>(parts[2], name, "a tuple with integers");
      const int64_t outputs = cast_as<int64_t>(parts[3], name, "a tuple with integers");
      if (first < 0 || outputs < 1 || first > whole || outputs > whole - first || first % kTile != 0) {
        fail(name + ": its outputs do not begin at a multiple of 16 inside the matrix");
      }
      Matrix& matrix = linear.matrix;
      matrix.outputs = outputs;
      matrix.offsets += first / kTile;
      if (matrix.scales) matrix.scales += first;
    }
    if (!parts[1].is_none()) linear.bias = keep(parts[1], name + "'s bias", whole) + first;
    return linear;
  }

  Layer layer(const nb::dict& from) {
    Layer layer;
    for (const auto& [name, shortcut] : {std::pair{"attention_shortcut", &layer.attention_shortcut},
                                         std::pair{"mlp_shortcut", &layer.mlp_shortcut}}) {
      if (from.contains(name)) *shortcut = linear(from[name], name);
    }
    layer.query = linear(item(from, "query"), "query");
    layer.key = linear(item(from, "key"), "key");
    layer.value = linear(item(from, "value"), "value");
    layer.output = linear(item(from, "output"), "output");
    if (decoder.gated) layer.gate = linear(item(from, "gate"), "gate");
    layer.up = linear(item(from, "up"), "up");
    layer.down = linear(item(from, "down"), "down");
    layer.attention_norm = norm(item(from, "attention_norm"), "attention_norm");
    layer.attention_output_norm = norm(item(from, "attention_output_norm"), "attention_output_norm");
    layer.mlp_norm = norm(item(from, "mlp_norm"), "mlp_norm");
    layer.mlp_output_norm = norm(item(from, "mlp_output_norm"), "mlp_output_norm");
    layer.query_norm = norm(item(from, "query_norm"), "query_norm");
    layer.key_norm = norm(item(from, "key_norm"), "key_norm");
    layer.rotary = cast_as<int64_t>(item(from, "rotary"), "rotary", "an integer");
    layer.window = cast_as<int64_t>(item(from, "window"), "window", "an integer");
    return layer;
  }
};

Activation parse_activation(const std::string& name) {
  if (name == "silu") return Activation::silu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "gelu") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  fail("activation must be silu, gelu_tanh, gelu or relu, not " + name);
}

Isa parse_isa(const std::string& name) {
  if (name.empty()) return best_isa();
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx}) {
    if (name == isa_name(isa) && supports(isa)) return isa;
  }
  fail("isa must be one of isas(), not " + name);
}

PyDecoder* make_decoder(int64_t hidden, int64_t inner, int64_t heads, int64_t kv_heads, int64_t head_dim,
                        int64_t vocabulary, float eps, bool layer_norm, bool gated,
                        const std::string& activation, float attention_scale, float attention_cap, float logit_cap, float embedding_scale, nb::object embedding,
                        nb::object positions, nb::object slopes, nb::object final_norm, nb::object head,
                        const nb::list& rotaries, const nb::list& layers) {
  auto made = std::make_unique<PyDecoder>();
  Decoder& decoder = made->decoder;
  decoder.hidden = hidden;
  decoder.inner = inner;
  decoder.heads = heads;
  decoder.kv_heads = kv_heads;
  decoder.head_dim = head_dim;
  decoder.vocabulary = vocabulary;
  made->eps = eps;
  decoder.layer_norm = layer_norm;
  decoder.gated = gated;
  decoder.activation = parse_activation(activation);
  decoder.attention_scale = attention_scale;
  decoder.attention_cap = attention_cap;
  decoder.logit_cap = logit_cap;
  decoder.embedding_scale = embedding_scale;
  size_t shape[2];
  if (HalfTable half; nb::try_cast(embedding, half, false)) {
    decoder.embedding_bf16 = half.data();
    shape[0] = half.shape(0), shape[1] = half.shape(1);
  } else {
    const Table table = cast_as<Table>(embedding, "embedding", "a contiguous matrix, float32 or uint16 (bfloat16)");
    decoder.embedding = table.data();
    shape[0] = table.shape(0), shape[1] = table.shape(1);
  }
  // What a sliced model's first layer is given may be narrower than what a later one is.
  const int64_t first_width = static_cast<int64_t>(shape[1]);
  const bool sliced = nb::len(layers) > 0 && cast_as<nb::dict>(layers[0], "layers", "a list of dicts").contains("attention_shortcut");
  if (static_cast<int64_t>(shape[0]) != vocabulary || (sliced ? first_width > hidden : first_width != hidden)) {
    fail("embedding must be (vocabulary, hidden)");
  }
  decoder.embedding_width = first_width;
  for (nb::handle layer : layers) decoder.layers.push_back(made->layer(cast_as<nb::dict>(layer, "layers", "a list of dicts")));
  made->owners.push_back(embedding);
  if (!positions.is_none()) {
    const Table table = cast_as<Table>(positions, "positions", "a contiguous float32 matrix");
    if (static_cast<int64_t>(table.shape(1)) != first_width) fail("positions must be (count, hidden)");
    decoder.positions = table.data();
    decoder.position_count = static_cast<int64_t>(table.shape(0));
    made->owners.push_back(positions);
  }
  if (!slopes.is_none()) {
    const Vector values = cast_as<Vector>(slopes, "slopes", "a contiguous float32 vector");
    decoder.slopes.assign(values.data(), values.data() + values.shape(0));
  }
  decoder.final_norm = made->norm(final_norm, "final_norm");
  decoder.head = made->linear(head, "head");
  for (nb::handle rotary : rotaries) {
    const nb::tuple parts = cast_as<nb::tuple>(rotary, "rotaries", "a list of (frequencies, scale)");
    if (parts.size() != 2) fail("rotaries must be a list of (frequencies, scale)");
    const Vector values = cast_as<Vector>(parts[0], "frequencies", "a contiguous float32 vector");
    decoder.rotaries.push_back({{values.data(), values.data() + values.shape(0)}, cast_as<float>(parts[1], "scale", "a number")});
  }
  const std::string wrong = check(decoder);
  if (!wrong.empty()) fail(wrong);
  return made.release();
}

struct PyState {
  nb::object decoder;
  std::unique_ptr<State> state;
};

PyState* make_state(nb::object self, int64_t rows, int64_t capacity, bool bf16) {
  if (rows < 1 || rows > (1 << 20)) fail("rows must be between 1 and 2^20, not " + std::to_string(rows));
  if (capacity < 1 || capacity > (1 << 24)) fail("capacity must be between 1 and 2^24, not " + std::to_string(capacity));
  auto made = std::make_unique<PyState>();
  made->state = std::make_unique<State>(nb::cast<PyDecoder&>(self).decoder, rows, capacity, bf16);
  made->decoder = self;
  return made.release();
}

int parse_threads(int threads) {
  if (threads < 1 || threads > 4096) fail("threads must be between 1 and 4096, not " + std::to_string(threads));
  return threads;
}

template <class T>
nb::ndarray<nb::numpy, T> allocate(size_t rows, size_t columns) {
  auto memory = std::make_unique<T[]>(std::max<size_t>(1, rows * columns));
  nb::capsule owner(memory.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(memory.release(), {rows, columns}, owner);
}

nb::ndarray<nb::numpy, float> forward(PyState& self, const std::vector<int64_t>& rows,
                                      const std::vector<std::vector<int64_t>>& tokens, int64_t keep, int threads,
                                      const std::string& isa_text) {
  if (rows.size() != tokens.size()) fail("as many lists of tokens are needed as rows");
  if (keep < 0) fail("keep must not be negative");
  const Isa isa = parse_isa(isa_text);
  parse_threads(threads);
  std::vector<Segment> segments;
  size_t longest = 0;
  for (size_t at = 0; at < rows.size(); ++at) {
    segments.push_back({rows[at], tokens[at].data(), static_cast<int64_t>(tokens[at].size()), keep});
    longest = std::max(longest, tokens[at].size());
  }
  // Before memory is asked for: what is not there cannot be kept.
  if (static_cast<uint64_t>(keep) > longest) fail("logits of more tokens were asked for than were given");
  auto logits = allocate<float>(rows.size() * static_cast<size_t>(keep),
                                static_cast<size_t>(self.state->decoder().vocabulary));
  nb::gil_scoped_release release;
  self.state->forward(segments, logits.data(), threads, isa);
  return logits;
}

nb::ndarray<nb::numpy, int64_t> greedy(PyState& self, const std::vector<int64_t>& rows,
                                       const std::vector<int64_t>& tokens, int64_t steps, int threads,
                                       const std::string& isa_text) {
  if (rows.size() != tokens.size()) fail("as many tokens are needed as rows");
  if (steps < 1 || steps > self.state->capacity()) fail("steps must be between 1 and the state's capacity");
  const Isa isa = parse_isa(isa_text);
  parse_threads(threads);
  auto out = allocate<int64_t>(rows.size(), static_cast<size_t>(steps));
  nb::gil_scoped_release release;
  self.state->greedy(rows, tokens, steps, out.data(), threads, isa);
  return out;
}

}  // namespace
}  // namespace sparsebench

void bind_decoder(nb::module_& module) {
  using namespace sparsebench;
  nb::exception<NotFinite>(module, "NotFinite", PyExc_ArithmeticError);
  nb::class_<PyDecoder>(module, "Decoder", "A decoder-only transformer on packed matrices.")
      .def(nb::new_(&make_decoder), nb::kw_only(), nb::arg("hidden"), nb::arg("inner"), nb::arg("heads"),
           nb::arg("kv_heads"), nb::arg("head_dim"), nb::arg("vocabulary"), nb::arg("eps"),
           nb::arg("layer_norm") = false, nb::arg("gated") = true, nb::arg("activation"), nb::arg("attention_scale"), nb::arg("attention_cap") = 0.0f, nb::arg("logit_cap") = 0.0f,
           nb::arg("embedding_scale") = 1.0f, nb::arg("embedding"), nb::arg("positions") = nb::none(),
           nb::arg("slopes") = nb::none(), nb::arg("final_norm"), nb::arg("head"), nb::arg("rotaries"),
           nb::arg("layers"))
      .def("state", &make_state, nb::kw_only(), nb::arg("rows"), nb::arg("capacity"), nb::arg("bf16") = false);
  nb::class_<PyState>(module, "State", "Rows in progress: their keys and values.")
      .def("forward", &forward, nb::arg("rows"), nb::arg("tokens"), nb::kw_only(), nb::arg("keep") = 1,
           nb::arg("threads") = 1, nb::arg("isa") = "")
      .def("greedy", &greedy, nb::arg("rows"), nb::arg("tokens"), nb::kw_only(), nb::arg("steps"),
           nb::arg("threads") = 1, nb::arg("isa") = "")
      .def("truncate",
           [](PyState& self, int64_t row, int64_t length) {
             nb::gil_scoped_release release;
             self.state->truncate(row, length);
           },
           nb::arg("row"), nb::arg("length"), "Forgets the newest tokens of a row.")
      .def("drop",
           [](PyState& self, int64_t row) {
             nb::gil_scoped_release release;
             self.state->truncate(row, 0);
           },
           nb::arg("row"), "Empties a row; its memory goes to the others.")
      .def("copy",
           [](PyState& self, int64_t source, int64_t target) {
             nb::gil_scoped_release release;
             self.state->copy(source, target);
           },
           nb::arg("source"), nb::arg("target"), "Gives a row the tokens of another, in place of its own.")
      .def_prop_rw("timed",
                   [](PyState& self) {
                     nb::gil_scoped_release release;
                     return self.state->timed();
                   },
                   [](PyState& self, bool timed) {
                     nb::gil_scoped_release release;
                     self.state->set_timed(timed);
                   },
                   "Whether passes are timed; setting it to True starts at 0.")
      .def_prop_ro("seconds",
                   [](PyState& self) {
                     Times times;
                     {
                       nb::gil_scoped_release release;
                       times = self.state->times();
                     }
                     nb::dict seconds;
                     seconds["matrices"] = times.matrices;
                     seconds["attention"] = times.attention;
                     seconds["other"] = times.other;
                     seconds["waiting"] = times.waiting;
                     return seconds;
                   },
                   "Where the time of timed passes went, on the calling thread.")
      .def_prop_ro("lengths",
                   [](PyState& self) {
                     nb::gil_scoped_release release;
                     return self.state->lengths();
                   })
      .def_prop_ro("rows", [](const PyState& self) { return self.state->rows(); })
      .def_prop_ro("capacity", [](const PyState& self) { return self.state->capacity(); })
      .def_prop_ro("bytes", [](PyState& self) {
        nb::gil_scoped_release release;
        return self.state->bytes();
      });
}
