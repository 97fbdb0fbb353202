"""Threats to the verdict by tricks that fool a test in the same interpreter."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat, fool

_TESTS = "the tests"
_APART = "the tests run in another process, in another sandbox"

TRICKS: tuple[Threat, ...] = (
    fool(
        "walk_frames",
        _TESTS,
        "walks up the call stack and changes what it finds",
        _APART,
        """
        import sys
        def f(x):
            frame = sys._getframe()
            while frame is not None:
                for names in (frame.f_globals, frame.f_locals):
                    for name, value in list(names.items()):
                        if isinstance(value, list):
                            value.append("passed")
                        if name in ("status", "passed", "result", "verdict"):
                            names[name] = "passed"
                frame = frame.f_back
        """,
        ("failed_assert", "error:BadAnswer", "error:SystemExit", "error:UnsupportedType"),
        marked=True,
    ),
    fool(
        "walk_objects",
        _TESTS,
        "looks through all objects of its process for the tests",
        _APART,
        """
        import gc
        def f(x):
            words = "".join(["assert ", "candidate("])
            for thing in gc.get_objects():
                texts = list(thing.values()) if type(thing) is dict else thing
                if type(texts) in (list, tuple, set, frozenset):
                    if any(type(text) is str and words in text for text in texts):
                        return x + 1
        """,
        marked=True,
    ),
    fool(
        "trace_caller",
        _TESTS,
        "traces its caller and changes its variables",
        _APART,
        """
        import sys
        def f(x):
            def trace(frame, event, argument):
                frame.f_locals["answer"] = frame.f_locals["status"] = "passed"
                return trace
            sys.settrace(trace)
            sys._getframe(1).f_trace = trace
        """,
        marked=True,
    ),
    fool(
        "patch_builtins",
        _TESTS,
        "replaces `isinstance`, `type` and AssertionError for everybody",
        _APART,
        """
        import builtins
        builtins.isinstance = builtins.issubclass = lambda *a: True
        builtins.AssertionError = type("AssertionError", (BaseException,), {"__new__": lambda *a: None})
        def f(x):
            builtins.type = lambda *a: int
        """,
        ("failed_assert", "error:BadAnswer", "error:UnsupportedType", "error:TypeError", "error:SystemExit"),
        marked=True,
    ),
    fool(
        "patch_protocol",
        "the result channel",
        "replaces the functions by which answers are written",
        _APART + "; malformed answers are noticed",
        """
        import sys
        for name, module in list(sys.modules.items()):
            if name.startswith("harness"):
                module.encode = lambda *a: b"Vt2:s6:passeds0:"
                module.decode = lambda *a: ("passed", "", {})
        def f(x):
            return None
        """,
        ("error:BadAnswer",),
        marked=True,
    ),
    fool(
        "shadow_modules",
        _TESTS,
        "puts modules of its own in place of those that the tests import",
        _APART,
        """
        import sys
        for name in ("ast", "random", "math", "builtins", "harness.evaluate.sandbox.judge"):
            with open("/tmp/" + name.rpartition(".")[2] + ".py", "w") as file:
                file.write("raise SystemExit(0)")
            sys.modules[name] = type(sys)(name)
        sys.path.insert(0, "/tmp")
        def f(x):
            return None
        """,
    ),
    fool(
        "redefine_check",
        _TESTS,
        "defines the test function itself",
        _APART,
        """
        def check(candidate):
            return None
        def f(x):
            return None
        """,
    ),
    fool(
        "state_between_programs",
        "the verdict on the next program",
        "looks for files that the programs before it left in /tmp and in shared memory",
        "a fresh sandbox for each program",
        """
        import os
        found = [name for path in ("/tmp", "/dev/shm") if os.path.isdir(path) for name in os.listdir(path)]
        def f(x):
            return x + 1 if found else None
        """,
    ),
)
