"""A results file of lm-eval to one row of the leaderboard."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.leaderboard.lm_eval_file import LmEvalFile, RunConfig, Value, metrics_of, read_lm_eval
from harness.leaderboard.lm_eval_samples import read_scores, samples_path
from harness.leaderboard.model import ITEMS_UNKNOWN, Cell, LeftOut, Protocol, Row, Scores, Source
from harness.stats import score_ci, wilson_interval
from harness.stats.estimate import Z95

PREFERRED = (
    "acc_norm,none",
    "acc,none",
    "exact_match,flexible-extract",
    "exact_match,strict-match",
    "exact_match,get-answer",
    "exact_match,none",
    "prompt_level_strict_acc,none",
    "pass@1,create_test",
    "pass@1,none",
    "f1,none",
    "rougeLsum,none",
    "rougeL,none",
    "word_perplexity,none",
)
"""The metric that stands for a task where its own suite names none; every other one is in the details."""
_SECRET = re.compile(r"key|token|secret|password|auth|header", re.IGNORECASE)
_OURS = "sparsebench_"


def read_lm_eval_run(path: Path, source: Source) -> tuple[list[Row], list[LeftOut]]:
    """The row of a results file, and what of it cannot be shown.

    Raises:
        ConfigError: The file is cut short or of another version.
        InfrastructureError: It cannot be read.
    """
    file = read_lm_eval(path)
    cells: dict[Protocol, Cell] = {}
    left_out: list[LeftOut] = []
    children = {child: group for group, names in file.group_subtasks.items() for child in names}
    folded = {
        task: group for task, group in children.items() if group in file.results and metrics_of(file.results[group])
    }
    for group in sorted(set(folded.values())):
        members = sorted(task for task in file.results if folded.get(task) == group)
        if members:
            told = f"{len(members)} tasks of group {group}: {', '.join(members)}"
            left_out.append(LeftOut(source.label, told, f"they are shown as their group {group}"))
    for task, found in file.results.items():
        if task in folded:
            continue
        values = metrics_of(found)
        chosen = _chosen(task, values)
        if chosen is None:
            # A group without a metric of its own is only a heading.
            if task not in file.group_subtasks:
                left_out.append(LeftOut(source.label, task, "it has no metric"))
            continue
        protocol, cell = _cell(file, path, task, chosen, values)
        cells[protocol] = cell
    if not cells:
        raise ConfigError(f"{path} holds no metric of any task; nothing of it can be listed")
    return [_row(file, source, cells)], left_out


def _chosen(task: str, values: Sequence[Value]) -> Value | None:
    by_key = {value.key: value for value in values}
    wanted = [f"{name},none" for name in _own_primary(task)]
    for key in (*wanted, *PREFERRED):
        if key in by_key:
            return by_key[key]
    return min(values, key=lambda value: value.key) if values else None


def _own_primary(task: str) -> list[str]:
    if not task.startswith(_OURS):
        return []
    from suites.errors import SuiteError
    from suites.registry import load_suite

    try:
        return [load_suite(task.removeprefix(_OURS)).primary_metric]
    except SuiteError:
        return []


def _cell(file: LmEvalFile, path: Path, task: str, chosen: Value, values: Sequence[Value]) -> tuple[Protocol, Cell]:
    is_group = task in file.group_subtasks
    counts = [file.n_samples[name] for name in _leaves(file, task) if name in file.n_samples]
    n = sum(count.effective for count in counts)
    sizes = f"{n} of {sum(count.original for count in counts)}" if counts else ITEMS_UNKNOWN
    read: Scores | str = chosen.reason or "a group has no samples of its own"
    if not is_group and chosen.value is not None:
        read = read_scores(samples_path(path, task), chosen.key, chosen.value)
    scores = None if isinstance(read, str) else read
    metric = chosen.key.partition(",")[0]
    better = file.higher_is_better.get(task, {}).get(metric)
    settings = {
        "version": str(file.versions.get(task, "none")),
        "shots": str(file.n_shot.get(task, "unknown")),
        "n": sizes,
        "items": scores.digest() if scores else ITEMS_UNKNOWN,
        "chat_template": "yes" if file.chat_template or file.chat_template_sha else "no",
        "system": (file.system_instruction_sha or "none")[:12],
        "task_hash": _task_hash(file, task),
    }
    interval, method = _interval(chosen, scores, n)
    notes = [chosen.reason] if chosen.reason else []
    if chosen.value is not None and interval is None:
        told = "is N/A" if chosen.stderr is None else "is 0"
        notes.append(f"the standard error of {chosen.key} {told}, so it is not ranked")
    if n and scores and len(scores.keys) != n:
        notes.append(f"{len(scores.keys)} samples for {n} documents")
    cell = Cell(
        value=chosen.value,
        n=n,
        n_total=n,
        se=chosen.stderr or None,
        ci95=interval,
        method=method,
        where=_pointer(task, chosen.key),
        note="; ".join(notes) or None,
        scores=scores,
        unpaired=read if isinstance(read, str) else None,
        complete=chosen.value is not None,
        others=tuple((v.key, v.value, v.stderr, _pointer(task, v.key)) for v in values if v is not chosen),
    )
    return Protocol(task, chosen.key, "lm-eval", tuple(sorted(settings.items())), better is not False), cell


def _interval(chosen: Value, scores: Scores | None, n: int) -> tuple[tuple[float, float] | None, str]:
    """A 95 % interval: from the samples where they are there, else from lm-eval's standard error."""
    value = chosen.value
    if value is None:
        return None, "none"
    if scores is not None:
        found = score_ci(scores.values)
        return found.ci95, found.method
    if chosen.stderr:
        low, high = value - Z95 * chosen.stderr, value + Z95 * chosen.stderr
        # A share stays one; other metrics (perplexity) have no such bounds.
        return ((max(0.0, low), min(1.0, high)) if 0 <= value <= 1 else (low, high)), "lm-eval-normal"
    if chosen.stderr == 0 and value in (0.0, 1.0) and n:
        # All right or all wrong: the standard error says nothing, the number of items does.
        return wilson_interval(value * n, n), "wilson"
    return None, "none"


