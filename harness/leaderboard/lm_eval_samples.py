"""`samples_<task>_<date>.jsonl` beside a results file of lm-eval: the scores by item."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from harness.leaderboard.model import ItemKey, Scores

_TOLERANCE = 1e-6


def samples_path(results: Path, task: str) -> Path:
    """Where lm-eval puts the samples of a task: the same folder, the same time stamp."""
    stamp = results.stem.rpartition("_")[2]
    return results.with_name(f"samples_{task}_{stamp}.jsonl")


def read_scores(path: Path, key: str, value: float) -> Scores | str:
    """Scores of the metric `key` ("metric,filter") by item, or why the file cannot give them.

    The file only serves pairing, so a fault in it leaves the task unpaired, with the reason. Items are named by
    lm-eval's hash of the document; their mean must be the value that the results file states.
    """
    metric, _, name = key.partition(",")
    found: dict[ItemKey, float] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return "no samples file lies beside the results (lm_eval --log_samples writes one)"
    except (OSError, UnicodeDecodeError) as error:
        return f"{path.name} cannot be read ({error})"
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if row["filter"] != name:
                continue
            score, item = row[metric], str(row["doc_hash"])
        except (ValueError, KeyError, TypeError) as error:
            return f"{path.name}, line {number} is no sample of lm_eval ({type(error).__name__}: {error})"
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            return f"{path.name}, line {number}: {metric} is {score!r}, no score between 0 and 1"
        count = 0
        while (0, item, count) in found:
            count += 1
        found[0, item, count] = float(score)
    if not found:
        return f"{path.name} has no rows of filter {name!r}"
    keys = tuple(sorted(found))
    mean = math.fsum(found.values()) / len(found)
    if abs(mean - value) > _TOLERANCE:
        return f"{path.name} has the mean {mean:.6f}, the results say {value:.6f}: not the same run"
    return Scores(keys, np.array([found[item] for item in keys]), tuple(str(place) for place in range(len(keys))))
