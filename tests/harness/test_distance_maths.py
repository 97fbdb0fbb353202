"""Distance to dense: the maths and the texts, by hand and against scipy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.distance.maths import first_difference, kl_nats, survival
from harness.distance.passages import Encoded, Passage, batches, encode_texts
from harness.distance.summarize import Pair, distance_result
from harness.distance.texts import SuiteText, Texts, suite_documents
from harness.errors import ConfigError
from suites.registry import ROOT, SUITES

POCKET = ROOT / "pocket" / "model"
DATA = Path(__file__).parents[3] / "shared" / "data"
TEXTS = Texts(suites=(SuiteText("gsm8k", "pocket", 6), SuiteText("chat", "pocket", 3)))

needs_pocket = pytest.mark.skipif(
    not (POCKET / "model.safetensors").is_file(),
    reason="the pocket model is not in this checkout",
)


# --- the maths


def test_kl_is_that_of_scipy() -> None:
    import torch
    from scipy.special import rel_entr, softmax

    rng = np.random.default_rng(0)
    dense, variant = rng.normal(scale=4, size=(2, 37, 501))
    dense[3, 7] = -np.inf  # a token that the dense model excludes
    expected = rel_entr(softmax(dense, axis=-1), softmax(variant, axis=-1)).sum(-1)
    found = kl_nats(torch.from_numpy(dense), torch.from_numpy(variant))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert (kl_nats(torch.from_numpy(dense), torch.from_numpy(dense)) == 0).all()
    near = torch.from_numpy(dense).float()
    assert (kl_nats(near, near + 1e-6 * torch.randn_like(near)) >= 0).all()
    variant[5, 1] = -np.inf  # one that only the variant excludes
    assert kl_nats(torch.from_numpy(dense), torch.from_numpy(variant))[5] == math.inf


def test_positions_are_worked_on_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    dense, variant = torch.randn(2, 11, 50)
    whole = kl_nats(dense, variant)
    monkeypatch.setattr("harness.distance.maths._BLOCK", 150)
    assert torch.equal(kl_nats(dense, variant), whole)


def test_first_differences_and_survival_by_hand() -> None:
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 5, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2
    assert first_difference([4], [5]) == 0
    # One differs in the first token, one in the third, two never.
    assert survival([0, 2, None, None], 4) == [0.75, 0.75, 0.5, 0.5]
    assert survival([], 4) == []


def test_batches_follow_from_the_plan() -> None:
    passages = [Passage(f"p{i}", "t", "c", (), (0,) * n, 1) for i, n in enumerate((3, 9, 5, 5, 2))]
    found = [[p.name for p in batch] for batch in batches(passages, [3, 9, 5, 5, 2], 2, 100)]
    assert found == [["p1", "p2"], ["p3", "p0"], ["p4"]]
    # At most 10 together, each counted as the longest; one alone may exceed it.
    assert [len(batch) for batch in batches(passages, [30, 9, 5, 5, 2], 8, 10)] == [1, 1, 2, 1]


def pair(agree: dict[str, str], nats: dict[str, float], firsts: dict[str, int | None], tokens: int) -> Pair:
    dense = {name: {"tokens": [1] * tokens} for name in firsts}
    variant = {
        name: {"tokens": [1] * tokens if first is None else [1] * first + [2] * (tokens - first)}
        for name, first in firsts.items()
    }
    logits = {name: {"agree": agree[name], "nats": nats[name]} for name in agree}
    return Pair("dense", ("torch/float32", "torch/float32"), tokens, dense, variant, logits)


def test_intervals_are_clustered_by_hand() -> None:
    """Mean and standard error by document: sum over clusters of (summed residual)^2, C / (C - 1), over the tokens."""
    sizes = {"a": 4, "b": 2, "c": 3}
    passages = tuple(Passage(name, "t", name, (7,), (0,) * (size + 1), 1) for name, size in sizes.items())
    nats = {"a": 0.4, "b": 0.1, "c": 0.9}
    found = distance_result(
        pair({n: "1" * s for n, s in sizes.items()}, nats, dict.fromkeys(sizes, 0), 4), Encoded(passages)
    )
    (text,) = found.texts
    mean = sum(nats.values()) / 9
    gaps = [nats[name] - mean * size for name, size in sizes.items()]
    error = math.sqrt(3 / 2 * sum(gap * gap for gap in gaps)) / 9
    assert text.kl.value == pytest.approx(mean, rel=1e-5) and text.kl.se == pytest.approx(error, rel=1e-5)
    half = 4.302652729911275 * error  # Student's t, 2 degrees of freedom
    assert text.kl.ci95 == pytest.approx((max(0.0, mean - half), mean + half), rel=1e-5)
    assert text.tokens == 9 and text.documents == 3 and text.top1.value == 1.0 and text.never.value == 0.0
    assert text.top1.method.endswith("-clustered") and text.top1.ci95 is not None and text.top1.ci95[0] < 1
    assert [(p.first, p.last, p.n) for p in text.agreement] == [(1, 1, 3), (2, 2, 3), (3, 4, 3)]


def test_the_median_and_its_limits() -> None:
    names = [f"d{i:02}" for i in range(40)]
    passages = tuple(Passage(name, "t", name, (7,), (), 1) for name in names)
    firsts: dict[str, int | None] = {name: i // 2 for i, name in enumerate(names)}  # two diverge at each token
    (text,) = distance_result(pair({}, {}, firsts, 30), Encoded(passages)).texts
    assert text.first_token.value == 10  # after ten tokens twenty of forty have parted
    assert text.first_token.low is not None and text.first_token.high is not None
    assert text.first_token.low < 10 < text.first_token.high
    # By Wilson's interval for 20 of 40 the limits are where 0.5 leaves it: 14 or 26 of 40 still equal.
    from harness.stats import wilson_interval

    inside = [
        t for t in range(1, 21) if wilson_interval(40 - 2 * t, 40)[0] <= 0.5 <= wilson_interval(40 - 2 * t, 40)[1]
    ]
    assert (text.first_token.low, text.first_token.high) == (inside[0], inside[-1] + 1)
    assert text.kl.value is None and text.kl.reason and text.documents == 0
    (never,) = distance_result(pair({}, {}, dict.fromkeys(names), 30), Encoded(passages)).texts
    assert never.first_token.value is None and "fewer than half" in str(never.first_token.reason)
    assert never.survival == [1.0] * 30


def test_one_document_promises_no_interval() -> None:
    passage = Passage("a", "t", "a", (7,), (0,) * 101, 1)
    (text,) = distance_result(pair({"a": "10" * 50}, {"a": 3.0}, {"a": 5}, 8), Encoded((passage,))).texts
    assert text.top1.value == 0.5 and text.top1.ci95 is None and text.kl.ci95 is None and text.never.ci95 is None
    assert "one document" in str(text.top1.reason) and "one document" in str(text.kl.reason)


# --- the texts


def test_every_skill_gives_prompts_and_its_own_answers() -> None:
    for suite in SUITES:
        documents = suite_documents(SuiteText(suite, "pocket", 4), None)
        assert len(documents) == (8 if suite == "chat" else 4)
        assert all(document.answer for document in documents)
        assert isinstance(documents[0].prompt, str) == (suite == "code")
    first, second = suite_documents(SuiteText("chat", "pocket", 1), None)
    assert [m["role"] for m in second.prompt] == ["user", "assistant", "user"]  # type: ignore[index]
    assert second.prompt[1]["content"] == first.answer and first.cluster == second.cluster  # type: ignore[index]
    with pytest.raises(ConfigError, match="'piqa' gives no text"):
        SuiteText("piqa", "full", 3)


def test_real_rows_give_the_benchmarks_answers() -> None:
    if not (DATA / "gsm8k" / "test.jsonl").is_file():
        pytest.skip("the real data is not here (../shared/data)")
    document = suite_documents(SuiteText("gsm8k", "5shot", 1), DATA)[0]
    row = json.loads((DATA / "gsm8k" / "test.jsonl").read_text().split("\n")[0])
    assert document.answer == row["answer"]
    assert document.prompt == ({"role": "user", "content": f"Question: {row['question']}\nAnswer:"},)


@needs_pocket
def test_what_does_not_fit_is_counted() -> None:
    from harness.engines import load_engine

    engine = load_engine("torch", POCKET)
    whole = encode_texts(engine, TEXTS, new_tokens=24)
    assert whole.left_out == {} and len(whole.passages) == 12
    longest = max(len(p.ids) for p in whole.passages)
    engine.model.config.max_position_embeddings = longest - 1  # type: ignore[attr-defined]
    cut = encode_texts(engine, TEXTS, new_tokens=24)
    lost = [p for p, was in zip(cut.passages, whole.passages, strict=True) if p != was]
    assert lost and sum(cut.left_out.values()) == len(lost)
    engine.model.config.max_position_embeddings = 3  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="none of 12 texts fits the 3 tokens"):
        encode_texts(engine, TEXTS, new_tokens=24)


@needs_pocket
def test_an_answer_follows_its_prompt_as_the_template_has_it() -> None:
    from harness.engines import load_engine

    engine: Any = load_engine("torch", POCKET)
    for passage in encode_texts(engine, TEXTS, new_tokens=24).passages:
        assert passage.ids[: passage.start] == passage.prompt
    document = suite_documents(SuiteText("gsm8k", "pocket", 1), None)[0]
    messages = [*document.prompt, {"role": "assistant", "content": document.answer}]
    shown = engine.tokenizer.apply_chat_template(messages, tokenize=False)
    ids = engine.tokenizer(shown, add_special_tokens=False)["input_ids"]
    found = encode_texts(engine, TEXTS, new_tokens=24).passages[0].ids
    assert list(found) == ids[: len(found)]
