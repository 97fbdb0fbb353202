"""Pocket instruct: a short request under one to three real IFEval instructions, and an answer that follows them all.

An answer is composed in a fixed order: repeated request, title, body (sentences in the shape that the instructions ask
for, then keyword and placeholder sentences), postscript, closing words; last come letter case and quotation marks.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import random
import re
from collections.abc import Collection, Mapping
from typing import Any

from suites.pocket._instruct_requests import QUESTIONS, REQUESTS, SYNONYMS, Request, pick_question
from suites.pocket._instruct_rules import COUNTING, EASY, HARD, MEDIUM, RULES, choose, compatible, word
from suites.pocket.draw import Draw

SKILL = "instruct"
DIFFICULTY_MIX = (0.25, 0.3, 0.3, 0.15)

_KEYWORD_SENTENCES = ("Look at the {}.", "Here is the {}.", "Take the {}.", "Keep the {}.")
_PLACEHOLDERS = ("Call [name]", " at [place]", " on [date]", " or [day]")
# The checkers of letter case also ask langdetect whether a text is English; names alone may look like anything.
_ENGLISH = "This is what we think of it."
_WORD = re.compile(r"\w+")
_FOCUS = re.compile(r"\^([^^]*)\^")
_ENOUGH = (10, 15, 20, 25, 30, 35)
_BELOW = (12, 15, 20, 25, 30, 40, 50, 60, 80)


def _rule_sets(difficulty: int) -> list[tuple[str, ...]]:
    sets: list[tuple[str, ...]]
    if difficulty == 1:
        sets = [(name,) for name in EASY]
    elif difficulty == 2:
        sets = [*((name,) for name in MEDIUM), *itertools.combinations(EASY, 2)]
    elif difficulty == 3:
        sets = [*((name,) for name in HARD), *itertools.combinations(EASY, 3), *itertools.combinations(MEDIUM, 2)]
        sets += itertools.product(EASY, MEDIUM + HARD)
    else:
        triples = itertools.combinations(EASY + MEDIUM + HARD, 3)
        sets = [rules for rules in triples if set(rules).intersection(COUNTING) and set(rules).intersection(EASY)]
        sets += itertools.product(MEDIUM, HARD)
    return sorted(tuple(sorted(rules)) for rules in sets if compatible(rules))


def _rank(text: str) -> str:
    return hashlib.sha256(f"sparsebench/instruct/{text}".encode()).hexdigest()


def _catalogue() -> tuple[dict[int, tuple[str, ...]], frozenset[str]]:
    """All templates by difficulty, and the unseen ones: whole sets of instructions, and single combinations."""
    by_difficulty: dict[int, tuple[str, ...]] = {}
    unseen: set[str] = set()
    for difficulty in (1, 2, 3, 4):
        sets = _rule_sets(difficulty)
        several = sorted((rules for rules in sets if len(rules) > 1), key=lambda rules: _rank("+".join(rules)))
        ids = [f"{kind}+{'+'.join(rules)}" for rules in sets for kind in REQUESTS]
        unseen.update(f"{kind}+{'+'.join(rules)}" for rules in several[: len(several) // 16] for kind in REQUESTS)
        if difficulty == 1:
            ids += [f"{kind}+constrained" for kind in QUESTIONS]
        missing = -(-len(ids) // 9) - len(unseen.intersection(ids))
        unseen.update(sorted((template for template in ids if template not in unseen), key=_rank)[:missing])
        by_difficulty[difficulty] = tuple(ids)
    return by_difficulty, frozenset(unseen)


_BY_DIFFICULTY, UNSEEN = _catalogue()
TEMPLATES: tuple[str, ...] = tuple(itertools.chain.from_iterable(_BY_DIFFICULTY.values()))


def templates_for(difficulty: int) -> tuple[str, ...]:
    """Ids of the templates of one difficulty; no template has two difficulties."""
    return _BY_DIFFICULTY[difficulty]


@functools.lru_cache(maxsize=64)
def _usable(difficulty: int, templates: tuple[str, ...] | frozenset[str]) -> tuple[str, ...]:
    templates = frozenset(templates)
    return tuple(template for template in templates_for(difficulty) if template in templates)


def draw(rng: random.Random, *, difficulty: int, templates: Collection[str]) -> Draw:
    """One item of the difficulty whose combination of request and instructions is in `templates`.

    Args:
        rng: The only source of chance.
        difficulty: 1 (one easy instruction) to 4 (three, counting ones among them).
        templates: Ids that may be used, in any container.
    """
    # A tuple, which is what callers in a loop hold, is a cheaper key than a new set.
    allowed = templates if isinstance(templates, tuple) else frozenset(templates)
    template = rng.choice(_usable(difficulty, allowed))
    kind, *rules = template.split("+")
    if kind in QUESTIONS:
        return _question(rng, template, kind)
    request = REQUESTS[kind]
    slots = request.pick(rng)
    request_text = request.word(rng, slots)
    taken = [part for value in slots.values() for part in value.split()]
    chosen = {name: choose(rng, name, difficulty, taken) for name in rules}
    if "repeat" in chosen:
        chosen["repeat"] = {"prompt_to_repeat": request_text}
    count = 2
    if "words" in chosen:
        chosen["words"], count = _words(rng, request, slots, chosen)
    response = _compose(request, slots, chosen, count)
    values = tuple(json.dumps(chosen[name]) for name in rules if name != "repeat" and chosen[name])
    return _item(rng, template, difficulty, (request_text, response), chosen, (*slots.values(), *values))


def _question(rng: random.Random, template: str, kind: str) -> Draw:
    question = QUESTIONS[kind]
    slots, answer = pick_question(rng, question)
    texts = (rng.choice(question.texts).format(**slots), f"My answer is {answer}.")
    return _item(rng, template, 1, texts, {"constrained": {}}, tuple(slots.values()))


def _item(
    rng: random.Random,
    template: str,
    difficulty: int,
    texts: tuple[str, str],
    chosen: Mapping[str, Mapping[str, Any]],
    slots: tuple[str, ...],
) -> Draw:
    request_text, response = texts
    order = list(chosen)
    rng.shuffle(order)
    worded = [word(rng, name, chosen[name]) for name in order]
    # "The request above" has to stand first; elsewhere an instruction may come before it.
    place = 0 if "repeat" in chosen else rng.choice((0, 0, 0, 1))
    parts = [*worded[:place], request_text, *worded[place:]]
    doc = {
        "key": int(_rank(repr((template, slots)))[:7], 16),
        "prompt": rng.choice((" ", " ", "\n")).join(parts),
        "instruction_id_list": [RULES[name].id for name in order],
        "kwargs": [dict(chosen[name]) for name in order],
    }
    return Draw(template=template, slots=slots, difficulty=difficulty, doc=doc, response=response)


def _words(
    rng: random.Random, request: Request, slots: Mapping[str, str], chosen: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], int]:
    """A word limit that the answer can meet, and the number of sentences that meets it."""
    lengths = [len(_WORD.findall(_compose(request, slots, chosen, count))) for count in range(1, 6)]
    if rng.random() < 0.5:
        limits = [limit for limit in _BELOW if limit > lengths[0] + 1][:2]
        return {"num_words": rng.choice(limits), "relation": "less than"}, 1
    # One word to spare: who counts a little differently still gets there.
    limit = rng.choice([limit for limit in _ENOUGH if lengths[0] < limit < lengths[-1]] or [lengths[-1] - 1])
    return {"num_words": limit, "relation": "at least"}, 1 + next(i for i, n in enumerate(lengths) if n > limit)


def _compose(request: Request, slots: Mapping[str, str], chosen: Mapping[str, Mapping[str, Any]], count: int) -> str:
    """The ideal answer with `count` sentences, or as many as an instruction asks for."""
    forbidden = chosen.get("forbidden", {}).get("forbidden_words", ())
    said = {key: next(text for text in words if text not in forbidden) for key, words in SYNONYMS.items()}
    fields = {**slots, **said}
    marks = chosen.get("highlights", {}).get("num_highlights", 0)
    for name, key in (("bullets", "num_bullets"), ("sections", "num_sections"), ("paragraph", "num_paragraphs")):
        count = chosen.get(name, {}).get(key, count)
    units = [
        _FOCUS.sub(r"*\1*" if index < marks else r"\1", sentence.format(**fields))
        for index, sentence in enumerate(request.sentences[: max(count, marks)])
    ]
    units = [unit.replace("~", "" if "no_comma" in chosen else ",") for unit in units]
    if "paragraph" in chosen:
        nth = chosen["paragraph"]["nth_paragraph"] - 1
        units[nth] = f"{chosen['paragraph']['first_word'].capitalize()} is the word. {units[nth]}"
    units[-1] = " ".join([units[-1], *_extras(chosen)])
    topic = request.topic.format(**slots)
    lines = [_shape(units, chosen)]
    if "title" in chosen:
        lines.insert(0, f"<<{topic}>>")
    if "repeat" in chosen:
        lines.insert(0, chosen["repeat"]["prompt_to_repeat"])
    if "postscript" in chosen:
        lines.append(f"{chosen['postscript']['postscript_marker']} This was about {topic}.")
    if "end" in chosen:
        lines.append(chosen["end"]["end_phrase"])
    text = "\n".join(lines)
    if "lowercase" in chosen:
        text = text.lower()
    if "capital" in chosen:
        text = text.upper()
    return f'"{text}"' if "quotation" in chosen else text


def _extras(chosen: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sentences that hold keywords and placeholders, and the one that settles the language."""
    extras: list[str] = []
    if "existence" in chosen:
        extras.append(f"We also see {' and '.join(chosen['existence']['keywords'])}.")
    if "frequency" in chosen:
        keyword, times = chosen["frequency"]["keyword"], chosen["frequency"]["frequency"]
        extras += [sentence.format(keyword) for sentence in _KEYWORD_SENTENCES[:times]]
    if "placeholders" in chosen:
        extras.append("".join(_PLACEHOLDERS[: chosen["placeholders"]["num_placeholders"]]) + ".")
    if "lowercase" in chosen or "capital" in chosen:
        extras.append(_ENGLISH)
    return extras


def _shape(units: list[str], chosen: Mapping[str, Mapping[str, Any]]) -> str:
    if "bullets" in chosen:
        return "\n".join(f"* {unit}" for unit in units)
    if "sections" in chosen:
        mark = chosen["sections"]["section_spliter"]
        return "\n".join(f"{mark} {number}\n{unit}" for number, unit in enumerate(units, 1))
    if "paragraph" in chosen:
        return "\n\n".join(units)
    return ("\n******\n" if "two" in chosen else " ").join(units)
