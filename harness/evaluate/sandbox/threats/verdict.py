"""Threats to the verdict: programs that do not solve the problem and want to be told that they do."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat

_VERDICT, _CHANNEL, _TESTS = "the verdict", "the result channel", "the tests"
_APART = "the tests run in another process, in another sandbox"
_TICKETS = "each request bears a random ticket, and an answer the same; leftover bytes are noticed"
_NO_CODE = "no exit code counts, only the judge's word"


def _fool(
    name: str,
    asset: str,
    attack: str,
    control: str,
    program: str,
    ends: tuple[str, ...] = ("failed_assert",),
    *,
    marked: bool = False,
    quick: bool = True,
) -> Threat:
    return Threat(
        name=name,
        goal="verdict",
        asset=asset,
        attack=attack,
        control=control,
        program=program,
        ends=ends,
        marked=marked,
        quick=quick,
    )


VERDICT: tuple[Threat, ...] = (
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
        "equal_to_all",
        _TESTS,
        "answers with an object that equals everything",
        "answers cross as plain built-in values",
        """
        class Answer:
            def __eq__(self, other):
                return True
        def f(x):
            return Answer()
        """,
        ("error:UnsupportedType",),
        marked=True,
    ),
    _fool(
        "equal_int",
        _TESTS,
        "answers with an integer that equals everything",
        "answers cross as plain built-in values",
        """
        class Answer(int):
            def __eq__(self, other):
                return True
            def __ne__(self, other):
                return False
            __hash__ = int.__hash__
        def f(x):
            return Answer(0)
        """,
        marked=True,
    ),
    _fool(
        "equal_others",
        _TESTS,
        "answers with texts, lists and floats that equal everything",
        "answers cross as plain built-in values",
        """
        def evil(base):
            return type("Answer", (base,), {"__eq__": lambda *a: True, "__int__": lambda s: 3, "__class__": int})
        def f(x):
            return {1: evil(str)("2"), 2: evil(list)([3])}.get(x, evil(float)(0.5))
        """,
        marked=True,
    ),
    _fool(
        "equal_by_looking",
        _TESTS,
        "answers with an object that compares by calling what it is compared with",
        "answers cross as plain built-in values",
        """
        class Answer(float):
            def __eq__(self, other):
                return other == other
            def __hash__(self):
                return hash(2.0)
        def f(x):
            return Answer(0.5)
        """,
    ),
    _fool(
        "false_class",
        _TESTS,
        "answers with an object that says it is an integer",
        "the real type decides",
        """
        class Answer:
            __class__ = int
            def __eq__(self, other):
                return True
            def __int__(self):
                return 2
            def __index__(self):
                return 2
        def f(x):
            return Answer()
        """,
        ("error:UnsupportedType",),
        marked=True,
    ),
    _fool(
        "colliding_hashes",
        _TESTS,
        "answers with a set of 60,000 integers of one hash, so that the judge takes forever to build it",
        "the judge has a limit on processor time and the harness a clock; the next program gets a fresh judge",
        """
        class Odd(int):
            def __hash__(self):
                return int(self) // (2 ** 61 - 1)
        def f(x):
            return {Odd(k * (2 ** 61 - 1)) for k in range(60_000)}
        """,
        ("timeout",),
        quick=False,
    ),
    _fool(
        "lazy_answer",
        _TESTS,
        "answers with an iterator that waits to see what it is compared with",
        "answers are made whole before they cross",
        """
        class Lazy:
            def __iter__(self):
                return self
            def __next__(self):
                raise StopIteration
            def __eq__(self, other):
                self.seen = other
                return bool(self) or True
        def f(x):
            return Lazy()
        """,
    ),
    _fool(
        "pickled_answer",
        _TESTS,
        "answers with objects that run code when they are pickled, copied or marshalled",
        "nothing is pickled: a value is a tag and bytes",
        """
        import os
        class Answer:
            def __reduce__(self):
                return (os.system, ("true",))
            __reduce_ex__ = __deepcopy__ = lambda self, *_: (os.system, ("true",))
        def f(x):
            return {1: Answer(), 2: (lambda: 0).__code__}.get(x, [Answer()])
        """,
        ("error:UnsupportedType",),
    ),
    _fool(
        "circular_answer",
        "the judge",
        "answers with a list that contains itself",
        "values have a limit on depth",
        """
        def f(x):
            answer = []
            answer.append(answer)
            return answer
        """,
        ("error:UnsupportedType",),
    ),
    _fool(
        "huge_text",
        "the judge",
        "answers with a text of 64 MiB",
        "a frame has a size limit",
        """
        def f(x):
            return "x" * (64 << 20)
        """,
        ("error:UnsupportedType",),
    ),
    _fool(
        "huge_repr",
        "the judge",
        "answers with an object whose representation has 1 GiB",
        "no representation is ever made",
        """
        class Answer:
            def __repr__(self):
                return "x" * (1 << 30)
            __str__ = __format__ = __repr__
        def f(x):
            return Answer()
        """,
        ("error:UnsupportedType",),
    ),
    _fool(
        "huge_message",
        "the record",
        "raises an exception with a text of 64 MiB",
        "messages are cut to 200 characters inside the sandbox, and again outside",
        """
        def f(x):
            raise ValueError("passed " * (8 << 20))
        """,
        ("error:ValueError",),
    ),
    _fool(
        "strange_message",
        "the record",
        "raises an exception whose name and text hold terminal codes, NUL, lone surrogates and line ends",
        "untrusted text is made printable ASCII on one line",
        """
        def f(x):
            raise type("passed\\n\\x1b[2J", (Exception,), {})("\\x1b[2J\\r\\n\\x00\\ud800\\u202epassed")
        """,
        ("error:Exception",),
    ),
    _fool(
        "hostile_message",
        _VERDICT,
        "raises an exception that ends the process when it is turned into text",
        _NO_CODE,
        """
        import sys
        class Odd(Exception):
            def __str__(self):
                sys.exit(0)
            __repr__ = __str__
        def f(x):
            raise Odd
        """,
        ("error:Odd",),
    ),
    _fool(
        "raise_in_call",
        _TESTS,
        "raises KeyboardInterrupt, which many loops let through",
        "exceptions cross as names; only those of ordinary errors are raised again",
        """
        def f(x):
            raise KeyboardInterrupt
        """,
        ("error:KeyboardInterrupt",),
    ),
    _fool(
        "raise_control_flow",
        _TESTS,
        "raises GeneratorExit, StopIteration and AssertionError, which tests and loops take for their own",
        "an exception of the program is told from one of the test",
        """
        def f(x):
            raise {1: GeneratorExit, 2: StopIteration}.get(x, AssertionError)
        """,
        ("error:GeneratorExit",),
    ),
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
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
    _fool(
        "patch_protocol",
        _CHANNEL,
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
    _fool(
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
    _fool(
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
    _fool(
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
