"""AlpacaEval in numbers: win rates with intervals, by dataset, length-controlled, and as the package shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.judge.alpaca_eval import Annotation
from harness.judge.length_control import Gamed, LengthFit, control_length
from harness.judge.records import (
    Comparison,
    JudgedScore,
    LengthControlled,
    ModelResult,
    Number,
    count,
    difference,
    group_value,
)
from harness.stats import Estimate, paired_difference, score_ci


@dataclass(frozen=True)
class Difficulty:
    """What the full length-controlled regression needs.

    Attributes:
        gamed: Contents of `df_gamed.csv`.
        places: Place of every instruction in the set.
    """

    gamed: Gamed
    places: Mapping[str, int]


def summarize_annotations(
    model: str, reference: str, annotations: Sequence[Annotation], difficulty: Difficulty | None = None
) -> ModelResult:
    """The win rate of one model; what has no verdict counts as a loss in `all`, and is left out of `judged`.

    Args:
        model: Its name.
        reference: The reference's name.
        annotations: One for every instruction of the set.
        difficulty: None fits the regression without difficulties.
    """
    controlled = _controlled(model, reference, annotations, difficulty)
    groups: dict[str, list[Annotation]] = {}
    for one in annotations:
        if one.duel.dataset is not None:
            groups.setdefault(one.duel.dataset, []).append(one)
    published = published_win_rate([one.preference for one in annotations])
    answered = [len(one.duel.output) for one in annotations if one.duel.output is not None]
    published["avg_length"] = int(sum(answered) / len(answered)) if answered else None
    if controlled is not None and controlled.win_rate.value is not None:
        published["length_controlled_winrate"] = controlled.win_rate.value * 100
        spread = controlled.predicted_se
        published["lc_standard_error"] = None if spread is None else spread * 100
    return ModelResult(
        model=model,
        opponent=reference,
        overall=_score(annotations),
        by_category={name: _score(rows) for name, rows in groups.items()},
        length_controlled=controlled,
        published=published,
    )


def published_win_rate(preferences: Sequence[float | None]) -> dict[str, Number]:
    """The package's `get_winrate`, in percent: over instructions with a verdict.

    Args:
        preferences: 1 to 2; 0 is an old form of 1.5, a draw.
    """
    wins = [(1.5 if value == 0 else value) - 1 for value in preferences if value is not None]
    n = len(wins)
    mean = math.fsum(wins) / n if n else None
    discrete = [0.5 if win == 0.5 else float(win > 0.5) for win in wins]
    error = None
    if mean is not None and n > 1:
        error = math.sqrt(math.fsum((win - mean) ** 2 for win in wins) / (n - 1) / n) * 100
    return {
        "win_rate": None if mean is None else mean * 100,
        "standard_error": error,
        "n_wins": sum(win > 0.5 for win in wins),
        "n_wins_base": sum(win < 0.5 for win in wins),
        "n_draws": sum(win == 0.5 for win in wins),
        "n_total": n,
        "discrete_win_rate": math.fsum(discrete) / n * 100 if n else None,
    }


def compare_win_rates(by_model: Mapping[str, Sequence[Annotation]]) -> list[Comparison]:
    """Every model against the first, by instruction, over all of them."""
    names = list(by_model)
    found = []
    for name in names[1:]:
        base = {one.duel.instruction: _points(one) for one in by_model[names[0]]}
        pairs = [(_points(one), base[one.duel.instruction]) for one in by_model[name] if one.duel.instruction in base]
        pair = paired_difference([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
        found.append(Comparison(model=name, baseline=names[0], difference=difference(pair, names[0])))
    return found


def _score(annotations: Sequence[Annotation]) -> JudgedScore:
    judged = [one for one in annotations if one.preference is not None]
    return JudgedScore(
        n_planned=len(annotations),
        statuses=count(one.status for one in annotations),
        all=group_value(score_ci([_points(one) for one in annotations])),
        judged=group_value(score_ci([_points(one) for one in judged])),
    )


def _points(one: Annotation) -> float:
    return one.win if one.win is not None else 0.0


def _controlled(
    model: str, reference: str, annotations: Sequence[Annotation], difficulty: Difficulty | None
) -> LengthControlled | None:
    answered = [one for one in annotations if one.duel.output is not None]
    if model == reference:
        # As in the package: by construction, whatever the judge said.
        half = Estimate(0.5, len(answered), None, None, "none", "the model is the reference")
        return LengthControlled(
            win_rate=group_value(half), model="same_model", weights={}, penalty_c=None, predicted_se=0
        )
    fit = control_length(
        [one.win for one in answered],
        [(len(one.duel.reference), len(one.duel.output or "")) for one in answered],
        indices=None if difficulty is None else [difficulty.places[one.duel.instruction] for one in answered],
        gamed=None if difficulty is None else difficulty.gamed,
    )
    if isinstance(fit, Estimate):
        name = "length_controlled_minimal" if difficulty is None else "length_controlled_v1"
        return LengthControlled(win_rate=group_value(fit), model=name, weights={}, penalty_c=None, predicted_se=None)
    return _shown(fit)


def _shown(fit: LengthFit) -> LengthControlled:
    n = fit.predicted.size
    return LengthControlled(
        win_rate=group_value(fit.estimate),
        model=fit.name,
        weights=fit.weights,
        penalty_c=fit.penalty_c,
        predicted_se=float(fit.predicted.std(ddof=1)) / math.sqrt(n) if n > 1 else None,
    )
