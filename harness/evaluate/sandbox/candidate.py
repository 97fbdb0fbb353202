"""The sandboxed process that loads one generated program and answers calls to its function.

Everything it says is hearsay: it shares no memory with the judge, holds no test and knows no expected value. Code
that takes this process over gains nothing but the right to answer calls.
"""

from __future__ import annotations

import sys

from harness.evaluate.sandbox.guest import enter
from harness.evaluate.sandbox.protocol import (
    TICKET,
    UnsupportedValue,
    WireError,
    decode,
    encode,
    read_frame,
    write_frame,
)

TYPE_CHECKING = False  # importing typing takes longer than starting Python
if TYPE_CHECKING:
    from typing import Any


def _failure(error: BaseException) -> tuple[Any, ...]:
    """("raise", type name, names of the classes it derives from, message) for an exception of generated code."""
    kind = type(error)
    try:
        message = str(error)[:200]
    except BaseException:  # a hostile __str__ may raise anything
        message = ""
    return ("raise", str(kind.__name__), [str(base.__name__) for base in kind.__mro__], message)


def _load(program: str, entry_point: str) -> tuple[Any, tuple[Any, ...]]:
    """The program's function and the answer to the load request."""
    try:
        code = compile(program, "<candidate>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return None, ("syntax_error", type(error).__name__, [], str(error)[:200])
    except (RecursionError, MemoryError) as error:  # nested beyond what the compiler takes
        return None, _failure(error)
    module = type(sys)("candidate")
    sys.modules["candidate"] = module  # dataclasses and pickling look their module up by name
    try:
        exec(code, module.__dict__)
        return module.__dict__[entry_point], ("loaded",)
    except BaseException as error:  # generated code may raise anything, SystemExit included
        return None, _failure(error)


def _answer(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    try:
        return encode(("value", function(*args, **kwargs)))
    except UnsupportedValue as error:
        return encode(("unsupported", str(error)[:100]))
    except WireError as error:
        return encode(("unsupported", f"object ({error})"))
    except BaseException as error:  # generated code may raise anything, SystemExit included
        return encode(_failure(error))


def main() -> None:
    """Load the program of the first frame, then answer calls until the channel closes."""
    source, sink = enter()
    request = read_frame(source)
    _, program, entry_point = decode(request[TICKET:])
    function, loaded = _load(program, entry_point)
    write_frame(sink, request[:TICKET] + encode(loaded))
    while True:
        try:
            request = read_frame(source)
        except EOFError:
            return
        _, args, kwargs = decode(request[TICKET:])
        write_frame(sink, request[:TICKET] + _answer(function, args, kwargs))
