"""Threats to the verdict by what a program answers and raises."""

from __future__ import annotations

from harness.evaluate.sandbox.threats.threat import Threat, fool

_TESTS, _JUDGE, _RECORD = "the tests", "the judge", "the record"

ANSWERS: tuple[Threat, ...] = (
    fool(
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
    fool(
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
    fool(
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
    fool(
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
    fool(
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
    fool(
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
    fool(
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
    fool(
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
    fool(
        "circular_answer",
        _JUDGE,
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
    fool(
        "huge_text",
        _JUDGE,
        "answers with a text of 96 MiB",
        "a frame has a size limit",
        """
        def f(x):
            return "x" * (96 << 20)
        """,
        ("error:UnsupportedType",),
    ),
    fool(
        "huge_repr",
        _JUDGE,
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
    fool(
        "huge_message",
        _RECORD,
        "raises an exception with a text of 64 MiB",
        "messages are cut to 200 characters inside the sandbox, and again outside",
        """
        def f(x):
            raise ValueError("passed " * (8 << 20))
        """,
        ("error:ValueError",),
    ),
    fool(
        "strange_message",
        _RECORD,
        "raises an exception whose name and text hold terminal codes, NUL, lone surrogates and line ends",
        "untrusted text is made printable ASCII on one line",
        """
        def f(x):
            raise type("passed\\n\\x1b[2J", (Exception,), {})("\\x1b[2J\\r\\n\\x00\\ud800\\u202epassed")
        """,
        ("error:Exception",),
    ),
    fool(
        "hostile_message",
        "the verdict",
        "raises an exception that ends the process when it is turned into text",
        "no exit code counts, only the judge's word",
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
    fool(
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
    fool(
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
)
