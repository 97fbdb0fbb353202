"""The process that holds the tests and gives the verdict; it runs in a sandbox of its own, apart from the candidate.

Tests come from a data set, so they are code that somebody else wrote: trusted to judge, not trusted with the machine.
The function under test is a proxy here; each call travels through the harness to the candidate's sandbox and comes back
as plain built-in values. One judge serves many programs in turn, each in a process forked for it.
"""

from __future__ import annotations

import ast
import builtins
import math  # noqa: F401 - loaded once here, so that the forked judges need not
import os
import random
import sys
import typing  # noqa: F401 - see `math`
from typing import Any

from harness.evaluate.sandbox.guest import enter, lower_limits
from harness.evaluate.sandbox.protocol import UnsupportedValue, WireError, decode, encode, read_frame, write_frame
from harness.evaluate.sandbox.stand_in import MissingFromStandIn
from harness.evaluate.sandbox.suspicion import signs

Verdict = tuple[str, str]
_SIGXCPU = 24


class CandidateError(Exception):
    """The candidate raised something without a built-in counterpart."""


class _Ended(BaseException):
    """The verdict is known before the test's end; not an `Exception`, so that tests do not swallow it."""

    def __init__(self, status: str, detail: str = "") -> None:
        super().__init__(status)
        self.verdict: Verdict = (status, detail)


class Remote:
    """The candidate's function as the test sees it: arguments out, plain values or exceptions back."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self.calls = 0
        self.raised: BaseException | None = None
        self.raised_as = ""
        self.ended: Verdict | None = None

    def ask(self, request: tuple[Any, ...]) -> tuple[Any, ...]:
        """Send one request to the candidate and return its answer.

        Raises:
            _Ended: The candidate is gone or its answer makes no sense; the test cannot pass any more.
        """
        write_frame(self._sink, b"C" + encode(request))
        frame = read_frame(self._source)
        if frame[:1] != b"R":
            raise self._end("gone")
        try:
            answer = decode(frame[1:])
        except UnsupportedValue as error:
            raise self._end("error:UnsupportedType", f"answered with a value that is {error}") from None
        except WireError as error:
            raise self._end("error:BadAnswer", str(error)) from None
        if type(answer) is not tuple or not answer or type(answer[0]) is not str:
            raise self._end("error:BadAnswer", "not an answer")
        return answer

    def _end(self, status: str, detail: str = "") -> _Ended:
        self.ended = (status, detail)
        return _Ended(status, detail)

    def load(self, program: str, entry_point: str) -> None:
        """Have the candidate load its program.

        Raises:
            _Ended: It has a syntax error or fails while it loads.
        """
        answer = self.ask(("load", program, entry_point))
        if answer[0] == "loaded":
            return
        name, message = (str(answer[1]), str(answer[-1])) if len(answer) == 4 else ("BadAnswer", "")
        if answer[0] == "syntax_error":
            raise self._end("syntax_error", message)
        raise self._end(_error_status(name), message)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the candidate's function; its exception is raised again as the built-in class it derives from."""
        if self.ended is not None:
            raise _Ended(*self.ended)
        self.calls += 1
        answer = self.ask(("call", args, kwargs))
        if answer[0] == "value" and len(answer) == 2:
            return answer[1]
        if answer[0] == "unsupported":
            raise self._end("error:UnsupportedType", "answered with a value of type " + str(answer[-1]))
        if answer[0] == "raise" and len(answer) == 4 and type(answer[2]) is list:
            self.raised_as = _error_status(str(answer[1]))
            self.raised = _rebuild(answer[2], str(answer[3]))
            raise self.raised
        raise self._end("error:BadAnswer", "not an answer")


def _error_status(name: str) -> str:
    if name == "MemoryError":
        return "oom"
    return "error:" + (name if name.isidentifier() and name.isascii() and len(name) <= 40 else "Exception")


def _rebuild(bases: list[Any], message: str) -> Exception:
    for base in bases:
        kind = getattr(builtins, base, None) if isinstance(base, str) else None
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(message)
            except TypeError:  # UnicodeDecodeError and its like take more than a message
                continue
    return CandidateError(message)


def _namespace(prompt: str, test: str) -> dict[str, Any]:
    """The definitions of prompt and test; the function that the prompt leaves unfinished is given an empty body."""
    names: dict[str, Any] = {"__name__": "problem"}
    for source in (prompt, prompt + "\n    pass\n"):
        try:
            ast.parse(source)
        except SyntaxError:
            continue
        exec(compile(source, "<prompt>", "exec", dont_inherit=True), names)
        break
    exec(compile(test, "<test>", "exec", dont_inherit=True), names)
    return names


def judge(job: tuple[str, str, str, str], remote: Remote) -> Verdict:
    """The verdict (status, detail) on one program.

    Args:
        job: Prompt, test source that defines `check`, name of the function, program.
        remote: The way to the candidate.
    """
    prompt, test, entry_point, program = job
    try:
        names = _namespace(prompt, test)
        check = names["check"]
    except MissingFromStandIn as error:
        return ("bad_problem", str(error))
    except Exception as error:  # whatever the data set's own code raises makes the problem unusable
        return ("bad_problem", f"its test does not load: {type(error).__name__}: {error}")
    names[entry_point] = remote
    random.seed(0)
    try:
        remote.load(program, entry_point)
        check(remote)
    except _Ended as ended:
        return ended.verdict
    except MissingFromStandIn as error:
        return ("bad_problem", str(error))
    except MemoryError as error:
        return ("oom", str(error))
    except AssertionError as error:
        return (remote.raised_as if error is remote.raised else "failed_assert", str(error))
    except Exception as error:  # a test may fail with anything, most often TypeError on a wrong answer
        return (remote.raised_as if error is remote.raised else _error_status(type(error).__name__), str(error))
    if remote.ended is not None:
        return remote.ended
    return ("passed", "") if remote.calls else ("bad_problem", "its test never calls the function")


def _fork_one(request: bytes, source: int, sink: int) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # Here, not at the start: the limit is meant for one test, and the process that forks serves thousands.
            lower_limits(sys.argv[1])
            job = decode(request)
            status, detail = judge(job, Remote(source, sink))
            write_frame(sink, b"V" + encode((status, detail[:200], signs(job[3]))))
            code = 0
        finally:
            os._exit(code)
    _, status_word = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status_word) and os.WTERMSIG(status_word) == _SIGXCPU:
        write_frame(sink, b"V" + encode(("timeout", "the test ran too long on the answers", [])))
    elif status_word:
        write_frame(sink, b"V" + encode(("error:JudgeDied", "the test ended its own process", [])))


def main() -> None:
    """Judge one job per frame until the channel closes."""
    source, sink = enter(later="CPU")
    sys.modules["numpy"] = sys.modules["harness.evaluate.sandbox.stand_in"]
    while True:
        try:
            request = read_frame(source)
        except EOFError:
            return
        if request[:1] == b"J":
            _fork_one(request[1:], source, sink)
