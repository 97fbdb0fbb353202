"""The length-controlled win rate: against an independent optimum, and what has to hold of it."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest

from harness.errors import ConfigError
from harness.judge.length_control import Gamed, LengthFit, _fit, control_length, read_gamed
from harness.stats import Estimate

N = 200


Wins = list[float | None]


def simulated(effect: float, skill: float, n: int = N, seed: int = 0) -> tuple[Wins, list[tuple[int, int]]]:
    """Preferences whose log-odds are `skill` plus `effect` times the tanh of the standardised difference in length."""
    rng = np.random.default_rng(seed)
    one = rng.integers(200, 2000, n)
    other = one + rng.integers(-900, 1800, n)
    gap = (one - other).astype(float)
    odds = skill - effect * np.tanh(gap / gap.std(ddof=1))
    wins = 1 / (1 + np.exp(-odds)) + rng.normal(0, 0.02, n)
    return [float(p) for p in np.clip(wins, 0, 1)], [(int(a), int(b)) for a, b in zip(one, other, strict=True)]


def fitted(found: LengthFit | Estimate) -> LengthFit:
    assert isinstance(found, LengthFit)
    return found


def value(found: LengthFit | Estimate) -> float:
    assert (fit := fitted(found)).estimate.value is not None
    return fit.estimate.value


def test_the_fit_is_the_optimum_of_the_penalised_loss() -> None:
    from scipy.optimize import minimize

    rng = np.random.default_rng(5)
    x = np.stack([np.tanh(rng.normal(size=N)), rng.normal(size=N), np.ones(N)], axis=1)
    y, weights, penalty = rng.uniform(size=N), rng.uniform(0.1, 1.0, N), 0.4

    def loss(split: np.ndarray) -> float:
        beta = split[:3] - split[3:]  # beta = positive - negative part, so that the penalty is smooth
        odds = x @ beta
        nll = weights * (y * np.logaddexp(0, -odds) + (1 - y) * np.logaddexp(0, odds))
        return float(split.sum() + penalty * nll.sum())

    best = minimize(loss, np.full(6, 0.1), bounds=[(0, None)] * 6, method="L-BFGS-B", options={"ftol": 1e-14})
    assert _fit(x, y, weights, penalty) == pytest.approx(best.x[:3] - best.x[3:], abs=2e-3)


def test_a_model_that_is_only_longer_is_corrected_down() -> None:
    wins, lengths = simulated(effect=2.0, skill=0.0)
    raw = sum(win or 0 for win in wins) / N
    found = value(control_length(wins, lengths))
    assert raw > 0.58 and found == pytest.approx(0.5, abs=0.03) and found < raw - 0.05


def test_without_an_effect_of_length_nothing_is_corrected() -> None:
    wins, lengths = simulated(effect=0.0, skill=0.8)
    assert value(control_length(wins, lengths)) == pytest.approx(sum(win or 0 for win in wins) / N, abs=0.01)


def test_exchanging_both_sides_mirrors_the_win_rate() -> None:
    wins, lengths = simulated(effect=1.0, skill=0.5)
    mirrored = control_length([1 - (win or 0) for win in wins], [(two, one) for one, two in lengths])
    assert value(control_length(wins, lengths)) == pytest.approx(1 - value(mirrored), abs=2e-3)


@pytest.mark.parametrize("win", [0.0, 0.5, 1.0])
def test_equal_lengths_and_equal_verdicts(win: float) -> None:
    found = fitted(control_length([win] * 20, [(10, 10)] * 20))
    assert found.estimate.value == pytest.approx(win, abs=0.05)
    assert found.weights["np.tanh(std_delta_len)"] == 0.0


def test_instructions_without_a_verdict_are_predicted_not_fitted() -> None:
    wins, lengths = simulated(effect=1.0, skill=0.5)
    holes: Wins = [None if i % 10 == 0 else win for i, win in enumerate(wins)]
    found = fitted(control_length(holes, lengths))
    assert found.predicted.size == N and value(found) == pytest.approx(value(control_length(wins, lengths)), abs=0.03)


def test_too_few_verdicts_give_a_reason() -> None:
    found = control_length([1.0, 0.0, None, None, None], [(1, 2)] * 5)
    assert isinstance(found, Estimate) and found.value is None and found.n == 2 and "5 verdicts" in str(found.reason)


def test_the_interval_covers_the_truth() -> None:
    """At equal lengths the true win rate is 1 / (1 + e^-0.4); of 95 % intervals over drawn verdicts most hold it."""
    truth, held = 1 / (1 + np.exp(-0.4)), 0
    for seed in range(24):
        rng = random.Random(seed)
        wins, lengths = simulated(effect=1.0, skill=0.4, n=150, seed=seed)
        drawn: Wins = [float(rng.random() < (win or 0)) for win in wins]
        low, high = fitted(control_length(drawn, lengths, replicates=40)).estimate.ci95 or (1, 0)
        held += low <= truth <= high
    assert held >= 19


def gamed_file(path: Path, n: int = N) -> Path:
    rng = np.random.default_rng(9)
    hard = rng.normal(size=n)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline", "model"]
        )
        for model, gap in (("concise", 1.0), ("verbose", -1.0)):
            for i in range(n):
                shown = gap + rng.normal(0, 0.3)
                preference = "" if i == 3 else 1 / (1 + np.exp(1.5 * np.tanh(shown) - 0.2 * hard[i]))
                writer.writerow([preference, i, shown, hard[i], "False", model])
    return path


def test_the_full_regression_uses_difficulties_and_gamed_baselines(tmp_path: Path) -> None:
    gamed = read_gamed(gamed_file(tmp_path / "df_gamed.csv"))
    assert len(gamed.difficulty) == N and gamed.features.shape == (2 * N - 2, 3)
    wins, lengths = simulated(effect=1.5, skill=0.3)
    found = fitted(control_length(wins, lengths, indices=range(N), gamed=gamed, replicates=10))
    assert found.name == "length_controlled_v1" and len(found.weights) == 3
    assert found.weights["np.tanh(std_delta_len)"] == pytest.approx(-1.5, abs=0.3)
    assert value(found) == pytest.approx(1 / (1 + np.exp(-0.3)), abs=0.03)


def test_gamed_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "df_gamed.csv"
    path.write_text("preference,index\n0.5,1\n")
    with pytest.raises(ConfigError, match="is not AlpacaEval's df_gamed.csv"):
        read_gamed(path)
    path.write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        read_gamed(path)
    gamed = Gamed({0: 1.0}, np.zeros((1, 3)), np.zeros(1))
    with pytest.raises(ConfigError, match="no difficulty of instruction 1"):
        control_length([1.0] * 6, [(1, 2)] * 6, indices=range(6), gamed=gamed)
