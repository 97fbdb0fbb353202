"""The only crossing to lm-eval: it renders the prompts, an engine of ours completes them, our journal keeps them.

lm-eval's caches are never used: they are keyed neither by the model nor by the prompt. This module imports lm-eval
(about two seconds, no torch), so import it where it is needed, not at the top.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM

from harness.engines.base import TextEngine
from harness.errors import EngineError
from harness.evaluate.generate import run_prompts
from harness.evaluate.plan import ChatText, GenSettings, Prompt
from sparsify.progress import NullProgress, Progress
from suites.data import Item
from suites.errors import SuiteError
from suites.registry import Preset, Suite

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

    from harness.engines.base import Engine
    from harness.journal import Journal

_FEWSHOT_SEED = 1234  # lm-eval's default; samplers that draw at random would follow it


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # lm-eval draws a bar per task and warns of its own defaults; our progress and our records say what matters.
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def build_task(suite: Suite, preset: Preset, items: Sequence[Item], fewshot: Sequence[Mapping[str, Any]] = ()) -> Task:
    """The suite's lm-eval task over exactly these items, with the preset's few-shot count and generation limits.

    Args:
        suite: The suite.
        preset: One of its presets; the suite has a `task.yaml`, or the preset says what is asked.
        items: The items, in order; of one part where the suite has a task for each.
        fewshot: The preset's worked examples (`suites.data.load_fewshot`).

    Raises:
        SuiteError: The suite has no `task.yaml`, there are no items, or too few worked examples are given.
    """
    from datasets import Dataset
    from lm_eval.tasks import TaskManager

    # lm-eval has no public way to read a task file and replace its data, and its metadata reaches only our own hooks.
    from lm_eval.tasks._yaml_loader import load_yaml

    from suites.stock import fewshot_rows, item_rows

    part = str(items[0].doc[suite.by]) if items and suite.by is not None else None
    file = suite.task_of(preset, part)
    if file is None and preset.lm_eval is not None:
        raise SuiteError(f"suite {suite.name}: lm-eval's task {preset.lm_eval} is not here; pip install -U lm-eval")
    if file is None and preset.text is None:
        raise SuiteError(f"suite {suite.name} has no task.yaml, so lm-eval cannot render its prompts")
    if not items:
        raise SuiteError(f"suite {suite.name}: no items to run; ask for at least one")
    if preset.fewshot != "task" and len(fewshot) < preset.num_fewshot:
        raise SuiteError(
            f"suite {suite.name}: {len(fewshot)} worked examples, but the preset asks {preset.num_fewshot}"
        )
    # lm-eval's own tasks, and templates without a task of ours, read the benchmark's own fields.
    plain = suite.kind == "choice" or preset.lm_eval is not None or file is None
    if plain:
        test = Dataset.from_list([{**item.doc, "item_id": item.item_id} for item in items])
    else:
        test = Dataset.from_list(item_rows(items))
    train = Dataset.from_list([dict(doc) for doc in fewshot] if plain else fewshot_rows(fewshot))
    splits = {"test": test, "train": train}
    with _quiet():
        config = load_yaml(file, resolve_func=True) if file is not None else _own_task(suite)
        if suite.kind == "choice":
            config |= {"test_split": "test", "validation_split": None, "training_split": None}
            config["fewshot_split"] = "train" if preset.num_fewshot else None
        if preset.text is not None:
            config |= {"doc_to_text": preset.text, "target_delimiter": preset.target_delimiter}
        if preset.target is not None:
            config["doc_to_target"] = preset.target
        config["custom_dataset"] = lambda **_: {**splits, config["test_split"]: splits["test"]}
        config["num_fewshot"] = preset.num_fewshot
        if suite.kind == "generate":
            config["generation_kwargs"] = {
                "until": list(preset.stop),
                "do_sample": False,
                "max_gen_toks": preset.max_new_tokens,
            }
        task = TaskManager(include_defaults=False).load([config])["tasks"][config["task"]]
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    return task


def _own_task(suite: Suite) -> dict[str, Any]:
    """The task of a suite that lm-eval renders by a preset's template alone; it scores nothing there."""
    return {
        "task": f"sparsebench_{suite.name}",
        "output_type": "generate_until",
        "test_split": "test",
        "fewshot_split": "train",
        "fewshot_config": {"sampler": "first_n"},
        "doc_to_target": "",
        "metric_list": [{"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}],
    }


def render(task: Task, *, chat: bool) -> list[Instance]:
    """The task's requests, in item order; `chat` makes prompts and worked examples turns of a conversation."""
    with _quiet():
        task.build_all_requests(
            rank=0,
            world_size=1,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            chat_template=chat_text if chat else None,
        )
    instances: list[Instance] = task.instances
    return instances


def chat_text(history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """Messages in the form that lm-eval carries to `HarnessLM.generate_until`.

    Raises:
        SuiteError: The task prefills the assistant's turn (`gen_prefix`), which engines do not offer.
    """
    if not add_generation_prompt:
        raise SuiteError("gen_prefix is not supported; put the text into the prompt instead")
    return ChatText.of(history)


def at_blank(context: str, continuation: str) -> tuple[str, str]:
    """The same text, cut before the blanks at the seam: they belong to the continuation (lm-eval's own rule)."""
    blank = len(context) - len(context.rstrip())
    return (context[:-blank], context[-blank:] + continuation) if blank else (context, continuation)


def encode_pair(engine: Engine, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Token ids of a context and of what continues it, cut where lm-eval cuts.

    Raises:
        EngineError: The context is empty or a chat.
    """
    if isinstance(context, ChatText):
        raise EngineError("log-likelihoods of chat prompts are not supported; run the task without a template")
    context, continuation = at_blank(context, continuation)
    before = engine.encode(context)
    whole = engine.encode(context + continuation)
    if not before:
        raise EngineError("log-likelihood needs a context of at least one token; give the task a description")
    return before, whole[len(before) :]


class HarnessLM(LM):  # type: ignore[misc]
    """An lm-eval model over one of our engines; every finished batch is in the journal before the next one starts.

    Args:
        engine: Executes the variant.
        journal: The cell's journal.
        settings: Batch size, temperature, seed; `max_new_tokens` overrides the task's limit.
        progress: Told of finished prompts.
    """

    def __init__(
        self, engine: Engine | TextEngine, journal: Journal, settings: GenSettings, progress: Progress | None = None
    ) -> None:
        """Wrap an engine and a journal."""
        super().__init__()
        self._engine = engine
        self._journal = journal
        self._settings = settings
        self._progress = progress or NullProgress()

    @property
    def tokenizer_name(self) -> str:
        """The engine's name; lm-eval uses it for a cache that is never switched on."""
        return self._engine.name

    apply_chat_template: Callable[..., str] = staticmethod(chat_text)

    def prompts(self, requests: Sequence[Instance]) -> list[Prompt]:
        """The requests as prompts of ours; a request that lm-eval repeats gets an id of its own."""
        seen: Counter[str] = Counter()
        prompts = []
        for request in requests:
            text, options = request.args[0], request.args[1]
            item_id = str(request.doc.get("item_id") or f"{request.task_name}/{request.doc_id}")
            repeat, seen[item_id] = seen[item_id], seen[item_id] + 1
            until = options.get("until") or ()
            prompts.append(
                Prompt(
                    request_id=f"{item_id}~{repeat}" if repeat else item_id,
                    item_id=item_id,
                    turn=0,
                    text=text,
                    max_new_tokens=self._settings.max_new_tokens or int(options.get("max_gen_toks", 256)),
                    stop=(until,) if isinstance(until, str) else tuple(until),
                )
            )
        return prompts

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Completions of all requests, in order; those already journaled are not generated again."""
        prompts = self.prompts(requests)
        run_prompts(self._engine, prompts, journal=self._journal, settings=self._settings, progress=self._progress)
        return [self._journal.rows[prompt.request_id]["output"] for prompt in prompts]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations of plain contexts, not journaled; see `harness.evaluate.choice`."""
        engine = self._engine
        if isinstance(engine, TextEngine):
            raise EngineError(f"engine {engine.name} weighs choices only; choose a suite of kind choice")
        return engine.loglikelihoods([encode_pair(engine, *request.args) for request in requests])

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Refused: no built-in suite asks for whole-document likelihoods."""
        raise EngineError(f"engine {self._engine.name} does not score whole documents; choose a generation task")
