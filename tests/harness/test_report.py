"""From rows to summary and tables: counting, pairing, refusals, golden files."""

from __future__ import annotations

import io
import os
import random
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, CorruptRecordError
from harness.records import Summary
from harness.report.cells import pair
from harness.report.inputs import VariantInput
from harness.report.leaderboard import build, leaderboard_markdown, order
from harness.report.markdown import escape, percent, table, with_half_width, with_interval
from harness.report.methods import METHODS, explain
from harness.report.recovery import recovery_markdown
from harness.report.summarize import summarize
from harness.report.terminal import leaderboard_table
from harness.stats import paired_difference, proportion_ci, recovery

synthetic = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("synthetic.py"))))
GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(scope="module")
def summary() -> Summary:
    return synthetic.summary()


def two(variant_rows, baseline_rows, n=4):
    """Summarize one suite of a variant against its baseline."""
    study = synthetic.study({"gsm8k": "exact_match_flexible"}, n)
    variants = [
        VariantInput(name="dense", base="m", baseline=None),
        VariantInput(name="sparse", base="m", baseline="dense"),
    ]
    return summarize(study, variants, {("dense", "gsm8k"): baseline_rows, ("sparse", "gsm8k"): variant_rows}, [])


def rows(name, values, **changes):
    return [synthetic.row(name, "gsm8k", i, s, cluster=f"i{i}", **changes) for i, s in enumerate(values)]


# --- counting --------------------------------------------------------------------------------------------------------


def test_errors_and_cut_prompts_count_as_zero_and_are_reported() -> None:
    variant = rows("sparse", [1, 1, 1, 1])
    # A row that could not be answered counts 0 even where something scored it.
    variant[1] = synthetic.row("sparse", "gsm8k", 1, 1.0, cluster="i1", status="truncated_input")
    variant[2] = synthetic.row("sparse", "gsm8k", 2, None, cluster="i2", status="error", error="died")
    variant[3] = synthetic.row("sparse", "gsm8k", 3, 1.0, cluster="i3", status="truncated_output")
    result = two(variant, rows("dense", [1, 1, 1, 1]))
    cell = result.variants[1].suites["gsm8k"]
    assert (cell.value, cell.n, cell.n_total) == (0.5, 4, 4)
    assert (cell.n_error, cell.n_truncated, cell.n_truncated_input) == (1, 2, 1)
    assert cell.ci95 == pytest.approx(proportion_ci(2, 4).ci95, abs=1e-6)
    assert result.variants[1].recovery["gsm8k"].value == 0.5
    assert result.variants[1].difference["gsm8k"].b10 == 2


def test_list_metrics_are_flattened_and_zeroed_on_error() -> None:
    good = [
        synthetic.row("dense", "gsm8k", i, 1.0, scores={"exact_match_flexible": 1.0, "inst": [1, 0, 1]}) for i in (0, 1)
    ]
    bad = synthetic.row(
        "dense", "gsm8k", 2, None, status="error", error="x", scores={"exact_match_flexible": 0.0, "inst": [1, 1]}
    )
    blank = synthetic.row("dense", "gsm8k", 3, None, status="error", error="x")
    cell = two(rows("sparse", [0, 0, 0, 0]), [*good, bad, blank]).variants[0].suites["gsm8k"]
    (metric,) = cell.metrics
    assert (metric.name, metric.n) == ("inst", 3 + 3 + 2 + 1)
    assert metric.value == pytest.approx(4 / 9, abs=1e-6)
    assert metric.method == "t-clustered"


def test_summary_agrees_with_the_statistics(summary: Summary) -> None:
    cells = synthetic.cells()
    mine, base = cells["int8", "gsm8k"], cells["dense", "gsm8k"]
    v = [row.scores["exact_match_flexible"] for row in mine]
    b = [row.scores["exact_match_flexible"] for row in base]
    labels = [row.cluster for row in mine]
    want, got = recovery(v, b, labels), summary.variant("int8").recovery["gsm8k"]
    assert got.value == pytest.approx(sum(v) / sum(b), abs=1e-6)
    assert got.ci95 == pytest.approx(want.estimate.ci95, abs=1e-6)
    want = paired_difference(v, b, labels)
    got = summary.variant("int8").difference["gsm8k"]
    assert got.ci95 == pytest.approx(want.estimate.ci95, abs=1e-6)
    assert (got.b01, got.b10, got.n_discordant) == (want.b01, want.b10, want.n_discordant)
    mean = summary.variant("sparse70").recovery["mean"]
    parts = [summary.variant("sparse70").recovery[s].value for s in synthetic.METRICS]
    assert mean.value == pytest.approx(sum(parts) / 5, abs=1e-6)
    assert mean.suites == list(synthetic.METRICS)


