"""What all prompts begin with is computed once: same tokens as without, in every family and way of holding it."""

from __future__ import annotations

import contextlib
import runpy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from harness.engines import Request
from harness.engines._attention import SharedLayer
from harness.engines._cache import GrowingLayer, new_cache
from harness.engines._forward import Forward
from harness.engines._prefix import LEAST_TOKENS, PrefixStore, attends_shared, compute_prefix, start_whole
from harness.engines._run import ModelRunner, shared_tokens
from harness.engines.torch import TorchEngine
from harness.errors import EngineError
from harness.evaluate.generate import run_prompts
from harness.evaluate.plan import ChatText, GenSettings, Prompt, common_prefix
from harness.journal import Journal
from sparsify.progress import NullProgress

tiny_llama = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_llama.py"))))

VOCABULARY = 131
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,  # sharp enough that greedy tokens vary
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
# Name: model type, what differs from COMMON, and how a batch holds the beginning at best.
FAMILIES: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "llama": ("llama", {}, "shared"),
    "qwen2": ("qwen2", {}, "shared"),
    "qwen3": ("qwen3", {"head_dim": 12}, "shared"),
    "phi": ("phi", {"partial_rotary_factor": 0.5}, "shared"),
    "opt": ("opt", {"ffn_dim": 80, "word_embed_proj_dim": 48, "do_layer_norm_before": True}, "shared"),
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256}, "shared"),
    "gemma": ("gemma", {"head_dim": 12}, "shared"),
    "mpt": ("mpt", {"d_model": 48, "n_heads": 3, "n_layers": 2, "max_seq_len": 256}, "copied"),
    "mistral-window": ("mistral", {"sliding_window": 21}, None),
    "gemma2-window": ("gemma2", {"head_dim": 12, "sliding_window": 19, "query_pre_attn_scalar": 20}, None),
}
# Their softmax is float32 in any dtype; on padding it overflows there to NaN in float64, prefix or not.
SINGLE = ("mpt", "gemma2-window")
DTYPES = [
    (name, dtype)
    for name in FAMILIES
    for dtype in (torch.float64, torch.float32)
    if name not in SINGLE or dtype == torch.float32
]
HELD = [name for name, (_, _, kind) in FAMILIES.items() if kind]
BEGINNING = tuple(3 + (17 * at) % 120 for at in range(50))


def make_model(name: str, dtype: torch.dtype = torch.float64) -> Any:
    kind, special, _ = FAMILIES[name]
    own = {"vocab_size": VOCABULARY, "initializer_range": 0.3}
    options = own if kind in ("mpt", "gpt2") else COMMON
    config = AutoConfig.for_model(kind, **{**options, **special})
    torch.manual_seed(sum(map(ord, name)))
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def prompts_of(lengths: Sequence[int], beginning: Sequence[int] = BEGINNING) -> list[tuple[int, ...]]:
    """Prompts with so many tokens of their own behind the beginning."""
    stream = torch.Generator().manual_seed(len(lengths))
    return [(*beginning, *torch.randint(1, VOCABULARY, (n,), generator=stream).tolist()) for n in lengths]


def requests_of(prompts: Sequence[tuple[int, ...]], new: int = 16, **options: Any) -> list[Request]:
    shared = options.pop("shared", common_prefix(prompts))
    return [
        Request(str(at), prompt, new, shared_prefix=shared, seed=at, **options) for at, prompt in enumerate(prompts)
    ]


def tokens_of(model: Any, requests: Sequence[Request], kind: Any, *, leave: bool = False) -> list[list[int]]:
    """Tokens of every row; `leave` ends rows at different times, so that they and their padding are dropped."""
    runner = ModelRunner(model, prefix=kind)
    rows = runner.generate(
        requests,
        ends=frozenset(),
        hit_stop=lambda row: leave and len(row.tokens) >= 2 + 3 * int(row.request.request_id),
    )
    return [row.tokens for row in rows]


# Same tokens


@pytest.mark.parametrize(("name", "dtype"), DTYPES, ids=str)
def test_tokens_are_those_without(name: str, dtype: torch.dtype) -> None:
    model = make_model(name, dtype)
    requests = requests_of(prompts_of([1, 9, 30, 4, 17, 2]))
    whole = tokens_of(model, requests, None)
    assert len({tuple(row) for row in whole}) > 3
    left = tokens_of(model, requests, None, leave=True)
    assert [len(row) for row in left] == [2, 5, 8, 11, 14, 16]
    for kind in ("copied", "shared"):
        assert tokens_of(model, requests, kind) == whole
        assert tokens_of(model, requests, kind, leave=True) == left


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("lengths", [[1, 1, 1], [5], [1], [2, 70], [3, 40, 90]], ids=str)
def test_logits_are_those_without(name: str, lengths: list[int]) -> None:
    """One token behind the beginning, a batch of one, and prompts more than twice as long as it."""
    dtype, limit = (torch.float32, 1e-5) if name in SINGLE else (torch.float64, 1e-10)
    model = make_model(name, dtype)
    prompts, forward = prompts_of(lengths), Forward(model)
    store = PrefixStore(model)
    prefix = store.get(BEGINNING)
    assert prefix is not None and prefix.kind == FAMILIES[name][2]
    copied = compute_prefix(model, BEGINNING)
    assert copied is not None and copied.kind == "copied"
    wanted = two_steps(forward, start_whole(model, prompts))
    for one in (prefix, copied):
        found = two_steps(forward, one.start(model, prompts))
        assert (found - wanted).abs().max() < limit * wanted.abs().max()


