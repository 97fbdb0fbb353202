"""What worker processes set before they import libraries that print, draw bars or start threads of their own."""

from __future__ import annotations

import os

_VARIABLES = {
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def quieten() -> None:
    """Set the variables that are not set yet."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