def test_breakdown_adds_up(summary: Summary) -> None:
    for variant in summary.variants:
        for cell in variant.suites.values():
            if cell.value is None:
                continue
            assert set(cell.by_difficulty) == {"1", "2", "3", "4"}
            assert sum(g.n for g in cell.by_difficulty.values()) == cell.n == cell.seen.n + cell.unseen.n
            total = sum(g.n * g.value for g in cell.by_difficulty.values())
            assert total / cell.n == pytest.approx(cell.value, abs=1e-5)


def test_items_without_templates_have_no_seen_or_unseen() -> None:
    cell = (
        two(
            rows("sparse", [1, 0, 1, 1], template=None, difficulty=None),
            rows("dense", [1, 1, 1, 1], template=None, difficulty=None),
        )
        .variants[0]
        .suites["gsm8k"]
    )
    assert cell.seen is None and cell.unseen is None and cell.by_difficulty == {}


def test_refused_is_null_everywhere_and_never_zero(summary: Summary) -> None:
    variant = summary.variant("mine|<b>")
    for found in (variant.suites["code"], variant.recovery["code"], variant.difference["code"]):
        assert found.value is None and "no sandbox runs here" in found.reason
    assert variant.recovery["mean"].reason == "over 4 of 5 suites, without code"


def test_refused_rows_and_refused_baseline() -> None:
    refused = rows("dense", [None] * 4, status="refused", error="no sandbox")
    result = two(rows("sparse", [1, 1, 0, 0]), refused)
    assert result.variants[0].suites["gsm8k"].value is None
    assert result.variants[1].suites["gsm8k"].value == 0.5
    assert "baseline dense: refused for 4 of 4 items: no sandbox" in result.variants[1].recovery["gsm8k"].reason
    assert result.variants[1].recovery["mean"].value is None


def test_missing_and_incomplete_cells_say_so() -> None:
    result = two([], rows("dense", [1, 0]))
    assert "has not run" in result.variants[1].suites["gsm8k"].reason
    assert result.variants[0].suites["gsm8k"].reason == "incomplete: 2 of 4 items have no row"
    assert result.variants[0].suites["gsm8k"].value == 0.5
    part = two(rows("sparse", [1, 1, 1]), rows("dense", [1, 0, 1, 1]))
    assert part.variants[1].recovery["gsm8k"].n == 3
    assert "1 rows have no partner" in part.variants[1].recovery["gsm8k"].reason


def test_zero_baseline_leaves_recovery_undefined() -> None:
    result = two(rows("sparse", [1, 0, 0, 0]), rows("dense", [0, 0, 0, 0]))
    found = result.variants[1].recovery["gsm8k"]
    assert found.value is None and "undefined" in found.reason
    assert result.variants[1].difference["gsm8k"].value == 0.25
    assert "undefined" not in leaderboard_markdown(result).split("\n")[4]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_refused() -> None:
    good = rows("dense", [1, 1, 0, 1])
    with pytest.raises(ConfigError, match="new --out"):
        two(rows("sparse", [1, 1, 1, 1], suite_hash="v2"), good)
    with pytest.raises(ConfigError, match="preset"):
        two(rows("sparse", [1, 1, 1, 1], preset="5shot"), good)
    with pytest.raises(ConfigError, match="different items under"):
        two(rows("sparse", [1, 1, 1, 1], item_hash="other"), good)
    with pytest.raises(ConfigError, match="different versions of the suite"):
        pair(rows("sparse", [1], suite_hash="v2"), good, "exact_match_flexible")
    with pytest.raises(CorruptRecordError, match="twice"):
        two([*rows("sparse", [1, 1, 1]), *rows("sparse", [1])], good)
    with pytest.raises(CorruptRecordError, match="lies among"):
        two(rows("dense", [1, 1, 1, 1]), good)
    with pytest.raises(CorruptRecordError, match="no score 'exact_match_flexible'"):
        two(rows("sparse", [1, 1, 1, 1], scores={"other": 1.0}), good)
    with pytest.raises(CorruptRecordError, match="5 rows, 4 were planned"):
        two(rows("sparse", [1] * 5), good)


