"""Long runs, kills and bad ends: nothing pruned comes alive, nothing is lost, and each error is one clear line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsify import shards
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import CheckpointError, NumericsError, SparsifyError
from sparsify.masks import count_violations, load_masks, save_masks
from sparsify.progress import NullProgress
from sparsify.recipe import parse_recipe
from sparsify.run import MakeOptions, make_variant
from sparsify.train import LossWeights, TrainJob, TrainSettings, train, trainer
from sparsify.train.curves import read_curves
from sparsify.train.held import HeldMasks, moments
from sparsify.train.optim import make_optimizers
from sparsify.train.settings import PretrainSettings
from sparsify.train.state import read_state


def settings(**changes: object) -> TrainSettings:
    base: dict[str, object] = {"tokens": 1500, "batch_tokens": 120, "seq": 64, "lr": 1e-2, "warmup": 2}
    return TrainSettings.model_validate({**base, **changes})


@pytest.fixture(scope="module")
def masks(model_dir: Path) -> dict[str, torch.Tensor]:
    """Masks of 70 % zeros for the linears of the tiny model."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(ref.shape, generator=generator) > 0.7
        for name, ref in open_checkpoint(model_dir).tensors.items()
        if "_proj" in name
    }


def job(model: Path, corpus: Path, out: Path, **changes: Any) -> TrainJob:
    return TrainJob(model, out, out.with_name(out.name + ".work"), [corpus], **changes)


