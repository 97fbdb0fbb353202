"""The fixed texts on which distances are measured: prompts and reference answers of suites, windows of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.corpus import prompt_renderer
from harness.errors import ConfigError
from suites.data import Item, load_items
from suites.registry import SUITES, load_suite

Messages = tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class SuiteText:
    """The first items of a suite as fixed text.

    Attributes:
        suite: One of the five skills.
        preset: Says which data: the bundled items or the real ones.
        items: How many at most.
    """

    suite: str
    preset: str
    items: int

    def __post_init__(self) -> None:
        """Refuse what has no prompts to continue."""
        if self.suite not in SUITES:
            raise ConfigError(f"suite {self.suite!r} gives no text to measure on; choose one of {', '.join(SUITES)}")


@dataclass(frozen=True)
class WindowText:
    """A text, cut into windows side by side.

    Attributes:
        source: `wikitext2` or a file; see `harness.perplexity.read_text`.
        context: Tokens of a window; its first half is the prompt of a greedy continuation.
        windows: The first so many; None for all.
    """

    source: str
    context: int
    windows: int | None


@dataclass(frozen=True)
class Texts:
    """All fixed texts of a measurement; picklable.

    Attributes:
        suites: Items of suites.
        window: A text, or None.
        data_dir: Folder of original data files.
    """

    suites: tuple[SuiteText, ...] = ()
    window: WindowText | None = None
    data_dir: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What tables call them."""
        window = () if self.window is None else (window_name(self.window.source),)
        return (*(text.suite for text in self.suites), *window)


@dataclass(frozen=True)
class Document:
    """What is shown, and what is said after it.

    Attributes:
        name: Unique in its suite.
        cluster: Documents of one cluster are not independent.
        prompt: A text as it stands, or messages for the chat template.
        answer: The reference answer; None where the benchmark has none.
    """

    name: str
    cluster: str
    prompt: str | Messages
    answer: str | None


def suite_documents(text: SuiteText, data_dir: Path | None) -> list[Document]:
    """The prompts of a suite's test items as the suite words them, without worked examples, and their answers.

    A conversation gives a document a turn, with the reference answers of earlier turns before it; one without
    references gives its first turn only.

    Raises:
        SuiteError: No such preset, or its data is not here.
    """
    suite = load_suite(text.suite)
    items = load_items(suite, text.preset, n=text.items, data_dir=data_dir)
    answers = _answers(text, items)
    return [doc for item, told in zip(items, answers, strict=True) for doc in _documents(text.suite, item, told)]


def _answers(text: SuiteText, items: Sequence[Item]) -> list[tuple[str, ...]]:
    if load_suite(text.suite).preset(text.preset).data == "pocket":
        from suites.pocket.items import test_items

        drawn = [draw.response for draw in test_items(text.suite, len(items))]
        return [(answer,) if isinstance(answer, str) else tuple(answer) for answer in drawn]
    return [_real_answers(item.doc) for item in items]


def _real_answers(doc: Mapping[str, Any]) -> tuple[str, ...]:
    """The reference answers of a benchmark's own row; IFEval and most of MT-Bench have none."""
    found = next((doc[name] for name in ("answer", "canonical_solution", "highlights") if doc.get(name)), None)
    if found is None:
        return tuple(map(str, doc.get("reference") or ()))
    return (str(found if isinstance(found, str) else found[0]),)


def _documents(suite: str, item: Item, answers: Sequence[str]) -> Iterator[Document]:
    if "turns" not in item.doc:
        prompt = prompt_renderer(suite)(item.doc)
        shown = prompt if load_suite(suite).prompt == "raw" else ({"role": "user", "content": prompt},)
        yield Document(item.item_id, item.cluster, shown, answers[0] if answers else None)
        return
    messages: list[Mapping[str, str]] = []
    for index, turn in enumerate(item.doc["turns"]):
        messages.append({"role": "user", "content": str(turn)})
        answer = answers[index] if index < len(answers) else None
        yield Document(f"{item.item_id}#{index + 1}", item.cluster, tuple(messages), answer)
        if answer is None:
            return
        messages.append({"role": "assistant", "content": answer})


def window_name(source: str) -> str:
    """What tables call a text: `wikitext2`, or the name of the file."""
    return source if "/" not in source else Path(source).name


def describe(texts: Texts) -> dict[str, Any]:
    """The plan of the texts as JSON values, without the place of their data."""
    window = texts.window
    return {
        "suites": [[text.suite, text.preset, text.items] for text in texts.suites],
        "window": None if window is None else [window_name(window.source), window.context, window.windows],
    }


def canonical(value: Any) -> bytes:
    """JSON of a value, always the same bytes, for hashes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
