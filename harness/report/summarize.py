"""Rows to `summary.json`: pure, the same rows always give the same summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.errors import ConfigError
from harness.records import (
    DifferenceResult,
    RecoveryResult,
    SampleRow,
    SparsityInfo,
    SpeedRow,
    SuiteResult,
    Summary,
    VariantSummary,
)
from harness.report.cells import Pairs, check_rows, pair, refusal, rounded, suite_result
from harness.report.inputs import Samples, StudyMeta, SuiteMeta, VariantInput
from harness.stats import (
    Estimate,
    PairedEstimate,
    holm,
    loss_p_value,
    mean_of_recoveries,
    recovery_of_means,
    undefined,
)

__all__ = ["StudyMeta", "SuiteMeta", "VariantInput", "summarize"]

REFERENCE = "a reference: it is compared with nothing"
MEAN = "mean"


def summarize(
    study_meta: StudyMeta,
    variants: Sequence[VariantInput],
    samples: Samples,
    speed: Sequence[SpeedRow],
) -> Summary:
    """Aggregate every cell, pair every variant with its baseline item by item, and assemble the summary.

    Items with status `error`, `refused` or `truncated_input` count as 0. A refused or missing cell is null with its
    reason, and so is everything that would rest on it.

    Raises:
        ConfigError: an unknown or missing baseline, rows of another suite version, or different items under one id.
        CorruptRecordError: repeated or misplaced rows, or a row without its primary score.
    """
    known = {variant.name: variant for variant in variants}
    for variant in variants:
        if variant.baseline is not None and variant.baseline not in known:
            raise ConfigError(
                f"variant {variant.name!r} has the baseline {variant.baseline!r}, which is not in the study: "
                f"name one of {', '.join(sorted(known))}"
            )
        for suite, meta in study_meta.suites.items():
            check_rows(samples.get((variant.name, suite), ()), meta, variant.name, suite)
    return Summary(
        study=study_meta.info(),
        environment=study_meta.environment,
        variants=[_variant(variant, known, study_meta.suites, samples) for variant in variants],
        speed=list(speed),
    )


def _variant(
    variant: VariantInput,
    known: Mapping[str, VariantInput],
    suites: Mapping[str, SuiteMeta],
    samples: Samples,
) -> VariantSummary:
    results: dict[str, SuiteResult] = {}
    recoveries: dict[str, RecoveryResult] = {}
    differences: dict[str, DifferenceResult] = {}
    ratios: dict[str, Estimate] = {}
    pairs: dict[str, Pairs] = {}
    reference = known.get(variant.baseline) if variant.baseline else None
    for suite, meta in suites.items():
        rows = samples.get((variant.name, suite), ())
        results[suite] = suite_result(rows, meta, variant.refused.get(suite))
        found = _pairs(variant, reference, suite, meta, samples)
        if isinstance(found, Pairs):
            pairs[suite] = found
        ratio, difference = _compare(found)
        ratios[suite] = ratio.estimate
        recoveries[suite] = RecoveryResult.model_validate(
            {**rounded(ratio.estimate), "n_discordant": ratio.n_discordant, "baseline": variant.baseline}
        )
        differences[suite] = DifferenceResult.model_validate(
            {
                **rounded(difference.estimate),
                "n_discordant": difference.n_discordant,
                "b01": difference.b01,
                "b10": difference.b10,
                "p_value": None if difference.p_value is None else _short(difference.p_value),
                "baseline": variant.baseline,
            }
        )
    losses = {s: loss_p_value(p.variant, p.baseline, p.clusters) for s, p in pairs.items() if p.variant}
    for suite, adjusted in holm(losses).items():
        told = {"p_loss": _short(losses[suite]), "p_loss_holm": _short(adjusted)}
        differences[suite] = differences[suite].model_copy(update=told)
    recoveries[MEAN] = _mean(variant, ratios, recoveries)
    unknown_sparsity = variant.sparsity_linears is None or variant.sparsity_model is None
    unknown_size = variant.weight_bits is None or variant.bytes is None
    return VariantSummary(
        name=variant.name,
        base=variant.base,
        baseline=variant.baseline,
        recipe=variant.recipe,
        recipe_hash=variant.recipe_hash,
        sparsity=SparsityInfo(
            linears=variant.sparsity_linears,
            model=variant.sparsity_model,
            reason="not recorded for this checkpoint" if unknown_sparsity else None,
        ),
        weight_bits=variant.weight_bits,
        dtype=variant.dtype,
        bytes=variant.bytes,
        parameters=variant.parameters,
        weights_sha256=variant.weights_sha256,
        loaders=list(variant.loaders),
        masks=variant.masks,
        reason="weight_bits or bytes not recorded for this checkpoint" if unknown_size else None,
        suites=results,
        recovery=recoveries,
        recovery_of_means=_of_means(variant, pairs, suites),
        difference=differences,
        distance=variant.distance,
        events=list(variant.events),
    )


def _nothing(reason: str) -> PairedEstimate:
    return PairedEstimate(undefined(reason), 0, 0, 0)


def _short(p: float) -> float:
    return float(f"{p:.4g}")


def _pairs(
    variant: VariantInput,
    reference: VariantInput | None,
    suite: str,
    meta: SuiteMeta,
    samples: Samples,
) -> Pairs | str:
    """One cell paired with the reference's cell, or why it cannot be."""
    if reference is None or reference.name == variant.name:
        return REFERENCE
    sides: list[Sequence[SampleRow]] = []
    for side in (variant, reference):
        rows = samples.get((side.name, suite), ())
        why = refusal(rows, side.refused.get(suite))
        if why is not None:
            return why if side is variant else f"baseline {side.name}: {why}"
        sides.append(rows)
    return pair(sides[0], sides[1], meta.metric)


