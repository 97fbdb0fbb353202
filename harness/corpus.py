"""Training text for `sparsify`: a suite's train split, rendered by the suite's own prompt.

`sparsify` knows nothing of suites; it reads JSONL files (`sparsify.corpus`). A recipe names its data as
`suite:gsm8k/train` or `suite:mix/train`; this module turns the name into a file.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from suites.pocket.draw import Draw, doc_hash, normalise
from suites.pocket.items import SKILLS, test_items, train_items
from suites.pocket.text import plain_text
from suites.registry import load_suite

# Weights of difficulty 1 to 4 in training text: the harder items are longer and teach more.
TRAIN_MIX = (1.2, 1.3, 1.0, 0.7)
# Rows of each skill per 100 rows of the mixture; copying (chat, summarization) is what a small model learns last.
SKILL_ROWS: Mapping[str, int] = {"gsm8k": 30, "code": 13, "instruct": 17, "chat": 28, "summarization": 12}
MIX_ROWS = 12_000


@cache
def prompt_renderer(skill: str) -> Callable[[Mapping[str, Any]], str]:
    """The function that renders a suite's prompt from a document: as task.yaml says, or the plain `prompt` field."""
    import jinja2
    import yaml

    class _Loader(yaml.SafeLoader):
        pass

    _Loader.add_constructor("!function", lambda loader, node: _Function(node.value))
    path = load_suite(skill).path / "task.yaml"
    if not path.exists():
        return lambda doc: str(doc["prompt"])
    template = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)["doc_to_text"]  # noqa: S506 (a SafeLoader)
    if isinstance(template, _Function):
        module, name = template.rsplit(".", 1)
        function = getattr(importlib.import_module(f"suites.{skill}.{module}"), name)
        return lambda doc: str(function({**doc, "doc_json": json.dumps(doc)}))
    if template.isidentifier():  # lm-eval reads a bare word as the name of a column
        return lambda doc: str(doc[template])
    compiled = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(template)
    return lambda doc: compiled.render(**doc)


class _Function(str):
    """The value of a `!function` tag."""


@cache
def held_out(skill: str) -> frozenset[str]:
    """What names a skill's test items: hashes of their documents, and of their prompts as the suite renders them."""
    names: set[str] = set()
    for draw in test_items(skill):
        turns = draw.doc["turns"] if skill == "chat" else [prompt_renderer(skill)(draw.doc)]
        names |= {doc_hash(draw.doc), _prompt_hash("\n".join(turns))}
    return frozenset(names)


def refuse_test_items(path: Path) -> None:
    """Refuse a JSONL corpus that holds a test item of a suite, by its `item_hash` or by what it shows the model.

    Raises:
        ConfigError: It does; the message names the line.
    """
    known = frozenset().union(*(held_out(skill) for skill in SKILLS))
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # the trainer says what is wrong with the line
            if isinstance(row, dict) and {str(row.get("item_hash")), _prompt_hash(_shown(row))} & known:
                raise ConfigError(f"{path}:{number} is a test item of a suite; remove it: nothing may train on it")


def _shown(row: Mapping[str, Any]) -> str:
    messages = row.get("messages")
    if isinstance(messages, list):
        return "\n".join(str(m.get("content")) for m in messages if isinstance(m, dict) and m.get("role") == "user")
    return str(row.get("prompt") or row.get("text") or "")


def _prompt_hash(prompt: str) -> str:
    return hashlib.sha256(normalise(prompt).encode()).hexdigest()


def train_row(skill: str, draw: Draw) -> dict[str, Any]:
    """One corpus row of a drawn training item.

    Raises:
        ConfigError: It is one of the suite's test items.
    """
    tags = {"source": f"suite:{skill}/train", "item_hash": doc_hash(draw.doc)}
    if tags["item_hash"] in held_out(skill):
        raise ConfigError(f"item {tags['item_hash'][:12]} is a test item of {skill}; nothing may train on it")
    if skill == "chat":
        turns = zip(draw.doc["turns"], draw.response, strict=True)
        messages = [m for t, r in turns for m in ({"role": "user", "content": t}, {"role": "assistant", "content": r})]
        return {"messages": messages, **tags}
    prompt, response = prompt_renderer(skill)(draw.doc), str(draw.response)
    if load_suite(skill).prompt == "raw":
        return {"prompt": prompt, "completion": response, **tags}
    return {
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}],
        **tags,
    }


def train_rows(skill: str, *, seed: int, shares: Mapping[str, int] = SKILL_ROWS) -> Iterator[dict[str, Any]]:
    """An endless stream of a skill's training rows; `mix` interleaves all skills by `shares` (rows of each)."""
    if skill != "mix":
        return (train_row(skill, draw) for draw in train_items(skill, seed=seed, mix=TRAIN_MIX))
    return _mixture(seed, shares)


def plain_rows(*, seed: int) -> Iterator[dict[str, Any]]:
    """An endless stream of rows of the pocket model's plain text (`suites.pocket.text`)."""
    for index, (shown, said) in enumerate(plain_text(seed=seed)):
        yield {"prompt": shown, "completion": said, "source": "pocket:text", "item_hash": f"{seed}/{index}"}


def _mixture(seed: int, shares: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    streams = {skill: train_rows(skill, seed=seed) for skill in shares}
    while True:
        for skill, rows in shares.items():
            yield from itertools.islice(streams[skill], rows)


def resolve_corpus(name: str, cache_dir: Path, *, data_dir: Path | None = None) -> Path:
    """The file of a corpus name: `suite:SKILL/train`, `task:NAME`, `hub:NAME[/CONFIG][:SPLIT]`, `python:DIR` or a path.

    SKILL may be `mix`, all skills in turn, or `text`, the plain text of the pocket model, which is never tested.

    A data set of the hub comes from the local cache alone where HF_HUB_OFFLINE is set, as `--offline` does.

    Raises:
        ConfigError: The name is neither a known suite split nor an existing file, or the file holds a test item.
        SparsifyError: The data set cannot be fetched.
    """
    if name.startswith("hub:"):
        from sparsify.dataset import fetch_dataset

        return fetch_dataset(name, cache_dir, offline=os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"))
    if name.startswith("task:"):
        from harness.task_text import resolve_task

        return resolve_task(name, cache_dir, data_dir)
    if name.startswith("python:"):
        from sparsify.dataset import collect_python

        return collect_python(name, cache_dir)
    if not name.startswith("suite:"):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(
                f"corpus {name!r} is neither suite:SKILL/train, task:NAME, hub:NAME nor python:DIR, and no file here"
            )
        refuse_test_items(path)
        return path
    skill, _, split = name.removeprefix("suite:").partition("/")
    if skill not in (*SKILLS, "mix", "text") or split != "train":
        raise ConfigError(
            f"corpus {name!r} is unknown; use suite:mix/train, suite:text/train or suite:SKILL/train of "
            f"{', '.join(SKILLS)}"
        )
    path = cache_dir / f"{skill}-train-{MIX_ROWS}.jsonl"
    if not path.exists():
        rows = plain_rows(seed=1) if skill == "text" else train_rows(skill, seed=1)
        write_rows(path, itertools.islice(rows, MIX_ROWS))
    return path


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write rows as JSONL; the file appears only when it is complete. Two processes may write the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(part, path)
