"""lm-eval's results: real files of 0.4.13 as they were written (paths of the machine replaced), and files to refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError
from harness.leaderboard.assemble import Leaderboard, assemble
from harness.leaderboard.export import card_files, lm_eval_files
from harness.leaderboard.markdown import leaderboard_markdown
from harness.leaderboard.model import Cell, Row

REAL = Path(__file__).parent / "lm_eval_0_4_13"


def board_of(*paths: Path) -> Leaderboard:
    return assemble(list(paths))[0]


def cells_of(row: Row) -> dict[str, Cell]:
    return {protocol.suite: cell for protocol, cell in row.cells.items()}


def test_real_results_are_read_with_their_samples() -> None:
    found = board_of(REAL / "chat", REAL / "base")
    (board,) = found.boards
    assert {row.variant for row in board.rows} == {"model", "base"}
    row = next(row for row in board.rows if row.variant == "model")
    cells = cells_of(row)
    assert {suite: round(cell.value or 0, 4) for suite, cell in cells.items()} == {
        "sparsebench_gsm8k": 0.875,
        "sparsebench_instruct": 0.5,
        "sparsebench_summarization": 0.5644,
    }
    # Samples lie beside: the two runs are paired by document.
    assert all(cell.scores is not None and cell.n == 8 for cell in cells.values())
    assert all(ranked.n_unpaired == 0 and ranked.n_pairs == 1 for ranked in board.ranked.values())
    assert ("inst_level_loose,none", pytest.approx(0.8889, abs=1e-4), None) in [
        (name, value, se) for name, value, se, _ in cells["sparsebench_instruct"].others
    ]
    assert row.weights_sha256 is None and "nothing ties these scores" in row.notes[0]


def test_paths_of_the_machine_are_not_published() -> None:
    text = leaderboard_markdown(board_of(REAL / "chat"))
    assert "/models" not in text and "__models__" not in text
    assert "--model_args pretrained=model,dtype=float32" in text


def test_without_a_chat_template_it_is_another_protocol_and_unpaired() -> None:
    found = board_of(REAL / "chat", REAL / "nochat")
    assert len(found.boards) == 2
    (row,) = found.boards[1].rows
    (cell,) = row.cells.values()
    assert cell.value == 0.0 and cell.scores is None and cell.ci95 is not None and cell.ci95[1] > 0.3
    assert "unpaired: no samples file lies beside the results" in leaderboard_markdown(found)


def test_a_group_stands_for_its_tasks_and_says_so() -> None:
    found = board_of(REAL / "group")
    (row,) = found.boards[0].rows
    ((protocol, cell),) = row.cells.items()
    assert (protocol.suite, protocol.setting("version"), cell.n) == ("sums", "2", 12)
    (gone,) = found.left_out
    assert gone.what == "2 tasks of group sums: sums_a, sums_b"


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], None], name: str = "chat") -> Path:
    folder = tmp_path / "theirs"
    shutil.copytree(REAL / name, folder)
    (path,) = folder.glob("results_*.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_nan_and_na_have_a_reason_and_no_rank(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["results"]["sparsebench_gsm8k"]["exact_match_flexible,none"] = float("nan")
        data["results"]["sparsebench_summarization"]["rougeLsum_stderr,none"] = "N/A"

    folder = changed(tmp_path, change)
    for path in folder.glob("samples_*"):
        path.unlink()
    found = board_of(folder)
    (row,) = found.boards[0].rows
    cells = cells_of(row)
    assert cells["sparsebench_gsm8k"].value is None
    assert "exact_match_flexible,none is not finite" in str(cells["sparsebench_gsm8k"].note)
    assert cells["sparsebench_summarization"].value is not None
    text = leaderboard_markdown(found)
    assert "the standard error of rougeLsum,none is N/A, so it is not ranked" in text
    assert found.boards[0].overall.unranked[row.id].startswith("no mean: sparsebench_gsm8k")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("{", "no sample of lm_eval"),
        ('{"filter": "none", "doc_hash": "x", "exact_match_flexible": 7}\n', "no score between 0 and 1"),
        ('{"filter": "none", "doc_hash": "x", "exact_match_flexible": 1.0}\n', "not the same run"),
        ('{"filter": "strict", "doc_hash": "x", "exact_match_flexible": 1.0}\n', "no rows of filter 'none'"),
    ],
)
def test_bad_samples_leave_the_score_unpaired_with_the_reason(tmp_path: Path, damage: str, why: str) -> None:
    folder = changed(tmp_path, lambda data: None)
    (path,) = folder.glob("samples_sparsebench_gsm8k_*")
    path.write_text(damage, encoding="utf-8")
    (row,) = board_of(folder).boards[0].rows
    assert why in str(cells_of(row)["sparsebench_gsm8k"].unpaired)


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.pop(key)


def old_keys(data: dict[str, Any]) -> None:
    data["results"] = {"gsm8k": {"acc": 0.5, "acc_stderr": 0.1}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("configs"), "results file of another version \\(no configs\\)"),
        (without("versions"), "results file of another version \\(no versions\\)"),
        (lambda data: data.update(results=[]), "no object `results`"),
        (lambda data: data.update(results={}), "holds no task"),
        (old_keys, "without a filter, as lm_eval before 0.4 did"),
        (lambda data: data.update(results={"t": {"alias": "t"}}, group_subtasks={}), "holds no metric of any task"),
        (lambda data: data["results"].update(bad=3), "results.bad"),
    ],
)
def test_files_of_another_shape_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        board_of(changed(tmp_path, change))


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results_2026-01-01T00-00-00.json"
    (whole,) = (REAL / "chat").glob("results_*.json")
    path.write_bytes(whole.read_bytes()[:999])
    with pytest.raises(ConfigError, match="was cut short"):
        board_of(path)


def test_secrets_in_model_arguments_stay_out(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["config"]["model_args"] = "pretrained=org/model,api_key=SECRET1,auth_header=SECRET2"

    text = leaderboard_markdown(board_of(changed(tmp_path, change)))
    assert "SECRET" not in text and "pretrained=org/model" in text


def test_lower_is_better_is_ranked_that_way_and_not_averaged(tmp_path: Path) -> None:
    def change(ppl: float) -> Callable[[dict[str, Any]], None]:
        def inner(data: dict[str, Any]) -> None:
            data["results"]["wikitext"] = {"word_perplexity,none": ppl, "word_perplexity_stderr,none": 0.1}
            data["configs"]["wikitext"] = {"task": "wikitext"}
            data["versions"]["wikitext"] = 2.0
            data["higher_is_better"]["wikitext"] = {"word_perplexity": False}

        return inner

    one, two = changed(tmp_path / "1", change(12.0)), changed(tmp_path / "2", change(30.0), name="base")
    (board,) = board_of(one, two).boards
    assert board.no_mean == "no mean score: lower is better in wikitext" and not board.means
    column = next(column for column in board.columns if column.suite == "wikitext")
    ranks = {row.variant: board.ranked[column].ranks[row.id] for row in board.rows}
    assert ranks == {"model": 1, "base": 2}
    assert "12.000 ± 0.196 #1" in leaderboard_markdown(board_of(one, two))


def test_model_index_is_what_huggingface_hub_makes_and_reads(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    yaml = pytest.importorskip("yaml")
    from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

    files = card_files(board_of(REAL / "chat", REAL / "base"))
    assert len(files) == 2
    for text in files.values():
        index = yaml.safe_load(text)["model-index"]
        name, results = model_index_to_eval_results(index)
        assert eval_results_to_model_index(name, results) == index
        assert len(results) == 3 and all(0 <= result.metric_value <= 1 for result in results)
        card = hub.ModelCard(f"---\n{text}---\n# A model\n")
        assert card.data.model_name == name and len(card.data.eval_results) == 3
        assert {result.metric_type for result in results} == {"exact_match", "prompt_level_strict", "rouge"}


def test_exported_lm_eval_results_are_read_by_lm_eval_and_by_us(tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.utils")
    files = lm_eval_files(board_of(REAL / "chat", REAL / "base"))
    paths = []
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
        data = json.loads(text)
        table = utils.make_table(data)
        assert "sparsebench_gsm8k" in table and "exact_match_flexible" in table and "N/A" in table
        assert utils.get_results_filenames([f"x/{path.name}"]) == [f"x/{path.name}"]
    found = board_of(*paths)
    given = board_of(REAL / "chat", REAL / "base")
    values = [
        sorted((row.variant, suite, cell.value) for row in each.boards[0].rows for suite, cell in cells_of(row).items())
        for each in (found, given)
    ]
    assert values[0] == values[1] and len(values[0]) == 6
