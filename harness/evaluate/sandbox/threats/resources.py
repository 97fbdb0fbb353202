"""Threats to processor time, to the tables of processes and files, and to the harness by sheer size."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat

_MEMORY, _TIME, _TABLES = "memory", "time", "process and file tables"

RESOURCES: tuple[Threat, ...] = (
    Threat(
        name="fork_bomb",
        goal="machine",
        asset=_TABLES,
        attack="starts processes without end",
        control="limit on processes",
        program="""
        import os, time
        def f(x):
            children = 0
            try:
                while children < 64:
                    if os.fork() == 0:
                        while True:
                            time.sleep(9)
                    children += 1
            except OSError:
                return None
            return x + 1
        """,
    ),
    Threat(
        name="thread_bomb",
        goal="machine",
        asset=_TABLES,
        attack="starts threads without end",
        control="limit on processes, which counts threads",
        program="""
        import threading, time
        def f(x):
            try:
                for _ in range(64):
                    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
            except (RuntimeError, MemoryError):
                return None
            return x + 1
        """,
    ),
    Threat(
        name="open_files",
        goal="machine",
        asset=_TABLES,
        attack="opens pipes without end and fills them",
        control="limit on open files",
        program="""
        import os
        def f(x):
            try:
                for _ in range(1000):
                    end = os.pipe2(os.O_NONBLOCK)[1]
                    try:
                        while True:
                            os.write(end, bytes(65536))
                    except BlockingIOError:
                        pass
            except OSError:
                return None
            return x + 1
        """,
    ),
    Threat(
        name="raise_limits",
        goal="machine",
        asset=_MEMORY,
        attack="raises its own limits",
        control="hard limits, no capabilities",
        program="""
        import resource
        def f(x):
            for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE):
                try:
                    resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                    return x + 1
                except (OSError, ValueError):
                    pass
        """,
    ),
    Threat(
        name="endless_loop",
        goal="machine",
        asset=_TIME,
        attack="loops",
        control="limit on processor time",
        ends=("timeout",),
        program="""
        def f(x):
            while True:
                pass
        """,
    ),
    Threat(
        name="endless_sleep",
        goal="machine",
        asset=_TIME,
        attack="sleeps, deaf to signals",
        control="the harness's clock",
        ends=("timeout",),
        program="""
        import signal
        def f(x):
            for number in (signal.SIGTERM, signal.SIGXCPU, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            while True:
                signal.pause()
        """,
    ),
    Threat(
        name="loop_in_c",
        goal="machine",
        asset=_TIME,
        attack="computes a power of millions of digits, deaf to signals: no Python code runs that could be interrupted",
        control="the kernel's SIGKILL one second after the limit on processor time",
        ends=("timeout", "killed"),
        quick=False,
        program="""
        import signal
        def f(x):
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
            return len(str((10 ** 8 + x) ** (10 ** 7)))
        """,
    ),
    Threat(
        name="regex",
        goal="machine",
        asset=_TIME,
        attack="matches a regular expression that backtracks without end",
        control="limit on processor time",
        ends=("timeout",),
        quick=False,
        program="""
        import re
        def f(x):
            return x + 1 if re.match("(a+)+$", "a" * 64 + "b") else None
        """,
    ),
    Threat(
        name="endless_load",
        goal="machine",
        asset=_TIME,
        attack="loops before its function is defined",
        control="limit on processor time",
        ends=("timeout",),
        quick=False,
        program="""
        while True:
            pass
        """,
    ),
    Threat(
        name="endless_answer",
        goal="machine",
        asset=_MEMORY,
        attack="answers with an iterator that never ends",
        control="answers are made whole inside the sandbox, under its limits",
        ends=("oom", "timeout"),
        program="""
        import itertools
        def f(x):
            return itertools.repeat(x)
        """,
    ),
    Threat(
        name="deep_recursion",
        goal="machine",
        asset=_MEMORY,
        attack="lifts Python's limit on recursion and recurses",
        control="limits on stack and address space",
        ends=("killed", "oom", "timeout", "error:RecursionError"),
        program="""
        import sys
        sys.setrecursionlimit(10 ** 9)
        def f(x):
            return [*map(f, [x])]
        """,
    ),
    Threat(
        name="crash",
        goal="machine",
        asset="the harness",
        attack="reads address 0",
        control="its own process",
        ends=("killed",),
        marked=True,
        program="""
        def f(x):
            import ctypes
            return ctypes.string_at(0)
        """,
    ),
    Threat(
        name="output_flood",
        goal="machine",
        asset=_MEMORY,
        attack="writes 256 MiB to standard output and 256 MiB to standard error",
        control="both lead nowhere",
        program="""
        import os, sys
        def f(x):
            for fd in (1, 2):
                for _ in range(256):
                    os.write(fd, bytes(1 << 20))
            print("x" * (1 << 20), file=sys.stderr)
        """,
    ),
    Threat(
        name="nested_source",
        goal="machine",
        asset="the harness",
        attack="is itself nested so deeply that a compiler may run out of stack",
        control="programs are read inside the two sandboxes only",
        ends=("syntax_error", "error:RecursionError", "oom", "killed", "error:KeyError"),
        program="x = " + "-" * 200_000 + "1\n",
    ),
)