def _compare(pairs: Pairs | str) -> tuple[PairedEstimate, PairedEstimate]:
    """Recovery and difference of one cell against the reference's cell."""
    if isinstance(pairs, str):
        return _nothing(pairs), _nothing(pairs)
    ratio, difference = pairs.recovery(), pairs.difference()
    if pairs.left_out and ratio.estimate.reason is None:
        note = f"{pairs.left_out} rows have no partner and are left out"
        ratio = replace(ratio, estimate=replace(ratio.estimate, reason=note))
        difference = replace(difference, estimate=replace(difference.estimate, reason=note))
    return ratio, difference


def _of_means(
    variant: VariantInput, pairs: Mapping[str, Pairs], suites: Mapping[str, SuiteMeta]
) -> RecoveryResult | None:
    """Recovery of means over the suites that could be paired; None for a reference."""
    if variant.baseline is None or variant.baseline == variant.name:
        return None
    estimate = recovery_of_means(pairs)
    left_out = [suite for suite in suites if suite not in pairs]
    if left_out and estimate.value is not None:
        note = f"over {len(pairs)} of {len(suites)} suites, without {', '.join(left_out)}"
        estimate = replace(estimate, reason=note)
    discordant = sum(a != b for p in pairs.values() for a, b in zip(p.variant, p.baseline, strict=True))
    return RecoveryResult.model_validate(
        {**rounded(estimate), "n_discordant": discordant, "baseline": variant.baseline, "suites": list(pairs)}
    )


def _mean(
    variant: VariantInput, ratios: Mapping[str, Estimate], recoveries: Mapping[str, RecoveryResult]
) -> RecoveryResult:
    if variant.baseline is None or variant.baseline == variant.name:
        estimate, used = undefined(REFERENCE), []
    else:
        estimate = mean_of_recoveries(ratios)
        used = [suite for suite, ratio in ratios.items() if ratio.value is not None]
    return RecoveryResult.model_validate(
        {
            **rounded(estimate),
            "n_discordant": sum(recoveries[suite].n_discordant for suite in used),
            "baseline": variant.baseline,
            "suites": used,
        }
    )
