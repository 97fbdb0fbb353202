"""What we say about speed, each held against the panels: fixed before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.bench.clock import Ratio
from harness.bench.engines.arms import SPARSE_HEAD, Variant
from harness.bench.engines.numbers import Panel
from harness.bench.sparsify.claims import Claim

SCALING = 1.8
_SHAPE = "1.1b"
_DECODE, _PREFILL = "decode-b1", "prefill-512"


@dataclass(frozen=True)
class Faster:
    """`fast` takes at most 1 / `least` of the time of `slow`, in one panel.

    Attributes:
        text: In words.
        slow, fast: Names of the variants.
        least: The ratio that is claimed.
        workload: Which.
    """

    text: str
    slow: str
    fast: str
    least: float
    workload: str = _DECODE


@dataclass(frozen=True)
class Near:
    """A kernel reads at `least` of the read bandwidth, with one thread."""

    kind: str
    least: float


def _ours(kind: str, sparsity: int) -> str:
    return Variant("ours", kind, sparsity).name


KERNELS = (Near("i8", 0.90), Near("bf16", 0.85), Near("i4", 0.85))
FASTER = (
    Faster("Sparsity alone, fp32: 70 % zeros against dense", _ours("f32", 0), _ours("f32", 70), 2.7),
    Faster("Sparsity alone, bf16: 70 % zeros against dense", _ours("bf16", 0), _ours("bf16", 70), 2.4),
    Faster("Sparsity alone, int8: 70 % zeros against dense", _ours("i8", 0), _ours("i8", 70), 2.1),
    *(
        Faster(f"The same with the head pruned, {said}: 70 % zeros against dense", _ours(kind, 0), fast, least)
        for kind, said, least in (("f32", "fp32", 2.7), ("bf16", "bf16", 2.4), ("i8", "int8", 2.1))
        for fast in (Variant("ours", kind, 70, SPARSE_HEAD).name,)
    ),
    Faster("Sparse and quantized: int8 at 70 % against our dense fp32", _ours("f32", 0), _ours("i8", 70), 7.5),
    Faster("Sparse and quantized: int8 at 70 % against transformers fp32", "torch:fp32", _ours("i8", 70), 8.6),
    Faster("int8 at 70 % against llama.cpp Q8_0", "llama.cpp:q8_0", _ours("i8", 70), 2.1),
    Faster("int4 at 70 % against llama.cpp Q4_0", "llama.cpp:q4_0", _ours("i4", 70), 1.2),
    Faster("fp32 at 70 % against DeepSparse at the same", "deepsparse:fp32@70", _ours("f32", 70), 1.0),
    Faster("int8 at 70 % against DeepSparse at the same", "deepsparse:int8@70", _ours("i8", 70), 1.0),
    Faster(
        "int8 at 70 % against OpenVINO with sparse weight decompression",
        "openvino:int8@70+sparse",
        _ours("i8", 70),
        1.0,
    ),
    Faster("Prompt of 512: bf16 at 70 % against torch bf16", "torch:bf16", _ours("bf16", 70), 1.0, _PREFILL),
    Faster("Prompt of 512: dense bf16 against torch bf16", "torch:bf16", _ours("bf16", 0), 1.0, _PREFILL),
)


def check_claims(panels: Sequence[Panel], shape: str = _SHAPE) -> list[Claim]:
    """Every claim at the 1.1B shape, for every number of threads that was measured."""
    ours = [panel for panel in panels if panel.line["shape"] == shape]
    threads = sorted({panel.line["threads"] for panel in ours}) or [1]
    claims = [_near(ours, near, 1) for near in KERNELS]
    claims += [_scales(ours, near.kind) for near in KERNELS]
    for count in threads:
        claims += [_faster(ours, claim, count) for claim in FASTER]
    return claims


def _find(panels: Sequence[Panel], threads: int, workload: str, *variants: str) -> Panel | None:
    """The panel of these variants; of several, one that nothing disturbed."""
    for panel in sorted(panels, key=lambda panel: bool(panel.unrest)):
        same = panel.line["threads"] == threads and panel.line["workload"] == workload
        if same and all(panel.row(variant) is not None for variant in variants):
            return panel
    return None


def _near(panels: Sequence[Panel], near: Near, threads: int) -> Claim:
    name = Variant("kernels", near.kind, 70).name
    text = f"Kernel {near.kind} at 70 % reads at {near.least:.0%} of the bandwidth or more (1 thread)"
    panel = _find(panels, threads, _DECODE, name)
    row = panel.row(name) if panel else None
    if panel is None or row is None or row.share is None:
        return Claim(text, None, "not measured")
    numbers = f"{row.rate:.2f} of {panel.bandwidth:.2f} GB/s: {row.share:.1%}{_disturbed(panel)}"
    return Claim(text, row.share >= near.least, numbers)


def _scales(panels: Sequence[Panel], kind: str) -> Claim:
    name = Variant("kernels", kind, 70).name
    text = f"Kernel {kind} at 70 %: 2 threads at least {SCALING} times as fast as 1, where bandwidth is"
    one, two = (_find(panels, threads, _DECODE, name) for threads in (1, 2))
    rows = [panel.row(name) if panel else None for panel in (one, two)]
    if one is None or two is None or rows[0] is None or rows[1] is None or not (one.bandwidth and two.bandwidth):
        return Claim(text, None, "not measured")
    assert rows[0].seconds and rows[1].seconds
    found, possible = rows[0].seconds / rows[1].seconds, two.bandwidth / one.bandwidth
    needed = min(SCALING, SCALING / 2 * possible)
    shown = f"{found:.2f} times; the bandwidth grew {possible:.2f} times (two panels){_disturbed(one, two)}"
    return Claim(text, found >= needed, shown)


def _faster(panels: Sequence[Panel], claim: Faster, threads: int) -> Claim:
    at_least = f"at least {claim.least:g} times as fast" if claim.least != 1.0 else "not slower"
    text = f"{claim.text}: {at_least} ({threads} thread{'s' if threads > 1 else ''})"
    panel = _find(panels, threads, claim.workload, claim.slow, claim.fast)
    ratio = panel.ratio(claim.slow, claim.fast) if panel else None
    if panel is None or ratio is None:
        return Claim(text, None, _why(panels, claim, threads))
    numbers = f"{shown(ratio)}, {_side(panel, claim.slow)} against {_side(panel, claim.fast)}"
    slow, fast = panel.row(claim.slow), panel.row(claim.fast)
    if slow and fast and slow.megabytes and fast.megabytes and claim.workload == _DECODE:
        numbers += f"; the bytes allow {slow.megabytes / fast.megabytes:.2f} at the same rate"
    return Claim(text, ratio.value >= claim.least, numbers + _disturbed(panel))


def _why(panels: Sequence[Panel], claim: Faster, threads: int) -> str:
    for panel in panels:
        if panel.line["threads"] == threads and panel.line["workload"] == claim.workload:
            for row in panel.rows:
                if row.variant in (claim.slow, claim.fast) and row.error:
                    return f"not measured: {row.variant}: {row.error}"
    return "not measured"


def _disturbed(*panels: Panel) -> str:
    return "; restless" if any(panel.unrest for panel in panels) else ""


def shown(ratio: Ratio) -> str:
    """A ratio with its interval."""
    interval = f" ({ratio.ci95[0]:.2f} to {ratio.ci95[1]:.2f})" if ratio.ci95 else ""
    return f"{ratio.value:.2f} times{interval}"


def _side(panel: Panel, variant: str) -> str:
    row = panel.row(variant)
    assert row is not None and row.seconds is not None
    share = f", {row.share:.0%} of the bandwidth" if row.share is not None else ""
    return f"{variant} {row.seconds * 1e3:.1f} ms{share}"
