"""Budgets over layers: exact sums, known shapes, refused contradictions."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsify.errors import RecipeError, SparsifyError
from sparsify.prune.allocate import (
    Layer,
    explicit,
    from_file,
    outlier_ratio,
    owl,
    require_unstructured,
    search_slope,
    slope,
    uniform,
)


def model(blocks: int = 4, sizes: tuple[int, ...] = (1000, 3001)) -> list[Layer]:
    names = ("attn", "mlp", "out", "gate")
    return [Layer(f"b.{i}.{names[j]}", size, i) for i in range(blocks) for j, size in enumerate(sizes)]


def shares(layers: list[Layer], counts: dict[str, int]) -> list[float]:
    return [counts[layer.name] / layer.size for layer in layers]


LAYERS = st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 9)), min_size=1, max_size=20).map(
    lambda rows: [Layer(f"l{i}", size, block) for i, (size, block) in enumerate(rows)]
)


@given(layers=LAYERS, sparsity=st.floats(0, 0.999), beta=st.floats(-3, 3), data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_allocation_hits_the_target(
    layers: list[Layer], sparsity: float, beta: float, data: st.DataObject
) -> None:
    total = sum(layer.size for layer in layers)
    ratios = {block: data.draw(st.floats(0, 0.1)) for block in range(10)}
    for counts in (
        uniform(layers, sparsity),
        slope(layers, sparsity, beta),
        owl(layers, sparsity, ratios, spread=data.draw(st.floats(0, 1))),
    ):
        assert sum(counts.values()) == round(sparsity * total)
        assert list(counts) == [layer.name for layer in layers]
        assert all(0 <= counts[layer.name] <= layer.size for layer in layers)


@given(layers=LAYERS, sparsity=st.floats(0, 0.999))
@settings(max_examples=100, deadline=None)
def test_uniform_is_within_one_weight_of_the_ideal(layers: list[Layer], sparsity: float) -> None:
    counts = uniform(layers, sparsity)
    for layer in layers:
        # Largest remainder obeys quota but for the rounding of the total, which shifts each by less than one more.
        assert abs(counts[layer.name] - Fraction(sparsity) * layer.size) < 2


def test_slope_by_hand() -> None:
    layers = [Layer(f"l{i}", 1000, i) for i in range(5)]
    assert list(slope(layers, 0.5, 0.2).values()) == [300, 400, 500, 600, 700]
    assert list(slope(layers, 0.5, -0.2).values()) == [700, 600, 500, 400, 300]
    assert slope(layers, 0.5, 0.0) == uniform(layers, 0.5)


def test_slope_clips_and_normalises_again() -> None:
    layers = [Layer(f"l{i}", 1000, i) for i in range(5)]
    counts = list(slope(layers, 0.9, 0.2).values())
    # x, x + .1, x + .2 below the limit and two at .99: 3x + .3 + 1.98 = 4.5.
    assert counts == [740, 840, 940, 990, 990]
    assert list(slope(layers, 0.1, -0.4).values()) == [350, 150, 0, 0, 0]


def test_slope_weighs_by_size() -> None:
    layers = [Layer("small", 100, 0), Layer("large", 900, 1)]
    counts = slope(layers, 0.5, 0.1)
    assert counts == {"small": 32, "large": 468}  # .5 + .1 · (−1 | 1) − .08, the mean that the sizes make


def test_owl_by_the_papers_formula() -> None:
    layers = [Layer(f"l{i}", 10_000, i) for i in range(4)]
    ratios = {0: 0.06, 1: 0.02, 2: 0.03, 3: 0.01}
    low, high = 0.01, 0.06
    scaled = [(ratios[i] - low) / (high - low) * 2 * 0.08 for i in range(4)]
    expected = [1 - (value - sum(scaled) / 4 + (1 - 0.7)) for value in scaled]
    assert shares(layers, owl(layers, 0.7, ratios)) == pytest.approx(expected, abs=1e-4)
    assert owl(layers, 0.7, dict.fromkeys(range(4), 0.05)) == uniform(layers, 0.7)
    with pytest.raises(SparsifyError, match="block 3 has no finite outlier ratio"):
        owl(layers, 0.7, {0: 0.1, 1: 0.1, 2: 0.1})
    with pytest.raises(SparsifyError, match="spread"):
        owl(layers, 0.7, ratios, spread=-1.0)


def test_outlier_ratio_by_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    linears = [
        (torch.randn(8, 12, generator=generator) ** 3, torch.rand(12, generator=generator) ** 4),
        (torch.randn(5, 7, generator=generator), torch.rand(7, generator=generator)),
    ]
    scores = [
        abs(float(w[i, j])) * float(power[j]) ** 0.5
        for w, power in linears
        for i in range(w.shape[0])
        for j in range(w.shape[1])
    ]
    for multiple in (1.0, 3.0, 5.0):
        expected = sum(score > multiple * sum(scores) / len(scores) for score in scores) / len(scores)
        assert outlier_ratio(linears, multiple) == expected > 0
    with pytest.raises(SparsifyError, match="without linears"):
        outlier_ratio([])


def test_search_finds_the_lowest_point_and_counts_its_calls() -> None:
    calls: list[float] = []

    def loss(beta: float) -> float:
        calls.append(beta)
        return (beta - 0.13) ** 2

    found = search_slope(loss, grid=(-0.2, -0.1, 0.1, 0.2), refinements=6)
    assert abs(found.beta - 0.13) < 0.02
    assert len(calls) == len(set(calls)) == 5 + 6
    assert found.losses == {beta: (beta - 0.13) ** 2 for beta in calls}
    assert found.losses[found.beta] == min(found.losses.values())


@pytest.mark.parametrize("best", [-0.2, 0.3])
def test_search_stays_within_the_grid(best: float) -> None:
    found = search_slope(lambda beta: abs(beta - 9 * best), grid=(-0.2, 0.3), refinements=4)
    assert found.beta == best
    assert all(-0.2 <= beta <= 0.3 for beta in found.losses)


def test_search_prefers_uniform_among_equals_and_skips_what_breaks() -> None:
    assert search_slope(lambda beta: 1.0).beta == 0.0
    found = search_slope(lambda beta: float("nan") if beta > 0 else 1 - beta)
    assert found.beta == 0.0
    assert found.losses[0.1] == float("inf")


def test_file(tmp_path: Path) -> None:
    layers = model(3)
    path = tmp_path / "a.yaml"
    path.write_text("b.0.*: 0.2\nb.0.mlp: 0.5\n'*.2.attn': 0.9\n")
    counts = from_file(layers, 0.7, path)
    assert counts["b.0.attn"] == 200 and counts["b.0.mlp"] == round(0.5 * 3001) and counts["b.2.attn"] == 900
    assert sum(counts.values()) == round(0.7 * 12003)
    rest = [counts[name] / size for name, size in (("b.1.attn", 1000), ("b.1.mlp", 3001), ("b.2.mlp", 3001))]
    assert max(rest) - min(rest) < 0.001
    path.write_text(json.dumps({"*": 0.7}))
    assert from_file(layers, 0.7, path) == uniform(layers, 0.7)
    # The name wins in any order.
    assert explicit(layers, 0.7, {"b.0.mlp": 0.5, "b.0.*": 0.2}) == explicit(
        layers, 0.7, {"b.0.*": 0.2, "b.0.mlp": 0.5}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b.9.*: 0.5", "'b.9.\\*' fits no linear"),
        ("b.0.mlp: 1.0", "outside \\[0, 1\\)"),
        ("b.0.mlp: many", "no sparsity"),
        ("b.0.mlp: true", "no sparsity"),
        ("b.0.mlp: .nan", "outside \\[0, 1\\)"),
        ("'*.mlp': 0.01", "cannot be met"),
        ("'*.mlp': 0.999", "cannot be met"),
        ("'*': 0.6", "make 0.6, not 0.7"),
        ("'b.0.*': 0.6\n'*.mlp': 0.5", "disagree"),
        ("- 1", "must map names"),
        ("1: 0.5", "must map names"),
        ("a: [", "not YAML"),
        ("", "must map names"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        from_file(model(2), 0.7, path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        from_file(model(2), 0.7, tmp_path / "none.yaml")


def test_patterns_are_uniform_only() -> None:
    require_unstructured("uniform", (2, 4))
    require_unstructured("slope", None)
    for kind in ("owl", "slope", "file"):
        with pytest.raises(RecipeError, match="pattern 2:4 fixes"):
            require_unstructured(kind, (2, 4))


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_impossible_targets(sparsity: float) -> None:
    for allocate in (uniform, lambda layers, s: slope(layers, s, 0.1), lambda layers, s: explicit(layers, s, {})):
        with pytest.raises(SparsifyError, match="outside"):
            allocate(model(2), sparsity)