@torch.inference_mode()
def two_steps(forward: Forward, start: Any) -> torch.Tensor:
    first = forward(start.ids, start.mask, start.positions, cache=start.cache)
    mask = torch.cat([start.mask, start.mask.new_ones(len(start.ids), 1)], 1)
    second = forward(start.ids[:, -1:], mask, start.positions[:, -1:] + 1, cache=start.cache)
    return torch.cat([first, second], 1)


@pytest.mark.parametrize("kind", ["shared", "copied"])
def test_it_is_transformers_own_generation(kind: str) -> None:
    model = make_model("llama")
    prompts = prompts_of([3, 11, 7, 20])
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=16, do_sample=False, pad_token_id=0)
    assert tokens_of(model, requests_of(prompts), kind) == out[:, width:].tolist()


@settings(deadline=None, max_examples=25)
@given(
    own=st.lists(st.integers(1, 60), min_size=1, max_size=7),
    beginning=st.integers(LEAST_TOKENS, 60),
    kind=st.sampled_from(["shared", "copied"]),
)
def test_any_lengths(own: list[int], beginning: int, kind: str) -> None:
    model = _cached_llama()
    requests = requests_of(prompts_of(own, BEGINNING[:beginning] + BEGINNING[: max(0, beginning - 50)]), new=5)
    requests = [replace(request, shared_prefix=beginning) for request in requests]
    assert tokens_of(model, requests, kind) == tokens_of(model, requests, None)


_MODELS: dict[str, Any] = {}


def _cached_llama() -> Any:
    return _MODELS.setdefault("llama", make_model("llama"))


def test_the_whole_prompt_as_the_beginning_leaves_a_token() -> None:
    model, prompt = make_model("llama"), prompts_of([4])[0]
    alike = requests_of([prompt] * 3, shared=len(prompt))
    assert shared_tokens(alike) == prompt[:-1]
    assert tokens_of(model, alike, "shared") == tokens_of(model, alike, None)


def test_samples_draw_the_same() -> None:
    model = make_model("qwen2")
    requests = requests_of(prompts_of([2, 8, 5]), temperature=0.9, top_p=0.95)
    whole = tokens_of(model, requests, None)
    assert whole != tokens_of(model, [replace(request, temperature=0.0) for request in requests], None)
    assert whole == tokens_of(model, requests, "shared") == tokens_of(model, requests, "copied")


# What is kept, and when not


