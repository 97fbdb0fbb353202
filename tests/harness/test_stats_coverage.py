"""The simulator: its truths, its agreement with the public functions, and a small run of the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.stats import coverage, loss_p_value, lower_bound, paired_difference, recovery, score_ci
from harness.stats.binary import tang_score, tango_score
from harness.stats.coverage_table import verdict
from harness.stats.decisions import walk_p
from harness.stats.means import wilson_score
from harness.stats.simulate import (
    Counts,
    World,
    binary_hits,
    draw_binary,
    draw_scores,
    fit_difference,
    fit_ratio,
    fit_score,
    score_hits,
)
from harness.stats.simulate_errors import at_margin, loss_errors, margin_errors, seed_hits


def items(counts: Counts, run: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Item scores of one simulated run: variant, baseline and labels."""
    variant, base, labels = [], [], []
    for c, size in enumerate(counts.sizes.astype(int)):
        right, gained, lost = (int(x[run, c]) for x in (counts.right, counts.gained, counts.lost))
        base += [1.0] * right + [0.0] * (size - right)
        variant += [0.0] * lost + [1.0] * (right - lost) + [1.0] * gained + [0.0] * (size - right - gained)
        labels += [str(c)] * size
    return np.array(variant), np.array(base), labels


@pytest.mark.parametrize("world", [World(164, 0.8, 0.1, 0.8, "even", 0.2), World(300, 0.35, 0.02, 1.0, "uneven", 0.1)])
def test_simulated_fits_are_those_of_the_public_functions(world: World) -> None:
    counts = draw_binary(np.random.default_rng(61), world, 6)
    difference, ratio, score, n = fit_difference(counts), fit_ratio(counts), fit_score(counts), world.n
    one_sided = fit_difference(counts, 0.05)
    for run in range(6):
        v, b, labels = items(counts, run)
        gained, lost, y = (float(x[run].sum()) for x in (counts.gained, counts.lost, counts.right))
        for limit in paired_difference(v, b, labels).estimate.ci95 or ():
            got = tango_score(gained, lost, n, limit, difference[run])
            assert abs(got) == pytest.approx(difference[run].crit, abs=1e-4)
        for limit in recovery(v, b, labels).estimate.ci95 or ():
            got = tang_score(y - lost, gained, lost, n, limit, ratio[run])
            assert abs(got) == pytest.approx(ratio[run].crit, abs=1e-4)
        for limit in score_ci(b, labels).ci95 or ():
            assert abs(wilson_score(y, n, limit, score[run])) == pytest.approx(score[run].crit, abs=1e-4)
        got = tango_score(gained, lost, n, lower_bound(v, b, labels), one_sided[run])
        assert got == pytest.approx(one_sided[run].crit, abs=1e-4)
        change = (counts.gained - counts.lost)[run].astype(int)
        want = walk_p(change[change != 0]) if change.any() else 1.0
        assert loss_p_value(v, b, labels) == pytest.approx(want)


@pytest.mark.parametrize("layout", ["alone", "even"])
def test_drawn_worlds_have_the_truth_they_claim(layout: str) -> None:
    world, rng = World(300, 0.8, 0.1, 0.8, layout, 0.2), np.random.default_rng(62)
    counts = draw_binary(rng, world, 3000)
    for got, want in ((counts.right, 0.8), (counts.gained, 0.02), (counts.lost, 0.08)):
        shares = got.sum(axis=1) / 300
        assert shares.mean() == pytest.approx(want, abs=4 * shares.std() / 3000**0.5)
    v, b, clusters = draw_scores(rng, world, 400)
    change = (v - b).mean(axis=1)
    assert change.mean() == pytest.approx(0.02 * 0.1 - 0.08 * 0.4, abs=4 * change.std() / 20)
    assert b.mean() == pytest.approx(0.8, abs=4 * b.mean(axis=1).std() / 20)
    assert clusters.clustered == (layout == "even")
    if layout == "even":
        # Correlation of two baseline scores of one template, against the 0.2 asked for.
        centred = b - 0.8
        assert np.mean(centred[:, 0] * centred[:, 1]) / np.mean(centred**2) == pytest.approx(0.2, abs=0.12)


