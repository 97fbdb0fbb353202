"""A run with hostile strings wherever a record holds text, for the HTML report; written by the real writers."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.layout import Layout
from harness.records import Event, samples_to_parquet, write_json_atomic

runs = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))

PWN = "window.__pwned = 1"
HOSTILE = {
    "script": f"</script><script>{PWN}</script>",
    "comment": f"<!-- <script>{PWN}//",
    "image": f"<img src=x onerror='{PWN}'>",
    "svg": f"</title></desc></svg><svg onload='{PWN}'>",
    "quote": f"\" autofocus onfocus='{PWN}' x=\"",
    "single": f"' onmouseover='{PWN}",
    "separators": "a\u2028b\u2029c",
    "nul": "nul \x00 bell \x07 end",
    "override": "invoice\u202egnp.exe",
    "link": f"javascript:{PWN}",
    "template": f"${{{PWN}}} {{{{ 7 * 7 }}}} `{PWN}`",
    "entity": "&lt;b&gt; &amp; &#60;",
    "style": "</style><style>* { display: none }</style>",
}
NAME = f"bad</script><img src=x onerror='{PWN}'>\u202eeman"
LONG = "x" * 1_000_000
N = 60


def write_hostile(folder: Path) -> Path:
    """Three variants on two suites; the answers of the second hold every hostile string, its name one too."""
    base = {suite: runs.base_scores(suite, N) for suite in ("gsm8k", "summarization")}
    scores = {
        "dense": base,
        "int8": {suite: runs.flipped(values, 1, 1) for suite, values in base.items()},
        NAME: {suite: runs.flipped(values, 25, 2, seed=3) for suite, values in base.items()},
    }
    samples = runs.rows_of(scores)
    for (name, suite), rows in samples.items():
        if name == NAME:
            samples[name, suite] = [_hostile(row, i) for i, row in enumerate(rows)]
    events = (Event(kind=HOSTILE["image"], where=HOSTILE["script"], detail=HOSTILE["comment"]),)
    variants = [
        runs.variant("dense", None, recipe="dense"),
        runs.variant("int8", weight_bits=8, bytes=500_000),
        runs.variant(NAME, recipe=HOSTILE["template"], events=events, sparsity_linears=0.7, sparsity_model=0.6),
    ]
    speed = [
        runs.speed_row("dense", 1.0, ci95=None, reason="the baseline itself: 1 by definition", verdict="baseline"),
        runs.speed_row("int8", 2.0, engine="sparse", verdict="faster"),
        runs.speed_row(NAME, None, reason=HOSTILE["script"], panel="0-decode-c128-b1"),
    ]
    summary = runs.summary_of(samples, variants, speed=speed)
    _write_made(Layout(folder).variant("int8"))
    samples_to_parquet([row for rows in samples.values() for row in rows], folder / "samples.parquet")
    write_json_atomic(folder / "summary.json", summary)
    return folder


def _hostile(row: Any, i: int) -> Any:
    texts = [*HOSTILE.values(), LONG]
    return row.model_copy(update={"outputs": [texts[i % len(texts)]]})


def _write_made(folder: Path) -> None:
    """A variant's folder with linears and a training stage."""
    names = [f"model.layers.{block}.{kind}" for block in range(3) for kind in ("self_attn.q_proj", HOSTILE["image"])]
    linears = {name: {"sparsity": 0.5, "relative_error": 0.01 * (i + 1)} for i, name in enumerate(names)}
    info = {"sparsity": {"per_linear": dict.fromkeys(names, 0.5)}, "stages": [{"kind": "prune", "linears": linears}]}
    write_json_atomic(folder / "variant.json", info)
    lines = [{"step": step, "losses": {"ce": 2.0 / step, HOSTILE["script"]: 1.0 / step}} for step in range(1, 41)]
    (folder / "curves-2-finetune.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
