"""The dev split: apart from what is trained on, the same for all arms; it chooses checkpoint and learning rate."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsify.blocks import load_tokenizer
from sparsify.corpus import read_rows
from sparsify.errors import NumericsError, RecipeError, SparsifyError
from sparsify.progress import NullProgress
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.train import TrainJob, TrainSettings, train
from sparsify.train.curves import read_curves
from sparsify.train.data import RowData, split_rows
from sparsify.train.documents import FileDocuments, Side
from sparsify.train.hooks import Single
from sparsify.train.mixture import MixtureData
from sparsify.train.objective import Objective
from sparsify.train.settings import PretrainSettings


def settings(**changes: object) -> TrainSettings:
    base: dict[str, object] = {"tokens": 900, "batch_tokens": 120, "seq": 64, "lr": 1e-2, "warmup": 2}
    base["select"] = {"dev": 0.2, "every": 3}
    return TrainSettings.model_validate({**base, **changes})


def job(model: Path, corpus: Path, out: Path) -> TrainJob:
    return TrainJob(model, out, out.with_name(out.name + ".work"), [corpus])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=2, max_size=80), st.floats(0.05, 0.45))
def test_a_prompt_is_on_one_side_alone(drawn: list[tuple[int, int]], share: float) -> None:
    rows = [{"prompt": f"what is  {prompt}?", "completion": str(answer)} for prompt, answer in drawn]
    prompts = {prompt for prompt, _ in drawn}
    if len(prompts) < 2:
        with pytest.raises(SparsifyError, match="two different prompts"):
            split_rows(rows, share)
        return
    trained, held = split_rows(rows, share)
    assert len(trained) + len(held) == len(rows)
    sides = [{str(row["prompt"]) for row in side} for side in (trained, held)]
    assert not sides[0] & sides[1] and len(sides[1]) == max(1, round(share * len(prompts)))
    # The order of the rows, or more white space in them, does not move a prompt to the other side.
    again = split_rows([{**row, "prompt": str(row["prompt"]).replace("  ", " ")} for row in reversed(rows)], share)
    assert {str(row["prompt"]).replace(" is ", " is  ") for row in again[1]} == sides[1]


def test_no_batch_holds_a_dev_row_whatever_the_seed(model_dir: Path, corpus: Path) -> None:
    tokenizer = load_tokenizer(model_dir)
    _, held = split_rows(list(read_rows(corpus)), 0.2)
    found = []
    for seed in (0, 1):
        data = RowData([corpus], tokenizer, settings(seed=seed))
        found.append(sorted(tuple(b.ids[i][b.real[i]].tolist()) for b in data.dev for i in range(len(b.ids))))
        trained = set()
        for _ in range(data.steps):
            batch = data.next()
            trained |= {tuple(batch.ids[i][batch.real[i]].tolist()) for i in range(len(batch.ids))}
        assert trained and not trained & set(found[-1])
    assert found[0] == found[1] and len(found[0]) == len(held)


def test_documents_of_a_mixture_are_held_whole(model_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {n} of many, {n * n}"}) + "\n" for n in range(80)))
    chosen = PretrainSettings(
        mixture=[{"source": "texts", "share": 1}],  # type: ignore[list-item]
        tokens=3000,
        batch_tokens=64,
        seq=32,
        lr=1e-2,
        select={"dev": 0.2, "tokens": 100_000},  # type: ignore[arg-type]
    )
    tokenizer = load_tokenizer(model_dir)
    data = MixtureData([path], tokenizer, chosen)
    held = "".join(tokenizer.decode(batch.ids[0]) for batch in data.dev).split("<|eos|>")
    trained: list[str] = []
    for _ in range(data.steps):
        trained += [tokenizer.decode(row) for row in data.next().ids]
    text = "".join(trained)
    # First and last are cut.
    whole = [document for document in held[1:-1] if document]
    sides = [FileDocuments(path, tokenizer, 0, Side(0.2, dev)) for dev in (False, True)]
    seen = [{tuple(side.next()) for _ in range(count)} for side, count in zip(sides, (64, 16), strict=True)]
    assert (len(seen[0]), len(seen[1])) == (64, 16) and not seen[0] & seen[1]
    assert all(side.position() == {"epoch": 0, "at": count} for side, count in zip(sides, (64, 16), strict=True))
    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "the one document of its source, long enough to fill a window of its own"}\n')
    two = chosen.model_copy(update={"mixture": (*chosen.mixture, chosen.mixture[0])})
    assert len(MixtureData([path, few], tokenizer, two).dev) >= 1
    with pytest.raises(SparsifyError, match="no document fell into the dev split"):
        MixtureData([few], tokenizer, chosen.model_copy(update={"batch_tokens": 32}))
    assert len(whole) > 5 and not any(f"{document}<|eos|>" in text for document in whole)


def test_the_best_checkpoint_is_the_result(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    # A rate that only harms after a while: the best is not the last.
    chosen = settings(lr=3e-2, schedule="constant", tokens=2400)
    stats = train(job(model_dir, corpus, tmp_path / "o"), chosen)
    lines = read_curves(tmp_path / "o" / "curves.jsonl")
    looks = {line["step"]: line["dev"] for line in lines if "dev" in line}
    assert set(looks) == {*range(3, stats.steps + 1, 3), stats.steps}
    best = min(looks, key=lambda step: looks[step])
    assert stats.chosen == {"lr": 3e-2, "step": best, "dev": looks[best]} and best < stats.steps
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "o", dtype=torch.float32)
    data = RowData([corpus], load_tokenizer(model_dir), chosen)
    # The result is stored in bfloat16.
    assert Objective(model, None, chosen, Single()).dev_loss(data.dev) == pytest.approx(looks[best], rel=0.02)
    assert not (tmp_path / "o.work").exists()


def test_trials_choose_the_rate_and_a_divergent_one_loses(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    chosen = settings(select={"dev": 0.2, "every": 3, "lr": [1e-7, 1e30, 1e-2]}, warmup=0)
    stats = train(job(model_dir, corpus, tmp_path / "o"), chosen)
    low, wild, good = stats.chosen["trials"]
    assert stats.chosen["lr"] == 1e-2 and stats.chosen["dev"] == good["dev"] < low["dev"]
    assert wild["lr"] == 1e30 and "dev" not in wild and wild["diverged_at"] >= 1
    alone = train(job(model_dir, corpus, tmp_path / "p"), settings(warmup=0))
    assert (tmp_path / "o" / "model.safetensors").read_bytes() == (tmp_path / "p" / "model.safetensors").read_bytes()
    assert alone.chosen["dev"] == good["dev"]
    with pytest.raises(NumericsError, match="with every learning rate"):
        train(job(model_dir, corpus, tmp_path / "q"), settings(select={"dev": 0.2, "lr": [1e30, 1e31]}, warmup=0))


def test_short_trials_choose_the_rate_of_a_full_run(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    chosen = settings(select={"dev": 0.2, "every": 3, "lr": [1e-7, 1e-2], "trial_tokens": 360})
    stats = train(job(model_dir, corpus, tmp_path / "o"), chosen)
    alone = train(job(model_dir, corpus, tmp_path / "p"), settings())
    assert stats.steps == alone.steps and {**stats.chosen, "trials": 0} == {**alone.chosen, "trials": 0}
    assert (tmp_path / "o" / "model.safetensors").read_bytes() == (tmp_path / "p" / "model.safetensors").read_bytes()


def test_killed_trials_go_on(model_dir: Path, corpus: Path, tmp_path: Path, kill_at: Any, in_child: Any) -> None:
    """Killed in the first trial, in the second and in the third: the same choice, curve and bytes."""
    from sparsify.train import trainer

    chosen = settings(select={"dev": 0.2, "every": 2, "lr": [1e-3, 1e-2, 3e-3]})
    # A process that has not computed anything yet forks, so every run is in a child.
    assert in_child(lambda: train(job(model_dir, corpus, tmp_path / "whole"), chosen)) == 0

    def work(progress: Any) -> None:
        trainer._SAVE_EVERY_S = 0.0
        train(job(model_dir, corpus, tmp_path / "killed"), chosen, progress=progress)

    for moment in (3, 8, 6):
        status = in_child(lambda moment=moment: work(kill_at(moment)))  # type: ignore[misc]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert in_child(lambda: work(NullProgress())) == 0
    for name in ("model.safetensors",):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


def curve(directory: Path) -> list[dict[str, Any]]:
    lines = read_curves(directory / "curves.jsonl")
    return [{key: value for key, value in line.items() if key != "tokens_per_s"} for line in lines]


def test_a_recipe_records_what_was_chosen(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    stage = {"data": "text", "tokens": 500, "batch_tokens": 120, "select": {"dev": 0.2, "every": 2, "lr": [1e-3, 1e-2]}}
    recipe = parse_recipe({"stages": [{"finetune": stage}]}, name="r", where="t")
    options = MakeOptions(store=tmp_path / "s", name="v", base="tiny", resolve_corpus=lambda _: corpus)
    info = make_variant(model_dir, recipe, tmp_path / "v", options=options)
    found = info.stages[0]["chosen"]
    assert found["lr"] in (1e-3, 1e-2) and [trial["lr"] for trial in found["trials"]] == [1e-3, 1e-2]
    with pytest.raises(RecipeError, match="must be positive and differ"):
        bad = {**stage, "select": {"dev": 0.1, "lr": [0.1, 0.1]}}
        parse_recipe({"stages": [{"finetune": bad}]}, name="r", where="t")
    with pytest.raises(RecipeError, match="unknown key 'split'"):
        bad = {**stage, "select": {"split": 0.1}}
        parse_recipe({"stages": [{"finetune": bad}]}, name="r", where="t")
