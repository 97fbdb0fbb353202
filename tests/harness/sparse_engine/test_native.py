"""The native decoder against transformers' eager models in float32."""

from __future__ import annotations

import runpy
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("harness.engines.sparse._kernels")

from harness.engines.sparse._kernels import Matrix, best_isa, isas
from harness.engines.sparse.native import NativeModel

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("native_models.py"))))

# Float32 rounding through three layers; the logits are of the order of 1 to 10.
TOLERANCE = {"rtol": 2e-5, "atol": 5e-5}


@pytest.mark.parametrize("name", kit.FAMILY)
def test_logits_equal_transformers(name: str) -> None:
    model = kit.make_model(name)
    decoder, tokens = kit.native(model), kit.tokens_for(model, 70)
    wanted = kit.reference(model, tokens)
    assert np.std(wanted) > 0.1

    state = decoder.new_state(80)
    whole = decoder.forward(state, [0], [tokens], keep=len(tokens))
    np.testing.assert_allclose(whole, wanted, **TOLERANCE)
    assert state.lengths == [70]

    state.drop(0)
    parts = [tokens[:33], tokens[33:34], tokens[34:40], tokens[40:]]
    chunks = [decoder.forward(state, [0], [part], keep=len(part)) for part in parts]
    np.testing.assert_allclose(np.concatenate(chunks), wanted, **TOLERANCE)

    state.drop(0)
    steps = [decoder.forward(state, [0], [[token]]) for token in tokens]
    np.testing.assert_allclose(np.concatenate(steps), wanted, **TOLERANCE)


@pytest.mark.parametrize("name", ["llama", "llama-many-heads", "mistral-window", "gemma2", "mpt"])
def test_ragged_rows_equal_rows_alone(name: str) -> None:
    model = kit.make_model(name)
    decoder = kit.native(model)
    texts = [kit.tokens_for(model, length, seed) for seed, length in enumerate((3, 29, 1, 70))]
    state = decoder.new_state(100, rows=5)
    # Slots in another order than the texts; slot 0 stays empty.
    slots = [4, 2, 1, 3]
    prefill = decoder.forward(state, slots, texts)
    assert state.lengths == [0, 1, 29, 70, 3]
    for step in range(3):
        for text in texts:
            text.append((7 * step + len(text)) % 131)
        ragged = decoder.forward(state, slots, [text[-1:] for text in texts])
    for row, text in enumerate(texts):
        wanted = kit.reference(model, text)
        np.testing.assert_allclose(prefill[row], wanted[-4], **TOLERANCE)
        np.testing.assert_allclose(ragged[row], wanted[-1], **TOLERANCE)
        alone = decoder.new_state(100)
        first = decoder.forward(alone, [0], [text[:-3]])
        for token in text[-3:]:
            last = decoder.forward(alone, [0], [[token]])
        assert np.array_equal(first[0], prefill[row])
        assert np.array_equal(last[0], ragged[row])


def test_logits_of_the_last_tokens_only() -> None:
    model = kit.make_model("llama")
    decoder, tokens = kit.native(model), kit.tokens_for(model, 60)
    wanted = kit.reference(model, tokens)
    for keep in (1, 5, 17, 40, 60):
        kept = decoder.forward(decoder.new_state(60), [0], [tokens], keep=keep)
        np.testing.assert_allclose(kept, wanted[-keep:], **TOLERANCE)
    state = decoder.new_state(60)
    assert decoder.forward(state, [0], [tokens[:-1]], keep=0).shape == (0, 131)
    np.testing.assert_allclose(decoder.forward(state, [0], [tokens[-1:]]), wanted[-1:], **TOLERANCE)


def test_prefill_longer_than_a_chunk() -> None:
    model = kit.make_model("llama", max_position_embeddings=2048)
    decoder, tokens = kit.native(model, threads=2), kit.tokens_for(model, 1100)
    kept = decoder.forward(decoder.new_state(1100), [0], [tokens], keep=600)
    np.testing.assert_allclose(kept, kit.reference(model, tokens)[-600:], rtol=2e-5, atol=2e-4)


