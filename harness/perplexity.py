"""Perplexity of models on one text, window by window, with what one loses against another.

The protocol is that of GPTQ's and SliceGPT's evaluation: the whole text is tokenised once, cut into windows of
`context` tokens side by side, and every token but the first of its window is predicted from those before it in the
window. The number depends on the context, so that it is never said without it; tokens of different tokenizers do not
compare.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, EngineError
from harness.fingerprint import model_fingerprint
from harness.journal import Journal
from harness.progress import Phase
from harness.records import write_json_atomic

SCHEMA_VERSION = 1
WIKITEXT = "wikitext2"
POCKET = "pocket"
# Rows of the pocket model's plain text, of another seed than its training text.
_POCKET_ROWS, _POCKET_SEED = 600, 7
_WIKITEXT_FILE = "wikitext2_raw/wiki.test.raw"
_WIKITEXT_HUB = ("Salesforce/wikitext", "wikitext-2-raw-v1", "test")


@dataclass(frozen=True)
class Text:
    """What is read.

    Attributes:
        name: For tables.
        content: All of it.
    """

    name: str
    content: str

    @property
    def sha256(self) -> str:
        """Of the content in UTF-8, as 64 hex digits."""
        return hashlib.sha256(self.content.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Settings:
    """How it is read.

    Attributes:
        context: Tokens of a window.
        windows: The first so many; None for all.
        batch: Windows at a time.
        engine: `torch` or `sparse`.
        dtype: Computation dtype.
        device: `cpu` or `cuda`.
    """

    context: int = 2048
    windows: int | None = None
    batch: int = 1
    engine: str = "torch"
    dtype: str = "float32"
    device: str = "cpu"


def read_text(source: str, data_dir: Path | None) -> Text:
    """`wikitext2` (test split, raw, from the data directory or the hub), `pocket`, a text file, or JSONL with `text`.

    Documents of a JSONL file, and lines of WikiText-2 as the hub has them, are joined by two newlines.

    Raises:
        ConfigError: It is not there, is empty or not of this form.
    """
    if source == WIKITEXT:
        return Text("WikiText-2 (test, raw)", "\n\n".join(_wikitext_lines(data_dir)))
    if source == POCKET:
        return Text("plain text of the pocket model, held out", _pocket_text())
    path = Path(source)
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"text {path} does not exist; name a file, or {WIKITEXT}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"text {path} cannot be read: {error}; name a text file in UTF-8") from None
    if path.suffix == ".jsonl":
        content = "\n\n".join(_documents(path, content))
    if not content.strip():
        raise ConfigError(f"text {path} is empty; name another file")
    return Text(path.name, content)


def _pocket_text() -> str:
    from suites.pocket.text import plain_text

    rows = itertools.islice(plain_text(seed=_POCKET_SEED), _POCKET_ROWS)
    return "\n\n".join(shown + said for shown, said in rows)


def _documents(path: Path, content: str) -> list[str]:
    out = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            out.append(str(json.loads(line)["text"]))
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{path}:{number}: not a JSON object with a field text; fix the line") from None
    return out


def _wikitext_lines(data_dir: Path | None) -> list[str]:
    if data_dir is not None:
        file = data_dir / _WIKITEXT_FILE
        if not file.is_file():
            raise ConfigError(f"{file} is missing; put wiki.test.raw there, or leave out --data-dir to load it")
        # The hub's rows: one a line with its newline, and empty where a line is blank.
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        return [f"{line}\n" if line.strip() else "" for line in lines]
    import datasets

    name, config, split = _WIKITEXT_HUB
    try:
        return [str(row["text"]) for row in datasets.load_dataset(name, config, split=split)]
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise ConfigError(
            f"cannot load {name} from the hub ({reason}); give its file as {_WIKITEXT_FILE} below --data-dir"
        ) from None


def measure(
    models: Mapping[str, Path], text: Text, settings: Settings, out: Path, *, quiet: bool = False
) -> dict[str, Any]:
    """Perplexity of each model on the same windows; the first is what the others are compared with.

    Finished windows are journaled below `out`; the results are written to `out/perplexity.json`.

    Args:
        models: Directories by name.
        text: What is read.
        settings: How.
        out: Folder.
        quiet: Show no progress.

    Raises:
        ConfigError: The text is shorter than a window, or the context longer than a model's.
        EngineError: A model answers with NaN.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, directory in models.items():
        rows[name] = _read(name, directory, text, settings, out, quiet=quiet)
    first = next(iter(rows.values()))
    results = {
        "schema_version": SCHEMA_VERSION,
        "text": text.name,
        "text_sha256": text.sha256,
        "context": settings.context,
        "engine": f"{settings.engine}/{settings.dtype}",
        "models": [{"name": name, **_summary(row, first)} for name, row in rows.items()],
    }
    write_json_atomic(out / "perplexity.json", results)
    return results


