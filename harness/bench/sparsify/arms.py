"""What is compared: our methods through recipes, llm-compressor through its own steps.

The list is fixed before anything is measured. The first calibration seed runs every arm; further seeds run the arms
that the claims rest on (`Arm.claimed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.bench.chosen import named_arms

PATTERNS = ("50", "60", "70", "80", "2:4", "4:8")
SPARSITIES = tuple(pattern for pattern in PATTERNS if ":" not in pattern)
CLAIMED_PATTERNS = ("70", "2:4")
METHODS = ("magnitude", "wanda", "sparsegpt", "sparsegpt+refine", "admm+refine")
SLOPED = ("sparsegpt+refine", "admm+refine")
REBUILT = "admm+refine+reconstruct"
GROUP_SIZE = 64
HOLDOUT = 0.25
PEER = "llm-compressor"


@dataclass(frozen=True)
class Arm:
    """One way to make a variant.

    Attributes:
        method: One of `METHODS`, or `REBUILT`; of the peer: sparsegpt or wanda.
        pattern: A percentage, or N:M.
        allocation: uniform or slope.
        quantize: Empty, or scheme and method: w8a8-rtn, w8a8-gptq, w4a16-rtn, w4a16-gptq; `joint` in place of the
            method prunes and quantizes in one pass.
        peer: Whether llm-compressor makes it.
    """

    method: str
    pattern: str
    allocation: str = "uniform"
    quantize: str = ""
    peer: bool = False

    @property
    def name(self) -> str:
        """As tables and `--arms` call it, such as `lc:sparsegpt@70` or `admm+refine/slope@70`."""
        sloped = "" if self.allocation == "uniform" else f"/{self.allocation}"
        quantized = f"+{self.quantize}" if self.quantize else ""
        return f"{'lc:' if self.peer else ''}{self.method}{sloped}@{self.pattern}{quantized}"

    @property
    def sparsity(self) -> float:
        """Share of zeros."""
        if self.nm is not None:
            return 1 - self.nm[0] / self.nm[1]
        return int(self.pattern) / 100

    @property
    def nm(self) -> tuple[int, int] | None:
        """(N, M), or None where it is unstructured."""
        n, colon, m = self.pattern.partition(":")
        return (int(n), int(m)) if colon else None

    @property
    def calibrated(self) -> bool:
        """Whether it depends on calibration text, and so on the seed."""
        return self.method != "magnitude"

    @property
    def claimed(self) -> bool:
        """Whether a claim rests on it, so that every seed runs it."""
        pruned_well = self.method not in ("magnitude", "wanda", REBUILT) and not self.quantize
        return pruned_well and self.pattern in CLAIMED_PATTERNS

    @property
    def masks_of(self) -> str:
        """The arm whose zeros a quantized arm of the peer is held against: the same without the quantizer."""
        return Arm(self.method, self.pattern, self.allocation, peer=self.peer).name


def all_arms() -> tuple[Arm, ...]:
    """Every arm; those that the claims rest on come first, next to each other."""
    ours = [Arm(method, pattern) for pattern in PATTERNS for method in METHODS]
    ours += [Arm(method, pattern, "slope") for pattern in SPARSITIES for method in SLOPED]
    ours += [Arm(REBUILT, pattern) for pattern in CLAIMED_PATTERNS]
    quantizers = ("w8a8-rtn", "w8a8-gptq", "w8a8-joint", "w4a16-rtn", "w4a16-gptq", "w4a16-joint")
    ours += [Arm("sparsegpt", pattern, quantize=quantizer) for pattern in CLAIMED_PATTERNS for quantizer in quantizers]
    ours += [Arm("admm+refine", pattern, quantize="w8a8-gptq") for pattern in CLAIMED_PATTERNS]
    peer = [Arm(method, pattern, peer=True) for pattern in PATTERNS for method in ("sparsegpt", "wanda")]
    peer += [
        Arm("sparsegpt", pattern, quantize=quantizer, peer=True)
        for pattern in CLAIMED_PATTERNS
        for quantizer in ("w8a8-rtn", "w8a8-gptq")
    ]
    return tuple(sorted((*ours, *peer), key=_order))


def chosen_arms(names: str | None) -> tuple[Arm, ...]:
    """The arms that `--arms` names: names or globs such as `lc:*`, separated by commas.

    Raises:
        ConfigError: A name fits none.
    """
    arms = all_arms()
    known = ", ".join(sorted({arm.name.partition("@")[0] for arm in arms}))
    return named_arms(names, arms, f"they are METHOD@PATTERN with METHOD of {known}")


def recipe_of(arm: Arm, calibration: dict[str, Any]) -> dict[str, Any]:
    """Our recipe for an arm, as `parse_recipe` takes it; settings are the defaults of the stages."""
    pattern = {"pattern": arm.pattern} if arm.nm else {"sparsity": arm.sparsity}
    scheme, _, how = arm.quantize.partition("-")
    if how == "joint":
        joint = {"scheme": scheme, "method": "gptq", "prune": pattern, "calibration": calibration, **_groups(scheme)}
        return {"stages": [{"quantize": joint}]}
    method, *further = arm.method.split("+")
    prune: dict[str, Any] = {"method": method, **pattern}
    if arm.calibrated:
        prune["calibration"] = calibration
    if "refine" in further:
        prune["refine"] = True
    if "reconstruct" in further:
        prune["reconstruct"] = {}
    if arm.allocation != "uniform":
        prune["allocation"] = {"kind": arm.allocation}
        # Part of the same windows: no arm sees more calibration text than another.
        prune["calibration"] = {**calibration, "holdout": HOLDOUT}
    stages: list[dict[str, Any]] = [{"prune": prune}]
    if scheme:
        quantize: dict[str, Any] = {"scheme": scheme, "method": how, **_groups(scheme)}
        if how == "gptq":
            quantize["calibration"] = calibration
        stages.append({"quantize": quantize})
    return {"stages": stages}


def peer_steps(arm: Arm) -> list[dict[str, Any]]:
    """llm-compressor's steps for an arm; its N of N:M counts zeros."""
    pruned = f"{arm.nm[1] - arm.nm[0]}:{arm.nm[1]}" if arm.nm else "0:0"
    steps: list[dict[str, Any]] = [{"kind": arm.method, "sparsity": arm.sparsity, "pattern": pruned}]
    if arm.quantize:
        steps.append({"kind": arm.quantize.partition("-")[2]})
    return steps


def _groups(scheme: str) -> dict[str, Any]:
    return {"group_size": GROUP_SIZE} if scheme == "w4a16" else {}


def _order(arm: Arm) -> tuple[Any, ...]:
    # A quantized arm of the peer comes after the pruned one that holds its masks.
    return (arm.pattern not in CLAIMED_PATTERNS, PATTERNS.index(arm.pattern), bool(arm.quantize))
