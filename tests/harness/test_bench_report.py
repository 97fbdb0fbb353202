"""The benchmark of the HTML report: the made-up run is a real one for every reader, and the record says what it saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.bench.report.browser import Opened, find_browser
from harness.bench.report.run import SIZE_LIMIT, markdown
from harness.bench.report.synthetic import METRICS, Shape, write_synthetic
from harness.errors import ConfigError
from harness.records import read_summary
from harness.report.html.build import recovery_html
from harness.report.html.source import open_source

SHAPE = Shape(variants=4, rows=400, words=10, blocks=2)


def test_the_made_up_run_is_as_large_as_asked_and_opens_as_a_run(tmp_path: Path) -> None:
    assert write_synthetic(tmp_path, SHAPE) == 400
    summary = read_summary(tmp_path)
    assert len(summary.variants) == 4 and summary.study.suites == list(METRICS)
    assert all(result.n == 20 for variant in summary.variants for result in variant.suites.values())
    html = recovery_html(open_source(tmp_path))
    assert all(variant.name in html for variant in summary.variants)
    assert "Loss curves" in html and 'id="answers19"' in html and 'id="answers20"' not in html


def test_the_same_seed_makes_the_same_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_synthetic(tmp_path / name, SHAPE)
    variant = read_summary(tmp_path / "a").variants[1].name
    for name in ("summary.json", "samples.parquet", f"variants/{variant}/variant.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def record(**changes: object) -> dict[str, object]:
    found: dict[str, object] = {
        "command": "sparsebench bench report",
        "shape": {"variants": 50, "rows": 20000, "words": 60, "blocks": 16},
        "machine": {"cpu": "a CPU", "cores": 2},
        "browser": "Chromium 1, headless",
        "bytes": SIZE_LIMIT + 1,
        "build_seconds": [1.0, 3.0, 2.0],
        "open_seconds": [0.5, 0.7, 0.6],
        "open_cpu_seconds": [0.4],
        "first_paint_seconds": [None, 0.2, None],
        "sample_seconds": [0.1],
        "requests": [],
        "complaints": [],
        "load_average": 3.0,
        "priority": {"nice": 0},
        "within_limits": False,
    }
    return {**found, **changes}


def test_the_page_of_results_says_what_was_measured() -> None:
    text = markdown(record())
    assert "2.00 s [1.00, 3.00]" in text and "0.20 s [0.20, 0.20]" in text and "15.00 MB" in text
    assert "Within the limits: no." in text and "Within the limits: yes." in markdown(record(within_limits=True))


def test_the_committed_results_are_what_the_command_writes() -> None:
    folder = Path(__file__).resolve().parents[2] / "results" / "report"
    found = json.loads((folder / "results.json").read_text())
    assert (folder / "results.md").read_text() == markdown(found)
    assert found["shape"]["variants"] >= 50 and found["shape"]["rows"] >= 20_000
    assert found["requests"] == [] and found["complaints"] == []


def test_without_a_browser_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="apt-get install chromium"):
        find_browser()
    assert Opened(1.0, 0.5, None, 0.1, (), ()).painted is None
