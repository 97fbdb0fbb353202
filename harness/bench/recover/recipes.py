"""The recipe of an arm, built from the same stages as any other; equal beginnings are made once and shared."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.bench.recover.arms import BASE, CE_KL, CE_SQUAREHEAD, COST, DENSE, FINAL, LONGER, MIX, ONE_SHOT, Arm
from harness.bench.recover.settings import LEAD_SEED, Settings
from sparsify.files import sha256_json

Stage = dict[str, Any]
# What was pruned and pretrained before: paper A's schedule (2405.03594, section 3), taken on to 80 %.
_BEFORE = {"50": (), "70": ("50",), "80": ("50", "70"), "2:4": ()}
_LOSSES = {
    CE_SQUAREHEAD: {"ce": 1.0, "squarehead": 1.0, "kl": 0.0},
    FINAL: {"ce": 1.0, "squarehead": 1.0, "kl": 0.0},
    CE_KL: {"ce": 1.0, "squarehead": 0.0, "kl": 1.0},
}


def recipe_of(arm: Arm, seed: int, rate: float | None, settings: Settings) -> dict[str, Any]:
    """The recipe, as `parse_recipe` takes it.

    Args:
        arm: Any but `cost`.
        seed: Of the calibration draw, of the order of the text and of what is drawn from it.
        rate: The learning rate that the lead seed chose; None tries all.
        settings: Budgets.
    """
    return {"stages": _stages(arm, seed, rate, settings)}


def prune_stage(pattern: str, seed: int, settings: Settings) -> Stage:
    """SparseGPT to a pattern, with old zeros kept; the same for every arm, so that arms differ by training alone."""
    shape: dict[str, Any] = {"pattern": pattern} if ":" in pattern else {"sparsity": int(pattern) / 100}
    calibration = {"source": MIX, "samples": settings.samples, "seq": settings.calibration_seq, "seed": seed}
    return {"prune": {"method": "sparsegpt", **shape, "calibration": calibration}}


def lineage(pattern: str) -> tuple[str, ...]:
    """The patterns that the pretrained model of a pattern went through, itself last."""
    return (*_BEFORE[pattern], pattern)


def _stages(arm: Arm, seed: int, rate: float | None, settings: Settings) -> list[Stage]:
    if arm.method == BASE:
        return []
    if arm.method == DENSE:
        return [_finetune(arm, seed, rate, settings)]
    if arm.method == ONE_SHOT:
        return [_finetune(arm.rate_of, seed, rate, settings), prune_stage(arm.pattern, seed, settings)]
    if arm.method == LONGER:
        pretrained = [_pretrain(pattern, seed, settings, taught=False) for pattern in lineage("70")]
        return [*pretrained, _finetune(arm, seed, rate, settings)]
    before = [prune_stage(arm.pattern, seed, settings)]
    if arm.method == FINAL:
        before = [
            stage
            for pattern in lineage(arm.pattern)
            for stage in (prune_stage(pattern, seed, settings), _pretrain(pattern, seed, settings, taught=True))
        ]
        if arm.pattern in settings.pretrain_more:
            before.append(_pretrain(arm.pattern, seed, settings, taught=True, more=True))
    after: list[Stage] = [{"quantize": {"scheme": "w8a8", "method": "rtn"}}] if arm.int8 else []
    return [*before, _finetune(arm, seed, rate, settings), *after]


def _pretrain(pattern: str, seed: int, settings: Settings, *, taught: bool, more: bool = False) -> Stage:
    mixture = [{"source": f"pretrain-{name}", "share": share} for name, share in settings.shares.items()]
    learnt = {"losses": dict(settings.pretrain_losses), "teacher": "base"} if taught else {}
    return {
        "pretrain": {
            **learnt,
            "precision": settings.precision,
            "mixture": mixture,
            "tokens": (settings.pretrain_more if more else settings.pretrain_tokens)[pattern],
            "batch_tokens": max(settings.batch_tokens, settings.pretrain_seq),
            "seq": settings.pretrain_seq,
            "optimizer": "muon",
            "lr": settings.pretrain_lr,
            "muon_lr": settings.pretrain_lr * settings.muon_ratio,
            "warmup": settings.pretrain_warmup,
            "schedule": "linear",
            # A later pretraining reads the text in another order.
            "seed": 100 * (len(lineage(pattern)) + more) + seed,
        }
    }


def _finetune(arm: Arm, seed: int, rate: float | None, settings: Settings) -> Stage:
    peak = settings.rates[0] if rate is None else rate
    select: dict[str, Any] = {"dev": settings.dev, "tokens": settings.dev_tokens, "every": settings.dev_every}
    if rate is None:
        select |= {"lr": list(settings.rates), "trial_tokens": settings.trial_tokens}
    return {
        "finetune": {
            "precision": settings.precision,
            "data": [arm.skill],
            "tokens": settings.finetune_tokens if arm.skill == MIX else settings.skill_tokens,
            "batch_tokens": settings.batch_tokens,
            "seq": settings.seq,
            "optimizer": "muon",
            "lr": peak,
            "muon_lr": peak * settings.muon_ratio,
            "warmup": settings.warmup,
            "schedule": "linear",
            "losses": _LOSSES.get(arm.method, {"ce": 1.0}),
            "teacher": "given" if arm.taught else "none",
            "seed": seed,
            "select": select,
        }
    }


def settings_sha256(arm: Arm, settings: Settings) -> str:
    """Hash of the settings that an arm's results depend on: what others alone depend on may change."""
    known = asdict(settings)
    pretraining = {name for name in known if name.startswith("pretrain") or name == "shares"}
    timing = {name for name in known if name.startswith("cost")}
    pretrains = arm.method in (FINAL, LONGER)
    leave_out = pretraining if arm.method == COST else timing if pretrains else timing | pretraining
    if arm.method != FINAL or arm.pattern not in settings.pretrain_more:
        leave_out = leave_out | {"pretrain_more"}
    return sha256_json({name: value for name, value in known.items() if name not in leave_out})


def trains_with_trials(arm: Arm, seed: int) -> bool:
    """Whether the arm's learning rate is chosen in this very piece."""
    return seed == LEAD_SEED and arm.method != BASE


def tokens_of(stage: Stage) -> int:
    """Tokens that a stage trains on, trials included."""
    (spec,) = stage.values()
    tried = spec.get("select", {})
    return int(spec.get("tokens", 0)) + len(tried.get("lr", ())) * int(tried.get("trial_tokens", 0))