def _leaves(file: LmEvalFile, task: str) -> list[str]:
    below = file.group_subtasks.get(task, [])
    return [leaf for child in below for leaf in _leaves(file, child)] if below else [task]


def _task_hash(file: LmEvalFile, task: str) -> str:
    """Hash of the task as it was configured; without `metadata`, which names the model."""
    told = {}
    for name in sorted(_leaves(file, task)):
        config = {key: value for key, value in file.configs.get(name, {}).items() if key != "metadata"}
        told[name] = re.sub(r" at 0x[0-9a-f]+", "", json.dumps(config, sort_keys=True, default=str))
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _pointer(task: str, key: str) -> str:
    """JSON pointer (RFC 6901) of a value in the file."""
    return "/results/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in (task, key))


def _row(file: LmEvalFile, source: Source, cells: Mapping[Protocol, Cell]) -> Row:
    name = file.model_name or _from_args(file.config.model_args) or "unknown model"
    version = file.lm_eval_version
    told = {"lm_eval": version, "transformers": file.transformers_version, "dtype": file.config.model_dtype}
    return Row(
        source=source,
        variant=public_name(name),
        study=f"lm-eval {version}" if version else "lm-eval",
        study_hash=None,
        base=public_name(name),
        where="",
        command=_command(file, sorted({protocol.suite for protocol in cells})),
        environment=tuple((key, value) for key, value in told.items() if value),
        cells=cells,
        dtype=(file.config.model_dtype or "").removeprefix("torch.") or None,
        parameters=file.config.model_num_parameters,
        revision=file.config.model_sha or None,
        notes=("imported from lm-eval: nothing ties these scores to the hash of any weights",),
    )


def _from_args(arguments: dict[str, Any] | str | None) -> str | None:
    found = _as_dict(arguments)
    return next((str(found[key]) for key in ("pretrained", "model", "path", "engine") if key in found), None)


def _as_dict(arguments: dict[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(arguments, str):
        return dict(part.partition("=")[::2] for part in arguments.split(",") if "=" in part)
    return dict(arguments or {})


def public_name(name: str) -> str:
    """A hub id as it is; of a local path only the last part."""
    local = name.startswith(("/", "./", "../", "~")) or "\\" in name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name if local else name


def _command(file: LmEvalFile, tasks: Sequence[str]) -> str:
    config: RunConfig = file.config
    arguments = ",".join(
        f"{key}={public_name(str(value))}"
        for key, value in _as_dict(config.model_args).items()
        if value is not None and not _SECRET.search(key)
    )
    words = ["lm_eval", "run", "--model", config.model or "hf", "--tasks", ",".join(tasks)]
    words += ["--model_args", arguments] if arguments else []
    shots = {file.n_shot.get(task) for task in tasks}
    words += ["--num_fewshot", str(next(iter(shots)))] if len(shots) == 1 and None not in shots else []
    for flag, value in (("--batch_size", config.batch_size), ("--limit", config.limit)):
        words += [flag, f"{value:g}" if isinstance(value, float) else str(value)] if value is not None else []
    words += ["--apply_chat_template"] if file.chat_template else []
    return shlex.join(words)
