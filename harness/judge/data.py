"""The published files that judging reads: their hashes, and what of AlpacaEval's length control is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from harness.judge.answers import ModelOutputs, read_model_outputs
from harness.judge.length_control import GAMED_FILE, read_gamed
from harness.judge.prompts import ALPACA_FILES, MT_BENCH_FILE, Template
from harness.judge.questions import QUESTION_FILE, REFERENCE_FILE
from harness.judge.win_rates import Difficulty
from suites.data import file_sha256

INSTRUCTION_FILE = "alpaca_eval/alpaca_eval.json"
# Of the versions that results were published with.
_EXPECTED = {
    QUESTION_FILE: "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    REFERENCE_FILE: "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
    MT_BENCH_FILE: "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
    ALPACA_FILES["alpaca_eval_gpt4"]: "cf4bace43fa6ac71944b9ca2506587ad7c509478a219e98a3950abf9d5b42a98",
    ALPACA_FILES["alpaca_eval_clf"]: "784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62",
}


def mt_bench_hashes(data_dir: Path) -> dict[str, str]:
    """SHA-256 of every file of MT-Bench that is there."""
    return _hashes(data_dir, QUESTION_FILE, REFERENCE_FILE, MT_BENCH_FILE)


def alpaca_hashes(data_dir: Path, template: Template | None) -> dict[str, str]:
    """SHA-256 of every file of AlpacaEval that is there; the outputs of models are not among them."""
    prompt = () if template is None else (ALPACA_FILES[template],)
    return _hashes(data_dir, *prompt, INSTRUCTION_FILE, GAMED_FILE)


def hash_events(found: Mapping[str, str]) -> list[dict[str, str]]:
    """An event for every file whose hash is not that of the version that results were published with."""
    return [
        {"kind": "data_hash_mismatch", "where": name, "detail": f"expected sha256 {_EXPECTED[name]}, found {actual}"}
        for name, actual in found.items()
        if name in _EXPECTED and actual != _EXPECTED[name]
    ]


def alpaca_instructions(data_dir: Path) -> ModelOutputs | None:
    """The evaluation set in its published order; None where the file is not there."""
    path = data_dir / INSTRUCTION_FILE
    return read_model_outputs(path) if path.is_file() else None


def alpaca_difficulty(
    data_dir: Path, instructions: ModelOutputs | None, asked: Collection[str]
) -> tuple[Difficulty | None, list[dict[str, str]]]:
    """What the full length-controlled regression needs of the `asked` instructions, or None and an event that says so.

    Raises:
        ConfigError: `df_gamed.csv` cannot be read.
    """
    path, problem = data_dir / GAMED_FILE, ""
    if not path.is_file():
        problem = f"{GAMED_FILE} is not in the data directory"
    elif instructions is None:
        problem = f"{INSTRUCTION_FILE} is not in the data directory"
    elif not all(text in instructions.outputs for text in asked):
        problem = f"instructions are not those of {INSTRUCTION_FILE}"
    if problem or instructions is None:
        detail = f"{problem}: length_controlled_minimal instead of length_controlled_v1"
        return None, [{"kind": "length_control_minimal", "where": GAMED_FILE, "detail": detail}]
    return Difficulty(read_gamed(path), {text: place for place, text in enumerate(instructions.outputs)}), []


def _hashes(data_dir: Path, *names: str) -> dict[str, str]:
    return {name: file_sha256(data_dir / name) for name in names if (data_dir / name).is_file()}
