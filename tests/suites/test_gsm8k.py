"""GSM8K scores equal those of lm-eval's built-in task, on answers made to be awkward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.data import load_items
from suites.gsm8k.scoring import flexible, score, strict
from suites.pocket.items import test_items as pocket_items
from suites.registry import load_suite

GOLD = ["#### 18", "He pays 2*500=<<2*500=1000>>1000.\n#### 1,000", "#### -3", "#### $7.50", "#### 0"]
OUTPUTS = [
    "",
    "18",
    "18.",
    "The answer is 18 dollars.",
    "#### 18",
    "####18",
    "#### 18.",
    "#### 18 #### 19",
    "She has 9*2=<<9*2=18>>18 eggs.\n#### 18\n\nQuestion: How many 5?",
    "$18",
    "$1,000",
    "1,000.00",
    "#### 1,000",
    "1000.",
    "-3",
    "minus 3",
    "- 3",
    "#### -3.",
    "between 2-3",
    "5 -3",
    "7.50",
    "$7.50.",
    "#### $7.50",
    "7.5",
    "18...",
    "18, 19, and then.",
    "It is 18 . .",
    "..",
    "$$",
    "...18",
    "one hundred",
    "٣",
    "1e3",
    "0",
    "00",
    "-0",
    "18%",
    "x=18;y=19",
    "#### ,",
    "#### .",
    "first #### 17\nthen #### 18",
    "18\n.",
]


@pytest.fixture(scope="module")
def reference() -> Callable[[str, str], dict[str, float]]:
    """lm-eval's own filters and exact match, configured by its own gsm8k.yaml."""
    import lm_eval.tasks
    import yaml
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    file = Path(lm_eval.tasks.__file__).parent / "gsm8k" / "gsm8k.yaml"
    task = yaml.safe_load(file.read_text())
    metric = {k: v for k, v in task["metric_list"][0].items() if k not in ("metric", "aggregation", "higher_is_better")}
    names = {"strict-match": "exact_match_strict", "flexible-extract": "exact_match_flexible"}
    filters = {}
    for entry in task["filter_list"]:
        options = {k: v for k, v in entry["filter"][0].items() if k != "function"}
        filters[names[entry["name"]]] = RegexFilter(**options)
    assert set(filters) == set(names.values())

    def scores(answer: str, output: str) -> dict[str, float]:
        result = {}
        for name, one in filters.items():
            found = list(one.apply([[output]], [{}]))[0][0]
            result[name] = float(exact_match_hf_evaluate([found], [answer], **metric)["exact_match"])
            result[name + "_found"] = float(found != "[invalid]")
        return result

    return scores


def check(reference: Callable[[str, str], dict[str, float]], answer: str, output: str) -> None:
    ours, theirs = score({"answer": answer}, output), reference(answer, output)
    assert ours["exact_match_flexible"] == theirs["exact_match_flexible"], (answer, output)
    assert ours["exact_match_strict"] == theirs["exact_match_strict"], (answer, output)
    assert ours["extracted"] == theirs["exact_match_flexible_found"], (answer, output)
    assert float(strict(output) is not None) == theirs["exact_match_strict_found"], (answer, output)


def test_tricky_answers_score_as_in_lm_eval(reference: Callable[[str, str], dict[str, float]]) -> None:
    right = 0.0
    for answer in GOLD:
        for output in OUTPUTS:
            check(reference, answer, output)
            right += float(str(score({"answer": answer}, output)["exact_match_flexible"]))
    assert right >= 15, "the list must hold right answers too"


@settings(deadline=None)
@given(output=st.text(alphabet="0123456789.,$-# \nab", max_size=24))
def test_any_text_scores_as_in_lm_eval(reference: Callable[[str, str], dict[str, float]], output: str) -> None:
    for answer in ("#### 18", "#### 1,000"):
        check(reference, answer, output)


def test_extraction_by_example() -> None:
    assert (flexible("12 then 1,300."), strict("12 then 1,300.")) == ("1,300.", None)
    assert flexible("none") is None and strict("#### 1,2 x") == "1,2"
    assert score({"answer": "#### 5"}, "It is 7. #### 5\nQuestion: 6?") == {
        "exact_match_flexible": 0.0,
        "exact_match_strict": 1.0,
        "extracted": 1.0,
    }


def test_ideal_answers_get_full_marks_and_a_wrong_one_none() -> None:
    for draw in pocket_items("gsm8k", 200):
        assert set(score(draw.doc, str(draw.response)).values()) == {1.0}
        wrong = score(draw.doc, str(draw.response) + "0")
        assert wrong["exact_match_flexible"] == 0.0 or str(draw.doc["answer"]).endswith("#### 0")
    doc = load_items(load_suite("gsm8k"), "pocket", n=1)[0].doc
    assert score(doc, "")["exact_match_flexible"] == 0.0
