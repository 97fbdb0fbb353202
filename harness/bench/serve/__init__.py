"""Load on an OpenAI-compatible streaming endpoint: arrivals, stamps, latencies, goodput."""

from __future__ import annotations

from harness.bench.serve.arrivals import Load
from harness.bench.serve.client import Endpoint, Outcome, Prompt
from harness.bench.serve.drive import drive
from harness.bench.serve.goodput import PRESETS, Slo
from harness.bench.serve.summary import summarise

__all__ = ["PRESETS", "Endpoint", "Load", "Outcome", "Prompt", "Slo", "drive", "summarise"]
