"""What training costs: measured tokens per second, dense and sparse in turn, and the operations in theory."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.bench.recover.arms import MIX, Arm
from harness.bench.recover.corpora import corpus_file
from harness.bench.recover.piece import Place, Send
from harness.bench.recover.recipes import prune_stage
from harness.bench.recover.settings import Settings
from harness.corpus import write_rows
from harness.models import public_name
from sparsify.files import empty_directory

_CE = {"ce": 1.0}
_TAUGHT = {"ce": 1.0, "squarehead": 1.0}
DENSE_CE = "dense, CE"
_ROWS = 1000


@dataclass(frozen=True)
class Operations:
    """Float operations of one token's forward pass.

    Attributes:
        linears: In the linears of the blocks, 2 for each weight.
        others: In the head and the attention products.
    """

    linears: float
    others: float

    def training(self, density: float = 1.0, *, taught: bool = False) -> float:
        """Of a training step's token: forward and twice that backward, and forward through a dense teacher.

        Both backward products of a linear, for its input and its weight, need the surviving weights alone, so that all
        three scale with `density`: what hardware that skips every zero would do.
        """
        teacher = self.linears + self.others if taught else 0.0
        return 3 * (density * self.linears + self.others) + teacher


def operations_of(model_dir: Path, tokens: float) -> Operations:
    """Operations of a model's forward pass on rows of `tokens` tokens.

    Attention is counted as it is computed, over the whole row: 4 x row length x width of the heads, for each block.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from sparsify.blocks import find_structure, linear_weight

    config = AutoConfig.from_pretrained(model_dir)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    structure = find_structure(model)
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or 0) or config.hidden_size
    head = model.get_output_embeddings().weight.numel()
    linears = sum(linear_weight(model, name).numel() for name in structure.all_linears)
    return Operations(2.0 * linears, 2.0 * head + 4.0 * tokens * width * len(structure.blocks))


@dataclass(frozen=True)
class CostTask:
    """Times short trainings in turn: dense and 70 % sparse, with and without a teacher; the first round does not count.

    Attributes:
        arm, seed: Its place in the list of pieces.
        settings: Budgets.
        place: Where.
    """

    arm: Arm
    seed: int
    settings: Settings
    place: Place

    @property
    def name(self) -> str:
        """How progress calls it."""
        return "training cost"

    @property
    def needs(self) -> frozenset[tuple[str, int]]:
        """Nothing: it starts from the base model."""
        return frozenset()

    def run(self, send: Send) -> dict[str, Any]:
        """The measured line."""
        import torch

        from harness.bench.machine import busy_between, read_activity
        from sparsify.masks import load_masks

        torch.set_num_threads(self.place.threads)
        sparse = self._pruned()
        masks = load_masks(sparse)
        zeros = 1 - sum(int(m.sum()) for m in masks.values()) / max(1, sum(m.numel() for m in masks.values()))
        label = f"{self.arm.pattern} % sparse"
        arms: dict[str, tuple[Path, Mapping[str, Any], Mapping[str, float]]] = {
            DENSE_CE: (self.place.base, {}, _CE),
            f"{label}, CE": (sparse, masks, _CE),
            "dense, CE + SquareHead": (self.place.base, {}, _TAUGHT),
            f"{label}, CE + SquareHead": (sparse, masks, _TAUGHT),
        }
        text, length = self._text()
        before = read_activity()
        speeds: dict[str, list[float]] = {name: [] for name in arms}
        total = (self.settings.cost_rounds + 1) * len(arms)
        for round_ in range(self.settings.cost_rounds + 1):
            for index, name in enumerate(arms if round_ % 2 else reversed(arms)):
                send("progress", ((round_ * len(arms) + index) / total, name))
                speed = self._timed(*arms[name], text)
                if round_:
                    speeds[name].append(round(speed, 1))
        busy = busy_between(before, read_activity())
        operations = operations_of(self.place.base, length)
        rows = [
            {
                "name": name,
                "tokens_per_s": speeds[name],
                "operations": operations.training(1 - zeros if held else 1.0, taught=losses is _TAUGHT),
            }
            for name, (_, held, losses) in arms.items()
        ]
        return {"rows": rows, "zeros": zeros, "row_tokens": length, "threads": self.place.threads, "busy": busy}

    def _text(self) -> tuple[Path, float]:
        """A few rows of the fine-tuning text, and the length of the row that a token is in, on average."""
        from sparsify.blocks import load_tokenizer
        from sparsify.corpus import encode_rows, read_rows

        path = self.place.layout.corpora / f"cost-{_ROWS}.jsonl"
        whole = corpus_file(MIX, self.settings, self.place.layout.corpora)
        write_rows(path, itertools.islice(read_rows(whole), _ROWS))
        lengths = [
            min(len(row.ids), self.settings.seq)
            for row in encode_rows(list(read_rows(path)), load_tokenizer(self.place.base))
        ]
        return path, sum(length**2 for length in lengths) / sum(lengths)

    def _pruned(self) -> Path:
        from sparsify.recipe import parse_recipe
        from sparsify.run import MakeOptions, make_variant

        recipe = parse_recipe({"stages": [prune_stage(self.arm.pattern, 0, self.settings)]}, name="cost", where="cost")
        out = self.place.layout.variant(f"cost-{self.arm.pattern}")
        texts = self.place.layout.corpora
        options = MakeOptions(
            store=self.place.layout.store,
            name=out.name,
            base=public_name(self.settings.model),
            resolve_corpus=lambda name: corpus_file(name, self.settings, texts),
        )
        make_variant(self.place.base, recipe, out, options=options)
        return out

    def _timed(self, model: Path, masks: Mapping[str, Any], losses: Mapping[str, float], text: Path) -> float:
        """Real tokens per second of the training steps alone."""
        from sparsify.train import TrainJob, TrainSettings, train

        settings = TrainSettings.model_validate(
            {
                "tokens": self.settings.cost_tokens,
                "batch_tokens": self.settings.batch_tokens,
                "seq": self.settings.seq,
                "optimizer": "muon",
                "lr": self.settings.rates[0],
                "muon_lr": self.settings.rates[0] * self.settings.muon_ratio,
                "losses": losses,
                "precision": self.settings.precision,
            }
        )
        out = empty_directory(self.place.work / "cost")
        teacher = self.place.base if settings.losses.needs_teacher else None
        job = TrainJob(model, out / "model", out / "state", [text], teacher_dir=teacher, masks=masks)
        stats = train(job, settings)
        return stats.tokens / stats.seconds
