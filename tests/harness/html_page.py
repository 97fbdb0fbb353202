"""What the tests of the HTML report share: a run to report on, and a page read back by its sections and tables."""

from __future__ import annotations

import base64
import gzip
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.report.html.source import Source
from harness.report.html.verdicts import judge_variant

runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))


class Page(HTMLParser):
    """Text of a page by section, and rows of its tables by id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sections: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self._section, self._table, self._cell = "", "", False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "section":
            self._section = found.get("id") or ""
            self.sections[self._section] = ""
        elif tag == "table":
            self._table = found.get("id") or ""
            self.tables.setdefault(self._table, [])
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._section:
            self.sections[self._section] += data
        if self._cell:
            self.tables[self._table][-1][-1] += data


def block(html: str, name: str) -> Any:
    found = re.search(rf'<script type="application/gzip" id="{name}">([^<]*)</script>', html)
    assert found, name
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


SCORES = {
    "dense": {"gsm8k": runs.base_scores("gsm8k", 400)},
    "good": {"gsm8k": runs.flipped(runs.base_scores("gsm8k", 400), 2, 3)},
    "bad": {"gsm8k": runs.flipped(runs.base_scores("gsm8k", 400), 120)},
    "unclear": {"gsm8k": runs.flipped(runs.base_scores("gsm8k", 400), 45, 25)},
}
MARGIN = 0.05
RULES = [{"rule": "non_inferior", "suites": ["gsm8k"], "margin": MARGIN}]


def write(folder: Path, scores: Any = None, *, gates: Any = RULES, keep: Any = None, **options: Any) -> Path:
    samples = runs.rows_of(scores or SCORES)
    names = list(dict.fromkeys(name for name, _ in samples))
    variants = [runs.variant(name, None if name == "dense" else "dense") for name in names]
    summary = runs.summary_of(samples, variants, **options)
    folder.mkdir(exist_ok=True)
    return runs.write_run(folder, {k: v for k, v in samples.items() if keep is None or keep(k)}, summary, gates=gates)


def judged(source: Source) -> dict[str, str]:
    return {v.name: judge_variant(source, v).overall for v in source.summary.variants}