def test_impossible_worlds_are_known() -> None:
    assert not World(300, 0.95, 0.25, 0.5).binary_possible
    assert World(300, 0.95, 0.25, 1.0).binary_possible
    assert at_margin(300, 0.8, 0.1, 0.02, "alone", 0.0).gained == pytest.approx(0.04)
    with pytest.raises(ValueError, match="300 items"):
        World(164, 0.8, 0.1, 0.5, "uneven").sizes()
    assert World(300, 0.8, 0.1, 0.5, "uneven").sizes().sum() == 300
    assert World(1319, 0.8, 0.1, 0.5, "even").sizes().size == 53


def test_coverage_of_a_few_cells() -> None:
    rng = np.random.default_rng(63)
    for world in (World(300, 0.8, 0.1, 0.5), World(164, 0.35, 0.25, 0.8), World(300, 0.8, 0.1, 0.8, "even", 0.1)):
        for name, hits in binary_hits(rng, world, 1200).items():
            assert 0.925 < hits.mean() < 0.98, (world, name, hits.mean())  # simulation error 0.006
    rare = binary_hits(rng, World(80, 0.8, 0.02, 1.0), 1200)
    assert rare["difference"].mean() > 0.95 and rare["recovery"].mean() > 0.95
    continuous = score_hits(rng, World(164, 0.8, 0.25, 0.8), 500)
    assert all(0.92 < hits.mean() < 0.985 for hits in continuous.values()), {k: h.mean() for k, h in continuous.items()}
    assert all(hits.mean() > 0.97 for hits in score_hits(rng, World(80, 0.8, 0.01, 1.0), 200).values())


def test_error_rates_of_a_few_cells() -> None:
    rng = np.random.default_rng(64)
    world = at_margin(300, 0.8, 0.1, 0.02, "even", 0.1)
    assert margin_errors(rng, world, 1500)["false passes"].mean() < 0.065
    assert loss_errors(rng, World(300, 0.8, 0.1, 0.5, "even", 0.3), 800)["false alarms"].mean() < 0.065
    seeds = seed_hits(rng, 3, 0.06, 200)
    assert seeds["with seeds"].mean() > 0.92 > seeds["one seed, spread ignored"].mean()


def test_command_stops_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    every = list(coverage.cells(20))
    names = [cell.name for cell in every]
    assert len(set(names)) == len(names)
    chosen = [
        next(cell for cell in every if cell.group == name) for name in dict.fromkeys(cell.group for cell in every)
    ]
    monkeypatch.setattr(coverage, "cells", lambda runs: iter(chosen))
    arguments = ["--out", str(tmp_path), "--runs", "20"]
    assert coverage.main([*arguments, "--seconds", "-1"]) == 0
    assert "call again" in capsys.readouterr().out and not (tmp_path / "coverage.md").exists()
    assert coverage.main(arguments) == 0
    first = (tmp_path / "coverage.json").read_text()
    assert len(json.loads(first)["cells"]) == len(chosen)
    monkeypatch.setattr(coverage, "simulate", lambda *_: pytest.fail("a cell was simulated twice"))
    assert coverage.main(arguments) == 0
    assert (tmp_path / "coverage.json").read_text() == first
    text = (tmp_path / "coverage.md").read_text()
    assert "## Cells that fall short" in text and "Several seeds" in text
    with pytest.raises(pytest.fail.Exception, match="twice"):
        coverage.main([*arguments, "--seed", "1"])


def test_verdicts() -> None:
    plain = {"group": "right/wrong", "n": 300, "runs": 4000}
    assert [verdict(plain, "recovery", share) for share in (0.929, 0.93, 0.97, 0.971)] == ["short", "ok", "ok", "wide"]
    small = {"group": "right/wrong, rare flips", "n": 80, "runs": 4000}
    assert [verdict(small, "recovery", share) for share in (0.94, 0.95, 1.0)] == ["short", "ok", "ok"]
    assert [verdict({**small, "n": 300}, "recovery", share) for share in (0.929, 0.94, 1.0)] == ["short", "ok", "ok"]
    assert verdict(small, "score", 0.935) == "ok" and verdict(small, "score", 0.92) == "short"
