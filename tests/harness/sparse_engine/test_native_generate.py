"""Generation and scoring with the native decoder against the torch engine, on the pocket model."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("harness.engines.sparse._kernels")

from harness.engines._decode import Row, decode
from harness.engines.base import Request
from harness.engines.sparse.native import NativeModel
from harness.engines.torch import TorchEngine
from harness.errors import EngineError

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("native_models.py"))))

POCKET = Path(__file__).parents[3] / "suites" / "pocket" / "model"
QUESTIONS = (
    "What is 3 + 4?",
    "Add 12 and 30, then take away 5.",
    "Which is larger, 8 or 5?",
    "Tom has 3 apples and buys 9 more. How many apples does he have?",
    "Write a function that returns the sum of a list.",
    "Name a colour.",
)


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine.load(POCKET)


@pytest.fixture(scope="module")
def decoder(engine: TorchEngine) -> NativeModel:
    return kit.native(engine.model)


def requests_for(engine: TorchEngine, **options: Any) -> list[Request]:
    prompts = [engine.encode(chat=[{"role": "user", "content": question}]) for question in QUESTIONS]
    return [Request(str(at), tuple(prompt), 40, **options) for at, prompt in enumerate(prompts)]


def never(row: Row) -> bool:
    return False


def tokens_of(rows: Sequence[Row]) -> list[list[int]]:
    return [row.tokens for row in rows]


def test_greedy_tokens_equal_the_torch_engine(engine: TorchEngine, decoder: NativeModel) -> None:
    requests = requests_for(engine)
    ours = decoder.generate(requests, ends=engine.end_ids, hit_stop=never)
    theirs = decode(engine.model, requests, ends=engine.end_ids, hit_stop=never)
    assert tokens_of(ours) == tokens_of(theirs)
    assert [row.finish for row in ours] == [row.finish for row in theirs]
    assert len({len(row.tokens) for row in ours}) > 1  # rows left at different times
    assert all(row.seconds > 0 and row.request is request for row, request in zip(ours, requests, strict=True))


def test_samples_equal_the_torch_engine_in_any_company(engine: TorchEngine, decoder: NativeModel) -> None:
    requests = [
        replace(request, seed=seed, temperature=0.8 if seed % 2 else 0.0, top_p=0.9)
        for seed, request in enumerate(requests_for(engine))
    ]
    ours = decoder.generate(requests, ends=engine.end_ids, hit_stop=never)
    theirs = decode(engine.model, requests, ends=engine.end_ids, hit_stop=never)
    assert tokens_of(ours) == tokens_of(theirs)
    alone = [decoder.generate([request], ends=engine.end_ids, hit_stop=never)[0] for request in requests]
    assert tokens_of(alone) == tokens_of(ours)


def test_a_common_beginning_is_computed_once_and_changes_no_token(engine: TorchEngine, decoder: NativeModel) -> None:
    shown = [{"role": "user", "content": QUESTIONS[3]}, {"role": "assistant", "content": "He has 12 apples."}] * 2
    prompts = [engine.encode(chat=[*shown, {"role": "user", "content": question}]) for question in QUESTIONS]
    shared = len(engine.encode(chat=shown)) - 1
    assert shared >= 32
    plain = [Request(str(at), tuple(prompt), 40) for at, prompt in enumerate(prompts)]
    marked = [replace(request, shared_prefix=shared) for request in plain]
    fed: list[int] = []
    forward = decoder.forward

    def watched(state: Any, rows: Any, tokens: Any, **options: Any) -> Any:
        fed.append(sum(map(len, tokens)))
        return forward(state, rows, tokens, **options)

    watching = SimpleNamespace(new_state=decoder.new_state, forward=watched)
    ours = NativeModel.generate(watching, marked, ends=engine.end_ids, hit_stop=never)  # type: ignore[arg-type]
    assert fed[: 1 + len(prompts)] == [shared, *(len(prompt) - shared for prompt in prompts)]
    assert tokens_of(ours) == tokens_of(decoder.generate(plain, ends=engine.end_ids, hit_stop=never))
    alone = [decoder.generate([request], ends=engine.end_ids, hit_stop=never)[0] for request in marked]
    assert tokens_of(alone) == tokens_of(ours)


def test_stops_and_lengths(engine: TorchEngine, decoder: NativeModel) -> None:
    request = requests_for(engine)[4]
    free = decoder.generate([request], ends=frozenset(), hit_stop=never)[0]
    assert (len(free.tokens), free.finish) == (40, "length")
    stopped = decoder.generate([request], ends=frozenset(), hit_stop=lambda row: len(row.tokens) == 7)[0]
    assert (stopped.tokens, stopped.finish) == (free.tokens[:7], "stop")
    single = decoder.generate([replace(request, max_new_tokens=1)], ends=frozenset(), hit_stop=never)[0]
    assert (single.tokens, single.finish) == (free.tokens[:1], "length")
    assert decoder.generate([], ends=frozenset(), hit_stop=never) == []


def test_scores_equal_the_torch_engine(engine: TorchEngine, decoder: NativeModel) -> None:
    contexts = [engine.encode(question) for question in QUESTIONS]
    endings = [engine.encode(text) for text in (" 7", " The answer is 37.", " 8 is larger")]
    pairs = [(context, ending) for context in contexts for ending in endings]
    best = engine.encode(QUESTIONS[0])
    pairs.append((best, decoder.generate([Request("", tuple(best), 5)], ends=frozenset(), hit_stop=never)[0].tokens))
    ours = decoder.score(pairs, context_length=engine.context_length)
    theirs = engine.loglikelihoods(pairs)
    np.testing.assert_allclose([score for score, _ in ours], [score for score, _ in theirs], rtol=1e-5, atol=1e-4)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert ours[-1][1]
    assert decoder.score(pairs[3:4], context_length=engine.context_length) == ours[3:4]


def test_long_pairs_lose_tokens_at_the_left(engine: TorchEngine, decoder: NativeModel) -> None:
    tokens = kit.tokens_for(engine.model, 40)
    short = SimpleNamespace(context_length=20)
    cases = [(tokens[:30], tokens[30:35]), (tokens[:5], tokens[5:25]), (tokens[:30], tokens[30:31])]
    ours = decoder.score(cases, context_length=short.context_length)
    for (context, continuation), (score, _) in zip(cases, ours, strict=True):
        shown = [*context, *continuation][-21:]
        chances = torch.from_numpy(kit.reference(engine.model, shown[:-1])).log_softmax(-1)
        wanted = sum(float(chances[at - 1, shown[at]]) for at in range(len(shown) - len(continuation), len(shown)))
        assert score == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(ValueError, match="fits the context"):
        decoder.score([(tokens[:3], tokens[:21])], context_length=20)


def test_damaged_weights_are_an_error() -> None:
    model = kit.make_model("llama")
    model.model.layers[1].input_layernorm.weight.data[3] = float("nan")
    decoder = kit.native(model)
    with pytest.raises(EngineError, match="not finite"):
        decoder.generate([Request("a", (1, 2, 3), 4)], ends=frozenset(), hit_stop=never)
    with pytest.raises(EngineError, match="not finite"):
        decoder.score([([1, 2], [3, 4])], context_length=20)
    state = decoder.new_state(8)
    with pytest.raises(EngineError, match="not finite"):
        decoder.greedy(state, [0], [1], steps=3)
