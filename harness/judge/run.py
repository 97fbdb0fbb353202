"""Judging from answers to `summary.json`: plan the prompts, ask what is missing, count, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from harness.errors import ConfigError
from harness.judge.alpaca_eval import REFERENCES, annotate, annotation_rows, plan_duels
from harness.judge.answers import ModelAnswers, names_are_unique
from harness.judge.data import alpaca_difficulty, alpaca_hashes, alpaca_instructions, hash_events, mt_bench_hashes
from harness.judge.grades import compare_models, summarize_games, summarize_grades
from harness.judge.mt_bench import grade, pair_row, plan_pairs, plan_single, play, single_row
from harness.judge.output import (
    annotation_verdict,
    file_name,
    write_annotations,
    write_judgments,
    write_summary,
    write_verdicts,
)
from harness.judge.prompts import alpaca_prompt, mt_bench_prompts
from harness.judge.questions import Question, load_questions
from harness.judge.records import JudgeSummary, events_of
from harness.judge.request import JudgeRequest
from harness.judge.session import Judge
from harness.judge.sources import alpaca_outputs, alpaca_reference, mt_bench_answers
from harness.judge.win_rates import compare_win_rates, summarize_annotations


def judge_answers(request: JudgeRequest, open_judge: Callable[[], Judge]) -> JudgeSummary:
    """Judge what the folder `out` does not hold yet, and write judgements, verdicts and `summary.json` there.

    Args:
        request: What is judged, and how.
        open_judge: Opens the judge; called only when all that is to be judged was read and found well.

    Raises:
        ConfigError: An argument, file or folder cannot be used.
        SuiteError: The questions cannot be read.
        EngineError: The judge failed; judgements made so far are kept.
    """
    if not request.answers:
        raise ConfigError("name at least one file of answers, or RUN:VARIANT")
    request.check_out()
    if request.benchmark == "alpaca-eval":
        return _alpaca_eval(request, open_judge)
    single = request.mode == "single"
    return _mt_bench_single(request, open_judge) if single else _mt_bench_pairs(request, open_judge)


def _mt_bench_single(request: JudgeRequest, open_judge: Callable[[], Judge]) -> JudgeSummary:
    everything = load_questions(request.data_dir)
    questions = everything[: request.n]
    prompts = mt_bench_prompts(request.data_dir, "single")
    models = _models(request.answers, everything)
    plans = {model.model: plan_single(questions, model, prompts) for model in models}
    texts = [text for plan in plans.values() for match in plan for text in match.texts]
    judge = open_judge()
    with request.session(judge, len(texts)) as session:
        said = session.ask(texts)
    grades = {name: [grade(match, said) for match in plan] for name, plan in plans.items()}
    rows = [
        single_row(match, one, said, judge.name)
        for name, plan in plans.items()
        for match, one in zip(plan, grades[name], strict=True)
    ]
    write_judgments(request.out, judge.name, "single", rows)
    write_verdicts(request.out, [asdict(one) for each in grades.values() for one in each])
    found = hash_events(hashes := mt_bench_hashes(request.data_dir))
    return write_summary(
        request.out,
        JudgeSummary(
            benchmark="mt-bench",
            mode="single",
            prompt=request.prompts,
            judge=request.info(judge),
            data=hashes,
            models=[summarize_grades(name, each) for name, each in grades.items()],
            comparisons=compare_models(grades),
            events=events_of([*found, *session.events]),
        ),
    )


def _mt_bench_pairs(request: JudgeRequest, open_judge: Callable[[], Judge]) -> JudgeSummary:
    everything = load_questions(request.data_dir)
    questions = everything[: request.n]
    prompts = mt_bench_prompts(request.data_dir, "pairwise")
    models, baseline = _sides(request, everything)
    plans = {model.model: plan_pairs(questions, model, baseline, prompts) for model in models}
    texts = [text for plan in plans.values() for match in plan for text in match.texts]
    judge = open_judge()
    with request.session(judge, len(texts)) as session:
        said = session.ask(texts)
    games = {name: [play(match, said) for match in plan] for name, plan in plans.items()}
    rows = [
        pair_row(match, one, said, judge.name)
        for name, plan in plans.items()
        for match, one in zip(plan, games[name], strict=True)
    ]
    write_judgments(request.out, judge.name, "pairwise", rows)
    write_verdicts(request.out, [asdict(one) for each in games.values() for one in each])
    found = hash_events(hashes := mt_bench_hashes(request.data_dir))
    return write_summary(
        request.out,
        JudgeSummary(
            benchmark="mt-bench",
            mode="pairwise",
            prompt=request.prompts,
            judge=request.info(judge),
            data=hashes,
            models=[summarize_games(name, baseline.model, each) for name, each in games.items()],
            comparisons=compare_models(games),
            events=events_of([*found, *session.events]),
        ),
    )


def _alpaca_eval(request: JudgeRequest, open_judge: Callable[[], Judge]) -> JudgeSummary:
    template, data_dir = request.template, request.data_dir
    prompt = alpaca_prompt(data_dir, template)
    reference = alpaca_reference(request.reference or REFERENCES[template], data_dir)
    instructions = alpaca_instructions(data_dir)
    models = [alpaca_outputs(argument) for argument in request.answers]
    names_are_unique([file_name(model.model) for model in models])
    plans = {model.model: plan_duels(model, reference, prompt, request.n) for model in models}
    texts = [duel.text for plan in plans.values() for duel in plan if duel.text is not None]
    judge = open_judge()
    with request.session(judge, len(texts)) as session:
        said = session.weigh(texts) if template == "alpaca_eval_clf" else session.ask(texts)
    annotations = {name: [annotate(duel, said, template) for duel in plan] for name, plan in plans.items()}
    for name, each in annotations.items():
        annotator = f"{template}_{judge.name}"
        write_annotations(
            request.out, name, annotation_rows(each, model=name, reference=reference.model, annotator=annotator)
        )
    write_verdicts(request.out, [annotation_verdict(name, one) for name, each in annotations.items() for one in each])
    difficulty, event = alpaca_difficulty(data_dir, instructions, reference.outputs)
    hashes = alpaca_hashes(data_dir, template)
    return write_summary(
        request.out,
        JudgeSummary(
            benchmark="alpaca-eval",
            mode="pairwise",
            prompt=request.prompts,
            judge=request.info(judge),
            data=hashes,
            models=[
                summarize_annotations(name, reference.model, each, difficulty) for name, each in annotations.items()
            ],
            comparisons=compare_win_rates(annotations),
            events=events_of([*hash_events(hashes), *event, *session.events]),
        ),
    )


def _models(arguments: Sequence[str], questions: Sequence[Question]) -> list[ModelAnswers]:
    models = [mt_bench_answers(argument, questions) for argument in arguments]
    names_are_unique([model.model for model in models])
    return models


def _sides(request: JudgeRequest, questions: Sequence[Question]) -> tuple[list[ModelAnswers], ModelAnswers]:
    """The models of pairwise mode, and the baseline that they play against."""
    models = _models(request.answers, questions)
    named = next((model for model in models if model.model == request.reference), None)
    if named is None and request.reference is not None:
        baseline = mt_bench_answers(request.reference, questions)
    else:
        baseline = named or models[0]
    rest = [model for model in models if model is not baseline]
    if not rest:
        raise ConfigError("pairwise mode compares models with a baseline; name a second file, or --reference")
    names_are_unique([baseline.model, *(model.model for model in rest)])
    return rest, baseline