def test_more_than_sixteen_rows_in_one_step() -> None:
    model = kit.make_model("qwen3")
    decoder = kit.native(model)
    texts = [kit.tokens_for(model, 2 + row % 7, row) for row in range(37)]
    state = decoder.new_state(16, rows=37)
    decoder.forward(state, list(range(37)), [text[:-1] for text in texts])
    together = decoder.forward(state, list(range(37)), [text[-1:] for text in texts])
    for row in (0, 15, 16, 36):
        np.testing.assert_allclose(together[row], kit.reference(model, texts[row])[-1], **TOLERANCE)


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen2", "phi3", "opt", "mpt"])
def test_threads_and_sparse_packing_change_no_bit(name: str) -> None:
    model = kit.make_model(name)
    tokens = kit.tokens_for(model, 50)
    results = []
    for threads, sparse in ((1, False), (2, False), (3, False), (1, True)):
        decoder = NativeModel.build(model, kit.float_matrices(model, sparse=sparse), threads=threads)
        state = decoder.new_state(64, rows=2)
        prefill = decoder.forward(state, [0, 1], [tokens, tokens[:9]], keep=9)
        step = decoder.forward(state, [1, 0], [[3], [4]])
        results.append(np.concatenate([prefill, step]))
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@pytest.mark.parametrize("name", ["gemma2", "mpt", "llama-gelu", "qwen3"])
@pytest.mark.parametrize("isa", isas())
def test_every_instruction_set(isa: str, name: str) -> None:
    model = kit.make_model(name)
    decoder, tokens = kit.native(model), kit.tokens_for(model, 40)
    wanted = kit.reference(model, tokens)
    state = decoder.new_state(40)
    np.testing.assert_allclose(state.forward([0], [tokens], keep=40, isa=isa), wanted, **TOLERANCE)
    state.truncate(0, 39)
    assert state.greedy([0], tokens[-1:], steps=1, isa=isa) == wanted[-1].argmax()
    rounded = kit.native(model, cache="bfloat16").new_state(40).forward([0], [tokens], keep=40, isa=isa)
    assert np.abs(rounded - wanted).max() < 0.03 * np.abs(wanted).max()


def test_bfloat16_cache_is_close_and_half_as_large() -> None:
    model = kit.make_model("llama")
    tokens = kit.tokens_for(model, 70)
    exact, small = kit.native(model), kit.native(model, cache="bfloat16")
    exact_state, small_state = exact.new_state(80), small.new_state(80)
    wanted = exact.forward(exact_state, [0], [tokens], keep=70)
    rounded = small.forward(small_state, [0], [tokens], keep=70)
    difference = np.abs(rounded - wanted).max()
    assert 0 < difference < 0.02 * np.abs(wanted).max()
    assert small_state.bytes * 2 == exact_state.bytes


# What AMX, which rounds the activations of many rows to bfloat16, adds to errors relative to the largest logit.
ROUNDED = 0.02 if best_isa() in ("avx512_bf16", "amx") else 0.0


def pack_as(kind: str, module: torch.nn.Linear, *, sparse: bool) -> Matrix:
    """Packs a linear and gives it the weights that were packed."""
    weight = module.weight.detach()
    if kind == "f32":
        matrix = Matrix.pack(kit.as_array(weight), kind, sparse=sparse)
    elif kind == "bf16":
        bits = weight.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        matrix = Matrix.pack(bits, kind, sparse=sparse)
    else:
        group = weight.shape[1] if kind == "i8" else 16
        blocks = weight.unflatten(1, (-1, group))
        scale = blocks.abs().amax(2, keepdim=True) / (127 if kind == "i8" else 7)
        whole = (blocks / scale).round().flatten(1).to(torch.int8).numpy()
        scales = np.ascontiguousarray(kit.as_array(scale)[:, 0, 0] if kind == "i8" else kit.as_array(scale)[:, :, 0])
        matrix = Matrix.pack(whole, kind, sparse=sparse, scales=scales, group=0 if kind == "i8" else group)
    module.weight.data = torch.from_numpy(matrix.unpack())
    return matrix


