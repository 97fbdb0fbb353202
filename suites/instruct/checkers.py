"""The one place where lm-eval's IFEval checker classes are loaded: offline, seeded, with a bundled sentence splitter.

`lm_eval.tasks.ifeval.instructions_util` tries to download NLTK's `punkt_tab` when it is imported (rank 0 only), and
two of the 25 instruction types need that model when they check. Nothing is downloaded here: `load` imports the modules
as if on rank 1 and replaces what needs the model. How scores may differ from the official ones is in `DEVIATIONS`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

SENTENCE_SPLITTER = "nltk PunktSentenceTokenizer, untrained (official IFEval: punkt_tab english)"
DEVIATIONS = (
    f"sentence counts are not the official ones: {SENTENCE_SPLITTER}",
    "letter_frequency counts the character it is given; official IFEval counts a random letter where that is none "
    "(keys 1122 and 1129)",
)


@functools.cache
def load() -> Mapping[str, type[Any]]:
    """Checker class by instruction id (25 ids), as `instructions_registry.INSTRUCTION_DICT` but for `DEVIATIONS`.

    The first call imports lm-eval and NLTK (seconds) and seeds langdetect, whose verdict on a short text is random
    otherwise; it leaves the environment as it was.
    """
    instructions, registry = _import_offline()
    import langdetect

    langdetect.DetectorFactory.seed = 0
    # A checker that finds no language in a text logs the text as an error and passes it: not for a user's terminal.
    logging.getLogger(instructions.__name__).setLevel(logging.CRITICAL)
    return {**registry, "keywords:letter_frequency": _letter_checker(instructions.LetterFrequencyChecker)}


def _import_offline() -> tuple[Any, Mapping[str, type[Any]]]:
    rank = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = "1"
    try:
        from lm_eval.tasks.ifeval import instructions, instructions_registry, instructions_util
    finally:
        if rank is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = rank
    import nltk

    splitter = nltk.tokenize.punkt.PunktSentenceTokenizer()
    word_tokenize = functools.partial(nltk.tokenize.word_tokenize, preserve_line=True)
    # `count_sentences` asks for the splitter by this name. CapitalWordFrequencyChecker calls
    # `instructions_util.nltk.word_tokenize`; `nltk.tokenize` and `nltk.data` are all else that the module uses.
    instructions_util._get_sentence_tokenizer = lambda: splitter
    instructions_util.nltk = SimpleNamespace(tokenize=nltk.tokenize, data=nltk.data, word_tokenize=word_tokenize)
    return instructions, instructions_registry.INSTRUCTION_DICT


def _letter_checker(base: type[Any]) -> type[Any]:
    class LetterFrequencyChecker(base):  # type: ignore[misc]
        """Counts any single character; the original draws a letter at random unless it is given one of a to z."""

        def build_description(self, *, letter: str | None = None, **kwargs: Any) -> str:
            if not letter or len(letter) > 1 or "a" <= letter.lower() <= "z":
                return str(super().build_description(letter=letter, **kwargs))
            text = str(super().build_description(letter="a", **kwargs))
            self._letter = letter.lower()
            return text

    return LetterFrequencyChecker
