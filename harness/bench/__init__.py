"""Speed: variants measured in turn on one machine, as ratios with a noise floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.bench.panel import PanelRunner, read_panel, run_panel
    from harness.bench.spec import INT8_REASON, PanelOptions, PanelRow, PanelSpec

__all__ = ["INT8_REASON", "PanelOptions", "PanelRow", "PanelRunner", "PanelSpec", "read_panel", "run_panel"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: the command line lies in this package too, and must start quickly."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "panel" if name in ("PanelRunner", "read_panel", "run_panel") else "spec"
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