def test_a_thousand_steps_revive_nothing(
    model_dir: Path, corpus: Path, tmp_path: Path, masks: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW with decay and clipping; weights and moments of pruned places are looked at after each step."""
    checks: list[str] = []
    check = HeldMasks.check

    def counting(self: HeldMasks, optimizers: Any, when: str) -> None:
        checks.append(when)
        check(self, optimizers, when)
        if when == "at the end":
            for name in self.names:
                pruned = ~self.kept(name)
                found = moments(self.weight(name), optimizers)
                assert set(found) == {"exp_avg", "exp_avg_sq"}
                for moment in found.values():
                    assert int((moment[pruned] != 0).sum()) == 0 and int((moment[~pruned] != 0).sum()) > 0

    monkeypatch.setattr(HeldMasks, "check", counting)
    chosen = settings(tokens=26_000, batch_tokens=28, weight_decay=0.1, clip=0.5, lr=3e-3, schedule="constant")
    stats = train(job(model_dir, corpus, tmp_path / "o", masks=masks), chosen)
    assert stats.steps >= 1000 and checks.count("at the end") == 1
    assert [when for when in checks if when.startswith("after")] == [f"after step {n + 1}" for n in range(stats.steps)]
    assert count_violations(masks, open_checkpoint(tmp_path / "o")) == 0
    lines = read_curves(tmp_path / "o" / "curves.jsonl")
    assert sum(line["grad_norm"] > 0.5 for line in lines) > 100, "clipping was at work"
    assert lines[-1]["losses"]["ce"] < 0.5 * lines[0]["losses"]["ce"]


def test_masking_the_weights_alone_would_be_noticed() -> None:
    """The reference code masks after the step only: its moments on pruned places live, and the check says so."""
    weight = torch.nn.Parameter(torch.randn(4, 6))
    mask = torch.rand(4, 6) > 0.5
    free = torch.nn.Parameter(weight.detach().clone())
    held = HeldMasks({"w": weight}, {"w": mask})
    for param in (weight, free):
        optimizer = torch.optim.AdamW([param], lr=0.1)
        (param * torch.arange(24.0).reshape(4, 6)).sum().backward()
        optimizer.step()
        if param is weight:
            held.apply()
            held.check([optimizer], "here")
        else:
            with torch.no_grad():
                param.masked_fill_(~mask, 0.0)
            unhooked = HeldMasks({"w": param}, {"w": mask})
            with pytest.raises(NumericsError, match="pruned exp_avg of w are not zero here"):
                unhooked.check([optimizer], "here")


def test_clipping_sees_surviving_weights_alone(model_dir: Path, corpus: Path, tmp_path: Path, masks: Any) -> None:
    run = trainer.Run(job(model_dir, corpus, tmp_path / "o", masks=masks), settings(clip=1e9))
    batch = run.data.next()
    run.objective(batch, run.objective.counts([batch])).total.backward()
    params = run.student.params
    squares = sum(
        float((param.grad.double() ** 2)[masks[name]].sum() if name in masks else (param.grad.double() ** 2).sum())
        for name, param in params.items()
        if param.grad is not None
    )
    norm = run.job.strategy.clip(params.values(), 1e9)
    assert float(norm) == pytest.approx(squares**0.5, rel=1e-5)


def test_muon_momentum_is_zero_there_too(model_dir: Path, corpus: Path, tmp_path: Path, masks: Any) -> None:
    run = trainer.Run(job(model_dir, corpus, tmp_path / "o", masks=masks), settings(optimizer="muon"))
    run.train(NullProgress())
    found = [moments(run.student.params[name], run.optimizers) for name in masks]
    assert all(set(moment) == {"momentum"} for moment in found)
    assert make_optimizers(run.student.params, settings())[0].param_groups[0]["peak_lr"] == 1e-2


def curve(directory: Path) -> list[dict[str, Any]]:
    lines = read_curves(directory / "curves.jsonl")
    return [{key: value for key, value in line.items() if key != "tokens_per_s"} for line in lines]


LOSSES = LossWeights(ce=1.0, kl=0.5, squarehead=1.0)
RUNS = {
    "adamw": settings(weight_decay=0.1, clip=1.0, losses=LOSSES, accumulate=2),
    "muon, gradual": settings(optimizer="muon", gradual={"final": 0.8, "every": 1}),
    "pretraining": PretrainSettings(
        mixture=[{"source": "a", "share": 2}, {"source": "b", "share": 1}],  # type: ignore[list-item]
        tokens=1500,
        batch_tokens=130,
        seq=26,
        lr=1e-2,
        schedule="cosine",
        precision="bf16",
    ),
}


@pytest.mark.parametrize("kind", RUNS)
def test_kill_9_and_again_is_the_same_curve_and_bytes(
    kind: str,
    model_dir: Path,
    corpus: Path,
    tmp_path: Path,
    masks: dict[str, torch.Tensor],
    make_corpus: Any,
    kill_at: Any,
    in_child: Any,
) -> None:
    """Killed between steps, while a state is written, and before it gets its name."""
    files = [corpus, make_corpus(tmp_path / "other.jsonl", seed=1)]

    def work(out: str, progress: Any, dies: str = "") -> None:
        trainer._SAVE_EVERY_S = 0.0
        if dies:
            real, left = getattr(shards, dies), [4]

            def counting(*args: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args)

            setattr(shards, dies, counting)
        given = TrainJob(model_dir, tmp_path / out, tmp_path / (out + ".work"), files, model_dir, masks)
        train(given, RUNS[kind], progress=progress)

    assert in_child(lambda: work("whole", NullProgress())) == 0
    for progress, dies in ((kill_at(2), ""), (NullProgress(), "commit"), (kill_at(3), "")):
        status = in_child(lambda p=progress, d=dies: work("killed", p, d))  # type: ignore[misc]
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert not (tmp_path / "killed").exists()
    assert (tmp_path / "killed.work" / "state.safetensors").is_file()
    assert in_child(lambda: work("killed", NullProgress())) == 0
    one, other = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole") and len(curve(tmp_path / "whole")) > 8
    assert not (tmp_path / "killed.work").exists()


def test_the_state_is_plain_and_checked(model_dir: Path, corpus: Path, tmp_path: Path, masks: Any) -> None:
    """Safetensors and JSON alone; a state of other settings, or with a revived weight, is refused."""
    chosen, given = settings(), job(model_dir, corpus, tmp_path / "o", masks=masks)
    run = trainer.Run(given, chosen)
    for _ in range(3):
        run._step(run.data.steps)
    run._save()
    assert sorted(path.suffix for path in given.work_dir.iterdir()) == [".safetensors"]
    found = read_state(given.work_dir / "state.safetensors")
    assert found is not None and found[1]["step"] == 3 and found[1]["data"] == {"step": 3}
    assert {name.split(".")[0] for name in found[0]} == {"param", "optimizer", "rng"}
    with pytest.raises(CheckpointError, match="was begun with other settings or text; remove it"):
        train(given, settings(lr=2e-2))
    path = given.work_dir / "state.safetensors"
    tensors, record = dict(found[0]), found[1]
    name = next(iter(masks))
    for key, what in ((f"param.{name}", "weights"), ("optimizer.0.1.exp_avg", "exp_avg")):
        bad = {k: v.clone() for k, v in tensors.items()}
        index = list(run.student.params).index(name)
        key = key.replace("optimizer.0.1.", f"optimizer.0.{index}.")
        bad[key][~masks[name]] = 1.0
        save_file(bad, path, {"record": json.dumps(record)})
        with pytest.raises(NumericsError, match=f"pruned {what} of .* are not zero in the saved state"):
            train(given, chosen)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="is damaged"):
        train(given, chosen)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    model_dir: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "_SAVE_EVERY_S", 0.0)
    given, chosen = job(model_dir, corpus, tmp_path / "o"), settings()
    real, calls = trainer.Objective.__call__, [0]

    def broken(self: Any, batch: Any, counts: Any) -> Any:
        calls[0] += 1
        losses = real(self, batch, counts)
        return trainer.Losses(losses.total * float("nan"), losses.parts) if calls[0] == 6 else losses

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Objective, "__call__", broken)
        with pytest.raises(NumericsError, match="the loss became nan at step 5; lower lr or set clip: 1.0") as caught:
            train(given, chosen)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 3
    assert not given.out_dir.exists()
    found = read_state(given.work_dir / "state.safetensors")
    assert found is not None and found[1]["step"] == 5
    assert all(bool(torch.isfinite(t.float()).all()) for n, t in found[0].items() if n.startswith("param"))
    # With the cause gone it goes on from there, to what it would have been.
    assert train(given, chosen).resumed_at == 5
    train(job(model_dir, corpus, tmp_path / "p"), chosen)
    assert (tmp_path / "o" / "model.safetensors").read_bytes() == (tmp_path / "p" / "model.safetensors").read_bytes()


def test_weights_that_are_not_finite_are_never_saved(model_dir: Path, corpus: Path, tmp_path: Path) -> None:
    run = trainer.Run(job(model_dir, corpus, tmp_path / "o"), settings())
    with torch.no_grad():
        next(iter(run.student.params.values()))[0, 0] = float("inf")
    for end in (run._save, run.finish):
        with pytest.raises(trainer.DivergedError, match="1 values of .* are not finite"):
            end()
    assert not (tmp_path / "o").exists() and not (tmp_path / "o.work").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_keeps_the_last_state(model_dir: Path, corpus: Path, tmp_path: Path, in_child: Any) -> None:
    """A write that fails is an OSError; when there is room the run goes on and ends in the same bytes."""
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")

    def work(root: Path) -> None:
        trainer._SAVE_EVERY_S = 0.0
        given = TrainJob(model_dir, root / "o", root / "w", [corpus])
        try:
            train(given, settings())
        except OSError as error:
            assert error.errno == 28
            assert (
                read_state(root / "w" / "state.safetensors") is not None
                and not (root / "w" / "state.safetensors.part").exists()
            )
            os._exit(7)

    try:
        # Room for one state, not for the next beside it.
        assert os.waitstatus_to_exitcode(in_child(lambda: work(disk))) == 7
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert in_child(lambda: work(disk)) == 0
        (tmp_path / "free").mkdir()
        assert in_child(lambda: work(tmp_path / "free")) == 0
        assert (disk / "o" / "model.safetensors").read_bytes() == (
            tmp_path / "free" / "o" / "model.safetensors"
        ).read_bytes()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_mask_of_another_model_is_refused(model_dir: Path, corpus: Path, tmp_path: Path, masks: Any) -> None:
    name = next(iter(masks))
    for wrong in ({name + "x": masks[name]}, {name: masks[name][:5]}, {name: masks[name].T.contiguous()[:, :7]}):
        with pytest.raises(SparsifyError, match="fits no weight of this model"):
            train(job(model_dir, corpus, tmp_path / "o", masks=wrong), settings())
    # The right shapes, but weights that it prunes are not zero.
    sparse = Path(shutil.copytree(model_dir, tmp_path / "sparse"))
    save_masks(masks, sparse)
    recipe = parse_recipe(
        {"stages": [{"finetune": {"data": "t", "tokens": 240, "batch_tokens": 120}}]}, name="r", where="t"
    )
    options = MakeOptions(store=tmp_path / "s", name="v", base="tiny", resolve_corpus=lambda _: corpus)
    with pytest.raises(SparsifyError, match=r"prunes \d+ weights that are not zero: it is the mask of another model"):
        make_variant(sparse, recipe, tmp_path / "v", options=options)
    weights = load_file(sparse / "model.safetensors")
    save_file(
        {n: t.masked_fill(~masks[n], 0.0) if n in masks else t for n, t in weights.items()},
        sparse / "model.safetensors",
        {"format": "pt"},
    )
    make_variant(sparse, recipe, tmp_path / "v", options=options)
    assert len(load_masks(tmp_path / "v")) == len(masks)