def test_unknown_baseline_is_refused() -> None:
    study = synthetic.study({"gsm8k": "exact_match_flexible"}, 4)
    with pytest.raises(ConfigError, match="'nothing', which is not in the study"):
        summarize(study, [VariantInput(name="a", base="m", baseline="nothing")], {}, [])


# --- pairing ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30), st.integers(0, 2**16))
def test_pairing_ignores_the_order_of_rows(pairs: list[tuple[int, int]], seed: int) -> None:
    variant, base = rows("sparse", [v for v, _ in pairs]), rows("dense", [b for _, b in pairs])
    random.Random(seed).shuffle(base)
    found = pair(variant, base, "exact_match_flexible")
    assert sorted(zip(found.variant, found.baseline, strict=True)) == sorted((float(v), float(b)) for v, b in pairs)
    assert found.left_out == 0


def test_row_order_does_not_change_the_summary(summary: Summary) -> None:
    shuffled = {key: random.Random(1).sample(cell, len(cell)) for key, cell in synthetic.cells().items()}
    again = summarize(synthetic.study(), synthetic.VARIANTS, shuffled, synthetic.speed())
    first, second = summary.model_dump(mode="json"), again.model_dump(mode="json")
    assert first == second


# --- variant.json ----------------------------------------------------------------------------------------------------


