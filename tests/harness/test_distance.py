"""Distance to dense: against transformers in float64, on both engines; resumed, refused, in a study."""

from __future__ import annotations

import json
import math
import runpy
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.distance.maths import first_difference, survival
from harness.distance.measure import compare_logits
from harness.distance.passages import Encoded, Passage, encode_texts
from harness.distance.run import Settings, measure
from harness.distance.texts import SuiteText, Texts, WindowText
from harness.errors import ConfigError, EngineError
from harness.models import model_directory
from suites.registry import ROOT

POCKET = ROOT / "pocket" / "model"
TEXTS = Texts(suites=(SuiteText("gsm8k", "pocket", 6), SuiteText("chat", "pocket", 3)))
SETTINGS = Settings(new_tokens=24, batch=4)

tiny_llama = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_llama.py"))))

needs_pocket = pytest.mark.skipif(
    not (POCKET / "model.safetensors").is_file(),
    reason="the pocket model is not in this checkout",
)


def engine_or_skip(name: str) -> str:
    from harness.engines import why_not

    if why_not(name):
        pytest.skip(str(why_not(name)))
    return name


# --- the measurement


class Reference:
    """Distances by transformers' own forward and generate, in float64."""

    def __init__(self, dense: Path, variant: Path, ends: list[int]) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch, self.ends = torch, ends
        self.models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64) for path in (dense, variant)]

    def logits(self, passage: Passage) -> tuple[float, list[bool]]:
        from scipy.special import log_softmax

        with self.torch.inference_mode():
            ids = self.torch.tensor([passage.ids])
            p, q = (log_softmax(m(input_ids=ids).logits[0].numpy(), axis=-1) for m in self.models)
        at = slice(passage.start - 1, len(passage.ids) - 1)
        nats = (np.exp(p[at]) * (p[at] - q[at])).sum()
        return float(nats), [bool(same) for same in p[at].argmax(-1) == q[at].argmax(-1)]

    def first(self, passage: Passage, tokens: int) -> int | None:
        ids = self.torch.tensor([passage.prompt])
        mask = self.torch.ones_like(ids)
        ends = self.ends
        found = [
            m.generate(
                ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=ends, pad_token_id=0
            )
            for m in self.models
        ]
        one, other = (each[0, len(passage.prompt) :].tolist() for each in found)
        return first_difference(one, other)


@needs_pocket
@pytest.mark.parametrize("name", ["torch", "sparse"])
def test_equals_transformers_in_float64(name: str, tmp_path: Path) -> None:
    from harness.engines import load_engine

    engine_or_skip(name)
    variant = model_directory("pocket-sparse70")
    settings = Settings(new_tokens=24, batch=4, engine=name, variant_engine=name)
    found = measure({"dense": POCKET, "s70": variant}, TEXTS, settings, tmp_path, quiet=True)
    engine: Any = load_engine("torch", POCKET)
    encoded = encode_texts(engine, TEXTS, new_tokens=24)
    reference = Reference(POCKET, variant, sorted(engine.end_ids))
    rows = [json.loads(line) for line in (tmp_path / "journal" / "s70.logits.jsonl").read_text().splitlines()[1:]]
    by_name = {row["passage"]: row for row in rows}
    assert set(by_name) == {p.name for p in encoded.passages}
    nats, bits, firsts = 0.0, [], []
    for passage in encoded.passages:
        expected, same = reference.logits(passage)
        assert by_name[passage.name]["nats"] == pytest.approx(expected, abs=2e-5 * passage.compared)
        assert by_name[passage.name]["agree"] == "".join("01"[each] for each in same)
        firsts.append(reference.first(passage, 24))
        nats, bits = nats + expected, [*bits, *same]
    result = found.models[1].distance
    assert result is not None
    every = result.on("all")
    assert every is not None and every.tokens == len(bits) and every.prompts == 12
    assert every.kl.value == pytest.approx(nats / len(bits), rel=1e-4) and every.kl.value > 0
    assert every.top1.value == pytest.approx(sum(bits) / len(bits), abs=1e-6)
    assert every.never.value == pytest.approx(sum(first is None for first in firsts) / 12, abs=1e-6)
    assert every.survival == pytest.approx(survival(firsts, 24), abs=1e-6)


@needs_pocket
@pytest.mark.parametrize("name", ["torch", "sparse"])
def test_dense_against_itself_is_nothing(name: str, tmp_path: Path) -> None:
    engine_or_skip(name)
    settings = Settings(new_tokens=24, batch=4, engine=name, variant_engine=name)
    result = measure({"dense": POCKET, "same": POCKET}, TEXTS, settings, tmp_path, quiet=True).models[1].distance
    assert result is not None
    for text in result.texts:
        assert text.kl.value == 0.0 and text.top1.value == 1.0 and text.never.value == 1.0
        assert text.survival == [1.0] * 24 and text.first_token.value is None


