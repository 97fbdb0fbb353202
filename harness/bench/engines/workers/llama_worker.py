"""llama.cpp through llama-cpp-python's low-level binding; executed by the Python of its own environment.

The model file is written here: random weights, float16, then llama.cpp's own quantizer.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
from serving import (
    Array,
    embedding_weight,
    head_weight,
    layer_weights,
    linear_parameters,
    random_tokens,
    serve,
    versions_of,
)

_ROOM = 32
_BLOCK = 32
_BLOCK_BYTES = {"q8_0": 34, "q4_0": 18}
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_half(path: Path, shape: dict[str, Any]) -> None:
    """The float16 GGUF file of a shape."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(shape["hidden"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["intermediate"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_layer_norm_rms_eps(shape["eps"])
    writer.add_rope_dimension_count(shape["hidden"] // shape["heads"])
    writer.add_vocab_size(shape["vocab"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(1)
    norm = np.ones(shape["hidden"], np.float32)
    writer.add_tensor("token_embd.weight", embedding_weight(shape).astype(np.float16))
    writer.add_tensor("output.weight", head_weight(shape).astype(np.float16))
    writer.add_tensor("output_norm.weight", norm)
    layer = {name: weight.astype(np.float16) for name, weight in layer_weights(shape, 0.0)}
    for index in range(shape["layers"]):
        for name, weight in layer.items():
            writer.add_tensor(f"blk.{index}.{_NAMES[name]}.weight", weight)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{index}.{name}.weight", norm)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def model_file(folder: Path, shape: dict[str, Any], kind: str, threads: int) -> Path:
    """The quantized file, made if it is not there."""
    import llama_cpp

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{shape['name']}-{kind}.gguf"
    if target.exists():
        return target
    half, part = folder / f"{shape['name']}-f16.gguf", target.with_suffix(".part")
    if not half.exists():
        unfinished = half.with_suffix(".part")
        write_half(unfinished, shape)
        unfinished.rename(half)
    params = llama_cpp.llama_model_quantize_default_params()
    types = {"q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
    _set(params, "ftype", types[kind])
    _set(params, "nthread", threads)
    # Every matrix in the format of the name: by default Q4_0 keeps the head in Q6_K, which reads more and is slower.
    _set(params, "pure", True)
    if llama_cpp.llama_model_quantize(str(half).encode(), str(part).encode(), ctypes.byref(params)):
        raise RuntimeError("llama_model_quantize failed")
    part.rename(target)
    return target


def _set(params: Any, name: str, value: Any) -> None:
    """Set a field of a ctypes structure, which would take any name without a word."""
    if name not in {field[0] for field in params._fields_}:
        raise AttributeError(f"llama.cpp's parameters have no {name}")
    setattr(params, name, value)


class LlamaEngine:
    """llama_decode on batches of our own making."""

    def __init__(self, path: Path, shape: dict[str, Any], threads: int, size: int) -> None:
        """Load the model into memory of its own, not mapped, so that its own repacking and huge pages can apply."""
        import llama_cpp

        self._api, self._shape, self._threads = llama_cpp, shape, threads
        self.bytes: int | None = size
        features = llama_cpp.llama_print_system_info().decode()
        self.notes = ["built from source with GGML_NATIVE", "head quantized too", "not memory-mapped"]
        self.notes += [] if "AMX_INT8 = 1" in features else ["without AMX, which it would use"]
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        _set(params, "load_mode", llama_cpp.LLAMA_LOAD_MODE_NONE)
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {path.name}")
        self._context: Any = None
        self._workload, self._rows, self._length, self._position = "", 1, 0, 0

    def prepare(self, workload: str, batch: int, context: int) -> None:
        """A context for `batch` sequences; for decoding, read `context` random tokens of each."""
        api = self._api
        if self._context is not None:
            api.llama_free(self._context)
        params = api.llama_context_default_params()
        _set(params, "n_ctx", (context + _ROOM) * batch)
        _set(params, "n_seq_max", batch)
        for name in ("n_batch", "n_ubatch"):
            _set(params, name, max(context, batch))
        for name in ("n_threads", "n_threads_batch"):
            _set(params, name, self._threads)
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("llama.cpp could not make a context")
        self._workload, self._rows, self._length = workload, batch, context
        self._tokens = random_tokens(self._shape, batch, context)
        if workload == "decode":
            for row in range(batch):
                self._decode(self._tokens[row], np.arange(context), np.full(context, row), last=True)
            self._next = self._tokens[:, -1]
        self.reset()

    def reset(self) -> None:
        """Forget what was decoded beyond the context."""
        memory = self._api.llama_get_memory(self._context)
        for row in range(self._rows):
            self._api.llama_memory_seq_rm(memory, row, self._length if self._workload == "decode" else 0, -1)
        self._position = self._length

    def step(self) -> None:
        """One token for every row, or the whole prompt, and the likeliest next token."""
        api, rows = self._api, self._rows
        if self._workload == "prefill":
            api.llama_memory_seq_rm(api.llama_get_memory(self._context), 0, 0, -1)
            self._decode(self._tokens[0], np.arange(self._length), np.zeros(self._length, int), last=True)
            self._likeliest(1)
            return
        self._decode(self._next, np.full(rows, self._position), np.arange(rows), last=False)
        self._next = self._likeliest(rows)
        self._position += 1

    def _decode(self, tokens: Array, positions: Array, rows: Array, *, last: bool) -> None:
        api, count = self._api, len(tokens)
        batch = api.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for index in range(count):
            batch.token[index] = int(tokens[index])
            batch.pos[index] = int(positions[index])
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = int(rows[index])
            batch.logits[index] = not last or index == count - 1
        failed = api.llama_decode(self._context, batch)
        api.llama_batch_free(batch)
        if failed:
            raise RuntimeError(f"llama_decode returned {failed}")

    def _likeliest(self, rows: int) -> Array:
        vocabulary = self._shape["vocab"]
        logits = np.ctypeslib.as_array(self._api.llama_get_logits(self._context), shape=(rows, vocabulary))
        return logits.argmax(1)


def open_engine(request: dict[str, Any]) -> tuple[LlamaEngine, dict[str, Any]]:
    """The engine of an `open` request."""
    kind, shape = request["variant"]["kind"], request["shape"]
    path = model_file(Path(request["work"]) / "gguf", shape, kind, request["threads"])
    size = sum(linear_parameters(shape)) // _BLOCK * _BLOCK_BYTES[kind]
    return LlamaEngine(path, shape, request["threads"], size), {"versions": versions_of("llama-cpp-python")}


if __name__ == "__main__":
    sys.exit(serve(open_engine))
