"""The length-controlled win rate of AlpacaEval (Dubois et al. 2024, arXiv 2404.04475).

A logistic regression explains each preference by the model, the difference in length and the difficulty of the
instruction; predicting with the difference in length at 0 gives the win rate at equal lengths. The regressions are
the published package's own:

- `length_controlled_v1` needs `df_gamed.csv` (hub dataset tatsu-lab/alpaca_eval): the difficulties, and preferences
  for a baseline told to be short or long, which pull the effect of length towards a common one.
- `length_controlled_minimal` needs nothing: model and length only.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.stats import Estimate, undefined

Floats = NDArray[np.float64]
ModelName = Literal["length_controlled_v1", "length_controlled_minimal"]

GAMED_FILE = "alpaca_eval/df_gamed.csv"
_GAMED_WEIGHT = 0.2 / 2  # lambda, over the two gamed baselines
_SPLITS = 5
_PENALTIES = tuple(float(c) for c in np.logspace(-4, 4, 10))
_SEED = 123
_REPLICATES = 200
_TINY = 1e-15
METHOD = "bootstrap-percentile"


@dataclass(frozen=True)
class Gamed:
    """What `df_gamed.csv` holds.

    Attributes:
        difficulty: Of every instruction, by its place in the set.
        features: Rows of (tanh of the standardised length difference, difficulty, 0), [n, 3].
        preferences: 0 to 1, [n].
    """

    difficulty: dict[int, float]
    features: Floats
    preferences: Floats


@dataclass(frozen=True)
class LengthFit:
    """A fitted regression.

    Attributes:
        name: Which one.
        estimate: Win rate at equal lengths, 0 to 1, with a bootstrap interval over instructions.
        predicted: Preference for the model at equal lengths, of every instruction, [n].
        weights: Coefficients by the package's names.
        penalty_c: Inverse strength of the L1 penalty.
    """

    name: ModelName
    estimate: Estimate
    predicted: Floats
    weights: dict[str, float]
    penalty_c: float


def read_gamed(path: Path) -> Gamed:
    """Read `df_gamed.csv`.

    Raises:
        ConfigError: It cannot be read or has other columns.
    """
    difficulty: dict[int, float] = {}
    features, preferences = [], []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                hard = float(row["instruction_difficulty"])
                difficulty.setdefault(int(float(row["index"])), hard)
                if not row["preference"]:
                    continue
                features.append((math.tanh(float(row["std_delta_len"])), hard, _truth(row["not_gamed_baseline"])))
                preferences.append(float(row["preference"]))
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not AlpacaEval's df_gamed.csv ({error}); fetch it again") from None
    if not features:
        raise ConfigError(f"{path} is empty; fetch AlpacaEval's df_gamed.csv again")
    return Gamed(difficulty, np.asarray(features), np.asarray(preferences))


def control_length(
    preferences: Sequence[float | None],
    lengths: Sequence[tuple[int, int]],
    *,
    indices: Sequence[int] | None = None,
    gamed: Gamed | None = None,
    replicates: int = _REPLICATES,
) -> LengthFit | Estimate:
    """Fit and predict; an undefined estimate where there is too little to fit.

    Args:
        preferences: For the model, 0 to 1; None without a verdict: then its instruction is predicted, not fitted.
        lengths: Characters of the reference's output and of the model's.
        indices: Place of each instruction in the set; needed with `gamed`.
        gamed: Contents of `df_gamed.csv`; None fits `length_controlled_minimal`.
        replicates: Bootstrap samples of the interval, which keep the penalty that the whole sample chose.

    Raises:
        ConfigError: scikit-learn is missing, or `gamed` lacks an instruction.
    """
    known = np.array([value is not None for value in preferences], dtype=bool)
    if int(known.sum()) < _SPLITS:
        return undefined(f"a length-controlled win rate needs {_SPLITS} verdicts", n=int(known.sum()), method=METHOD)
    y = np.array([0.5 if value is None else value for value in preferences], dtype=np.float64)
    x = _features(lengths, _difficulties(indices, gamed))
    equal = x.copy()
    equal[:, 0] = 0.0
    rest = (np.empty((0, x.shape[1])), np.empty(0)) if gamed is None else (gamed.features, gamed.preferences)
    weights = np.concatenate([np.full(rest[1].size, _GAMED_WEIGHT), np.ones(int(known.sum()))])
    fit_x, fit_y = np.concatenate([rest[0], x[known]]), np.concatenate([rest[1], y[known]])
    penalty = _choose_penalty(fit_x, fit_y, weights)
    coefficients = _fit(fit_x, fit_y, weights, penalty)
    predicted = _predict(equal, coefficients)
    samples = _bootstrap(x, y, known, rest, penalty, replicates)
    low, high = (float(q) for q in np.quantile(samples, (0.025, 0.975)))
    value = float(predicted.mean())
    estimate = Estimate(value, int(y.size), float(samples.std(ddof=1)), (low, high), METHOD)
    names = ["np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)"]
    used = names if gamed is not None else [names[0], names[2]]
    name: ModelName = "length_controlled_minimal" if gamed is None else "length_controlled_v1"
    shown = {key: float(value) for key, value in zip(used, coefficients, strict=True)}
    return LengthFit(name, estimate, predicted, shown, penalty)


def _truth(text: str) -> float:
    return {"true": 1.0, "false": 0.0}[text.strip().lower()]


def _difficulties(indices: Sequence[int] | None, gamed: Gamed | None) -> Floats | None:
    if gamed is None:
        return None
    if indices is None:
        raise ValueError("the difficulties are known by the place of an instruction in the set")
    missing = [index for index in indices if index not in gamed.difficulty]
    if missing:
        raise ConfigError(f"{GAMED_FILE} has no difficulty of instruction {missing[0]}; fetch it again")
    return np.array([gamed.difficulty[index] for index in indices])


def _features(lengths: Sequence[tuple[int, int]], difficulty: Floats | None) -> Floats:
    gap = np.array([one - two for one, two in lengths], dtype=np.float64)
    spread = float(gap.std(ddof=1)) if gap.size > 1 else 0.0
    # Where all outputs differ by the same length, there is no effect of length to be told from the model's own.
    columns = [np.tanh(gap / spread) if spread > 0 else np.zeros_like(gap)]
    columns += [] if difficulty is None else [difficulty]
    return np.stack([*columns, np.ones_like(gap)], axis=1)


def _doubled(x: Floats, y: Floats, weights: Floats) -> tuple[Floats, NDArray[np.int_], Floats]:
    """Every row as a win and as a loss, weighted by its preference: the way to fit fractions as labels."""
    labels = np.concatenate([np.ones(y.size, dtype=int), np.zeros(y.size, dtype=int)])
    shares = np.concatenate([y, 1 - y])
    if not (y > 0).any() or not (y < 1).any():
        # liblinear drops rows of weight 0 and, left with one class, exchanges the two: all losses would read as wins.
        shares = np.clip(shares, _TINY, None)
    return np.concatenate([x, x]), labels, shares * np.concatenate([weights, weights])


def _fit(x: Floats, y: Floats, weights: Floats, penalty: float, draws: np.random.RandomState | int = _SEED) -> Floats:
    doubled, labels, shares = _doubled(x, y, weights)
    model = _regression(penalty, draws)
    model.fit(doubled, labels, sample_weight=shares)
    return np.asarray(model.coef_[0], dtype=np.float64)


def _regression(penalty: float, draws: np.random.RandomState | int) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise ConfigError("the length-controlled win rate needs scikit-learn; pip install scikit-learn") from None
    # scikit-learn 1.8 renamed how an L1 penalty is asked for.
    l1 = {"penalty": "l1"} if LogisticRegression().get_params()["penalty"] == "l2" else {"l1_ratio": 1.0}
    return LogisticRegression(C=penalty, solver="liblinear", fit_intercept=False, random_state=draws, **l1)


def _choose_penalty(x: Floats, y: Floats, weights: Floats) -> float:
    """The penalty of the least log-loss in five-fold cross-validation; both copies of a row stay in one fold."""
    from sklearn.model_selection import GroupKFold

    groups = np.concatenate([np.arange(y.size), np.arange(y.size)])
    losses = np.zeros((_SPLITS, len(_PENALTIES)))
    for fold, (train, test) in enumerate(GroupKFold(n_splits=_SPLITS).split(groups, groups=groups)):
        # A row's first copy stands for both: their losses are equal.
        inside, outside = train[train < y.size], test[test < y.size]
        # liblinear shuffles; scikit-learn's own search draws for one penalty after the other, which decides near ties.
        draws = np.random.RandomState(_SEED)
        for place, penalty in enumerate(_PENALTIES):
            shown = np.clip(
                _predict(x[outside], _fit(x[inside], y[inside], weights[inside], penalty, draws)), _TINY, 1 - _TINY
            )
            loss = y[outside] * np.log(shown) + (1 - y[outside]) * np.log(1 - shown)
            losses[fold, place] = -float(np.mean(loss * weights[outside]))
    return _PENALTIES[int(losses.mean(axis=0).argmin())]


def _predict(x: Floats, coefficients: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -(x @ coefficients))), dtype=np.float64)


def _bootstrap(
    x: Floats, y: Floats, known: NDArray[np.bool_], rest: tuple[Floats, Floats], penalty: float, replicates: int
) -> Floats:
    rng, n = np.random.default_rng(_SEED), y.size
    samples = []
    for _ in range(replicates):
        drawn = rng.integers(n, size=n)
        judged = drawn[known[drawn]]
        if not judged.size and not rest[1].size:
            continue
        weights = np.concatenate([np.full(rest[1].size, _GAMED_WEIGHT), np.ones(judged.size)])
        coefficients = _fit(
            np.concatenate([rest[0], x[judged]]), np.concatenate([rest[1], y[judged]]), weights, penalty
        )
        equal = x[drawn].copy()
        equal[:, 0] = 0.0
        samples.append(float(_predict(equal, coefficients).mean()))
    return np.asarray(samples)