@needs_pocket
def test_engines_differ_by_rounding_only(tmp_path: Path) -> None:
    engine_or_skip("sparse")
    settings = Settings(new_tokens=24, batch=4, engine="torch", variant_engine="sparse")
    found = measure({"dense": POCKET, "same": POCKET}, TEXTS, settings, tmp_path, quiet=True)
    result = found.models[1].distance
    assert result is not None and (result.baseline_engine, result.engine) == ("torch/float32", "sparse/float32")
    assert result.texts[-1].kl.value is not None and 0 < result.texts[-1].kl.value < 1e-8


@needs_pocket
def test_an_int8_variant_is_nearer_than_a_pruned_one(tmp_path: Path) -> None:
    from harness.sparsify import SparsifyOptions, make

    int8 = tmp_path / "int8"
    make("pocket", "int8", int8, SparsifyOptions(None, None, "cpu", True, True, False, None))
    models = {"dense": POCKET, "int8": int8, "s70": model_directory("pocket-sparse70")}
    found = measure(models, TEXTS, SETTINGS, tmp_path / "out", quiet=True)
    near, far = (model.distance.texts[-1].kl.value for model in found.models[1:] if model.distance)
    assert near is not None and far is not None and 0 < near < far


@needs_pocket
def test_finished_rows_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"dense": POCKET, "s70": model_directory("pocket-sparse70")}
    before = measure(models, TEXTS, SETTINGS, tmp_path, quiet=True)
    journal = tmp_path / "journal" / "s70.logits.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:4]) + lines[4][:9])  # a kill in the middle of a row
    from harness.engines.torch import TorchEngine

    calls: list[int] = []
    real = TorchEngine.logits

    def counted(self: Any, sequences: Any, *, keep: Any) -> Any:
        calls.append(len(sequences))
        return real(self, sequences, keep=keep)

    def fail(*_: Any) -> Any:
        raise AssertionError("a finished continuation was generated again")

    monkeypatch.setattr(TorchEngine, "logits", counted)
    monkeypatch.setattr(TorchEngine, "generate_batch", fail)
    assert measure(models, TEXTS, SETTINGS, tmp_path, quiet=True) == before
    # Three rows of the first batch of four are there: it is computed whole again, as its fourth depends on it.
    assert calls == [4, 4] * 3
    calls.clear()
    assert measure(models, TEXTS, SETTINGS, tmp_path, quiet=True) == before and calls == []


def test_never_more_logits_than_those_of_a_batch(tmp_path: Path) -> None:
    import torch

    from harness.journal import Journal
    from sparsify.progress import NullProgress

    class Spy:
        """An engine whose tensors are counted while anything holds them."""

        vocabulary = 50

        def __init__(self) -> None:
            self.alive: list[weakref.ref[Any]] = []
            self.most = 0

        def logits(self, sequences: Any, *, keep: Any) -> list[Any]:
            self.alive = [ref for ref in self.alive if ref() is not None]
            found = [torch.randn(count, self.vocabulary) for count in keep]
            self.most = max(self.most, len(self.alive) + len(found))
            self.alive += [weakref.ref(each) for each in found]
            return found

    dense: Any = Spy()
    variant: Any = Spy()
    passages = tuple(Passage(f"p{i}", "t", f"p{i}", (1,), (1,) * 20, 1) for i in range(10))
    with Journal(tmp_path / "j.jsonl", {}, row_key="passage") as journal:
        compare_logits(dense, variant, Encoded(passages), batch=3, journal=journal, progress=NullProgress())
    # The last tensor of the batch before may still be bound to a loop variable.
    assert dense.most <= 4 and variant.most <= 4


# --- what is refused


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str, Callable[[Path], None]], Path]:
    """A copy of the pocket model with something changed."""

    def copy(name: str, change: Callable[[Path], None]) -> Path:
        target = tmp_path / name
        target.mkdir()
        for file in POCKET.iterdir():
            if file.is_file():
                (target / file.name).write_bytes(file.read_bytes())
        change(target)
        return target

    return copy


@needs_pocket
def test_models_of_other_tokens_are_refused(tmp_path: Path, changed: Any) -> None:
    other = tiny_llama.save_tiny(tmp_path / "tiny", context=2048)
    with pytest.raises(ConfigError, match="tiny has .* tokens in its vocabulary, dense has .*same tokenizer"):
        measure({"dense": POCKET, "tiny": other}, TEXTS, SETTINGS, tmp_path / "a", quiet=True)

    def template(folder: Path) -> None:
        file = folder / "chat_template.jinja"
        file.write_text("Say: " + file.read_text())

    with pytest.raises(ConfigError, match="v reads the texts as other tokens than dense") as refused:
        measure({"dense": POCKET, "v": changed("v", template)}, TEXTS, SETTINGS, tmp_path / "b", quiet=True)
    assert "\n" not in str(refused.value)


