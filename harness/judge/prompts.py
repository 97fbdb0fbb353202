"""What a judge is asked: the published prompt files, read from the data directory and filled without surprises.

MT-Bench: FastChat's `judge_prompts.jsonl`. AlpacaEval: the ChatML templates `alpaca_eval_gpt4` and `alpaca_eval_clf`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from harness.errors import ConfigError
from harness.evaluate.plan import ChatText
from harness.judge.answers import read_typed

Mode = Literal["single", "pairwise"]
Template = Literal["alpaca_eval_gpt4", "alpaca_eval_clf"]

MT_BENCH_FILE = "mt_bench/judge_prompts.jsonl"
ALPACA_FILES: dict[Template, str] = {
    "alpaca_eval_gpt4": "alpaca_eval/prompt_alpaca_eval_gpt4.txt",
    "alpaca_eval_clf": "alpaca_eval/prompt_alpaca_eval_clf.txt",
}
_NAMES: dict[Mode, tuple[str, str, str, str]] = {
    "single": ("single-v1", "single-v1-multi-turn", "single-math-v1", "single-math-v1-multi-turn"),
    "pairwise": ("pair-v2", "pair-v2-multi-turn", "pair-math-v1", "pair-math-v1-multi-turn"),
}
_FORMATS: dict[Mode, str] = {"single": "[[rating]]", "pairwise": "[[A]]"}
_ALPACA_FIELDS = frozenset({"instruction", "output_1", "output_2"})
_FIELD = re.compile(r"\{(\w+)\}")
_CHATML = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)<\|im_end\|>", re.DOTALL)


@dataclass(frozen=True)
class JudgePrompt:
    """One prompt of a judge.

    Attributes:
        name: As the prompt file calls it.
        messages: Role and template of each message; `{field}` marks what is filled in.
    """

    name: str
    messages: tuple[tuple[str, str], ...]

    @property
    def fields(self) -> frozenset[str]:
        """What has to be filled in."""
        return frozenset(name for _, text in self.messages for name in _FIELD.findall(text))

    def fill(self, values: Mapping[str, str]) -> ChatText:
        """The prompt with its fields filled in.

        All fields are filled in one pass, so that a `{field}` inside an answer stays as it is, and after the roles were
        split, so that an answer cannot open a message of its own.
        """
        return ChatText.of(
            [{"role": role, "content": _FIELD.sub(lambda m: values[m[1]], text)} for role, text in self.messages]
        )


class _Row(BaseModel):
    """A row of `judge_prompts.jsonl`."""

    name: str
    system_prompt: str
    prompt_template: str
    output_format: str


def mt_bench_prompts(data_dir: Path, mode: Mode) -> dict[tuple[bool, int], JudgePrompt]:
    """FastChat's prompts of a mode, by (with a reference answer, turn).

    Raises:
        ConfigError: The file is missing, lacks a prompt, or has one of another form.
    """
    path = _there(data_dir, MT_BENCH_FILE)
    found = {row.name: row for _, row in read_typed(path, _Row, "jsonl", "FastChat's judge prompts")}
    prompts = {}
    for name, key in zip(_NAMES[mode], ((False, 1), (False, 2), (True, 1), (True, 2)), strict=True):
        if name not in found or found[name].output_format != _FORMATS[mode]:
            raise ConfigError(f"{path} has no prompt {name} that asks for {_FORMATS[mode]}; fetch the file again")
        row = found[name]
        prompt = JudgePrompt(name, (("system", row.system_prompt), ("user", row.prompt_template)))
        unknown = prompt.fields - mt_bench_fields(mode, reference=key[0], turn=key[1])
        if unknown:
            raise ConfigError(f"{path}: prompt {name} has unknown fields {', '.join(sorted(unknown))}; fetch it again")
        prompts[key] = prompt
    return prompts


def mt_bench_fields(mode: Mode, *, reference: bool, turn: int) -> frozenset[str]:
    """The fields that a prompt of a mode may have."""
    sides = ("",) if mode == "single" else ("_a", "_b")
    if turn == 1:
        names = {"question", *(f"answer{side}" for side in sides)}
    else:
        names = {f"question_{n}" for n in (1, 2)} | {f"answer{side}_{n}" for side in sides for n in (1, 2)}
    return frozenset(names | ({f"ref_answer_{n}" for n in range(1, turn + 1)} if reference else set()))


def alpaca_prompt(data_dir: Path, template: Template) -> JudgePrompt:
    """A prompt of AlpacaEval as chat messages.

    Raises:
        ConfigError: The file is missing or not a ChatML template with `instruction`, `output_1` and `output_2`.
    """
    path = _there(data_dir, ALPACA_FILES[template])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); fetch the file again") from None
    messages = tuple((role, content.strip()) for role, content in _CHATML.findall(text))
    prompt = JudgePrompt(template, messages)
    if not messages or prompt.fields != _ALPACA_FIELDS:
        raise ConfigError(f"{path} is no ChatML template with {', '.join(sorted(_ALPACA_FIELDS))}; fetch it again")
    return prompt


def _there(data_dir: Path, name: str) -> Path:
    path = data_dir / name
    if not path.is_file():
        raise ConfigError(f"{path} is missing; put the published {Path(name).name} there")
    return path
