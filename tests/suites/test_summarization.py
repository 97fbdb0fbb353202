"""ROUGE of the summarization suite: parity with rouge-score, a value by hand, several references, odd text."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from rouge_score.rouge_scorer import RougeScorer

from suites.errors import SuiteError
from suites.pocket import items
from suites.registry import load_suite
from suites.summarization import hooks
from suites.summarization.scoring import METRICS, NEEDS_LATIN, article, prompt, references, scorable, score, sentences

LINES = ["Ben sold 3 eggs at the market.", "Anna found a red hat."]
SWAPPED = ["Anna found a red hat.", "Ben sold 3 eggs at the market."]


def test_parity_with_rouge_score_on_hand_split_lines() -> None:
    direct = RougeScorer(list(METRICS), use_stemmer=True)
    pairs = [
        (LINES, SWAPPED),
        (LINES, ["Ben sells eggs in markets.", "Was Anna finding hats?"]),
        (['"I sold eggs," said Ben.', "Mr. Hill came.", "It rained!"], ["Ben sold eggs.", "Mr. Hill came to Rome."]),
        (["The dogs ran."], ["A cat sat.", "The dog runs."]),
    ]
    for reference, prediction in pairs:
        expected = direct.score("\n".join(reference), "\n".join(prediction))
        found = score({"article": "x", "highlights": " ".join(reference)}, " ".join(prediction))
        assert found == {metric: expected[metric].fmeasure for metric in METRICS}


def test_by_hand() -> None:
    """Reference 11 tokens in two lines; the prediction holds its second line (5 tokens) and 3 wrong tokens."""
    doc = {"article": "x", "highlights": "Ben sold eggs at the market.\nAnna found a red hat."}
    scores = score(doc, "Anna found a red hat. Cows like rain.")
    precision, recall = 5 / 8, 5 / 11
    assert scores["rougeLsum"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores["rouge1"] == scores["rougeLsum"]
    precision, recall = 4 / 7, 4 / 10
    assert scores["rouge2"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_sentence_order_matters_for_rouge_l_only() -> None:
    scores = score({"article": "x", "highlights": "\n".join(LINES)}, " ".join(SWAPPED))
    assert scores["rougeLsum"] == 1.0
    assert scores["rougeL"] == pytest.approx(7 / 12), "the longer of two swapped sentences"


def test_reference_comes_first() -> None:
    """With several references rouge-score treats the two sides differently; a long prediction must lose precision."""
    doc = {"article": "x", "highlights": ["Anna found a hat.", "Ben sold 3 eggs."]}
    assert score(doc, "Ben sold 3 eggs.")["rougeLsum"] == 1.0
    longer = score(doc, "Ben sold 3 eggs. Tom slept long today.")["rougeLsum"]
    assert longer == pytest.approx(2 * 0.5 / 1.5)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("A b. C d! E f? G", ["A b.", "C d!", "E f?", "G"]),
        ("Mr. Hill met Dr. Low. They talked.", ["Mr. Hill met Dr. Low.", "They talked."]),
        ('"Go." He went.', ['"Go."', "He went."]),
        ("It cost 3.50 dollars. 4 came.", ["It cost 3.50 dollars.", "4 came."]),
        ("#Person1# is ill. #Person2# helps.", ["#Person1# is ill.", "#Person2# helps."]),
        ("one\n\n two. three\n", ["one", "two. three"]),
        ("", []),
    ],
)
def test_sentences(text: str, lines: list[str]) -> None:
    assert sentences(text).splitlines() == lines


def test_forms_of_documents() -> None:
    assert article({"document": "d"}) == "d"
    assert article({"dialogue": "d", "summary": "s"}) == "d"
    assert references({"summary": "s"}) == ["s"]
    assert references({"summary1": "a", "summary2": "b", "summary3": "c"}) == ["a", "b", "c"]
    assert references({"summaries": ["a", "b"]}) == ["a", "b"]
    assert "\n\nd\n\n" in prompt({"article": "d"}) and prompt({"article": "d"}) == prompt({"document": "d"}).rstrip()
    with pytest.raises(SuiteError, match="article, document, dialogue"):
        article({"text": "t"})
    with pytest.raises(SuiteError, match="highlights"):
        references({"article": "t"})


def test_best_of_several_references_for_each_metric() -> None:
    doc = {"dialogue": "x", "summary1": "Anna found a hat.", "summary2": "A hat Anna found.", "summary3": "Ben slept."}
    assert score(doc, "A hat Anna found.")["rouge2"] == 1.0
    assert score(doc, "Ben slept.") == dict.fromkeys(METRICS, 1.0)


def test_empty_and_non_latin_text_scores_zero() -> None:
    doc = {"article": "x", "highlights": "Anna found a hat."}
    for text in ("", " \n ", "Анна нашла шляпу.", "安娜找到了帽子。"):
        assert score(doc, text) == dict.fromkeys(METRICS, 0.0)
    assert scorable(doc) is None
    assert scorable({"article": "x", "highlights": "Анна нашла шляпу."}) == NEEDS_LATIN


def test_stock_hooks_build_the_same_prompts_and_scores() -> None:
    split = hooks.dataset(n=4, pretrained="ignored", version=1.0)["test"]
    draws = items.test_items("summarization", 4)
    assert len(split) == 4
    for row, draw in zip(split, draws, strict=True):
        assert json.loads(row["doc_json"]) == draw.doc
        assert hooks.doc_to_text(row) == prompt(draw.doc)
        assert hooks.doc_to_target(row) == draw.response
        other = draws[0].doc["highlights"]
        assert hooks.process_results(row, [other]) == score(draw.doc, other)


def test_task_and_suite_agree() -> None:
    suite = load_suite("summarization")
    assert suite.task_file is not None
    text = suite.task_file.read_text(encoding="utf-8").replace("!function ", "")
    task = yaml.safe_load(text)
    assert task["generation_kwargs"] == {
        "until": [],
        "do_sample": False,
        "max_gen_toks": suite.preset("pocket").max_new_tokens,
    }
    assert [row["metric"] for row in task["metric_list"]] == list(METRICS)
    assert suite.primary_metric in METRICS


def test_real_dialogues() -> None:
    folder = Path(os.environ.get("SPARSEBENCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
    file = folder / "dialogsum" / "dialogsum.test.jsonl"
    if not file.is_file():
        pytest.skip("no dialogsum/dialogsum.test.jsonl; set SPARSEBENCH_DATA to the folder of original data")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()][:20]
    for row in rows:
        assert len(references(row)) == 3
        assert score(row, row["summary2"])["rougeLsum"] == 1.0
        assert 0 < score(row, row["dialogue"])["rougeLsum"] < 0.6  # type: ignore[operator]
        assert row["dialogue"] in prompt(row)
