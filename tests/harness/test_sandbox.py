"""Real programs in real sandboxes: what honest code gets, what hostile code does not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import ConfigError, InfrastructureError, SandboxUnavailable
from harness.evaluate.sandbox import Job, Limits, Problem, Sandbox, Verdict, open_sandbox, preflight
from harness.evaluate.sandbox.preflight import canonical_jobs
from harness.evaluate.sandbox.session import clean
from harness.evaluate.sandbox.threats import THREATS, Threat
from harness.evaluate.sandbox.types import KINDS, kind_of


def _open(name: str, **options: object) -> Sandbox:
    try:
        return open_sandbox(name, **options)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["bwrap", "unshare"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return _open(request.param)


@pytest.fixture(scope="module")
def any_sandbox() -> Sandbox:
    """One worker, so that consecutive jobs meet the same judge."""
    return _open("auto", workers=1)


def _problem(test: str, prompt: str = 'def f(x):\n    """Do it."""\n') -> Problem:
    return Problem("t/1", prompt, test, "f")


def _check(*lines: str) -> str:
    return "def check(candidate):\n" + "".join(f"    {line}\n" for line in lines)


def _run(sandbox: Sandbox, program: str, *lines: str, **limits: float) -> Verdict:
    strict = sandbox.with_limits(replace(sandbox.limits, **limits))
    return strict.run([Job(_problem(_check(*lines)), program)])[0]


def test_preflight_refuses_every_hostile_program(sandbox: Sandbox) -> None:
    report = preflight(sandbox)
    quick = {threat.name for threat in THREATS if threat.quick}
    assert quick < set(report.statuses) and len(quick) >= 25
    got = report.statuses
    assert (report.canonical_passed, report.canonical_total) == (4, 4)
    assert got["control_right"] == "passed"
    assert got["endless_loop"] == got["endless_sleep"] == "timeout"
    assert got["memory"] == "oom" and got["endless_answer"] in {"oom", "timeout"}
    assert got["sys_exit"] == "error:SystemExit" and got["kill_all"] == "killed"
    assert got["exit_0"] == got["exit_0_in_call"] == got["forge_answers"] == got["walk_frames"] == "suspicious"
    for name in ("write_outside", "read_host", "network", "fork_bomb", "disk", "see_processes", "become_root"):
        # The attack ran to its end and came back empty-handed; an exception would prove less.
        assert got[name] == "failed_assert", name


def test_a_preflight_with_a_hole_stops_everything(any_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "def f(x):\n    return x + 1\n"
    hole = Threat(name="hole", goal="machine", asset="a", attack="b", control="c", program=program)
    monkeypatch.setattr(sys.modules["harness.evaluate.sandbox.preflight"], "THREATS", (hole,))
    with pytest.raises(InfrastructureError, match="preflight failed: hole passed"):
        preflight(any_sandbox)


def test_all_canonical_solutions_pass() -> None:
    sandbox = _open("auto")
    jobs = canonical_jobs(full=True)
    assert len(jobs) == 164
    verdicts = sandbox.run(jobs)
    bad = [(job.problem.task_id, v) for job, v in zip(jobs, verdicts, strict=True) if not v.passed]
    assert bad == []


@pytest.mark.parametrize(
    ("program", "line", "status"),
    [
        ("def f(x):\n    return x + 1\n", "assert candidate(1) == 2", "passed"),
        ("def f(x):\n    return x\n", "assert candidate(1) == 2, 'no'", "failed_assert"),
        ("def f(x:\n", "assert candidate(1) == 2", "syntax_error"),
        ("x = '\0'\n", "assert candidate(1) == 2", "syntax_error"),
        ("def g(x):\n    return 2\n", "assert candidate(1) == 2", "error:KeyError"),
        ("import nothing_here\n", "assert candidate(1) == 2", "error:ModuleNotFoundError"),
        ("def f(x):\n    return f(x)\n", "assert candidate(1) == 2", "error:RecursionError"),
        ("def f(x):\n    assert False\n", "assert candidate(1) == 2", "error:AssertionError"),
        ("def f(x):\n    return None\n", "assert abs(candidate(1)) == 2", "error:TypeError"),
        ("def f(x):\n    return object()\n", "assert candidate(1)", "error:UnsupportedType"),
        ("def f(x):\n    return (x for x in [1, 2])\n", "assert tuple(candidate(1)) == (1, 2)", "passed"),
        ("def f(x):\n    return (x for x in [1, 2])\n", "assert candidate(1) == [1, 2]", "failed_assert"),
        ("from collections import Counter as f\n", "assert candidate('aa') == {'a': 2}", "passed"),
        ("def f(x):\n    x.append(1)\n    return x\n", "x = [0]; assert candidate(x) == [0, 1]", "passed"),
    ],
)
def test_statuses(any_sandbox: Sandbox, program: str, line: str, status: str) -> None:
    assert _run(any_sandbox, program, line).status == status


def test_an_expected_exception_reaches_the_test(any_sandbox: Sandbox) -> None:
    lines = (
        "try:",
        "    candidate(1)",
        "except ValueError as e:",
        "    assert str(e) == 'seven'",
        "else:",
        "    1 / 0",
    )
    program = "class Odd(ValueError):\n    pass\ndef f(x):\n    raise Odd('seven')\n"
    assert _run(any_sandbox, program, *lines).passed
    assert _run(any_sandbox, "def f(x):\n    raise KeyError('seven')\n", *lines).status == "error:KeyError"


def test_a_test_that_swallows_everything_hides_no_death(any_sandbox: Sandbox) -> None:
    swallow = ("try:", "    candidate(1)", "except BaseException:", "    pass")
    assert _run(any_sandbox, "import os\ndef f(x):\n    os._exit(0)\n", *swallow).outcome == "error:SystemExit"
    assert _run(any_sandbox, "def f(x):\n    return len\n", *swallow).status == "error:UnsupportedType"


def test_helpers_of_the_prompt_come_from_the_prompt(any_sandbox: Sandbox) -> None:
    prompt = "def double(x):\n    return 2 * x\n\ndef f(x):\n"
    problem = _problem(_check("assert candidate(3) == double(3)"), prompt)
    lie = "def double(x):\n    return 0\ndef f(x):\n    return 0\n"
    honest, liar = any_sandbox.run([Job(problem, prompt + "    return double(x)\n"), Job(problem, lie)])
    assert honest.passed
    assert liar.status == "failed_assert"


def test_runs_are_repeatable_and_random_tests_seeded(any_sandbox: Sandbox) -> None:
    program = "def f(x):\n    return [*{'a', 'b', 'c', 'd', 'e'}], hash('a')\n"
    first = _run(any_sandbox, program, "import random", "assert not candidate(1), (candidate(1), random.random())")
    second = _run(any_sandbox, program, "import random", "assert not candidate(1), (candidate(1), random.random())")
    assert first.detail == second.detail != ""


def test_equal_programs_run_once_and_order_is_kept(any_sandbox: Sandbox) -> None:
    problem = _problem(_check("assert not candidate(1), candidate(1)"))
    unique = Job(problem, "import os\nV = os.urandom(8).hex()\ndef f(x):\n    return V\n")
    other = Job(problem, "def f(x):\n    return 'other'\n")
    a, b, c = any_sandbox.run([unique, other, unique])
    assert a is c and b.detail == "other"


def test_the_environment_does_not_leak(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    program = "import os\ndef f(x):\n    return sorted(os.environ)\n"
    verdict = _run(
        sandbox, program, "names = candidate(1)", "assert 'PATH' in names and len(names) < 9", "assert not names, names"
    )
    assert verdict.status == "failed_assert" and "PATH" in verdict.detail
    assert "API_KEY" not in verdict.detail and "SPARSE" not in verdict.detail


def test_only_the_interpreter_is_visible(sandbox: Sandbox) -> None:
    program = (
        "import os\ndef f(x):\n    return sorted(os.listdir('/')), sorted(os.listdir('/usr')), os.listdir('/tmp')\n"
    )
    verdict = _run(
        sandbox,
        program,
        "root, usr, tmp = candidate(1)",
        "assert not set(root) & {'home', 'root', 'work', 'mnt', 'var', 'opt', 'run', 'sys', 'srv', 'boot'}, root",
        "assert not set(usr) & {'share', 'src', 'games'}, usr",
        "assert tmp == [], tmp",
    )
    assert verdict.passed, verdict


def test_no_user_namespace_inside_bwrap() -> None:
    sandbox = _open("bwrap")
    if "--disable-userns" not in sandbox.backend.options:
        pytest.skip("this bubblewrap cannot forbid nested user namespaces")
    program = "import ctypes\ndef f(x):\n    return ctypes.CDLL(None).unshare(0x10000000)\n"
    assert _run(sandbox, program, "assert candidate(1) == -1").outcome == "passed"


def _command_lines(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_text()
            except OSError:
                continue
            if mark in text:
                found.append(entry.name)
    return found


def test_nothing_survives_a_program(sandbox: Sandbox) -> None:
    size = 10_000_000 + os.getpid()  # shows in the command line of this test's processes alone
    program = "import os\nif os.fork() == 0:\n    os.setsid()\n    while True:\n        pass\ndef f(x):\n    return 2\n"
    spinning = "import os\nos.fork()\nos.setsid()\nwhile True:\n    pass\n"
    assert _run(sandbox, program, "assert candidate(1) == 2", file_bytes=size).passed
    assert _run(sandbox, spinning, "candidate(1)", file_bytes=size, wall_seconds=1.0).status == "timeout"
    deadline = time.monotonic() + 10
    while _command_lines(f"FSIZE={size}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _command_lines(f"FSIZE={size}") == []


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "planted"
    file.write_text("untouched")
    file.chmod(0o666)
    yield file
    assert file.read_text() == "untouched"


def test_the_judge_is_sandboxed_too(sandbox: Sandbox, planted: Path) -> None:
    good = "def f(x):\n    return 1\n"
    verdict = _run(sandbox, good, f"open({str(planted)!r}, 'w').write('hole')", "assert candidate(1) == 1")
    assert verdict.status in {"error:FileNotFoundError", "error:OSError", "error:PermissionError"}
    with pytest.raises(ConfigError, match=r"problem t/1: its test does not load: FileNotFoundError"):
        sandbox.run([Job(_problem("open('/etc/shadow')\n" + _check("candidate(1)")), good)])


@pytest.mark.parametrize("test", ["def check(candidate):\n    pass\n", "x = (\n", "VALUE = 1\n"])
def test_a_useless_test_is_an_error_not_a_score(any_sandbox: Sandbox, test: str) -> None:
    with pytest.raises(ConfigError, match="problem t/1"):
        any_sandbox.run([Job(_problem(test), "def f(x):\n    return 1\n")])


def test_a_stalled_or_dead_judge_spoils_only_its_own_job(any_sandbox: Sandbox) -> None:
    strict = any_sandbox.with_limits(Limits(wall_seconds=1.5))
    good = "def f(x):\n    return 10**12\n"
    jobs = [
        Job(_problem(_check("assert sum(range(candidate(1))) == 1")), good),
        Job(_problem(_check("assert candidate(1) == 10**12")), good),
        Job(_problem(_check("candidate(1)", "import os", "os._exit(0)")), good),
        Job(_problem(_check("assert candidate(2) == 10**12")), good),
    ]
    got = [verdict.status for verdict in strict.run(jobs)]
    assert got[:2] == ["timeout", "passed"]
    assert got[2] != "passed"
    assert got[3] == "passed"


def test_a_forked_copy_cannot_answer_for_the_test(any_sandbox: Sandbox) -> None:
    program = "import os\nos.fork()\ndef f(x):\n    return 2\n"
    assert _run(any_sandbox, program, "assert candidate(1) == 3", "assert candidate(1) == 2").status != "passed"


def test_untrusted_text_is_made_harmless() -> None:
    assert clean("a\x1b[31m\n\u202eb\x7f") == "a\\x1b[31m \\u202eb\\x7f"
    assert len(clean("x" * 500)) == 200


def test_a_suspicious_program_never_passes_and_says_what_its_tests_said(any_sandbox: Sandbox) -> None:
    right = _run(any_sandbox, "import ctypes\ndef f(x):\n    return 2\n", "assert candidate(1) == 2")
    assert (right.status, right.outcome, right.passed) == ("suspicious", "passed", False)
    assert right.detail.startswith("reads memory (line 1); its tests: passed")
    wrong = _run(any_sandbox, "import ctypes\ndef f(x):\n    return 3\n", "assert candidate(1) == 2, 'no'")
    assert (wrong.status, wrong.outcome) == ("suspicious", "failed_assert")
    endless = _run(any_sandbox, "import ctypes\nwhile True: pass\n", "candidate(1)", cpu_seconds=1, wall_seconds=3.0)
    assert (endless.status, endless.outcome) == ("suspicious", "timeout")
    assert _run(any_sandbox, "def f(x):\n    return 2\n", "assert candidate(1) == 2").outcome == ""


def test_an_unhashable_item_of_a_set_is_no_forgery(any_sandbox: Sandbox) -> None:
    program = "class L(list):\n    __hash__ = object.__hash__\ndef f(x):\n    return {L([1])}\n"
    verdict = _run(any_sandbox, program, "candidate(1)")
    assert verdict.status == "error:UnsupportedType" and "unhashable" in verdict.detail


def test_the_judge_outlives_the_limit_that_one_test_has(any_sandbox: Sandbox) -> None:
    """Its processor time adds up over programs: a long run must not end as a dead judge."""
    problem = _problem(
        _check(
            "t = __import__('time')",
            "end = t.process_time() + 0.4",
            "assert candidate(1) == 2",
            "while t.process_time() < end: pass",
        )
    )
    strict = any_sandbox.with_limits(Limits(cpu_seconds=1))
    jobs = [Job(problem, f"# {number}\ndef f(x):\n    return 2\n") for number in range(5)]
    assert [verdict.status for verdict in strict.run(jobs)] == ["passed"] * 5
    slow = _problem(_check("candidate(1)", "while True: pass"))
    assert strict.run([Job(slow, "def f(x):\n    return 2\n")])[0].status == "timeout"


_SPIN = "def f(x):\n    while True: pass\n"
_SLEEP = "import time\ndef f(x):\n    time.sleep(5)\n    return 2\n"
_HOARD = "def f(x):\n    return 2 if bytearray(200 << 20) else 0\n"
_WRITE = "def f(x):\n    with open('/tmp/x', 'wb') as file:\n        file.write(bytes(3 << 20))\n    return 2\n"
_FORK = """
import os
def f(x):
    for _ in range(8):
        if os.fork() == 0:
            os.read(os.pipe()[0], 1)
    return 2
