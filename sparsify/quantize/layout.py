"""The compressed-tensors `int-quantized` layout, which transformers and vLLM open.

No `sparsity_config` is ever written: vLLM refuses any (vllm#51188), and zeros need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def quantization_config(ignored: Sequence[str]) -> dict[str, Any]:
    """The `quantization_config` of a W8A8 checkpoint whose linears `ignored` (module names) are left as they are."""
    common = {"num_bits": 8, "type": "int", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**common, "strategy": "channel", "dynamic": False},
                "input_activations": {**common, "strategy": "token", "dynamic": True},
                "output_activations": None,
            }
        },
        "ignore": sorted(ignored),
        "kv_cache_scheme": None,
    }
