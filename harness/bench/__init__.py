"""Speed: variants measured in turn on one machine, as ratios with a noise floor."""

from __future__ import annotations

from harness.bench.panel import PanelRunner, read_panel, run_panel
from harness.bench.spec import INT8_REASON, PanelRow, PanelSpec

__all__ = ["INT8_REASON", "PanelRow", "PanelRunner", "PanelSpec", "read_panel", "run_panel"]
