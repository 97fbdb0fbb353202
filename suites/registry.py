"""Reads and validates the suites: one folder per skill with `suite.yaml`, `task.yaml` and `scoring.py`."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from suites.errors import SuiteError
from suites.presets import FewshotData, FullData, LocalFile, Preset, Strict, first_fault, read_presets

__all__ = [
    "ALL_SUITES",
    "ROOT",
    "SUITES",
    "ZEROSHOT",
    "FewshotData",
    "FullData",
    "LocalFile",
    "Preset",
    "Suite",
    "load_suite",
    "read_suite",
    "scorer",
    "suite_hash",
]

SUITES = ("chat", "instruct", "code", "gsm8k", "summarization")
"""The five skills."""
ZEROSHOT = ("piqa", "winogrande", "hellaswag", "arc_easy", "arc_challenge")
"""The zero-shot tasks of SliceGPT's tables (2401.15024, section 4): real data only, the likeliest choice is taken."""
ALL_SUITES = (*SUITES, *ZEROSHOT, "mmlu")
ROOT = Path(__file__).parent


class Suite(Strict):
    """One skill, measured; the validated content of its `suite.yaml`.

    Attributes:
        name: Name of the suite and of its folder.
        version: Raised when prompts, data or scoring change meaning.
        primary_metric: The metric that tables and gates use; all metrics are on a 0..1 scale.
        higher_is_better: Direction of the primary metric.
        cluster: Key of a document by which items are grouped for clustered errors.
        margin: Default non-inferiority margin, absolute, on the metric's 0..1 scale.
        prompt: `chat` renders each prompt as a user turn of the model's template, `raw` is plain completion.
        kind: `generate` asks for an answer, `choice` for the log-likelihood of each of several.
        lm_eval: File of lm-eval's own task, below its `tasks` folder; such a suite has no `task.yaml`.
        by: Field of the items that completes the name `lm_eval`, where each of its values has a task of its own.
        presets: The ways to run it, by name: those of `suite.yaml`, then those of `presets/*.yaml`.
        full: The real benchmark's data; None if there is only pocket data.
        path: The suite's folder.
    """

    name: str
    version: int = Field(ge=1)
    primary_metric: str
    higher_is_better: bool = True
    cluster: str = "template"
    margin: float = Field(gt=0, lt=1)
    prompt: Literal["chat", "raw"] = "chat"
    kind: Literal["generate", "choice"] = "generate"
    lm_eval: str | None = None
    by: str | None = None
    presets: dict[str, Preset] = Field(min_length=1)
    full: FullData | None = None
    path: Path

    @model_validator(mode="after")
    def _limits(self) -> Suite:
        generates = self.kind == "generate"
        for name, preset in self.presets.items():
            if generates != (preset.max_new_tokens > 0):
                raise ValueError(f"presets.{name}.max_new_tokens must be {'above 0' if generates else 'left out'}")
        return self

    def preset(self, name: str) -> Preset:
        """The preset of that name.

        Raises:
            SuiteError: The suite has no such preset.
        """
        if name not in self.presets:
            raise SuiteError(f"suite {self.name} has no preset {name!r}; choose one of {', '.join(self.presets)}")
        return self.presets[name]

    def data_of(self, preset: str) -> FullData | None:
        """Where the real data of a preset comes from: its own, else the suite's; None where there is none.

        Raises:
            SuiteError: The suite has no such preset.
        """
        return self.preset(preset).full or self.full

    def asks_by(self, preset: Preset) -> Literal["chat", "raw"]:
        """How a preset renders its prompts."""
        return preset.prompt or self.prompt

    @property
    def task_file(self) -> Path | None:
        """The lm-eval task of the suite; None for suites that lm-eval cannot express."""
        path = self.path / "task.yaml" if self.lm_eval is None else _lm_eval_tasks() / self.lm_eval
        return path if path.is_file() else None

    def task_of(self, preset: Preset, part: str | None = None) -> Path | None:
        """The lm-eval task of a preset: lm-eval's own where it names one, else the suite's; None where there is none.

        Args:
            preset: One of the suite's presets.
            part: The value of the field `by` whose task is wanted.

        Raises:
            SuiteError: lm-eval has no task for that part.
        """
        if preset.lm_eval is not None:
            own = _lm_eval_tasks() / preset.lm_eval
            return own if own.is_file() else None
        if self.lm_eval is None or self.by is None:
            return self.task_file
        path = _lm_eval_tasks() / self.lm_eval.format(**{self.by: part})
        if not path.is_file():
            raise SuiteError(f"suite {self.name}: lm-eval has no task for {self.by} {part!r}; correct the data file")
        return path


