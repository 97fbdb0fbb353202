"""One run of the benchmark: makes the arms that are missing, hashes each, then measures it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.bench.machine import busy_between, describe_machine, read_activity
from harness.bench.sparsify.arms import Arm, peer_steps, recipe_of
from harness.bench.sparsify.effective import LinearErrors, count_zeros, effective_weights, stored_masks
from harness.bench.sparsify.journal import Journal
from harness.bench.sparsify.subjects import Settings, Subject, calibration_windows, probe_windows
from harness.bench.sparsify.windows import perplexity, write_token_file
from harness.bench.sparsify.workers import Worker
from harness.progress import Phase
from sparsify.corpus import sha256_file
from sparsify.files import empty_directory, sha256_json
from sparsify.run import STAGE_VERSIONS

if TYPE_CHECKING:
    from torch import Tensor

CORPUS = "calibration"
_BATCH_TOKENS = 8192
TIMED = (
    Arm("sparsegpt", "50"),
    Arm("sparsegpt", "50", peer=True),
    Arm("sparsegpt+refine", "50"),
    Arm("sparsegpt", "2:4"),
    Arm("sparsegpt", "2:4", peer=True),
    Arm("sparsegpt+refine", "2:4"),
)
"""Arms whose time is measured again and again in turn; each of ours stands next to the peer's."""


