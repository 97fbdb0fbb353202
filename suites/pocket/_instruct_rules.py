"""The instructions of the pocket instruct skill: their IFEval ids, keyword arguments, wordings and conflicts."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from suites.pocket._instruct_requests import SYNONYMS
from suites.pocket.lexicon import ADJECTIVES, ANIMALS, DAYS, FOODS, NAMES, PLACES, THINGS

OPTIONS = '"My answer is yes.", "My answer is no.", "My answer is maybe."'
_NUMBERS = ("zero", "one", "two", "three", "four", "five")
_NOUNS = tuple(one for one, _ in THINGS) + ANIMALS + FOODS


@dataclass(frozen=True)
class Rule:
    """One instruction type: its IFEval id and the ways to word it (fields are filled by `word`)."""

    id: str
    wordings: tuple[str, ...]


RULES: Mapping[str, Rule] = {
    "no_comma": Rule(
        "punctuation:no_comma",
        ("Do not use any commas.", "Use no commas.", "Your answer must have no comma.", "Write it without commas."),
    ),
    "lowercase": Rule(
        "change_case:english_lowercase",
        (
            "Write in English and use lowercase letters only.",
            "Use no capital letters.",
            "Your answer must be in all lowercase letters.",
            "All letters must be lowercase.",
        ),
    ),
    "capital": Rule(
        "change_case:english_capital",
        (
            "Write in English and use capital letters only.",
            "Use only capital letters.",
            "Your answer must be in all capital letters.",
            "All letters must be capital letters.",
        ),
    ),
    "title": Rule(
        "detectable_format:title",
        (
            "Add a title in double angular brackets, such as <<title>>.",
            "Put a title such as <<title>> at the top.",
            "Your answer must have a title, like <<title>>.",
            "Give it a title wrapped in << and >>.",
        ),
    ),
    "quotation": Rule(
        "startend:quotation",
        (
            "Wrap your answer in double quotation marks.",
            "Put the whole answer in double quotes.",
            "Your answer must be inside double quotation marks.",
            "Start and end your answer with a double quotation mark.",
        ),
    ),
    "end": Rule(
        "startend:end_checker",
        (
            'End your answer with "{end_phrase}"',
            'Finish with the exact words "{end_phrase}"',
            'The last words of your answer must be "{end_phrase}"',
            'Close with "{end_phrase}" and write nothing after it.',
        ),
    ),
    "postscript": Rule(
        "detectable_content:postscript",
        (
            "Add a postscript that starts with {postscript_marker}",
            "At the end, add a postscript with {postscript_marker}",
            "Your answer must have a postscript. Begin it with {postscript_marker}",
            "Write a note after the text, and start it with {postscript_marker}",
        ),
    ),
    "bullets": Rule(
        "detectable_format:number_bullet_lists",
        (
            "Use exactly {count} bullet points, such as * this.",
            "Write it as a list of {count} bullet points that start with *.",
            "Your answer must have exactly {count} bullet points.",
            "Give me {count} bullet points, no more and no less.",
        ),
    ),
    "existence": Rule(
        "keywords:existence",
        (
            "Include the words {all}.",
            "Use the words {all} in your answer.",
            "Your answer must contain the words {all}.",
            "Do not forget the words {all}.",
        ),
    ),
    "forbidden": Rule(
        "keywords:forbidden_words",
        (
            "Do not use these words: {listed}.",
            "Your answer must not contain {any}.",
            "Avoid the words {listed}.",
            "Never say {any}.",
        ),
    ),
    "frequency": Rule(
        "keywords:frequency",
        (
            "Use the word {keyword} at least {count} times.",
            "The word {keyword} must appear at least {count} times.",
            "Your answer must contain the word {keyword} {count} times or more.",
            "Say {keyword} at least {count} times.",
        ),
    ),
    "placeholders": Rule(
        "detectable_content:number_placeholders",
        (
            "Use at least {count} placeholders in square brackets, such as [name].",
            "Your answer must have at least {count} placeholders like [name].",
            "Include {count} or more placeholders such as [name].",
            "Leave at least {count} things open in square brackets, like [name].",
        ),
    ),
    "highlights": Rule(
        "detectable_format:number_highlighted_sections",
        (
            "Highlight at least {count} parts, such as *this*.",
            "Mark at least {count} parts of your answer with stars, like *this*.",
            "Your answer must have {count} or more *highlighted* parts.",
            "Put at least {count} words between stars, like *this*.",
        ),
    ),
    "sections": Rule(
        "detectable_format:multiple_sections",
        (
            "Use {count} sections. Mark each with {splitter} and its number, such as {splitter} 1.",
            "Your answer must have {count} sections, like {splitter} 1 and {splitter} 2.",
            "Split the answer into {count} sections that begin with {splitter} 1, {splitter} 2 and so on.",
            "Write {count} sections and start each with {splitter} and a number.",
        ),
    ),
    "two": Rule(
        "combination:two_responses",
        (
            "Give two different answers, separated by ******.",
            "Write two answers with ****** between them.",
            "I need two different answers. Put ****** between the two.",
            "Answer in two ways and separate them with six stars: ******.",
        ),
    ),
    "repeat": Rule(
        "combination:repeat_prompt",
        (
            "First repeat the request word for word, then give your answer.",
            "Before you answer, repeat the request above without change.",
            "Copy the request above first, then answer it.",
            "Say the request again word for word and then answer it.",
        ),
    ),
    "paragraph": Rule(
        "length_constraints:nth_paragraph_first_word",
        (
            "Write {count} paragraphs with an empty line between them. Paragraph {nth} must start with {first_word}.",
            "Use {count} paragraphs, split by an empty line. The first word of paragraph {nth} is {first_word}.",
            "Use {count} paragraphs and leave an empty line between them. Start paragraph {nth} with the word "
            "{first_word}.",
        ),
    ),
    "words": Rule(
        "length_constraints:number_words",
        (
            "Use {relation} {num_words} words.",
            "Answer with {relation} {num_words} words.",
            "Your answer must have {relation} {num_words} words.",
            "Write {relation} {num_words} words.",
        ),
    ),
    "constrained": Rule(
        "detectable_format:constrained_response",
        (
            f"Answer with one of these: {OPTIONS}",
            f"Choose one of these answers: {OPTIONS}",
            f"Say one of {OPTIONS}",
            f"Your answer must be one of the following: {OPTIONS}",
        ),
    ),
}

EASY = ("no_comma", "lowercase", "capital", "title", "quotation", "end", "postscript")
MEDIUM = ("bullets", "existence", "forbidden", "frequency", "placeholders", "highlights", "sections", "two")
HARD = ("repeat", "paragraph", "words")
COUNTING = ("bullets", "frequency", "placeholders", "highlights", "sections", "paragraph", "words")

# IFEval's own table (`INSTRUCTION_CONFLICTS`) and what our way to compose an answer adds to it.
_CONFLICTS: Mapping[str, str] = {
    "capital": "lowercase postscript",  # langdetect would read the single letters of a capital P.S.
    "quotation": "end title bullets",
    "sections": "lowercase capital highlights words",
    "bullets": "sections paragraph highlights words",
    "paragraph": "sections highlights words title",
    "two": "lowercase capital title quotation end postscript bullets frequency placeholders highlights sections "
    "repeat paragraph words",
    "repeat": "lowercase capital quotation end postscript bullets forbidden frequency placeholders highlights sections "
    "paragraph words",
}
_PAIRS = frozenset(frozenset((one, two)) for one, others in _CONFLICTS.items() for two in others.split())

_END_PHRASES = (
    "That is all.",
    "See you soon.",
    "What do you think?",
    "Any other questions?",
    "I hope this helps.",
    "That is all for {day}.",
    "See you in {place}.",
    "Greetings from {place}.",
    "Ask {name} for more.",
    "Thank you {name}.",
)


def compatible(rules: Collection[str]) -> bool:
    """Whether no two of the rules contradict each other."""
    names = sorted(rules)
    return not any(frozenset((a, b)) in _PAIRS for i, a in enumerate(names) for b in names[i + 1 :])


def choose(rng: random.Random, name: str, difficulty: int, taken: list[str]) -> dict[str, Any]:
    """Keyword arguments of a rule, in IFEval's names.

    Args:
        rng: The only source of chance.
        name: A key of `RULES`; `words`, `repeat` and `paragraph` need the rest of the answer or request and are
            completed by the caller.
        difficulty: Larger counts at 4.
        taken: Words already in use; the words drawn here are appended.
    """
    top = 4 if difficulty >= 4 else 3
    if name == "end":
        phrase = rng.choice(_END_PHRASES)
        return {"end_phrase": phrase.format(day=rng.choice(DAYS), place=rng.choice(PLACES), name=rng.choice(NAMES))}
    if name == "postscript":
        return {"postscript_marker": rng.choice(("P.S.", "P.P.S"))}
    if name == "bullets":
        return {"num_bullets": rng.randint(2, top)}
    if name == "existence":
        return {"keywords": _nouns(rng, rng.randint(1, 2) if difficulty < 4 else rng.randint(2, 3), taken)}
    if name == "forbidden":
        first = rng.choice(tuple(SYNONYMS))
        groups = [words for key, words in SYNONYMS.items() if key != first]
        # At most one word of any group but the first, so that every group keeps a word to say.
        more = [rng.choice(group) for group in rng.sample(groups, rng.randint(1, 2) if difficulty >= 3 else 1)]
        return {"forbidden_words": [first, *more]}
    if name == "frequency":
        return {"keyword": _nouns(rng, 1, taken)[0], "frequency": rng.randint(2, top), "relation": "at least"}
    if name == "placeholders":
        return {"num_placeholders": rng.randint(2, top)}
    if name == "highlights":
        return {"num_highlights": rng.randint(2, top)}
    if name == "sections":
        return {"section_spliter": rng.choice(("Section", "SECTION", "Part")), "num_sections": rng.randint(2, top)}
    if name == "paragraph":
        count = rng.randint(2, 3)
        word = rng.choice([word for word in ADJECTIVES if word not in taken])
        return {"num_paragraphs": count, "nth_paragraph": rng.randint(1, count), "first_word": word}
    return {}


def _nouns(rng: random.Random, count: int, taken: list[str]) -> list[str]:
    words: list[str] = []
    while len(words) < count:
        word = rng.choice(_NOUNS)
        if word not in taken:
            taken.append(word)
            words.append(word)
    return words


def word(rng: random.Random, name: str, kwargs: Mapping[str, Any]) -> str:
    """A rule with its arguments in one of its wordings."""
    fields = {key: value for key, value in kwargs.items() if isinstance(value, str)}
    counts = ("num_bullets", "frequency", "num_placeholders", "num_highlights", "num_sections", "num_paragraphs")
    count = next((kwargs[key] for key in counts if key in kwargs), None)
    if count is not None:
        fields["count"] = rng.choice((str(count), _NUMBERS[count]))
    for key in ("keywords", "forbidden_words"):
        if key in kwargs:
            words = kwargs[key]
            fields |= {"all": " and ".join(words), "any": " or ".join(words), "listed": ", ".join(words)}
    if "num_words" in kwargs:
        fields["num_words"] = str(kwargs["num_words"])
    if "nth_paragraph" in kwargs:
        fields["nth"] = str(kwargs["nth_paragraph"])
    if "section_spliter" in kwargs:
        fields["splitter"] = kwargs["section_spliter"]
    text = rng.choice(RULES[name].wordings).format(**fields)
    if name == "existence" and len(kwargs["keywords"]) == 1:
        text = text.replace("the words", "the word")
    return text