@needs_pocket
def test_broken_weights_are_no_distance(tmp_path: Path, changed: Any) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    def break_it(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        name = next(iter(weights))
        weights[name] = torch.full_like(weights[name], math.nan)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(EngineError, match="not finite"):
        measure({"dense": POCKET, "broken": changed("broken", break_it)}, TEXTS, SETTINGS, tmp_path / "o", quiet=True)


@needs_pocket
def test_windows_and_what_is_too_long(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("\n".join(f"Ann has {i} red cups and {i + 2} pens in the box." for i in range(60)))
    models = {"dense": POCKET, "s70": model_directory("pocket-sparse70")}
    found = measure(models, Texts(window=WindowText(str(file), 64, 3)), SETTINGS, tmp_path / "o", quiet=True)
    result = found.models[1].distance
    assert result is not None and [text.text for text in result.texts] == ["t.txt"]
    assert (result.texts[0].documents, result.texts[0].tokens, result.texts[0].prompts) == (3, 3 * 63, 3)
    assert str(tmp_path) not in (tmp_path / "o" / "distance.json").read_text()
    with pytest.raises(ConfigError, match="do not fit the .* tokens that the model reads"):
        measure(models, Texts(window=WindowText(str(file), 9999, 3)), SETTINGS, tmp_path / "p", quiet=True)


# --- the command and the study


@needs_pocket
def test_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from harness.cli import app

    out = tmp_path / "out"
    command = ["distance", f"dense={POCKET}", "s70=pocket-sparse70", "--prompts", "gsm8k", "--n", "4", "--offline"]
    done = CliRunner().invoke(app, [*command, "--new-tokens", "16", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "| s70 " in done.output and "Distance to dense (torch/float32)" in done.output
    data = json.loads((out / "distance.json").read_text())
    assert data["schema_version"] == 1 and [model["name"] for model in data["models"]] == ["dense", "s70"]
    root = ElementTree.fromstring((out / "distance.svg").read_text())
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert len(lines) == 2  # one variant in two panels
    done = CliRunner().invoke(app, ["distance", f"dense={POCKET}", "--out", str(out)])
    assert isinstance(done.exception, ConfigError) and "at least two models" in str(done.exception)


@needs_pocket
def test_in_a_study(tmp_path: Path) -> None:
    """Measured by `run`, shown beside the flips and by `compare`; added to a finished run, it alone is measured."""
    from harness.compare.command import CompareOptions, run_compare
    from harness.dry_run import plan_text
    from harness.run import RunOptions, run_study
    from harness.study import parse_study

    body: dict[str, Any] = {
        "name": "mini",
        "variants": {"dense": {"path": "pocket"}, "s70": {"path": "pocket-sparse70"}},
        "suites": {"gsm8k": {"n": 6}, "chat": {"n": 4}},
    }
    out = tmp_path / "run"
    options = RunOptions(jobs=2, offline=True, quiet=True)
    plain = run_study(parse_study(body, where="test"), out, options)
    assert plain.summary.variants[1].distance is None and "Distance to" not in (out / "recovery.md").read_text()
    cells = {path: path.stat().st_mtime_ns for path in (out / "records" / "cells").iterdir()}
    body["distance"] = {"items": 5, "new_tokens": 16}
    study = parse_study(body, where="test")
    assert "distance to baselines: 1 of the variants, on gsm8k, chat\n" in plan_text(study, out, options)
    result = run_study(study, out, options)
    assert {path: path.stat().st_mtime_ns for path in cells} == cells
    dense, s70 = result.summary.variants
    assert dense.distance is None and s70.distance is not None
    assert [text.text for text in s70.distance.texts] == ["gsm8k", "chat", "all"]
    direct = measure(
        {"dense": POCKET, "s70": model_directory("pocket-sparse70")},
        Texts(suites=(SuiteText("gsm8k", "pocket", 5), SuiteText("chat", "pocket", 5))),
        Settings(new_tokens=16, batch=16),
        tmp_path / "direct",
        quiet=True,
    )
    assert s70.distance == direct.models[1].distance
    recovery = (out / "recovery.md").read_text()
    assert "Distance to dense on fixed text" in recovery and "items that differ %" in recovery
    shown = run_compare(f"{out}:dense", "s70", CompareOptions())
    assert "distance, gsm8k: top-1 agreement %" in shown
    compared = json.loads(run_compare(f"{out}:dense", "s70", CompareOptions(as_json=True)))["comparisons"][0]
    assert compared["distance"] == s70.distance.model_dump(mode="json")
    turned = json.loads(run_compare(f"{out}:s70", "dense", CompareOptions(as_json=True)))["comparisons"][0]
    assert turned["distance"] is None
    again = run_study(study, out, options)
    assert not again.did
    body["distance"] = {"items": 3, "new_tokens": 16}
    fewer = run_study(parse_study(body, where="test"), out, options).summary.variants[1].distance
    assert fewer is not None and fewer.texts[0].documents == 3


def test_a_study_names_suites_that_it_has() -> None:
    from harness.study import parse_study

    body: dict[str, Any] = {"name": "m", "variants": {"dense": {"path": "pocket"}}, "suites": {"gsm8k": {}}}
    before = parse_study(body, where="test").hash
    assert parse_study({**body, "distance": {}}, where="test").hash == before
    with pytest.raises(ConfigError, match="distance: 'chat' is not one of the skills in suites: gsm8k"):
        parse_study({**body, "distance": {"suites": ["chat"]}}, where="test")
    with pytest.raises(ConfigError, match="distance.token: unknown key; allowed: .*new_tokens"):
        parse_study({**body, "distance": {"token": 3}}, where="test")
