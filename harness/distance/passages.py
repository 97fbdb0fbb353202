"""Fixed texts as the token ids of a model: what it continues, and where it is compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.distance.texts import Document, Texts, WindowText, canonical, suite_documents, window_name
from harness.errors import ConfigError
from harness.perplexity import cut, read_text

if TYPE_CHECKING:
    from harness.engines.base import Engine, LogitsEngine


@dataclass(frozen=True)
class Passage:
    """One fixed text.

    Attributes:
        name: Unique in the measurement.
        text: The suite or text that it is of.
        cluster: Passages of one cluster are not independent.
        prompt: What a greedy continuation continues; empty where it would not fit the context.
        ids: All tokens of the fixed text; empty where there is no reference answer, or it does not fit the context.
        start: The first token of `ids` whose prediction is compared.
    """

    name: str
    text: str
    cluster: str
    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    start: int

    @property
    def compared(self) -> int:
        """How many predictions are compared."""
        return len(self.ids) - self.start if self.ids else 0


@dataclass(frozen=True)
class Encoded:
    """All passages of a measurement.

    Attributes:
        passages: In order.
        left_out: Text -> how many of its documents do not fit the model's context, in whole or in part.
    """

    passages: tuple[Passage, ...]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Over the names and token ids of all passages, as 64 hex digits."""
        digest = hashlib.sha256()
        for each in self.passages:
            digest.update(canonical([each.name, each.cluster, each.prompt, each.ids, each.start]) + b"\n")
        return digest.hexdigest()


def encode_texts(engine: Engine, texts: Texts, *, new_tokens: int) -> Encoded:
    """The texts as an engine's model reads them.

    Args:
        engine: Its tokenizer, chat template and context length count.
        texts: What is read.
        new_tokens: Length of greedy continuations, for which room is left.

    Raises:
        ConfigError: A text is not there, is shorter than a window, or nothing fits the context.
        SuiteError: A suite's data is not there.
    """
    passages: list[Passage] = []
    left_out: dict[str, int] = {}
    for text in texts.suites:
        for document in suite_documents(text, texts.data_dir):
            whole = _encode(engine, document, text.suite)
            passage = _fitting(whole, engine.context_length, new_tokens)
            left_out[text.suite] = left_out.get(text.suite, 0) + (passage != whole)
            passages.append(passage)
    if texts.window is not None:
        passages += _windows(engine, texts, texts.window, new_tokens)
    if not any(each.prompt or each.ids for each in passages):
        raise ConfigError(
            f"none of {len(passages)} texts fits the {engine.context_length} tokens that the model reads; "
            "use a smaller --context or other --prompts"
        )
    return Encoded(tuple(passages), {text: count for text, count in left_out.items() if count})


def require_same(dense: tuple[str, LogitsEngine, Encoded], variant: tuple[str, LogitsEngine, Encoded]) -> None:
    """Refuse two models whose tokens are not the same.

    Raises:
        ConfigError: They differ in tokenizer, chat template or vocabulary.
    """
    (base, base_engine, base_texts), (name, engine, texts) = dense, variant
    if base_engine.vocabulary != engine.vocabulary:
        raise ConfigError(
            f"{name} has {engine.vocabulary} tokens in its vocabulary, {base} has {base_engine.vocabulary}: distances "
            "need the same tokenizer; compare models of one family"
        )
    if base_texts.sha256 != texts.sha256:
        raise ConfigError(
            f"{name} reads the texts as other tokens than {base}: distances need the same tokenizer, chat template and "
            "context length; copy those of the dense model to the variant"
        )


def _encode(engine: Engine, document: Document, suite: str) -> Passage:
    name, cluster, answer = document.name, f"{suite}/{document.cluster}", document.answer
    if not isinstance(document.prompt, str):
        prompt = engine.encode(chat=document.prompt)
        ids = [*prompt, *_continuation_ids(engine, answer)] if answer is not None else []
        return Passage(name, suite, cluster, tuple(prompt), tuple(ids), len(prompt))
    prompt = engine.encode(document.prompt)
    ids = engine.encode(document.prompt + answer) if answer is not None else []
    # The seam may be tokenized differently with the answer behind it: compared is what comes after the common part.
    same = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), min(len(prompt), len(ids)))
    return Passage(name, suite, cluster, tuple(prompt), tuple(ids), max(same, 1))


def _continuation_ids(engine: Engine, text: str) -> list[int]:
    """Tokens of a text that stands behind others: without those that open every text of the tokenizer."""
    ids, opening = engine.encode(text), engine.encode("")
    return ids[len(opening) :] if ids[: len(opening)] == opening else ids


def _fitting(passage: Passage, context: int, new_tokens: int) -> Passage:
    prompt = passage.prompt if len(passage.prompt) + new_tokens <= context else ()
    ids = passage.ids if len(passage.ids) <= context and passage.compared > 0 else ()
    return Passage(passage.name, passage.text, passage.cluster, prompt, ids, passage.start)


def _windows(engine: Engine, texts: Texts, window: WindowText, new_tokens: int) -> Iterator[Passage]:
    half = window.context // 2
    if window.context > engine.context_length or half + new_tokens > engine.context_length:
        raise ConfigError(
            f"windows of {window.context} tokens and continuations of {new_tokens} do not fit the "
            f"{engine.context_length} tokens that the model reads; use a smaller --context or --new-tokens"
        )
    name = window_name(window.source)
    found = cut(engine.encode(read_text(window.source, texts.data_dir).content), window.context, window.windows)
    for index, ids in enumerate(found):
        label = f"{name}/{index:05d}"
        yield Passage(label, name, label, tuple(ids[:half]), tuple(ids), 1)


def batches(passages: Sequence[Passage], lengths: Sequence[int], size: int, most: int) -> Iterator[list[Passage]]:
    """Cut passages into batches, longest first; they follow from the whole plan alone.

    Args:
        passages: What is cut.
        lengths: Of each, in whatever unit is limited.
        size: Passages of a batch at most.
        most: Sum of a batch's lengths at most, every passage counted as the longest; one passage always fits.
    """
    order = sorted(range(len(passages)), key=lambda index: (-lengths[index], passages[index].name))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == size or (len(batch) + 1) * lengths[batch[0]] > most):
            yield [passages[i] for i in batch]
            batch = []
        batch.append(index)
    if batch:
        yield [passages[i] for i in batch]
