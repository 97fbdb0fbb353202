"""One test a line of the threat table and sandbox; the document shows that table; honest programs pass."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from harness.errors import SandboxError, SandboxUnavailable
from harness.evaluate.sandbox import Job, Problem, Sandbox, open_sandbox
from harness.evaluate.sandbox.suspicion import signs
from harness.evaluate.sandbox.threats import LEGAL, PROMPT, TEST, THREATS, Threat
from harness.evaluate.sandbox.threats.table import threat_tables, updated
from harness.evaluate.sandbox.trial import Trial, run_threats
from harness.evaluate.sandbox.types import kind_of

BACKENDS = ("bwrap", "unshare")
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "sandbox.md"


@functools.cache
def _opened(name: str) -> Sandbox:
    return open_sandbox(name)


def _sandbox(name: str) -> Sandbox:
    try:
        return _opened(name)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@functools.cache
def _trials(name: str) -> dict[str, Trial]:
    """All programs in one run, so that each meets a judge and a machine that others have been at."""
    return {trial.threat.name: trial for trial in run_threats(_sandbox(name))}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_a_threat_ends_as_the_table_says(threat: Threat, backend: str) -> None:
    trial = _trials(backend)[threat.name]
    assert trial.held, trial.verdict
    assert trial.outcome in threat.ends, trial.verdict
    assert (trial.verdict.status == "suspicious") == threat.marked, trial.verdict
    kind_of(trial.verdict.status)


@pytest.mark.parametrize("backend", BACKENDS)
def test_honest_programs_that_look_odd_pass(backend: str) -> None:
    sandbox = _sandbox(backend)
    problem = Problem("legal", PROMPT, TEST, "f")
    verdicts = sandbox.run([Job(problem, program) for program in LEGAL.values()])
    assert {name: v for name, v in zip(LEGAL, verdicts, strict=True) if not v.passed} == {}


def test_the_table_is_large_enough_and_without_doubles() -> None:
    assert len({threat.name for threat in THREATS}) == len(THREATS) == len({threat.source for threat in THREATS})
    assert len(THREATS) >= 40
    assert not {"passed", "sandbox_error"} & {end for threat in THREATS for end in threat.ends}
    for threat in THREATS:
        assert threat.attack and threat.control and threat.asset and threat.ends, threat.name
        for end in threat.ends:
            kind_of(end)


def test_the_document_shows_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert updated(text) == text, "run: python -m harness.evaluate.sandbox.threats"
    assert text.count("\n| ") - text.count("\n| asset") >= len(THREATS)
    with pytest.raises(ValueError, match="threats: begin"):
        updated("no place")


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    odd = Threat(name="x", goal="verdict", asset="a|b", attack="c", control="d", program="e", marked=True)
    assert "| a\\|b | c | d | `suspicious` (`failed_assert`) | `x` |" in threat_tables([odd])


def test_a_hole_is_told_from_a_wall() -> None:
    """The trial can fail: a program that solves the problem counts as a hole, marked or not."""
    sandbox = _sandbox(next((name for name in BACKENDS if _there(name)), "bwrap"))
    hole = Threat(name="h", goal="machine", asset="a", attack="b", control="c", program="def f(x): return x + 1\n")
    marked = Threat(
        name="m",
        goal="verdict",
        asset="a",
        attack="b",
        control="c",
        program="import ctypes\ndef f(x): return x + 1\n",
        marked=True,
    )
    first, second = run_threats(sandbox, [hole, marked])
    assert first.verdict.passed and not first.held and not first.as_told
    assert second.verdict.status == "suspicious" and second.outcome == "passed" and not second.held


def _there(name: str) -> bool:
    try:
        _opened(name)
    except SandboxUnavailable:
        return False
    return True


def test_a_touched_bait_stops_everything() -> None:
    from harness.evaluate.sandbox.threats.bait import bait

    with pytest.raises(SandboxError, match="changed a file"), bait() as marks:
        Path(marks["@PLANTED@"]).write_text("hole")
    with pytest.raises(SandboxError, match="reached a socket"), bait() as marks:
        import socket

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"hole", ("127.0.0.1", int(marks["@UDP@"])))
    with pytest.raises(SandboxError, match="reached a socket"), bait() as marks:
        socket.create_connection(("127.0.0.1", int(marks["@PORT@"]))).close()


def test_legal_programs_have_no_signs() -> None:
    assert {name: found for name, program in LEGAL.items() if (found := signs(program))} == {}
