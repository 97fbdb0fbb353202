"""The seam between the harness and whatever executes a variant: requests in, completions out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

Finish = Literal["stop", "length", "truncated_input"]


@dataclass(frozen=True)
class Request:
    """One prompt to complete.

    Attributes:
        request_id: The caller's name for the request; returned unchanged.
        prompt_ids: Token ids of the whole prompt, at least one.
        max_new_tokens: Upper limit of generated tokens, at least one.
        stop: Texts that end the completion; the text is cut before the first of them.
        temperature: 0 is greedy; above 0 samples.
        top_p: Nucleus mass kept when sampling, in (0, 1].
        seed: Seed of this request's own random stream, so that a sample does not depend on its batch mates.
        shared_prefix: So many tokens at the beginning of the prompt are those of every prompt of the plan; an engine
            may compute them once.
    """

    request_id: str
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    shared_prefix: int = 0


@dataclass(frozen=True)
class Completion:
    """What became of one request.

    Attributes:
        request_id: The request's name.
        text: The completion without prompt, end token, special tokens, or anything from a stop text on.
        n_in: Prompt tokens.
        n_out: Generated tokens, the end token or the tokens of the stop text included.
        finish: `stop` at an end token or stop text, `length` at `max_new_tokens`, `truncated_input` when prompt and
            `max_new_tokens` do not fit the context together; nothing was generated then.
        seconds: Wall time from the start of the batch until this request was finished.
        tokens: The generated token ids, as `n_out` counts them; empty where an engine gets only text.
    """

    request_id: str
    text: str
    n_in: int
    n_out: int
    finish: Finish
    seconds: float
    tokens: tuple[int, ...] = ()


class Engine(Protocol):
    """Executes one variant."""

    @property
    def name(self) -> str:
        """The engine's name in studies and records."""

    @property
    def context_length(self) -> int:
        """Tokens that prompt and completion may have together."""

    def encode(self, text: str | None = None, *, chat: Sequence[Mapping[str, str]] | None = None) -> list[int]:
        """Token ids of a plain text, or of chat messages rendered with the chat template up to the assistant's turn."""

    def generate_batch(self, requests: Sequence[Request]) -> list[Completion]:
        """Complete one fixed batch, in order; the caller decides (and records) which requests share it."""

    def loglikelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[float, bool]]:
        """Per (context, continuation): log-likelihood in nats, and whether greedy decoding gives the continuation."""


class LogitsEngine(Engine, Protocol):
    """An engine that holds the model itself, so that it can show all that the model thinks of the next token."""

    @property
    def vocabulary(self) -> int:
        """Logits of a token."""

    def logits(self, sequences: Sequence[Sequence[int]], *, keep: Sequence[int]) -> list[Tensor]:
        """Per sequence of token ids: what follows each of its last `keep` tokens, float32 (keep, vocabulary).

        All of them are in memory at once; the caller decides how many that are.
        """


@dataclass(frozen=True)
class TextRequest:
    """One prompt for an engine that has its own tokenizer and chat template.

    Attributes:
        request_id: The caller's name for the request; returned unchanged.
        prompt: A plain text, or messages with `role` and `content`.
        max_new_tokens: Upper limit of generated tokens, at least one.
        stop: Texts that end the completion; the text is cut before the first of them.
        temperature: 0 is greedy; above 0 samples.
        top_p: Nucleus mass kept when sampling, in (0, 1].
        seed: Seed of this request's sampling, where the engine honours one.
    """

    request_id: str
    prompt: str | tuple[Mapping[str, str], ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class TextAnswer:
    """What became of one request to a `TextEngine`.

    Attributes:
        request_id: The request's name.
        text: The completion, cut before the first stop text; empty unless `finish` is `stop` or `length`.
        finish: As of a `Completion`; `refused` by a content filter, `error` when all tries failed.
        n_in: Prompt tokens; None where the engine does not count them.
        n_out: Generated tokens; None where the engine does not count them.
        seconds: Wall time of the request, waiting and further tries included.
        error: Why, for `error` and `refused`.
    """

    request_id: str
    text: str
    finish: Finish | Literal["refused", "error"]
    n_in: int | None = None
    n_out: int | None = None
    seconds: float = 0.0
    error: str | None = None


@runtime_checkable
class TextEngine(Protocol):
    """Executes a model that takes text: tokenizer and chat template are its own, out of our sight."""

    @property
    def name(self) -> str:
        """The engine's name in studies and records."""

    def complete(self, requests: Sequence[TextRequest], *, done: Callable[[TextAnswer], None]) -> None:
        """Complete requests in any order; `done` is called with each as soon as it is finished.

        Raises:
            SparsebenchError: No request can succeed (a refused key, an unknown model, nobody there).
        """

    def weigh(self, pairs: Mapping[str, tuple[str, str]], *, done: Callable[[str, float, int | None], None]) -> None:
        """Log-likelihood of continuations: `done` gets the pair's name, nats, and tokens of the continuation.

        Args:
            pairs: (context, continuation) by name.
            done: Called with each as soon as it is known.

        Raises:
            SparsebenchError: The engine does not give log-probabilities of a prompt, or failed.
        """
