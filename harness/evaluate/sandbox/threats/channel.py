"""Threats to the verdict by leaving early and by way of the result channel."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat, fool

_VERDICT, _CHANNEL = "the verdict", "the result channel"
_TICKETS = "each request bears a random ticket, and an answer the same; leftover bytes are noticed"
_NO_CODE = "no exit code counts, only the judge's word"

CHANNEL: tuple[Threat, ...] = (
    fool(
        "exit_0",
        _VERDICT,
        "ends its process with code 0 while it loads (`os._exit`)",
        _NO_CODE,
        """
        import os
        os._exit(0)
        """,
        ("error:SystemExit",),
        marked=True,
    ),
    fool(
        "exit_0_in_call",
        _VERDICT,
        "ends its process with code 0 when it is called",
        _NO_CODE,
        """
        import os
        def f(x):
            os._exit(0)
        """,
        ("error:SystemExit",),
        marked=True,
    ),
    fool(
        "sys_exit",
        _VERDICT,
        "leaves by `sys.exit(0)`",
        _NO_CODE,
        """
        import sys
        sys.exit(0)
        """,
        ("error:SystemExit",),
    ),
    fool(
        "exit_late",
        _VERDICT,
        "leaves by an exception whose exit handler ends the process with code 0",
        _NO_CODE,
        """
        import atexit, os
        atexit.register(os._exit, 0)
        def f(x):
            raise SystemExit(0)
        """,
        ("error:SystemExit",),
        marked=True,
    ),
    fool(
        "exit_in_finalizer",
        _VERDICT,
        "ends the process from `__del__` and a weak reference's callback",
        _NO_CODE,
        """
        import os, weakref
        class Last:
            def __del__(self):
                os._exit(0)
        def f(x):
            last = Last()
            keep = weakref.ref(last, lambda _: os._exit(0))
            return x
        """,
        ("error:SystemExit",),
        marked=True,
    ),
    fool(
        "print_passed",
        _CHANNEL,
        "prints the word that a scorer may look for",
        "standard output and error lead nowhere",
        """
        import os
        def f(x):
            print("passed")
            os.write(1, b"passed\\n")
            os.write(2, b"passed\\n")
        """,
    ),
    fool(
        "forge_verdict",
        _CHANNEL,
        "writes a verdict to every open descriptor",
        "verdicts come from the judge's channel only; " + _TICKETS,
        """
        import os
        verdict = b"Vt3:s6:passeds0:l0:"
        for fd in range(64):
            try:
                os.write(fd, len(verdict).to_bytes(4, "big") + verdict)
            except OSError:
                pass
        def f(x):
            return None
        """,
        ("error:BadAnswer",),
        marked=True,
    ),
    fool(
        "forge_answers",
        _CHANNEL,
        "writes right answers to later calls ahead of time",
        _TICKETS,
        """
        import os
        for answer in (b"t1:s6:loaded", b"t2:s5:valuei3:0x2", b"t2:s5:valuei3:0x3", b"t2:s5:valuei4:0x29"):
            for fd in range(3, 64):
                try:
                    os.write(fd, len(answer).to_bytes(4, "big") + answer)
                except OSError:
                    pass
        def f(x):
            return None
        """,
        ("error:BadAnswer",),
        marked=True,
    ),
    fool(
        "forge_from_thread",
        _CHANNEL,
        "writes frames from a thread, between the answers",
        _TICKETS,
        """
        import os, threading, time
        def forge():
            answer = b"t2:s5:valuei3:0x2"
            while True:
                for fd in range(3, 16):
                    try:
                        os.write(fd, len(answer).to_bytes(4, "big") + answer)
                    except OSError:
                        pass
        def f(x):
            threading.Thread(target=forge, daemon=True).start()
            time.sleep(0.1)
            return x + 1 if x == 1 else None
        """,
        ("error:BadAnswer",),
        marked=True,
    ),
    fool(
        "fork_answers",
        _CHANNEL,
        "forks, so that two processes answer each call and one of the answers may be right",
        _TICKETS,
        """
        import os, time
        CHILD = os.fork() == 0
        time.sleep(0 if CHILD else 0.1)
        def f(x):
            time.sleep(0.3)
            return x + 1 if CHILD == (x == 1) else None
        """,
        ("error:BadAnswer",),
        marked=True,
        quick=False,
    ),
    fool(
        "flood",
        _CHANNEL,
        "floods the channel",
        "a frame has a size limit; reading has a deadline",
        """
        import os
        def f(x):
            for fd in range(3, 64):
                try:
                    while True:
                        os.write(fd, b"\\xff" * 65536)
                except OSError:
                    pass
        """,
        ("error:BadAnswer",),
        marked=True,
    ),
    fool(
        "close_channel",
        _CHANNEL,
        "closes all descriptors",
        _NO_CODE,
        """
        import os
        os.closerange(0, 256)
        def f(x):
            return x
        """,
        ("error:SystemExit",),
    ),
    fool(
        "read_requests",
        _CHANNEL,
        "reads requests from the channel itself, and standard input, to learn what comes",
        "nothing but the next call's arguments is there; standard input is empty",
        """
        import os, sys
        def f(x):
            if sys.stdin.read() or os.read(0, 100):
                return x + 1
            for fd in range(3, 16):
                try:
                    os.set_blocking(fd, False)
                    if os.read(fd, 65536):
                        return x + 1
                except OSError:
                    pass
            return None
        """,
        ("error:SystemExit", "failed_assert"),
    ),
)