def test_variant_json_is_read() -> None:
    data = {
        "schema_version": 1,
        "name": "x",
        "base": "pocket",
        "recipe": {"name": "sparse70", "hash": "abc"},
        "sparsity": {"linears": 0.7, "model": 0.6, "per_linear": {}},
        "weight_bits": 8,
        "dtype": "float32",
        "bytes": 5,
        "parameters": 7,
        "weights_sha256": "00",
        "loaders": ["transformers"],
        "events": [{"kind": "damping", "where": "layer 1", "detail": "raised"}],
    }
    variant = VariantInput.from_variant_json(data, name="s70", baseline="dense", refused={"code": "no sandbox"})
    assert (variant.name, variant.recipe, variant.recipe_hash, variant.sparsity_linears) == (
        "s70",
        "sparse70",
        "abc",
        0.7,
    )
    assert variant.events[0].where == "layer 1" and variant.refused == {"code": "no sandbox"}
    bare = VariantInput.from_variant_json({}, name="mine", baseline=None)
    assert (bare.base, bare.recipe, bare.weight_bits, bare.loaders) == ("mine", None, None, ())


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "render"), [("leaderboard.md", leaderboard_markdown), ("recovery.md", recovery_markdown)]
)
def test_golden(summary: Summary, name: str, render) -> None:
    text = render(summary)
    if os.environ.get("SPARSEBENCH_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), "SPARSEBENCH_WRITE_GOLDEN=1 rewrites it"


def test_the_report_tells_both_extractions_and_how_often_nothing_was_found() -> None:
    def scored(name: str, found: list[float]) -> list[object]:
        out = rows(name, [1.0] * 4)
        return [
            row.model_copy(update={"scores": {**row.scores, "exact_match_strict": 0.0, "extracted": e}})
            for row, e in zip(out, found, strict=True)
        ]

    text = recovery_markdown(two(scored("sparse", [1, 1, 1, 0]), scored("dense", [1, 1, 1, 1])))
    (line,) = [line for line in text.splitlines() if "extraction failures" in line and "25.0" in line]
    assert "25.0 [4.6, 69.9]" in line and "0.0 [0.0, 49.0]" in line, line
    assert sum("exact_match_strict" in line for line in text.splitlines()) == 2


def test_every_row_of_every_table_has_as_many_cells_as_its_header(summary: Summary) -> None:
    for text in (leaderboard_markdown(summary), recovery_markdown(summary)):
        width = None
        for line in text.splitlines():
            if not line.startswith("|"):
                width = None
                continue
            cells = line.replace("\\|", "").count("|")
            width = cells if width is None else width
            assert cells == width, line
        assert "<b>" not in text


def test_order_references_then_recovery_then_incomplete(summary: Summary) -> None:
    assert [variant.name for variant in order(summary.variants)] == ["dense", "int8", "sparse70", "mine|<b>"]


def test_every_method_is_explained(summary: Summary) -> None:
    assert explain(["wilson", "tango-clustered"])[0].startswith("`wilson`")
    with pytest.raises(KeyError, match="guess"):
        explain(["guess"])
    used = {
        r.method for v in summary.variants for r in [*v.suites.values(), *v.recovery.values(), *v.difference.values()]
    }
    assert {method.removesuffix("-clustered") for method in used} <= METHODS.keys()


def test_number_formats() -> None:
    assert percent(0.87449) == "87.4" and percent(-0.00001) == "0.0" and percent(-0.012) == "-1.2"
    assert with_half_width(0.5, (0.4, 0.62)) == "50.0 ± 11.0" and with_half_width(0.5, None) == "50.0"
    assert with_interval(0.012, (-0.01, 0.03), signed=True) == "+1.2 [-1.0, 3.0]"
    assert with_interval(0.0, None, signed=True) == "0.0"
    assert escape("a|b\n`<i>`") == "a\\|b '&lt;i&gt;'"
    assert table(["a", "b"], [["x", "1"]]) == ["| a   |   b |", "| --- | --: |", "| x   |   1 |"]


@pytest.mark.parametrize("width", [80, 110, 200])
def test_terminal_table_fits_and_does_not_render_markup(summary: Summary, width: int) -> None:
    console_module = pytest.importorskip("rich.console")
    renamed = summary.model_copy(
        update={"variants": [summary.variants[0].model_copy(update={"name": "[bold]x"}), *summary.variants[1:]]}
    )
    console = console_module.Console(width=width, record=True, file=io.StringIO(), color_system=None)
    console.print(leaderboard_table(renamed, width=width))
    text = console.export_text()
    assert "[bold]x" in text and "sparse70" in text and "1.00×" in text
    assert ("± 8.0" in text) == (width == 200)
    assert all(len(line) <= width for line in text.splitlines())


def test_reports_survive_an_empty_study() -> None:
    study = replace(synthetic.study({}), name="empty")
    result = summarize(study, [], {}, [])
    assert "# Leaderboard: empty" in leaderboard_markdown(result)
    assert "Not measured" in recovery_markdown(result)


def test_without_any_speed_there_are_no_columns_of_speed(summary: Summary) -> None:
    assert "decode" in build(summary).header
    header = build(summary.model_copy(update={"speed": []})).header
    assert header[-1] == "mean recovery %" and not set(header) & {"decode", "prefill"}


def test_a_workload_on_several_engines_has_a_column_for_each() -> None:
    kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("runs.py"))))
    samples = kit.rows_of({name: {"gsm8k": kit.base_scores("gsm8k", 20)} for name in ("dense", "sparse")})
    speed = [
        kit.speed_row("dense", 1.0),
        kit.speed_row("sparse", 1.01),
        kit.speed_row("dense", 5.0, engine="sparse"),
        kit.speed_row("sparse", None, engine="sparse", reason="the CPU kernels of engine sparse were not built"),
        kit.speed_row("dense", 1.0, workload="prefill", panel="1-prefill"),
    ]
    found = kit.summary_of(samples, [kit.variant("dense", None), kit.variant("sparse")], speed=speed)
    board = build(found)
    assert board.header[-3:] == ["decode torch", "decode sparse", "prefill"]
    assert [cell.split(" ")[0] for cell in board.rows[0][-3:]] == ["1.00×", "5.00×", "1.00×"]
    assert board.rows[1][-2].startswith("—") and "not built" in " ".join(board.notes.texts)
    shown = [str(column.header) for column in leaderboard_table(found, width=80).columns]
    assert "decode torch" not in shown and "decode sparse" in shown
    absent = [row.model_copy(update={"ratio": None, "reason": "x"}) if row.engine == "sparse" else row for row in speed]
    without = found.model_copy(update={"speed": absent})
    assert "decode torch" in [str(column.header) for column in leaderboard_table(without, width=80).columns]