def _lm_eval_tasks() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    return Path(next(iter(spec.submodule_search_locations or ()), "")) / "tasks" if spec else Path("lm_eval/tasks")


def read_suite(folder: Path) -> Suite:
    """Read and validate the suite in a folder.

    Raises:
        SuiteError: `suite.yaml` is absent, not YAML, or has an unknown key or a wrong value.
    """
    file = folder / "suite.yaml"
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SuiteError(f"{file} is missing; a suite folder needs suite.yaml and scoring.py") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or "path" in content:
        raise SuiteError(f"{file} must be a mapping of the suite's own keys")
    try:
        suite = Suite(**content, path=folder)
    except ValidationError as error:
        raise SuiteError(f"{file}: {first_fault(error)}") from None
    presets = read_presets(folder / "presets", suite.presets)
    try:
        return Suite(**{**content, "presets": presets}, path=folder)
    except ValidationError as error:
        raise SuiteError(f"{folder / 'presets'}: {first_fault(error)}") from None


@functools.cache
def load_suite(name: str) -> Suite:
    """The built-in suite of that name.

    Raises:
        SuiteError: There is no such suite, or its header is wrong.
    """
    if name not in ALL_SUITES:
        raise SuiteError(f"unknown suite {name!r}; choose one of {', '.join(ALL_SUITES)}")
    suite = read_suite(ROOT / name)
    if suite.name != name:
        raise SuiteError(f"{suite.path / 'suite.yaml'}: name is {suite.name!r}, but the folder is {name!r}")
    return suite


def suite_hash(suite: Suite, preset: str | None = None) -> str:
    """SHA-256 (64 hex digits) over the names and bytes of all that decides a suite's prompts and scores.

    These are the YAML files and the Python modules of the folder: `scoring.py` and whatever it leans on, and all that
    stands beside lm-eval's own task where that is used. `hooks.py` only adapts them to stock lm-eval and is left out.
    A preset with a file of its own adds that file, its scoring and its lm-eval task, so that a new preset leaves the
    hashes of all others as they are.

    Args:
        suite: The suite.
        preset: Name of one of its presets; None gives the hash of those that stand in `suite.yaml`.
    """
    files = [file for file in sorted(suite.path.iterdir()) if file.name not in {"__init__.py", "hooks.py"}]
    if suite.kind == "choice":
        files.append(ROOT / "multiple_choice.py")
    if suite.lm_eval is not None and suite.task_file is not None:
        files += sorted(suite.task_file.parent.iterdir())
    if suite.lm_eval is not None and suite.by is not None:
        files += sorted((_lm_eval_tasks() / suite.lm_eval).parent.glob("*"))
    chosen = suite.preset(preset) if preset is not None else None
    if chosen is not None and chosen.file is not None:
        files.append(chosen.file)
        if chosen.scoring is not None:
            files.append(chosen.file.with_name(f"{chosen.scoring}.py"))
        if chosen.lm_eval is not None and (task := suite.task_of(chosen)) is not None:
            files.append(task)
    digest = hashlib.sha256()
    for file in files:
        if file.suffix in {".yaml", ".py"} or (suite.by is not None and file.name.endswith("_yaml")):
            data = file.read_bytes()
            digest.update(f"{file.name}\0{len(data)}\0".encode())
            digest.update(data)
    return digest.hexdigest()


def scorer(name: str, preset: str | None = None) -> ModuleType:
    """The scoring module of a suite or preset; `score(doc, output)` gives metrics (code: `extract(doc, output)`).

    Raises:
        SuiteError: There is no such suite or preset.
    """
    suite = load_suite(name)
    own = suite.preset(preset).scoring if preset is not None else None
    return importlib.import_module(f"suites.{suite.name}.{f'presets.{own}' if own else 'scoring'}")
