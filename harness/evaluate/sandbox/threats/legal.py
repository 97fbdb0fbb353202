"""Programs that look odd and are honest: each must pass, or the walls are too narrow."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent
from types import MappingProxyType

_LEGAL = {
    "plain": """
        def f(x):
            return x + 1
        """,
    "sleeps_below_the_limit": """
        import time
        def f(x):
            time.sleep(0.8)
            return x + 1
        """,
    "talks_much": """
        import sys
        def f(x):
            for _ in range(2000):
                print("debug " * 100)
            print("warning", file=sys.stderr, flush=True)
            return x + 1
        """,
    "uses_files": """
        import tempfile
        def f(x):
            with tempfile.NamedTemporaryFile("w+") as file:
                file.write(str(x + 1))
                file.seek(0)
                return int(file.read())
        """,
    "uses_threads": """
        from concurrent.futures import ThreadPoolExecutor
        def f(x):
            with ThreadPoolExecutor(4) as pool:
                return sum(pool.map(abs, [x, 1]))
        """,
    "uses_asyncio": """
        import asyncio
        async def add(x):
            await asyncio.sleep(0)
            return x + 1
        def f(x):
            return asyncio.run(add(x))
        """,
    "compares_by_value": """
        import functools
        @functools.total_ordering
        class Number:
            def __init__(self, value):
                self.value = value
            def __eq__(self, other):
                if not isinstance(other, Number):
                    return NotImplemented
                return self.value == other.value
            def __lt__(self, other):
                return self.value < other.value
            def __hash__(self):
                return 1
        def f(x):
            return max(Number(x), Number(x + 1)).value
        """,
    "recurses_deeply": """
        import sys
        sys.setrecursionlimit(20_000)
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        def f(x):
            return depth(3000) - 2999 + x
        """,
    "has_a_main": """
        import sys
        def f(x):
            return x + 1
        def main():
            print(f(int(sys.argv[1])))
            sys.exit(0)
        if __name__ == "__main__":
            main()
        """,
    "defines_its_own_test": """
        def f(x):
            return x + 1
        def check(candidate):
            assert candidate(1) == 2
        check(f)
        """,
    "inspects_and_collects": """
        import gc, inspect, traceback, warnings
        warnings.simplefilter("ignore")
        def f(x):
            gc.collect()
            try:
                raise ValueError
            except ValueError:
                traceback.format_exc()
            return x + len(inspect.signature(f).parameters)
        """,
    "caches": """
        import dataclasses, enum, functools, typing
        @dataclasses.dataclass(frozen=True)
        class Point:
            x: int
            y: int = 1
        class Step(enum.IntEnum):
            ONE = 1
        @functools.lru_cache(maxsize=None)
        def f(x: int) -> typing.Optional[int]:
            point = Point(x)
            return point.x + Step.ONE
        """,
}

LEGAL: Mapping[str, str] = MappingProxyType({name: dedent(text) for name, text in _LEGAL.items()})
