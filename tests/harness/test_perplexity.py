"""Perplexity: by hand in float64, on both engines, resumed, paired; and what cannot be read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, EngineError
from harness.models import model_directory
from harness.perplexity import Settings, Text, cut, exp_mean, measure, read_text, table
from suites.registry import ROOT

POCKET = ROOT / "pocket" / "model"
WIKITEXT = Path(__file__).parents[3] / "shared" / "data"
TEXT = Text("t", "\n".join(f"Ann has {i} red cups and {i + 2} pens in the box." for i in range(60)))
SETTINGS = Settings(context=64, windows=4, batch=3)


@pytest.fixture(autouse=True)
def pocket() -> None:
    if not (POCKET / "config.json").is_file():
        pytest.skip("the pocket model is not in this checkout (suites/pocket/model)")


def reference(text: str, context: int, windows: int) -> list[float]:
    """Mean loss of each window in float64, by transformers' own forward."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(POCKET, dtype=torch.float64)
    ids = AutoTokenizer.from_pretrained(POCKET)(text)["input_ids"]
    losses = []
    with torch.inference_mode():
        for index in range(windows):
            window = torch.tensor([ids[index * context : (index + 1) * context]])
            losses.append(float(model(input_ids=window, labels=window).loss))
    return losses


@pytest.mark.parametrize("engine", ["torch", "sparse"])
def test_equals_a_float64_forward(engine: str, tmp_path: Path) -> None:
    if engine == "sparse":
        from harness.engines import why_not

        if why_not("sparse"):
            pytest.skip(str(why_not("sparse")))
    settings = Settings(context=64, windows=4, batch=3, engine=engine)
    results = measure({"pocket": POCKET}, TEXT, settings, tmp_path, quiet=True)
    (row,) = results["models"]
    losses = reference(TEXT.content, 64, 4)
    assert row["nats_per_token"] == pytest.approx(losses, abs=2e-5)
    assert row["perplexity"] == pytest.approx(math.exp(sum(losses) / 4), rel=2e-5)
    assert json.loads((tmp_path / "perplexity.json").read_text()) == json.loads(json.dumps(results))


def test_ratios_are_paired_and_windows_are_not_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"dense": POCKET, "again": POCKET, "sparse": model_directory("pocket-sparse70")}
    dense, again, sparse = measure(models, TEXT, SETTINGS, tmp_path, quiet=True)["models"]
    assert dense["ratio"] is None and again["ratio"] == 1.0 and again["ratio_ci95"] == [1.0, 1.0]
    assert sparse["ratio"] == pytest.approx(sparse["perplexity"] / dense["perplexity"])
    gaps = [a - b for a, b in zip(sparse["nats_per_token"], dense["nats_per_token"], strict=True)]
    assert sparse["ratio_ci95"] == exp_mean(gaps)[1]
    from harness.engines.torch import TorchEngine

    def fail(*_: Any) -> Any:
        raise AssertionError("a finished window was read again")

    monkeypatch.setattr(TorchEngine, "loglikelihoods", fail)
    repeated = measure(models, TEXT, SETTINGS, tmp_path, quiet=True)
    assert repeated["models"][2] == sparse
    told = table(repeated)
    assert "context 64, 4 windows" in told and f"| sparse | {sparse['perplexity']:.4f} [" in told


def test_interval_by_hand() -> None:
    value, interval = exp_mean([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t with 2 degrees of freedom, standard deviation 1
    assert value == pytest.approx(math.exp(2)) and interval is not None
    assert interval == pytest.approx([math.exp(2 - half), math.exp(2 + half)])
    assert exp_mean([1.0]) == (pytest.approx(math.e), None)


def test_windows_lie_side_by_side() -> None:
    assert cut(range(10), 4, None) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert cut(range(10), 4, 1) == [[0, 1, 2, 3]]
    with pytest.raises(ConfigError, match="less than one window of 11"):
        cut(range(10), 11, None)


def test_wikitext_reads_as_the_hub_gives_it() -> None:
    if not (WIKITEXT / "wikitext2_raw").is_dir():
        pytest.skip("WikiText-2 is not here (../shared/data)")
    found = read_text("wikitext2", WIKITEXT).content
    assert found.startswith("\n\n = Robert Boulter = \n\n\n\n\n Robert Boulter is an English film")
    vocabulary = WIKITEXT / "gpt2_tokenizer"
    if not vocabulary.is_dir():
        pytest.skip("GPT-2's tokenizer is not here (../shared/data)")
    from transformers import GPT2Tokenizer

    tokenizer = GPT2Tokenizer.from_pretrained(vocabulary)
    # The length that transformers' own page on perplexity shows for this text and tokenizer.
    assert len(tokenizer(found)["input_ids"]) == 287_644


def test_texts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    assert read_text(str(tmp_path / "a.jsonl"), None).content == "one\n\ntwo"
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"body": "two"}\n')
    with pytest.raises(ConfigError, match=r"b.jsonl:2: not a JSON object with a field text"):
        read_text(str(tmp_path / "b.jsonl"), None)
    (tmp_path / "c.txt").write_text(" \n")
    with pytest.raises(ConfigError, match="is empty"):
        read_text(str(tmp_path / "c.txt"), None)
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_text(str(tmp_path / "d.txt"), None)
    with pytest.raises(ConfigError, match="name a file, or wikitext2"):
        read_text(str(tmp_path / "none.txt"), None)
    with pytest.raises(ConfigError, match="wiki.test.raw is missing"):
        read_text("wikitext2", tmp_path)


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    with pytest.raises(ConfigError, match="--context 100000 is not between 2 and"):
        measure({"p": POCKET}, TEXT, Settings(context=100_000), tmp_path, quiet=True)
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in POCKET.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    name = next(iter(weights))
    weights[name] = torch.full_like(weights[name], math.nan)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match="broken answers with NaN|not finite"):
        measure({"broken": broken}, TEXT, SETTINGS, tmp_path / "out", quiet=True)


def test_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from harness.cli import app

    (tmp_path / "t.txt").write_text(TEXT.content)
    command = [
        "perplexity",
        f"dense={POCKET}",
        "sparse=pocket-sparse70",
        "--text",
        str(tmp_path / "t.txt"),
        "--context",
        "64",
    ]
    done = CliRunner().invoke(app, [*command, "--windows", "3", "--out", str(tmp_path / "out"), "--offline"])
    assert done.exit_code == 0, done.output
    assert "context 64, 3 windows" in done.output and "| sparse | " in done.output
