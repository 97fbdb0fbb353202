"""Gradual pruning: the cubic schedule, masks that only grow, exact counts; the ladder of one-shot steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsify.checkpoint import open_checkpoint
from sparsify.errors import NumericsError, RecipeError, SparsifyError
from sparsify.masks import load_masks
from sparsify.recipe import load_recipe, parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.train import TrainJob, TrainSettings, train
from sparsify.train.curves import read_curves
from sparsify.train.gradual import cubic_sparsity, span
from sparsify.train.held import HeldMasks
from sparsify.train.settings import Gradual


def settings(**changes: object) -> TrainSettings:
    base: dict[str, object] = {"tokens": 2400, "batch_tokens": 120, "seq": 64, "lr": 1e-2, "warmup": 2}
    base["gradual"] = {"final": 0.7, "end": 0.6, "every": 2}
    return TrainSettings.model_validate({**base, **changes})


@given(
    st.floats(0.05, 0.95),
    st.floats(0, 1),
    st.floats(0, 0.5),
    st.floats(0.05, 0.5),
    st.integers(20, 500),
)
def test_the_schedule_is_the_papers(final: float, part: float, begin: float, length: float, total: int) -> None:
    chosen = Gradual(final=final, initial=part * final, begin=begin, end=begin + length)
    first, last = span(total, chosen)
    shares = [cubic_sparsity(step, total, chosen) for step in range(total + 1)]
    assert all(share == 0 for share in shares[:first])
    assert shares[first] == pytest.approx(chosen.initial, abs=1e-12) and shares[min(last, total)] == pytest.approx(
        final
    )
    assert all(a <= b + 1e-12 for a, b in zip(shares, shares[1:], strict=False))
    middle = (first + last) // 2
    expected = final + (part * final - final) * (1 - (middle - first) / (last - first)) ** 3
    assert shares[middle] == pytest.approx(expected)


def test_masks_grow_to_the_exact_count_and_hold(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    job = TrainJob(model_dir, tmp_path / "o", tmp_path / "w", [corpus])
    stats = train(job, settings(optimizer="muon"))
    lines = read_curves(tmp_path / "o" / "curves.jsonl")
    shares = [line["sparsity"] for line in lines]
    assert shares == sorted(shares) and shares[0] < 0.2 and len(set(shares)) > 4
    expected = [cubic_sparsity(step - step % 2, stats.steps, settings().gradual) for step in range(1, 11)]  # type: ignore[arg-type]
    assert shares[:10] == pytest.approx(expected, abs=2e-3)
    masks, weights = load_masks(tmp_path / "o"), open_checkpoint(tmp_path / "o")
    assert len(masks) == 21
    for name, mask in masks.items():
        assert int((~mask).sum()) == round(0.7 * mask.numel())
        assert int((weights.read(name)[~mask] != 0).sum()) == 0


def test_earlier_zeros_are_charged_and_stay(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    """A stage of a recipe: 50 % at once, then to 70 % while training; skipped linears keep the masks they had."""
    stages = [
        {"prune": {"method": "magnitude", "sparsity": 0.5}},
        {
            "finetune": {
                "data": "text",
                "tokens": 1500,
                "batch_tokens": 120,
                "gradual": {"final": 0.7, "every": 1, "skip": ["down_proj"]},
            }
        },
    ]
    options = MakeOptions(store=tmp_path / "s", name="v", base="tiny", resolve_corpus=lambda _: corpus)
    info = make_variant(
        model_dir, parse_recipe({"stages": stages}, name="g", where="t"), tmp_path / "v", options=options
    )
    early, late = load_masks(tmp_path / "s" / info.stages[0]["key"]), load_masks(tmp_path / "v")
    assert set(early) == set(late) and info.masks is not None and info.masks.revived == 0
    for name, mask in late.items():
        assert not bool((mask & ~early[name]).any())
        assert int((~mask).sum()) == round((0.5 if "down_proj" in name else 0.7) * mask.numel())
    assert (tmp_path / "v" / "curves-2-finetune.svg").is_file()


def test_a_mask_never_gives_places_back() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 6))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    held = HeldMasks({"w": weight}, {"w": torch.ones(4, 6, dtype=torch.bool)})
    weight.sum().backward()
    optimizer.step()
    kept = torch.rand(4, 6) > 0.5
    held.grow("w", kept, [optimizer])
    held.check([optimizer], "now")
    assert torch.equal(weight == 0, ~kept) and held.counts == (int((~kept).sum()), 24)
    with pytest.raises(NumericsError, match="would give places back"):
        held.grow("w", torch.ones(4, 6, dtype=torch.bool), [optimizer])
    optimizer.state[weight]["exp_avg"][~kept] = 1e-9
    with pytest.raises(NumericsError, match="pruned exp_avg of w are not zero later"):
        held.check([optimizer], "later")


def test_wrong_schedules_are_refused(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    def stage(**changes: object) -> None:
        gradual = {"final": 0.5, **changes}
        parse_recipe({"stages": [{"finetune": {"data": "a", "gradual": gradual}}]}, name="t", where="t.yaml")

    with pytest.raises(RecipeError, match=r"begins at 0.7 but ends at 0.6"):
        stage(begin=0.7)
    with pytest.raises(RecipeError, match="initial 0.6 is above final 0.5"):
        stage(initial=0.6)
    job = TrainJob(model_dir, tmp_path / "o", tmp_path / "w", [corpus])
    with pytest.raises(SparsifyError, match="'nothing' fits no linear"):
        train(job, settings(gradual={"final": 0.5, "skip": ["nothing"]}))


def test_the_ladder_is_a_recipe() -> None:
    """Each step prunes what the one before left and trains it; no step lowers the share of zeros."""
    recipe = load_recipe("sparse80-ladder")
    assert [stage.kind for stage in recipe.stages] == ["prune", "finetune"] * 4
    shares = [stage.prune.sparsity for stage in recipe.stages if stage.prune is not None]
    assert shares == [0.50, 0.67, 0.75, 0.80]
    assert all(stage.finetune.losses.squarehead == 1.0 for stage in recipe.stages if stage.finetune is not None)
    assert load_recipe("sparse70-gradual").stages[0].finetune.gradual.final == 0.7  # type: ignore[union-attr]
