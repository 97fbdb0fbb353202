"""The arithmetic of speed: order, steadiness, medians, ratios. Pure; clocks come in as arguments."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WINDOW = 5
STEADY = 0.05
RESAMPLES = 2000


@dataclass(frozen=True)
class Timing:
    """One measurement: consecutive durations of one process.

    Attributes:
        seconds: Wall time of each step, in order, the device synchronised at both ends.
        cpu: CPU time of the process over all of them, in seconds; well above or below the sum of `seconds` times the
            threads, it tells of other work on the machine.
        joules: Energy of the processor package over all of them; None where it cannot be read.
    """

    seconds: tuple[float, ...]
    cpu: float
    joules: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A speed-up: baseline time over variant time, with a 95 % interval (None where it is 1 by definition)."""

    value: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Clocks:
    """What `measure` reads: wall seconds, CPU seconds of this process, and how to wait for the device."""

    wall: Callable[[], float]
    cpu: Callable[[], float]
    synchronise: Callable[[], None]


def block_order(names: Sequence[str], block: int) -> tuple[str, ...]:
    """The order of one block: A B C, then C B A, so that a linear drift of the machine falls on all alike.

    Each pair of blocks starts one name later (B C A, A C B), because the ends of the order are measured twice in a row
    and find their caches warm.
    """
    start = (block // 2) % len(names)
    turned = (*names[start:], *names[:start])
    return turned if block % 2 == 0 else turned[::-1]


def measure(step: Callable[[], None], *, steps: int, clocks: Clocks) -> Timing:
    """Time `steps` calls of `step`, the device synchronised before the first and after each."""
    clocks.synchronise()
    cpu = clocks.cpu()
    stamps = [clocks.wall()]
    for _ in range(steps):
        step()
        clocks.synchronise()
        stamps.append(clocks.wall())
    cpu = clocks.cpu() - cpu
    return Timing(tuple(after - before for before, after in zip(stamps, stamps[1:], strict=False)), cpu)


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether the median of the last five durations is within 5 % of that of the five before."""
    if len(seconds) < 2 * WINDOW:
        return False
    before = statistics.median(seconds[-2 * WINDOW : -WINDOW])
    return abs(statistics.median(seconds[-WINDOW:]) - before) < STEADY * before


@dataclass(frozen=True)
class Least:
    """What is measured whatever the budget: blocks, and seconds of every process."""

    blocks: int
    seconds: float = 0.0


def blocks_to_go(done: int, *, elapsed: float, budget: float, least: Least, measured: float = 0.0) -> bool:
    """Whether to measure another block: up to `least` always, then while one more pair of blocks fits the budget.

    The count ends even, so that every process has been as often early in a block as late.

    Args:
        done: Blocks measured.
        elapsed: Seconds since the first began.
        budget: Seconds to spend.
        least: What the budget cannot cut.
        measured: Seconds that the process measured least has been measured.
    """
    if done < least.blocks or done % 2 or measured < least.seconds:
        return True
    return elapsed + 2 * elapsed / done <= budget


def block_medians(timings: Sequence[Timing]) -> list[float]:
    """Median step of every block, in seconds."""
    return [statistics.median(timing.seconds) for timing in timings]


def adjust_blocks(medians: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Block medians without what a whole block had in common: a slow moment of the machine that met all processes.

    Each value is divided by the geometric mean of its block over the processes, relative to that of all blocks. So the
    processes keep their proportions in every block, and a drift from block to block cancels exactly; the scale, in
    seconds, stays.

    Args:
        medians: By process, seconds, one value a block; the same blocks in all.
    """
    blocks = [sum(map(math.log, block)) / len(block) for block in zip(*medians.values(), strict=True)]
    mean = sum(blocks) / len(blocks)
    return {
        name: [value / math.exp(block - mean) for value, block in zip(values, blocks, strict=True)]
        for name, values in medians.items()
    }


def speed_ratio(baseline: Sequence[float], variant: Sequence[float], *, seed: int) -> Ratio:
    """Ratio of medians over blocks, with the percentile bootstrap over blocks.

    Args:
        baseline: Seconds per step, one value a block.
        variant: The same blocks of the variant; blocks are resampled together, because both met the same machine.
        seed: Of the resampling (PCG64, 2,000 draws).
    """
    import numpy as np

    times = np.asarray([baseline, variant], dtype=np.float64)
    if times.ndim != 2 or times.shape[1] == 0:
        raise ValueError("a ratio needs the same blocks, at least one, of baseline and variant")
    picks = np.random.Generator(np.random.PCG64(seed)).integers(0, times.shape[1], (RESAMPLES, times.shape[1]))
    medians = np.median(times[:, picks], axis=2)
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    value = float(np.median(times[0]) / np.median(times[1]))
    return Ratio(value, (float(low), float(high)))