def test_bfloat16_weights_and_embedding() -> None:
    model = kit.make_model("qwen2").to(torch.bfloat16)
    matrices = {name: pack_as("bf16", module, sparse=True) for name, module in kit.linears(model).items()}
    decoder = NativeModel.build(model, matrices, threads=1)
    tokens = kit.tokens_for(model, 40)
    logits = decoder.forward(decoder.new_state(40), [0], [tokens], keep=40)
    wanted = kit.reference(model.float(), tokens)
    bound = {"rtol": TOLERANCE["rtol"], "atol": TOLERANCE["atol"] + ROUNDED * float(np.abs(wanted).max())}
    np.testing.assert_allclose(logits, wanted, **bound)


@pytest.mark.parametrize(("kinds", "error"), [(("f32", "bf16"), 1e-5), (("i8", "f32", "i4", "bf16", "i4"), 0.05)])
def test_matrices_of_several_kinds_that_share_an_input(kinds: tuple[str, ...], error: float) -> None:
    model = kit.make_model("llama")
    matrices = {
        name: pack_as(kinds[at % len(kinds)], module, sparse=bool(at % 3))
        for at, (name, module) in enumerate(kit.linears(model).items())
    }
    tokens = kit.tokens_for(model, 40)
    wanted = kit.reference(model, tokens)
    results = []
    for threads in (1, 2):
        decoder = NativeModel.build(model, matrices, threads=threads)
        state = decoder.new_state(40)
        logits = [decoder.forward(state, [0], [tokens[:30]], keep=30)]
        logits += [decoder.forward(state, [0], [[token]]) for token in tokens[30:]]
        results.append(np.concatenate(logits))
    # Integer weights round their activations, so they are near the float model, not equal.
    assert np.abs(results[0] - wanted).max() < (error + ROUNDED) * np.abs(wanted).max()
    assert np.array_equal(*results)


