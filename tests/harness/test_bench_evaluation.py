"""The benchmark of evaluation: arms, numbers and pages on synthetic lines, and both programs on the pocket model."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.evaluation import run as benchmark
from harness.bench.evaluation.arms import ARMS, OURS, STEPS, STOCK, Arm
from harness.bench.evaluation.ledger import Ledger, first_difference, turns
from harness.bench.evaluation.numbers import agreement, check_claims, pieces_of, speedup, split
from harness.bench.evaluation.render import markdown
from harness.bench.evaluation.settings import NEW_TOKENS, POCKET, RANDOM, SHAPE, Settings
from harness.bench.sparsify.journal import Journal
from harness.errors import ConfigError, InfrastructureError

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPARSEBENCH_DATA", ROOT.parent / "shared" / "data"))
SETTINGS = Settings(items=20, batch=2, split=8)
KEY = {"model": POCKET, "model_sha256": "m", "settings_sha256": "s"}
MACHINE = {"cpu": "c", "cores": 2, "system": "s", "python": "3"}
tiny_llama = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny_llama.py"))))


# The plan


def test_each_step_adds_one_thing() -> None:
    assert ARMS[0] is STOCK and ARMS[-1] is OURS and len({arm.name for arm in ARMS}) == len(ARMS)
    for before, after in zip(STEPS, STEPS[1:], strict=False):
        switches = [(a, b) for a, b in zip(before_of(before), before_of(after), strict=True) if a != b]
        assert len(switches) == 1, after.name
    assert before_of(OURS) == (True, True, "shared")


def before_of(arm: Arm) -> tuple[Any, ...]:
    return arm.by_length, arm.drop, arm.prefix


def test_arms_take_turns_and_all_of_them_answer_the_first_items() -> None:
    assert [list(piece) for piece in SETTINGS.pieces()] == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    planned = [(piece, arm.name) for piece, arm in turns(SETTINGS)]
    assert len(planned) == len(set(planned)) == len(ARMS) + 2 + 2
    assert [arm for piece, arm in planned if piece == 0] == [arm.name for arm in ARMS]
    assert [arm for piece, arm in planned if piece == 1] == ["ours", "stock"]
    assert [arm for piece, arm in planned if piece == 2] == ["stock", "ours"]


# Numbers


def ledger_of(tmp_path: Path, *lines: dict[str, Any]) -> Ledger:
    journal = Journal(tmp_path / "pieces.jsonl")
    for line in lines:
        journal.add({**KEY, **line})
    return Ledger(journal, KEY)


def timing(arm: Arm, piece: int, seconds: float, answers: dict[str, list[int]] | None = None) -> dict[str, Any]:
    positions = SETTINGS.pieces()[piece]
    tokens = {f"i{at}": [1, 2, 3] for at in positions} | (answers or {})
    texts = {item: str(ids) for item, ids in tokens.items()}
    clock = {"seconds": seconds, "cpu_seconds": seconds / 2, "machine": MACHINE, "versions": {"torch": "2"}}
    return {"kind": "time", "arm": arm.name, "piece": piece, "tokens": tokens, "texts": texts, "prompts": {}, **clock}


def whole(tmp_path: Path, **changed: dict[str, list[int]]) -> Ledger:
    seconds = dict(zip((arm.name for arm in ARMS), (40.0, 38.0, 36.0, 30.0, 12.0, 10.0), strict=True))
    lines = [timing(arm, 0, seconds[arm.name], changed.get(arm.name)) for arm in ARMS]
    lines += [timing(arm, piece, seconds[arm.name] * piece) for piece in (1, 2) for arm in (STOCK, OURS)]
    return ledger_of(tmp_path, *lines)


def test_a_ratio_is_of_total_seconds(tmp_path: Path) -> None:
    ledger = ledger_of(
        tmp_path,
        *(timing(STOCK, piece, seconds) for piece, seconds in enumerate((30.0, 10.0))),
        *(timing(OURS, piece, seconds) for piece, seconds in enumerate((5.0, 5.0, 99.0))),
    )
    pieces = pieces_of(ledger, SETTINGS, (STOCK, OURS))
    assert pieces == [0, 1], "a piece that only one arm has compares nothing"
    found = speedup(ledger, STOCK, OURS, pieces)
    assert found is not None
    assert (found.items, found.slow_s, found.fast_s, found.wall, found.low, found.high) == (16, 40.0, 10.0, 4.0, 2, 6)
    assert speedup(ledger, STOCK, OURS, []) is None


def test_the_steps_multiply_to_the_whole(tmp_path: Path) -> None:
    steps = split(whole(tmp_path), SETTINGS)
    assert [arm for arm, _, _ in steps] == list(STEPS)
    product = 1.0
    for _, total, step in steps:
        product *= step
        assert total.wall == pytest.approx(product)
    assert product == pytest.approx(4.0) and steps[-1][1].items == 8
    assert split(ledger_of(tmp_path / "none"), SETTINGS) == []


@given(st.lists(st.integers(0, 1), max_size=5), st.lists(st.integers(0, 1), max_size=5))
def test_where_rows_part(ours: list[int], stock: list[int]) -> None:
    at = first_difference(ours, stock)
    if at is None:
        assert stock[: len(ours)] == ours
    else:
        assert ours[:at] == stock[:at] and ours[at : at + 1] != stock[at : at + 1] and at < len(ours)


def test_rows_that_part_are_counted_and_need_their_margins(tmp_path: Path) -> None:
    ledger = whole(tmp_path, ours={"i3": [1, 2, 9]})
    found = agreement(ledger, SETTINGS, OURS)
    assert found is not None and (found.rows, found.identical, found.texts, found.margins) == (20, 19, 19, ())
    assert [claim.holds for claim in check_claims(POCKET, ledger, SETTINGS)] == [True, False, None]
    ledger.journal.add({**KEY, "kind": "margin", "arm": "ours", "item": "i3", "at": 2, "margin": 3e-5, "best": [9, 3]})
    found = agreement(ledger, SETTINGS, OURS)
    assert found is not None and (found.margins, found.two_best) == ((3e-5,), True)
    assert [claim.holds for claim in check_claims(POCKET, ledger, SETTINGS)] == [True, False, True]
    ledger.journal.add({**KEY, "kind": "margin", "arm": "ours", "item": "i3", "at": 2, "margin": 0.2, "best": [3, 5]})
    found = agreement(ledger, SETTINGS, OURS)
    assert found is not None and not found.two_best
    assert check_claims(POCKET, ledger, SETTINGS)[2].holds is False


def test_claims_stay_open_until_all_pieces_are_there(tmp_path: Path) -> None:
    half = ledger_of(tmp_path / "half", timing(STOCK, 0, 9.0), timing(OURS, 0, 1.0))
    assert [claim.holds for claim in check_claims(POCKET, half, SETTINGS)] == [None] * 3
    full = whole(tmp_path)
    assert [claim.holds for claim in check_claims(POCKET, full, SETTINGS)] == [True] * 3
    slow = ledger_of(
        tmp_path / "slow", *(timing(arm, piece, s) for piece in range(3) for arm, s in ((STOCK, 2.9), (OURS, 1.0)))
    )
    assert check_claims(POCKET, slow, SETTINGS)[0].holds is False


def test_the_page_says_it_all(tmp_path: Path) -> None:
    ledger = whole(tmp_path, drop={"i3": [1, 2, 9]})
    results = {"command": "sparsebench bench evaluation", "places": ledger.places()}
    said = markdown(results, {POCKET: ledger}, check_claims(POCKET, ledger, SETTINGS), SETTINGS)
    assert "**4.00 times as fast**" in said
    assert "| prefix | the few-shot prefix is computed once" in said and "| 3.33 | 2.50 |" in said
    assert "| drop | 7 of 8 | 87.5% |" in said and "| ours | 20 of 20 | 100.0% |" in said
    assert str(tmp_path) not in said and said.count("Machine: c, 2 cores, s, Python 3, torch 2.") == 1


# Models


def test_the_random_model_has_100_million_parameters_and_never_ends(tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from harness.bench.evaluation.subjects import make_random
    from harness.engines import Request
    from harness.engines.torch import TorchEngine
    from harness.models import model_directory

    with torch.device("meta"):
        parameters = sum(p.numel() for p in LlamaForCausalLM(LlamaConfig(**SHAPE)).parameters())
    assert 1e8 < parameters < 1.1e8
    small = {**SHAPE, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1}
    make_random(tmp_path / "m", tokenizer_from=model_directory(POCKET, offline=True), shape=small)
    engine = TorchEngine.load(tmp_path / "m")
    assert len(engine.end_ids) >= 2
    done = engine.generate_batch([Request(str(at), (at, 7, 9), 40) for at in range(20, 40)])
    assert {(one.finish, one.n_out) for one in done} == {("length", 40)}


def test_margins_are_those_of_the_logits(tmp_path: Path) -> None:
    import torch

    from harness.bench.evaluation.margins import top_two
    from harness.engines.torch import TorchEngine

    model = TorchEngine.load(tiny_llama.save_tiny(tmp_path / "m")).model
    tokens = tiny_llama.prompts(1)[0]
    with torch.inference_mode():
        ordered = model(torch.tensor([tokens])).logits[0, -1].sort(descending=True)
    gap, best = top_two(model, tokens)
    assert gap == pytest.approx(float(ordered.values[0] - ordered.values[1]), rel=1e-4)
    assert best == ordered.indices[:2].tolist()


# Both programs


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> benchmark.Plan:
    if not (DATA / "gsm8k").is_dir():
        pytest.skip("no real data; set SPARSEBENCH_DATA to its folder")
    if importlib.util.find_spec("accelerate") is None:
        pytest.skip("lm-eval's own hf model needs accelerate: pip install accelerate")
    monkeypatch.setitem(NEW_TOKENS, POCKET, 6)
    return benchmark.Plan(
        models=(POCKET,),
        out=tmp_path / "out",
        work=tmp_path / "work",
        data=DATA,
        settings=Settings(items=3, batch=2, split=3),
        command="sparsebench bench evaluation",
    )


def test_both_programs_say_the_same_and_nothing_is_timed_twice(
    plan: benchmark.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.bench.evaluation import session

    results = benchmark.run_benchmark(plan, quiet=True)
    (model,) = results["models"]
    assert model["speedup"]["items"] == 3 and model["speedup"]["wall"] > 0
    assert [step["arm"] for step in model["steps"]] == [arm.name for arm in STEPS]
    for arm, found in model["tokens"].items():
        assert (found["rows"], found["identical"], found["texts"]) == (3, 3, 3), arm
    assert [claim["holds"] for claim in results["claims"]][1:] == [True, True]
    assert json.loads((plan.out / "results.json").read_text()) == results
    lines = (plan.out / "pieces.jsonl").read_text()
    assert len(lines.splitlines()) == len(ARMS) and str(plan.work) not in lines

    def opened(*_: Any) -> None:
        raise AssertionError("everything is measured already")

    monkeypatch.setattr(session, "Session", opened)
    again = benchmark.run_benchmark(plan, quiet=True)
    assert again["models"] == results["models"]
    kept = "\n".join(line for line in lines.splitlines() if '"arm": "ours"' not in line)
    elsewhere = lines.replace('"torch": "', '"torch": "0.')
    for changed in (kept + "\n", elsewhere):
        (plan.out / "pieces.jsonl").write_text(changed)
        with pytest.raises(AssertionError, match="measured already"):
            benchmark.run_benchmark(plan, quiet=True)


def test_arms_that_were_asked_other_prompts_are_refused(plan: benchmark.Plan) -> None:
    benchmark.run_benchmark(plan, quiet=True)
    path = plan.out / "pieces.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    stock = next(line for line in lines if line["arm"] == "stock")
    stock["prompts"] = dict.fromkeys(stock["prompts"], "0")
    path.write_text(json.dumps(stock) + "\n")
    with pytest.raises(InfrastructureError, match="prompts differ from those of arm stock"):
        benchmark.run_benchmark(plan, quiet=True)


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    empty = benchmark.Plan((POCKET,), tmp_path, tmp_path, DATA, SETTINGS, "c")
    with pytest.raises(ConfigError, match="holds nothing that was measured"):
        benchmark.run_benchmark(empty, measure=False)
    assert RANDOM in NEW_TOKENS
