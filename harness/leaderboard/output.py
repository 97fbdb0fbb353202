"""Writes the leaderboard's files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError
from harness.leaderboard.assemble import Leaderboard
from harness.leaderboard.export import card_files, eval_results_files, lm_eval_files
from harness.leaderboard.markdown import leaderboard_markdown
from harness.leaderboard.ours import shown_study
from harness.leaderboard.page import leaderboard_page
from harness.leaderboard.sources import Found
from harness.leaderboard.tidy import as_csv, lines_of, write_parquet
from harness.records import write_text_atomic

_EXPORTS = {"model-index": card_files, "eval-results": eval_results_files, "lm-eval": lm_eval_files}


def write_all(found: Leaderboard, files: Sequence[Found], out: Path, *, exports: Sequence[str] = ()) -> list[Path]:
    """Write the four forms, the studies to run again, and what is to be exported; return the files that were written.

    Raises:
        ConfigError: `out` is a file, or pyarrow is not installed.
        InfrastructureError: A file cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose a folder for --out")
    lines = lines_of(found)
    texts = {
        "leaderboard.md": leaderboard_markdown(found),
        "leaderboard.csv": as_csv(lines),
        "leaderboard.html": leaderboard_page(found),
        **_studies(found, files),
    }
    for name in exports:
        texts |= {f"export/{path}": text for path, text in _EXPORTS[name](found).items()}
    for name, text in texts.items():
        write_text_atomic(out / name, text)
    write_parquet(lines, out / "leaderboard.parquet")
    order = ["leaderboard.md", "leaderboard.csv", "leaderboard.parquet", "leaderboard.html"]
    return [out / name for name in [*order, *sorted(set(texts) - set(order))]]


def _studies(found: Leaderboard, files: Sequence[Found]) -> dict[str, str]:
    """The studies that the rows' commands name."""
    wanted: dict[str, str] = {}
    for board in found.boards:
        for row in board.rows:
            words = row.command.split()
            if row.source.origin == "sparsebench" and len(words) > 2 and words[2].startswith("studies/"):
                wanted[row.source.sha256] = words[2]
    texts = {}
    for each in files:
        name = wanted.get(each.source.sha256)
        study = shown_study(each.path.parent) if name else None
        if name and study is not None:
            texts[name] = json.dumps(study["study"], indent=2, ensure_ascii=False) + "\n"
    return texts