def test_int8_equals_torch_with_the_same_rounding() -> None:
    model = kit.make_model("llama")
    matrices = {}
    for name, module in kit.linears(model).items():
        scale = module.weight.detach().abs().amax(1, keepdim=True) / 127
        whole = (module.weight.detach() / scale).round().clamp(-128, 127)
        matrices[name] = Matrix.pack(
            whole.to(torch.int8).numpy(), "i8", sparse=False, scales=np.ascontiguousarray(kit.as_array(scale)[:, 0])
        )
        module.weight.data = whole * scale

        def quantise(_: object, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            step = inputs[0].abs().amax(-1, keepdim=True) / 127.5
            return ((inputs[0] / step).round().clamp(-128, 127) * step,)

        module.register_forward_pre_hook(quantise)
    decoder = NativeModel.build(model, matrices, threads=1)
    state = decoder.new_state(3)
    errors = []
    for seed in range(40):
        tokens = kit.tokens_for(model, 3, seed)
        state.drop(0)
        wanted = kit.reference(model, tokens)
        logits = decoder.forward(state, [0], [tokens], keep=3)
        errors.append(np.abs(logits - wanted).max() / np.abs(wanted).max())
    # An activation on the border of two integers may fall to either side, and then the text is off by a step; the
    # others agree to float32's rounding, which nothing but the same arithmetic does.
    assert np.mean(np.array(errors) < 1e-5) > 0.6
    assert max(errors) < 0.05


def test_many_callers_at_once() -> None:
    model = kit.make_model("llama")
    decoder = kit.native(model, threads=2)
    texts = [kit.tokens_for(model, 20 + 3 * caller, caller) for caller in range(8)]
    wanted = [kit.reference(model, text) for text in texts]
    shared = decoder.new_state(64, rows=8)
    failures: list[str] = []

    def call(caller: int) -> None:
        own, text = decoder.new_state(64), texts[caller]
        for _ in range(5):
            own.drop(0)
            shared.drop(caller)
            for state, row in ((own, 0), (shared, caller)):
                first = decoder.forward(state, [row], [text[:10]], keep=10)
                rest = [decoder.forward(state, [row], [[token]]) for token in text[10:]]
                if not np.allclose(np.concatenate([first, *rest]), wanted[caller], **TOLERANCE):
                    failures.append(f"caller {caller}")

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_dropped_and_cut_rows_are_used_again() -> None:
    model = kit.make_model("mistral-window")
    decoder, tokens = kit.native(model), kit.tokens_for(model, 200)
    state = decoder.new_state(200, rows=2)
    decoder.forward(state, [0], [tokens])
    full = state.bytes
    state.drop(0)
    logits = decoder.forward(state, [1], [tokens[50:150]])
    assert state.bytes == full
    np.testing.assert_allclose(logits[0], kit.reference(model, tokens[50:150])[-1], **TOLERANCE)
    state.truncate(1, 30)
    logits = decoder.forward(state, [1], [tokens[:40]], keep=40)
    wanted = kit.reference(model, tokens[50:80] + tokens[:40])
    np.testing.assert_allclose(logits, wanted[-40:], **TOLERANCE)


def test_copied_rows_go_on_alike() -> None:
    model = kit.make_model("llama")
    decoder, tokens = kit.native(model), kit.tokens_for(model, 100)
    state = decoder.new_state(120, rows=3)
    decoder.forward(state, [0, 2], [tokens, [5, 6]])
    state.copy(0, 2)
    state.copy(0, 0)
    assert state.lengths == [100, 0, 100]
    one, two = decoder.forward(state, [0, 2], [[7], [8]])
    np.testing.assert_allclose(one, kit.reference(model, [*tokens, 7])[-1], **TOLERANCE)
    np.testing.assert_allclose(two, kit.reference(model, [*tokens, 8])[-1], **TOLERANCE)
    with pytest.raises(ValueError, match="row 3 is not one of"):
        state.copy(0, 3)


def test_greedy_in_one_call_equals_steps() -> None:
    model = kit.make_model("llama")
    decoder = kit.native(model)
    texts = [kit.tokens_for(model, length, length) for length in (5, 11)]
    state = decoder.new_state(40, rows=2)
    decoder.forward(state, [0, 1], [text[:-1] for text in texts])
    chosen = decoder.greedy(state, [0, 1], [text[-1] for text in texts], steps=12)
    assert state.lengths == [5 + 11, 11 + 11]
    for row, text in enumerate(texts):
        for token in chosen[row]:
            assert int(kit.reference(model, text)[-1].argmax()) == token
            text.append(int(token))


def test_timed_passes_say_where_the_time_went() -> None:
    model = kit.make_model("llama")
    decoder, tokens = kit.native(model, threads=2), kit.tokens_for(model, 100)
    state = decoder.new_state(100)
    decoder.forward(state, [0], [tokens[:50]])
    assert not any(state.seconds.values())
    state.timed = True
    start = time.perf_counter()
    decoder.forward(state, [0], [tokens[50:]])
    wall = time.perf_counter() - start
    assert set(state.seconds) == {"matrices", "attention", "other", "waiting"}
    assert all(value > 0 for value in state.seconds.values())
    assert sum(state.seconds.values()) < wall
    state.timed = False
    before = state.seconds
    state.truncate(0, 50)
    decoder.forward(state, [0], [tokens[50:]])
    assert state.seconds == before


def test_state_outlives_its_model() -> None:
    model = kit.make_model("llama")
    decoder, tokens = kit.native(model), kit.tokens_for(model, 20)
    state, wanted = decoder.new_state(20), kit.reference(model, tokens)
    del decoder, model
    np.testing.assert_allclose(state.forward([0], [tokens], keep=20), wanted, **TOLERANCE)
