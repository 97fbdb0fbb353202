"""What the verb `sparsify` does: make one variant of a model, or say what that will take."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError

if TYPE_CHECKING:
    from sparsify.variant import VariantInfo


@dataclass(frozen=True)
class SparsifyOptions:
    """Options of the verb.

    Attributes:
        teacher: Model that stages with `teacher: given` learn from.
        revision: Commit of a hub model.
        device: `cpu` or `cuda`.
        offline: Never use the network.
        quiet: No plan, no progress, no result.
        pack: Write the bitmask storage form too.
    """

    teacher: str | None = None
    revision: str | None = None
    device: str = "cpu"
    offline: bool = False
    quiet: bool = False
    pack: bool = False
    teacher_device: str | None = None


def plan(model: str, recipe: str, options: SparsifyOptions) -> str:
    """The memory and time plan as text."""
    directory, loaded = _open(model, recipe, options)
    return _plan(directory, loaded, options)


def make(model: str, recipe: str, out: Path, options: SparsifyOptions) -> None:
    """Make the variant in `out`, with its plan before and what was really used after.

    Started by torchrun, rank 0 does this, and the other processes take part in the stages that train.
    """
    from sparsify.train.launch import crew, launched

    if not launched():
        _make(model, recipe, out, options)
        return
    from sparsify.run import join

    os.environ["TQDM_DISABLE"] = "1"
    with crew(options.device) as leads:
        if leads:
            _make(model, recipe, out, options)
        else:
            join(options.device)


def _make(model: str, recipe: str, out: Path, options: SparsifyOptions) -> None:
    from harness.corpus import resolve_corpus
    from harness.models import model_directory, public_name
    from harness.progress import Phase
    from harness.report.linears import linears_svg, read_linears
    from sparsify.run import MakeOptions, make_variant

    directory, loaded = _open(model, recipe, options)
    work = out.parent / f".{out.name}.work"
    os.environ["TQDM_DISABLE"] = "1"
    made = MakeOptions(
        store=work / "stages",
        name=out.name,
        base=public_name(model, directory),
        resolve_corpus=lambda name: resolve_corpus(name, work / "corpora"),
        teacher_dir=model_directory(options.teacher, offline=options.offline) if options.teacher else None,
        device=options.device,
        teacher_device=options.teacher_device,
    )
    with Phase(f"sparsify {out.name}", 1, quiet=options.quiet) as phase:
        if not options.quiet:
            phase.say(_plan(directory, loaded, options).rstrip())
        info = make_variant(directory, loaded, out, options=made, progress=phase)
    shutil.rmtree(work, ignore_errors=True)
    linears = read_linears(out)
    if linears:
        (out / "linears.svg").write_text(linears_svg(linears, out.name), encoding="utf-8")
    packed = _pack(out) if options.pack else None
    if not options.quiet:
        print(_summary(out, info))
        if packed is not None:
            print(f"{packed}: {sum(path.stat().st_size for path in packed.glob('*.safetensors')) / 1e6:.2f} MB")


def _open(model: str, recipe: str, options: SparsifyOptions) -> tuple[Path, Any]:
    from harness.models import model_directory
    from sparsify.recipe import load_recipe

    if options.device.split(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"--device is cpu or cuda, not {options.device!r}")
    if options.offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    loaded = load_recipe(recipe)
    return model_directory(model, revision=options.revision, offline=options.offline), loaded


def _plan(directory: Path, recipe: Any, options: SparsifyOptions) -> str:
    import torch

    from sparsify.plan import Machine, plan_text

    return plan_text(directory, recipe, Machine(options.device, torch.get_num_threads()))


def _pack(out: Path) -> Path:
    from sparsify.files import commit, empty_directory
    from sparsify.packed import pack_checkpoint

    target = out.with_name(out.name + "-packed")
    part = empty_directory(out.with_name(f".{target.name}.part"))
    pack_checkpoint(out, part)
    shutil.rmtree(target, ignore_errors=True)
    commit(part, target)
    return target


def _summary(out: Path, info: VariantInfo) -> str:
    used = [stage["used"] for stage in info.stages if "used" in stage]
    lines = [
        f"{out}: {100 * (info.sparsity.linears or 0):.2f} % of the linears zero, "
        f"{100 * (info.sparsity.model or 0):.2f} % of the model, "
        f"{info.weight_bits}-bit linears, {info.bytes / 1e6:.2f} MB, opens with {', '.join(info.loaders)}"
    ]
    if info.masks is not None:
        lines.append(f"checked: {info.masks.pruned:,} pruned places, {info.masks.revived} of them revived")
    if used:
        host, device = (max(one[key] for one in used) for key in ("host_bytes", "device_bytes"))
        on_device = f", {device / 1e9:.2f} GB of device memory" if device else ""
        seconds = sum(one["seconds"] for one in used)
        lines.append(f"used: {seconds:.0f} s, {host / 1e9:.2f} GB of host memory above the start{on_device}")
    kinds: dict[str, int] = {}
    for event in info.events:
        kinds[event.kind] = kinds.get(event.kind, 0) + 1
    if kinds:
        lines.append("events: " + ", ".join(f"{kind} ({count})" for kind, count in kinds.items()))
    return "\n".join(lines)