def table(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    models = results["models"]
    lines = [
        f"Perplexity on {results['text']}, context {results['context']}, {models[0]['windows']} windows side by side, "
        f"engine {results['engine']}; 95 % intervals over windows, paired against {models[0]['name']}",
        "",
        "| model | perplexity | times that of the first |",
        "|---|---:|---:|",
    ]
    for row in models:
        against = "1" if row["ratio"] is None else _told(row["ratio"], row["ratio_ci95"])
        if row["reason"]:
            against = f"not compared: {row['reason']}"
        lines.append(f"| {row['name']} | {_told(row['perplexity'], row['ci95'])} | {against} |")
    return "\n".join(lines) + "\n"


def _read(name: str, directory: Path, text: Text, settings: Settings, out: Path, *, quiet: bool) -> dict[str, Any]:
    from harness.engines import load_engine

    fingerprint = model_fingerprint(directory)
    key = {
        **fingerprint,
        "engine": f"{settings.engine}/{settings.dtype}",
        "text_sha256": text.sha256,
        "context": settings.context,
    }
    options: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype}
    engine = load_engine(settings.engine, directory, **options)
    if settings.context > engine.context_length or settings.context < 2:
        raise ConfigError(
            f"--context {settings.context} is not between 2 and the {engine.context_length} tokens that {name} reads"
        )
    windows = cut(engine.encode(text.content), settings.context, settings.windows)
    with (
        Journal(out / "journal" / f"{name}.jsonl", key, row_key="window") as journal,
        Phase(name, len(windows), quiet=quiet) as phase,
    ):
        for start in range(0, len(windows), settings.batch):
            batch = range(start, min(start + settings.batch, len(windows)))
            missing = [index for index in batch if str(index) not in journal]
            if missing:
                found = engine.loglikelihoods([(windows[i][:1], windows[i][1:]) for i in missing])
                if not all(math.isfinite(total) for total, _ in found):
                    raise EngineError(f"{name} answers with NaN in window {missing[0]}; its weights are broken")
                journal.append([{"window": str(i), "nats": -sum_} for i, (sum_, _) in zip(missing, found, strict=True)])
            phase.update(batch.stop, len(windows), "")
        losses = [float(journal.rows[str(i)]["nats"]) / (settings.context - 1) for i in range(len(windows))]
    ids = hashlib.sha256(json.dumps(windows).encode()).hexdigest()
    return {"model": fingerprint, "losses": losses, "ids_sha256": ids}


def cut(ids: Sequence[int], context: int, limit: int | None) -> list[list[int]]:
    """Windows of `context` ids side by side, the first `limit` of them; a rest is left out.

    Raises:
        ConfigError: There is not one whole window.
    """
    windows = [list(ids[start : start + context]) for start in range(0, len(ids) - context + 1, context)][:limit]
    if not windows:
        raise ConfigError(f"the text has {len(ids)} tokens, less than one window of {context}; use a smaller --context")
    return windows


def _summary(row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    perplexity, interval = exp_mean(row["losses"])
    out: dict[str, Any] = {
        "windows": len(row["losses"]),
        "model": row["model"],
        "perplexity": perplexity,
        "ci95": interval,
        "ratio": None,
        "ratio_ci95": None,
        "reason": None,
        "nats_per_token": row["losses"],
    }
    if row is first:
        return out
    if row["ids_sha256"] != first["ids_sha256"]:
        return {**out, "reason": "another tokenizer"}
    ratio, interval = exp_mean([ours - theirs for ours, theirs in zip(row["losses"], first["losses"], strict=True)])
    return {**out, "ratio": ratio, "ratio_ci95": interval}


def exp_mean(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """The exponential of a mean over windows, and of its 95 % interval by Student's t; None where there is one window.

    Windows are taken as independent.
    """
    import numpy as np
    from scipy.special import stdtrit

    found = np.asarray(values, dtype=np.float64)
    mean = float(found.mean())
    if found.size < 2:
        return _exp(mean), None
    half = float(stdtrit(found.size - 1, 0.975) * found.std(ddof=1) / math.sqrt(found.size))
    return _exp(mean), [_exp(mean - half), _exp(mean + half)]


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _told(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")