@dataclass
class Session:
    """What a run needs.

    Attributes:
        subject: The model.
        settings: Of all arms.
        journal: Where results go.
        work: Folder for variants and logs.
        ours: The process that makes our variants.
        peer: The process that runs llm-compressor; None leaves its arms out.
        quiet: Show no progress.
    """

    subject: Subject
    settings: Settings
    journal: Journal
    work: Path
    ours: Worker
    peer: Worker | None
    quiet: bool = False
    _errors: LinearErrors | None = field(default=None, init=False)

    def run(self, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
        """Run what is missing: the arms that claims rest on, the timed rounds, and then the other arms."""
        self.dense()
        had = [arm for arm in arms if self.peer is not None or not arm.peer]
        claimed = [(arm, seed) for seed in seeds for arm in had if arm.claimed]
        self._arms(claimed)
        self.timings([arm for arm in TIMED if arm in had], seeds[0])
        self._arms([(arm, seeds[0]) for arm in had if not arm.claimed])

    def _arms(self, todo: Sequence[tuple[Arm, int]]) -> None:
        missing = [(arm, seed) for arm, seed in todo if self._known(arm, seed) is None]
        with Phase(self.subject.name, len(missing), quiet=self.quiet) as phase:
            for index, (arm, seed) in enumerate(missing):
                phase.update(index, len(missing), f"{arm.name} seed {seed}")
                phase.say(f"{self.subject.name} {arm.name} seed {seed}: {_told(self.arm(arm, seed))}")

    def key(self, **more: Any) -> dict[str, Any]:
        """What a result belongs to.

        Not to the state of our code, which each line names instead (`stages`, `code_sha256`): to measure all arms anew
        after a change, give another folder.
        """
        return {
            "model": self.subject.name,
            "model_sha256": self._model_sha256,
            "settings_sha256": sha256_json(asdict(self.settings)),
            **more,
        }

    def dense(self) -> dict[str, Any]:
        """The dense model's own perplexities."""
        key = self.key(kind="dense")
        found = self.journal.find(**key)
        if found is not None:
            return found
        measured = self._measure(self.subject.directory, masks=None, nm=None)
        line = {
            **key,
            "settings": asdict(self.settings),
            "parameters_of_linears": self.errors.parameters,
            "calibration": self.subject.says,
            "machine": describe_machine(),
            **measured,
        }
        self.journal.add(line)
        return line

    def arm(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Make, hash and measure one arm, unless that was done."""
        key = self.key(kind="arm", arm=arm.name, seed=seed)
        known = self._known(arm, seed)
        if known is not None:
            return known
        out, store = self.work / "variant", self.work / "stages"
        for folder in (out, store):
            shutil.rmtree(folder, ignore_errors=True)
        answer = self._make(arm, seed, out, store)
        if "error" not in answer:
            masks = self._peer_masks(arm, seed) if arm.peer else stored_masks(out)
            answer |= self._measure(out, masks=masks, nm=arm.nm)
            if arm.peer and not arm.quantize and "error" not in answer:
                self._keep_masks(arm, seed)
        code = {"stages": dict(STAGE_VERSIONS), "code_sha256": self._code_sha256}
        line = {**key, "peer": arm.peer, **code, **answer}
        self.journal.add(line)
        return line

    def timings(self, arms: Sequence[Arm], seed: int) -> None:
        """Time the arms in turn, `repeats` rounds; each process makes one arm before the clock counts."""
        key = self.key(kind="times")
        lines = [line for line in self.journal.lines if all(line.get(name) == value for name, value in key.items())]
        if {arm.name for arm in arms} <= {name for line in lines for name in line["times"]}:
            return
        times: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
        for peer in {arm.peer: arm for arm in arms}.values():
            self._timed(peer, seed)
        before = read_activity()
        total = self.settings.repeats * len(arms)
        with Phase("timing", total, quiet=self.quiet) as phase:
            for round_ in range(self.settings.repeats):
                for index, arm in enumerate(arms if round_ % 2 else arms[::-1]):
                    phase.update(round_ * len(arms) + index, total, f"{self.subject.name} {arm.name}")
                    times[arm.name].append(self._timed(arm, seed))
        busy = busy_between(before, read_activity())
        self.journal.add({**key, "times": times, "busy": busy, "versions": self._versions()})

    def _timed(self, arm: Arm, seed: int) -> dict[str, Any]:
        out, store = self.work / "timed", self.work / "timed-stages"
        for folder in (out, store):
            shutil.rmtree(folder, ignore_errors=True)
        return self._make(arm, seed, out, store)

    @property
    def errors(self) -> LinearErrors:
        """The dense model's Gram matrices on the probe windows, made when first needed."""
        if self._errors is None:
            self._errors = LinearErrors(self.subject.directory, probe_windows(self.subject, self.settings))
        return self._errors

    def _known(self, arm: Arm, seed: int) -> dict[str, Any] | None:
        """The arm's line, unless it is missing or the arm failed."""
        found = self.journal.find(**self.key(kind="arm", arm=arm.name, seed=seed))
        return None if found is None or "error" in found else found

    @cached_property
    def _model_sha256(self) -> str:
        from sparsify.checkpoint import model_fingerprint

        return model_fingerprint(self.subject.directory)

    @cached_property
    def _code_sha256(self) -> str:
        """Of the source of `sparsify`: which state of our own code made a variant."""
        import sparsify

        root = Path(sparsify.__file__).parent
        return sha256_json({str(path.relative_to(root)): sha256_file(path) for path in sorted(root.rglob("*.py"))})

    def _make(self, arm: Arm, seed: int, out: Path, store: Path) -> dict[str, Any]:
        settings = self.settings
        model = str(self.subject.directory)
        if arm.peer:
            assert self.peer is not None
            tokens = self.work / f"{self.subject.name}-{seed}.tokens.json"
            write_token_file(tokens, calibration_windows(self.subject, settings, seed))
            request: dict[str, Any] = {
                "model": model,
                "tokens": str(tokens),
                "out": str(out),
                "batch": max(1, _BATCH_TOKENS // settings.seq),
                "steps": peer_steps(arm),
            }
            return {"steps": request["steps"], **self.peer.ask(request)}
        calibration = {"source": CORPUS, "samples": settings.samples, "seq": settings.seq, "seed": seed}
        request = {
            "model": model,
            "recipe": recipe_of(arm, calibration),
            "name": "arm",
            "corpora": {CORPUS: str(self.subject.calibration)},
            "out": str(out),
            "store": str(store),
        }
        return {"recipe": request["recipe"], **self.ours.ask(request)}

    def _measure(self, variant: Path, *, masks: dict[str, Tensor] | None, nm: tuple[int, int] | None) -> dict[str, Any]:
        """Hash the variant; only then is evaluation text asked for."""
        import torch

        from harness.engines._load import load_model
        from sparsify.checkpoint import open_checkpoint

        sha256 = open_checkpoint(variant).weights_sha256
        model = load_model(variant, device=torch.device("cpu"), dtype="float32")
        weights = effective_weights(model, self.errors.linears)
        changed = self.errors.changed_others(model)
        if changed:
            return {"error": f"{changed[0]} outside the linears was changed ({len(changed)} such tensors)"}
        errors = self.errors.of(weights)
        return {
            "variant_sha256": sha256,
            "bytes": open_checkpoint(variant).bytes,
            "zeros": asdict(count_zeros(weights, masks, nm)),
            "linear_error": math.fsum(errors.values()) / len(errors),
            "linear_errors": {name: round(value, 8) for name, value in errors.items()},
            "perplexity": {text.name: perplexity(model, text.windows(sha256)) for text in self.subject.texts},
        }

    def _mask_file(self, name: str, seed: int) -> Path:
        return self.work / "masks" / f"{self.subject.name}-{name.replace(':', '_')}-{seed}"

    def _keep_masks(self, arm: Arm, seed: int) -> None:
        from sparsify.checkpoint import open_checkpoint
        from sparsify.masks import save_masks

        checkpoint = open_checkpoint(self.work / "variant")
        masks = {f"{name}.weight": checkpoint.read(f"{name}.weight") != 0 for name in self.errors.linears}
        save_masks(masks, empty_directory(self._mask_file(arm.name, seed)))

    def _peer_masks(self, arm: Arm, seed: int) -> dict[str, Tensor] | None:
        if not arm.quantize:
            return None
        kept = self._mask_file(arm.masks_of, seed)
        return stored_masks(kept) if kept.is_dir() else None

    def _versions(self) -> dict[str, Any]:
        return {"ours": self.ours.versions, "peer": self.peer.versions if self.peer else None}


def _told(line: dict[str, Any]) -> str:
    if "error" in line:
        return f"failed: {line['error']}"
    shown = ", ".join(f"{name} {value:.3f}" for name, value in line["perplexity"].items())
    return f"perplexity {shown}, error {line['linear_error']:.4f}, {line['seconds']:.1f} s"
