"""Presets: the ways to run a suite, each with the protocol that it follows and where that is written down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from suites.errors import SuiteError

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_DESCRIBES = {"protocol", "source"}


class Strict(BaseModel):
    """Base of the headers: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalFile(Strict):
    """An original data file below `--data-dir`.

    Attributes:
        path: Path relative to the data directory.
        format: How rows are stored; `json` is one list.
        sha256: Of the file's bytes; None where no reference copy is known.
        ids: First and last `task_id` of the split, where one file holds several; None takes every row.
    """

    path: str
    format: Literal["jsonl", "jsonl.gz", "json"] = "jsonl"
    sha256: _Sha256 | None = None
    ids: tuple[int, int] | None = None


class FewshotData(Strict):
    """Where the few-shot examples of the real data come from, in file order."""

    split: str
    local: LocalFile | None = None


class FullData(Strict):
    """Where the real benchmark's data comes from.

    Attributes:
        hub: Data set id on the Hugging Face hub.
        config: The hub data set's configuration name.
        split: The hub data set's split that is scored.
        revision: Commit of the hub data set; None takes the newest.
        local: The original file, used when a data directory is given.
        fewshot: Where few-shot examples come from; None for suites without.
    """

    hub: str | None = None
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    local: LocalFile | None = None
    fewshot: FewshotData | None = None


class Preset(Strict):
    """One way to run a suite.

    Attributes:
        data: `pocket` (generated, offline) or `full` (the real benchmark).
        num_fewshot: Worked examples before the question.
        fewshot: Which examples: the `first` rows of the training data, those that lm-eval's own sampler takes from all
            of it (`stock`), or those that stand in lm-eval's `task` file.
        max_new_tokens: Upper limit of generated tokens per turn; 0 where nothing is generated.
        stop: Texts that end an answer; they are not part of it.
        samples: Answers per item; more than one need a temperature.
        temperature: 0 is greedy.
        top_p: Nucleus mass kept when sampling.
        prompt: Overrides the suite's `prompt`.
        text: What is asked, a Jinja template over the item's fields; None keeps the suite's own prompt.
        target: The answer of a worked example, a Jinja template; goes with `text`.
        target_delimiter: Stands between question and answer of a worked example.
        lm_eval: File of lm-eval's own task, below its `tasks` folder, that renders the prompts.
        full: The preset's own data; None takes the suite's.
        rows: How the preset's own data is read, a name of `suites.rows.NORMALISE`; None reads it as the suite does.
        scoring: Module beside the preset's file that scores it; None takes the suite's `scoring.py`.
        wall_seconds: How long one program may run with its tests, for code; None keeps the sandbox's own limit.
        cpu_seconds: Processor time of one program, for code; None keeps the sandbox's own limit.
        protocol: What is done, in a sentence.
        source: Where the protocol comes from.
        file: The preset's own file; None for one that stands in `suite.yaml`.
    """

    data: Literal["pocket", "full"]
    num_fewshot: int = Field(default=0, ge=0)
    fewshot: Literal["first", "stock", "task"] = "first"
    max_new_tokens: int = Field(default=0, ge=0)
    stop: tuple[str, ...] = ()
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    prompt: Literal["chat", "raw"] | None = None
    text: str | None = None
    target: str | None = None
    target_delimiter: str = " "
    lm_eval: str | None = None
    full: FullData | None = None
    rows: str | None = None
    scoring: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    wall_seconds: float | None = Field(default=None, gt=0)
    cpu_seconds: int | None = Field(default=None, gt=0)
    protocol: str = ""
    source: str = ""
    file: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Preset:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 need a temperature above 0: greedy answers are all the same")
        if self.text is not None and self.lm_eval is not None:
            raise ValueError("give either text or lm_eval: both say what is asked")
        return self


def first_fault(error: ValidationError) -> str:
    """The first problem of a header as one line: key and reason."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "file"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _read(file: Path) -> dict[str, Any]:
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or "file" in content:
        raise SuiteError(f"{file} must be a mapping of a preset's own keys")
    return content


def read_presets(folder: Path, known: Mapping[str, Preset]) -> dict[str, Preset]:
    """The presets of `suite.yaml` (`known`), described, and those that have a file of their own.

    A file named like a preset of `suite.yaml` holds its `protocol` and `source` only: words do not change what is
    measured, so they stay out of the hash of such a preset.

    Raises:
        SuiteError: A file is not YAML, has an unknown key or a wrong value, or would change a preset of `suite.yaml`.
    """
    presets = dict(known)
    for file in sorted(folder.glob("*.yaml"), key=lambda path: path.stem) if folder.is_dir() else ():
        content, name = _read(file), file.stem
        if name in known and not content.keys() <= _DESCRIBES:
            raise SuiteError(f"{file}: preset {name} stands in suite.yaml; this file may give protocol and source only")
        try:
            given = {**known[name].model_dump(), **content} if name in known else {**content, "file": file}
            presets[name] = Preset.model_validate(given)
        except ValidationError as error:
            raise SuiteError(f"{file}: {first_fault(error)}") from None
    return presets