"""


@pytest.mark.parametrize(
    ("limits", "program", "status"),
    [
        ({"cpu_seconds": 1, "wall_seconds": 300.0}, _SPIN, "timeout"),
        ({"wall_seconds": 0.7}, _SLEEP, "timeout"),
        ({"memory_bytes": 128 << 20}, _HOARD, "oom"),
        ({"file_bytes": 1 << 20}, _WRITE, "error:OSError"),
        ({"tmp_bytes": 1 << 20}, _WRITE, "error:OSError"),
        ({"processes": 6}, _FORK, "error:BlockingIOError"),
    ],
    ids=["cpu", "wall", "memory", "file", "tmp", "processes"],
)
def test_each_limit_holds_and_the_defaults_are_not_too_low(
    sandbox: Sandbox, limits: dict[str, float], program: str, status: str
) -> None:
    verdict = _run(sandbox, program, "assert candidate(1) == 2", **limits)
    assert verdict.status == status
    # A busy machine gives a second of processor time late, but long before the clock's limit.
    assert verdict.seconds < 150
    if program is not _SPIN:
        assert _run(sandbox, program, "assert candidate(1) == 2").passed


def test_output_is_bounded_and_costs_the_harness_nothing(sandbox: Sandbox) -> None:
    flood = "import os\ndef f(x):\n    for fd in (1, 2):\n        for _ in range(64):\n            os.write(fd, bytes(1 << 20))\n    return 2\n"  # noqa: E501
    assert _run(sandbox, flood, "assert candidate(1) == 2", wall_seconds=60.0).passed
    verdict = _run(sandbox, "def f(x):\n    return 'x' * (80 << 20)\n", "candidate(1)", wall_seconds=60.0)
    assert verdict.status == "error:UnsupportedType" and "too large" in verdict.detail


def test_every_status_has_a_kind() -> None:
    assert kind_of("error:ValueError") == "error" and kind_of("passed") == "passed"
    assert {kind_of(kind) for kind in KINDS if kind != "error"} == set(KINDS) - {"error"}
    for unknown in ("sandbox_error", "ok", "errors", ""):
        with pytest.raises(ValueError, match="no verdict"):
            kind_of(unknown)
