"""What is known of hub models and data sets without the hub: shapes of the papers' models, sizes of the test splits.

A dry run of a study on models that are not here plans from these, and says so. The configurations are facts of public
checkpoints, recorded in `harness/studies/configs` with where they were read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cells import SuitePlan
from suites.data import data_file

if TYPE_CHECKING:
    from torch import nn

_CONFIGS = Path(__file__).with_name("studies") / "configs"

# Rows of test splits by (hub id, configuration, split).
_ROWS: Mapping[tuple[str, str | None, str], int] = {
    ("openai/gsm8k", "main", "test"): 1319,
    ("openai/openai_humaneval", "openai_humaneval", "test"): 164,
    ("baber/piqa", None, "validation"): 1838,
    ("allenai/winogrande", "winogrande_xl", "validation"): 1267,
    ("Rowan/hellaswag", None, "validation"): 10042,
    ("allenai/ai2_arc", "ARC-Easy", "test"): 2376,
    ("allenai/ai2_arc", "ARC-Challenge", "test"): 1172,
    ("cais/mmlu", "all", "test"): 14042,
    ("google/IFEval", None, "train"): 541,
    ("abisee/cnn_dailymail", "3.0.0", "test"): 11490,
    ("abisee/cnn_dailymail", "3.0.0", "validation"): 13368,
}


@dataclass(frozen=True)
class RecordedModel:
    """The shape of a hub model.

    Attributes:
        name: The hub id that it was asked for by.
        source: Where the configuration was read.
        parameters: As published.
        bytes_per_parameter: Of the stored weights.
        config: Of transformers.
    """

    name: str
    source: str
    parameters: int
    bytes_per_parameter: int
    config: Mapping[str, Any]

    @property
    def stored(self) -> int:
        """Bytes of the weight files."""
        return self.parameters * self.bytes_per_parameter

    def skeleton(self) -> nn.Module:
        """The model without weights."""
        return _skeleton(self.name)


def recorded_model(name: str) -> RecordedModel | None:
    """The recorded shape of a hub model (`org/name`, with or without `@revision`), or None."""
    return _recorded().get(name.partition("@")[0])


@cache
def _recorded() -> dict[str, RecordedModel]:
    found = {}
    for path in sorted(_CONFIGS.glob("*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        for name in (path.stem.replace("--", "/"), *body.get("also", ())):
            found[name] = RecordedModel(
                name, body["source"], body["parameters"], body["bytes_per_parameter"], body["config"]
            )
    return found


@cache
def _skeleton(name: str) -> nn.Module:
    from transformers import AutoConfig

    from sparsify.blocks import skeleton_of

    config = dict(_recorded()[name].config)
    return skeleton_of(AutoConfig.for_model(config.pop("model_type"), **config))


def recorded_items(plan: SuitePlan) -> int | None:
    """How many items a plan has by record, where its data would have to come from the hub; None where it is here."""
    full = plan.suite.data_of(plan.preset)
    if plan.suite.preset(plan.preset).data == "pocket" or full is None or full.hub is None:
        return None
    if plan.data_dir is not None or data_file(plan.suite, plan.preset, None) is not None:
        return None
    rows = _ROWS.get((full.hub, full.config, full.split))
    return rows if rows is None or plan.n is None else min(rows, plan.n)
