"""The pocket articles: correct, held out, reproducible, and not to be summarized without reading them."""

from __future__ import annotations

import itertools
import random
import re
import statistics

import pytest

from suites.pocket import items, summarization
from suites.pocket.draw import Draw
from suites.summarization.scoring import score, sentences


def _draws(difficulty: int, count: int = 300) -> list[Draw]:
    rng = random.Random(difficulty)
    return [summarization.draw(rng, difficulty=difficulty, templates=summarization.TEMPLATES) for _ in range(count)]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_ideal_summaries_get_full_marks_and_wrong_ones_do_not(difficulty: int) -> None:
    draws = _draws(difficulty)
    for index, draw in enumerate(draws):
        assert set(score(draw.doc, draw.response).values()) == {1.0}
        assert set(score(draw.doc, str(draw.response).replace("\n", " ")).values()) == {1.0}, "one line is as good"
        if index % 10 == 0:
            assert score(draw.doc, "")["rougeLsum"] == 0.0
            assert score(draw.doc, draws[index - 1].doc["highlights"])["rougeLsum"] < 0.9


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4])
def test_shape_and_content(difficulty: int) -> None:
    fewest, most = {1: (2, 4), 2: (4, 8), 3: (7, 14), 4: (13, 24)}[difficulty]
    fixed = {"at", "the", "a", "an"}
    for draw in _draws(difficulty):
        assert set(draw.doc) == {"article", "highlights", "id"}
        assert fewest <= len(sentences(draw.doc["article"]).splitlines()) <= most, draw.doc["article"]
        words = set(re.findall(r"\w+", draw.doc["article"]))
        highlights = draw.doc["highlights"].splitlines()
        assert len(highlights) in {1: (1,), 2: (1, 2), 3: (2,), 4: (3,)}[difficulty]
        for line in highlights:
            content = [word for word in re.findall(r"\w+", line) if word not in fixed]
            assert set(content) <= words and len(content) >= 4
            assert line not in draw.doc["article"] or draw.template.endswith("plain")


def test_pointers_select_the_highlights() -> None:
    rng = random.Random(2)
    for _ in range(60):
        draw = summarization.draw(rng, difficulty=3, templates=["site.plain"])
        lines = draw.doc["highlights"].splitlines()
        (site,) = {line.removesuffix(".").split(" at the ")[-1] for line in lines}
        told = [s for s in sentences(draw.doc["article"]).splitlines() if re.search(rf"[Aa]t the {site}\b", s)]
        events = [s for s in told if not s.startswith("Something happened") and not s.endswith("?")]
        assert len(events) == len(lines), draw.doc
        draw = summarization.draw(rng, difficulty=2, templates=["true.plain"])
        for line in draw.doc["highlights"].splitlines():
            name, verb = line.split()[:2]
            (told_by,) = [s for s in sentences(draw.doc["article"]).splitlines() if name in s.split() and verb in s]
            assert "not true" not in told_by and "wrong" not in told_by


def test_templates_alone_and_leading_sentences_earn_little() -> None:
    test = items.test_items("summarization", 300)
    rng = random.Random(1)
    other, lead, first = [], [], []
    for draw in test:
        alike = [one for one in test if one.difficulty == draw.difficulty and one is not draw]
        lines = sentences(draw.doc["article"]).splitlines()
        count = len(draw.doc["highlights"].splitlines())
        other.append(score(draw.doc, rng.choice(alike).doc["highlights"])["rougeLsum"])
        lead.append(score(draw.doc, "\n".join(lines[:count]))["rougeLsum"])
        first.append(score(draw.doc, "\n".join(lines[:3]))["rougeLsum"])
    assert isinstance(other[0], float)
    assert statistics.mean(other) < 0.42
    assert statistics.mean(lead) < 0.40
    assert statistics.mean(first) < 0.50


def test_training_articles_and_summaries_are_bounded() -> None:
    train = list(itertools.islice(items.train_items("summarization", seed=1), 3000))
    assert max(len(draw.response) for draw in train) / 3.5 < 72, "max_new_tokens of the suite"
    assert max(len(draw.doc["article"]) for draw in train) < 1600