def test_the_beginning_is_computed_once_and_its_keys_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    widths: list[int] = []
    call = Forward.__call__

    def watched(self: Forward, ids: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        widths.append(ids.numel())
        return call(self, ids, *args, **options)

    runner = ModelRunner(model)
    attends_shared(model)
    monkeypatch.setattr(Forward, "__call__", watched)
    for lengths in ([3, 4], [5, 2], [1, 6]):
        runner.generate(
            requests_of(prompts_of(lengths), new=1, shared=50), ends=frozenset(), hit_stop=lambda row: False
        )
    # The beginning, then prompts without it; the probe of the attention runs once per runner.
    assert widths.count(50) == 1
    assert widths[-3:] == [2 * 4, 2 * 5, 2 * 6]
    assert max(widths) == 50


def test_results_do_not_depend_on_what_ran_before() -> None:
    model = make_model("llama", torch.float32)
    requests, other = requests_of(prompts_of([3, 9, 5])), requests_of(prompts_of([4, 2], BEGINNING[::-1]))
    fresh = tokens_of(model, requests, "shared")
    runner = ModelRunner(model)
    found = []
    for batch in (other, requests, other, requests):
        rows = runner.generate(batch, ends=frozenset(), hit_stop=lambda row: False)
        found.append([row.tokens for row in rows])
    assert found[1] == found[3] == fresh and found[0] == found[2] == tokens_of(model, other, None)


def test_short_beginnings_and_windows_are_computed_with_each_prompt() -> None:
    assert PrefixStore(make_model("llama")).get(BEGINNING[: LEAST_TOKENS - 1]) is None
    assert PrefixStore(make_model("llama"), kind=None).get(BEGINNING) is None
    assert PrefixStore(make_model("mistral-window")).get(BEGINNING) is None
    assert PrefixStore(make_model("gemma2-window")).get(BEGINNING) is None


def test_prompts_that_do_not_begin_alike_are_an_error() -> None:
    prompts = [BEGINNING, BEGINNING[::-1]]
    with pytest.raises(EngineError, match="do not begin alike"):
        tokens_of(make_model("llama"), requests_of(prompts, shared=40), "shared")


def test_attention_that_is_more_than_a_softmax_gets_copies() -> None:
    """Attention sinks must not pass for what can be shared; nor do half precision and what the kernels do better."""
    model = make_model("llama")
    assert attends_shared(model)
    layer = model.model.layers[1].self_attn
    forward = layer.forward
    layer.forward = lambda *args, **options: forward(*args, s_aux=torch.ones(4), **options)
    assert not attends_shared(model)
    layer.forward = forward
    half = make_model("llama", torch.bfloat16)
    assert not attends_shared(half) and half.config._attn_implementation == "sdpa"


def test_keys_that_lose_the_beginning_on_the_way_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama")
    update = SharedLayer.update
    monkeypatch.setattr(
        SharedLayer, "update", lambda self, *args, **kw: tuple(t.clone() for t in update(self, *args, **kw))
    )
    assert not attends_shared(model)
    assert model.config._attn_implementation == "sdpa"
    requests = requests_of(prompts_of([4, 6]))
    assert tokens_of(model, requests, "shared") == tokens_of(model, requests, None)


def test_a_layer_begun_with_copies_holds_them_right_aligned() -> None:
    model = make_model("llama")
    layer = new_cache(model).layers[0]
    assert isinstance(layer, GrowingLayer)
    keys, values = torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    layer.begin(keys, values, [6, 2, 0], room=3)
    assert layer.get_seq_length() == 6
    assert torch.equal(layer.keys[0], keys[0]) and torch.equal(layer.values[0], values[0])
    assert torch.equal(layer.keys[1, :, 4:], keys[0, :, :2]) and not layer.keys[1, :, :4].any()
    assert not layer.keys[2].any()
    new = torch.randn(3, 2, 80, 4)
    shown, _ = layer.update(new, new)
    assert torch.equal(shown[:, :, 6:], new) and torch.equal(shown[0, :, :6], keys[0])


# The plan decides


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=6))
def test_the_common_beginning_of_a_plan(prompts: list[list[int]]) -> None:
    found = common_prefix([tuple(prompt) for prompt in prompts])
    if len(prompts) < 2:
        assert found == 0
        return
    limit = min(map(len, prompts)) - 1
    brute = max(n for n in range(limit + 1) if all(p[:n] == prompts[0][:n] for p in prompts))
    assert found == brute


class Crash(Exception):
    """Stands for a kill between two batches."""


@pytest.mark.parametrize("chat", [False, True], ids=["text", "chat"])
def test_a_resumed_run_gives_the_rows_of_a_whole_one(tmp_path: Path, chat: bool) -> None:
    engine = TorchEngine.load(tiny_llama.save_tiny(tmp_path / "m"), threads=1)
    shots = [{"role": "user", "content": "the cat sat on the mat"}, {"role": "assistant", "content": "one and two"}] * 3
    texts = [f"{'the cat sat ' * at}on {at}" for at in (1, 5, 2, 1, 4, 3, 2)]
    if chat:
        asked = [ChatText.of([*shots, {"role": "user", "content": text}]) for text in texts]
    else:
        asked = ["one and two are three. " * 6 + text for text in texts]
    prompts = [Prompt(f"r{at}", f"i{at}", 0, text, 8) for at, text in enumerate(asked)]
    settings = GenSettings(batch_size=2)
    seen: list[int] = []
    generate = engine.generate_batch

    def watched(requests: Sequence[Request]) -> Any:
        seen.extend(request.shared_prefix for request in requests)
        return generate(requests)

    engine.generate_batch = watched  # type: ignore[method-assign]

    def rows(path: Path, stop_after: int | None = None, engine: Any = engine) -> dict[str, Any]:
        class Ticks(NullProgress):
            def update(self, done: float, total: float, note: str = "") -> None:
                if stop_after is not None and done >= stop_after:
                    raise Crash

        with Journal(path, {}) as journal:
            with contextlib.suppress(Crash):
                run_prompts(engine, prompts, journal=journal, settings=settings, progress=Ticks())
            return {name: {k: v for k, v in row.items() if k != "seconds"} for name, row in journal.rows.items()}

    whole = rows(tmp_path / "whole.jsonl")
    assert len(whole) == 7 and len(set(seen)) == 1 and seen[0] >= LEAST_TOKENS
    part = rows(tmp_path / "part.jsonl", stop_after=4)
    assert 4 <= len(part) < 7
    again = TorchEngine(engine.model, engine.tokenizer, label="again")
    assert rows(tmp_path / "part.jsonl", engine=again) == whole
    plain = TorchEngine(engine.model, engine.tokenizer, label="m", runner=ModelRunner(engine.model, prefix=None))
    assert rows(tmp_path / "plain.jsonl", engine=plain) == whole
