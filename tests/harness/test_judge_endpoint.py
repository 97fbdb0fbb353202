"""A judge behind an endpoint: a real server, the command line, verdicts, rows that failed."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import cli
from harness.judge.records import JudgeSummary

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("judging.py"))))
served = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("endpoint_server.py"))))
SECRET = "sk-secret-judge"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder: Path = kit.write_data(tmp_path / "data")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *words: Path | str) -> int:
    monkeypatch.setattr("sys.argv", ["sparsebench", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def summary(out: Path) -> JudgeSummary:
    return JudgeSummary.model_validate_json((out / "summary.json").read_text())


def test_grades_of_a_served_judge_and_a_request_that_failed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = kit.write_answers(tmp_path / "mine.jsonl", "mine")
    broken = True

    def behave(number: int, sent: Any) -> Any:
        if broken and "mine adds 81" in sent.question:
            return served.json_body(400, {"error": {"message": "no"}})
        return served.answer(sent, "Fine. Rating: [[8]]")

    with served.EndpointServer(behave) as server:
        monkeypatch.setenv("SPARSEBENCH_ENDPOINTS", f"{server.origin}=JUDGE_KEY")
        monkeypatch.setenv("JUDGE_KEY", SECRET)
        out = tmp_path / "out"
        words = ("judge", answers, "--judge", "openai:gpt", "--base-url", server.base_url, "--data-dir", data)
        assert run(monkeypatch, *words, "--out", out, "-q") == 0
        (model,) = summary(out).models
        planned = model.overall.n_planned
        assert model.overall.statuses == {"judged": planned - 1, "error": 1}
        assert model.overall.judged.value == 8.0 and model.overall.all.value == (8 * (planned - 1) + 1) / planned
        assert all(sent.headers["authorization"] == f"Bearer {SECRET}" for sent in server.requests)
        assert not any(SECRET in path.read_text() for path in out.rglob("*") if path.is_file())
        asked, broken = len(server.requests), False
        assert run(monkeypatch, *words, "--out", out, "-q") == 0
        assert len(server.requests) == asked + 1  # only what had failed
        assert summary(out).models[0].overall.statuses == {"judged": planned}
    identity = summary(out).judge.identity
    assert identity["served_model"] == "gpt" and identity["engine"] == "openai" and server.base_url not in str(identity)


def test_a_served_classifier_is_not_weighted_and_that_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = kit.write_outputs(tmp_path / "mine.json", "mine", {text: f"Mine: {text}" for text in kit.INSTRUCTIONS})
    with served.EndpointServer(lambda number, sent: served.answer(sent, " M\n")) as server:
        words = ("judge", outputs, "-b", "alpaca-eval", "--judge", "openai:gpt", "--base-url", server.base_url)
        assert run(monkeypatch, *words, "--data-dir", data, "--out", tmp_path / "out", "-q") == 0
    found = summary(tmp_path / "out")
    assert "judge_not_weighted" in {event.kind for event in found.events}
    assert found.models[0].overall.statuses == {"judged": len(kit.INSTRUCTIONS)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--judge", "openai:gpt"), "needs --base-url"),
        (("--judge", "gpt", "--base-url", "http://127.0.0.1:9/v1"), "is named openai:NAME"),
        (("--judge", "openai:gpt", "--base-url", "https://example.org/v1", "--offline"), "leave out --offline"),
    ],
)
def test_bad_judges(
    words: tuple[str, ...], message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    answers = kit.write_answers(tmp_path / "mine.jsonl", "mine")
    assert run(monkeypatch, "judge", answers, "--data-dir", data, "--out", tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


def test_score_reads_judgements_of_chat(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    row = {"question_id": 81, "model": "a", "judge": ["j", "single-v1"], "judgment": "[[7]]", "score": 7, "turn": 1}
    file = kit.write_lines(tmp_path / "j_single.jsonl", [row])
    out = tmp_path / "out"
    assert run(monkeypatch, "score", file, "--suite", "chat", "--data-dir", data, "--out", out) == 0
    assert "judge j" in capsys.readouterr().out and (out / "verdicts.jsonl").is_file()
    assert summary(out).models[0].published["average"] == 7.0
    answers = kit.write_answers(tmp_path / "mine.jsonl", "mine")
    assert run(monkeypatch, "score", answers, "--suite", "chat", "--out", tmp_path / "other") == 2
    assert "sparsebench judge" in capsys.readouterr().err
