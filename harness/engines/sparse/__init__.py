"""The sparse engine: kernels on packed weights in which zeros cost neither memory nor time.

`csrc/` holds the C++ part (`_kernels`), which imports nothing else of the harness. It is built where there is a C++
compiler; whoever needs it asks `load_kernels`, so that all else works without.
"""

from __future__ import annotations

from types import ModuleType

from harness.errors import EngineError

FIX = "install a C++ compiler (such as apt-get install g++), then install sparsebench again"

__all__ = ["FIX", "kernels_problem", "load_kernels"]


def load_kernels() -> ModuleType:
    """The extension module.

    Raises:
        EngineError: It was not built here, or does not load.
    """
    try:
        from harness.engines.sparse import _kernels
    except ImportError as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        why = "were not built" if "cannot import name" in reason else f"do not load ({reason})"
        raise EngineError(f"the CPU kernels of engine sparse {why}; {FIX}, or use engine torch") from None
    return _kernels


def kernels_problem() -> str | None:
    """Why engine sparse cannot run here, or None."""
    try:
        load_kernels()
    except EngineError as error:
        return str(error)
    return None
