"""Run by a Python that has FastChat and alpaca_eval: the published tools on the same answers and the same judge.

    python judge_peers.py JOB.json RESULT.json

Only the network is replaced: the judge's API by a function of the prompt, the hub by a local file. FastChat's adapter
of models, which would import torch, is never used by what is asked here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import types
from pathlib import Path
from typing import Any


def pick(prompt: str, replies: list[Any]) -> Any:
    """The reply that the scripted judge gives to a prompt."""
    return replies[int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4]) % len(replies)]


def fastchat(job: dict[str, Any]) -> dict[str, Any]:
    class Conversation:
        roles = ("user", "assistant")

        def __init__(self) -> None:
            self.system, self.user = "", ""

        def set_system_message(self, text: str) -> None:
            self.system = text

        def append_message(self, role: str, text: str | None) -> None:
            self.user = text or self.user

    adapter = types.ModuleType("fastchat.model.model_adapter")
    adapter.get_conversation_template = lambda model: Conversation()  # type: ignore[attr-defined]
    adapter.ANTHROPIC_MODEL_LIST, adapter.OPENAI_MODEL_LIST = (), ("gpt-4",)  # type: ignore[attr-defined]
    package = types.ModuleType("fastchat.model")
    for name, module in {
        "fastchat.model": package,
        "fastchat.model.model_adapter": adapter,
        "openai": types.ModuleType("openai"),
        "anthropic": types.ModuleType("anthropic"),
    }.items():
        sys.modules[name] = module
    from fastchat.llm_judge import common, gen_judgment, show_result

    systems: set[str] = set()

    def completion(model: str, conv: Conversation, temperature: float, max_tokens: int) -> str:
        assert (temperature, max_tokens) == (0, 2048)
        systems.add(conv.system)
        return str(pick(conv.user, job["replies"][mode]))

    common.chat_completion_openai = completion
    data = Path(job["data_dir"]) / "mt_bench"
    questions = common.load_questions(str(data / "question.jsonl"), None, None)
    read = [json.loads(line) for line in (data / "reference_answer_gpt-4.jsonl").open()]
    references = {"gpt-4": {row["question_id"]: row for row in read}}
    answers = {
        name: {row["question_id"]: row for row in map(json.loads, Path(path).read_text().splitlines())}
        for name, path in job["answers"].items()
    }
    prompts = common.load_judge_prompts(str(data / "judge_prompts.jsonl"))
    names, found = list(answers), {}
    for mode in ("single", "pairwise"):
        single = mode == "single"
        judges = (gen_judgment.make_judge_single if single else gen_judgment.make_judge_pairwise)("gpt-4", prompts)
        make = gen_judgment.make_match_single if single else gen_judgment.make_match
        play = common.play_a_match_single if single else common.play_a_match_pair
        matches = []
        for turns, suffix in ((False, ""), (True, "-mt")):
            for math_like, kind in ((False, "default"), (True, "math")):
                some = [q for q in questions if (q["category"] in common.NEED_REF_CATS) == math_like]
                matches += make(
                    some, names, answers, judges[kind + suffix], None if single else names[0],
                    references if math_like else None, multi_turn=turns,
                )  # fmt: skip
        rows = [play(match, None) for match in matches]
        path = Path(job["folder"]) / f"{mode}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        shown: list[Any] = []
        show_result.print = lambda *parts: shown.extend(parts)  # noqa: B023
        options = types.SimpleNamespace(
            input_file=str(path), model_list=None, bench_name="mt_bench", judge_model="gpt-4", baseline_model=names[0]
        )
        (show_result.display_result_single if single else show_result.display_result_pairwise)(options)
        tables = [
            json.loads(part.reset_index().to_json(orient="records")) for part in shown if hasattr(part, "to_json")
        ]
        found[mode] = {"rows": rows, "tables": tables}
    return {**found, "systems": sorted(systems)}


def alpaca_eval(job: dict[str, Any]) -> dict[str, Any]:
    os.environ.setdefault("OPENAI_API_KEY", "none")
    import alpaca_eval.annotators.base as base
    import alpaca_eval.metrics.glm_winrate as glm
    import pandas as pd
    from alpaca_eval.annotators import PairwiseAnnotator
    from alpaca_eval.metrics import get_length_controlled_winrate, get_winrate

    glm.hf_hub_download = lambda **where: job["gamed"]
    result: dict[str, Any] = {}
    for template, config in job["annotators"].items():
        asked: list[str] = []

        def complete(prompts: Any, template: str = template, asked: list[str] = asked, **rest: Any) -> dict[str, Any]:
            asked.extend(prompts)
            replies = [pick(prompt, job["replies"][template]) for prompt in prompts]
            rest = {"price_per_example": [0.0] * len(replies), "time_per_example": [0.0] * len(replies)}
            if template == "alpaca_eval_gpt4":
                return {"completions": replies, **rest}
            tops = [
                [{"token": name, "logprob": math.log(p)} for name, p in reply.items() if p > 0] for reply in replies
            ]
            whole = [{"text": "m", "logprobs": {"content": [{"top_logprobs": top}]}} for top in tops]
            return {"completions": ["m"] * len(replies), "completions_all": whole, **rest}

        base.get_fn_completions = lambda name: complete  # noqa: B023
        annotator = PairwiseAnnotator(annotators_config=config, caching_path=None)
        reference, model = (json.loads(Path(job[side]).read_text()) for side in ("reference", "model"))
        rows = annotator.annotate_head2head(outputs_1=reference, outputs_2=model)
        frame = pd.DataFrame(rows)
        kept = frame[frame["preference"].notna()].reset_index(drop=True)
        # The package joins the difficulty by row number: whole sets only.
        numbers = dict(get_winrate(kept))
        for name in ("length_controlled_v1", "length_controlled_minimal"):
            full = get_length_controlled_winrate(frame.copy(), glm_name=name, save_weights_dir=None)
            numbers[name] = [float(full["length_controlled_winrate"]), float(full["lc_standard_error"])]
        preferences = [None if pd.isna(row["preference"]) else float(row["preference"]) for row in rows]
        instructions = [row["instruction"] for row in rows]
        result[template] = {
            "prompts": asked,
            "preferences": dict(zip(instructions, preferences, strict=True)),
            "numbers": {key: value if isinstance(value, list) else float(value) for key, value in numbers.items()},
        }
    return result


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    done = {"fastchat": fastchat, "alpaca_eval": alpaca_eval}[given["tool"]](given)
    Path(sys.argv[2]).write_text(json.dumps(done))
