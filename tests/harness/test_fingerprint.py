"""Fingerprints change with what results depend on and with nothing else."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.errors import ConfigError
from harness.fingerprint import (
    chat_template_sha256,
    environment,
    model_fingerprint,
    plan_sha256,
    tokenizer_sha256,
    weights_sha256,
)
from sparsify.checkpoint import open_checkpoint
from sparsify.errors import CheckpointError


def write_weights(file: Path, value: float) -> None:
    save_file({"layer.weight": np.full((2, 2), value, dtype=np.float32)}, file)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_weights(folder / "model.safetensors", 1.0)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "config.json").write_text("{}")
    return folder


def test_the_weights_hash_is_the_one_that_variants_carry(model: Path) -> None:
    before = weights_sha256(model)
    assert before == open_checkpoint(model).weights_sha256 and len(before) == 64
    write_weights(model / "masks.safetensors", 0.0)
    (model / "variant.json").write_text("{}")
    (model / "config.json").write_text('{"a": 1}')
    assert weights_sha256(model) == before, "neither masks nor settings are weights"
    write_weights(model / "model.safetensors", 2.0)
    assert weights_sha256(model) != before


def test_each_part_has_its_own_hash(model: Path) -> None:
    before = model_fingerprint(model)
    (model / "tokenizer.json").write_text('{"version": 2}')
    after = model_fingerprint(model)
    assert after["tokenizer_sha256"] != before["tokenizer_sha256"]
    assert (after["weights_sha256"], after["chat_template_sha256"]) == (
        before["weights_sha256"],
        before["chat_template_sha256"],
    )
    write_weights(model / "model.safetensors", 2.0)
    assert model_fingerprint(model)["weights_sha256"] != before["weights_sha256"]


def test_the_template_is_the_same_wherever_it_is_kept(model: Path) -> None:
    inside = chat_template_sha256(model)
    assert inside == hashlib.sha256(b"{{ messages }}").hexdigest()
    (model / "tokenizer_config.json").write_text("{}")
    assert chat_template_sha256(model) is None
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert chat_template_sha256(model) == inside


def test_missing_parts_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError):
        weights_sha256(tmp_path)
    with pytest.raises(ConfigError, match="no tokenizer files"):
        tokenizer_sha256(tmp_path)


def test_plan_hash_sees_order_and_content() -> None:
    plan = [("a", "1"), ("b", "2")]
    hashes = {plan_sha256(p) for p in (plan, plan[::-1], plan[:1], [("a", "1"), ("b", "3")], [("a", "1b"), ("", "2")])}
    assert len(hashes) == 5


def test_environment_names_versions_and_machine_but_no_place() -> None:
    found = environment()
    assert {"python", "torch", "transformers", "lm_eval", "sparsebench", "cpu", "cores", "platform"} <= set(found)
    assert found["python"] == platform.python_version() and found["cores"] >= 1 and found["cpu"]
    values = [str(value) for value in found.values()]
    assert platform.node() not in values
    assert not any(value.startswith("/") or str(Path.cwd()) in value for value in values)


def test_environment_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.fingerprint import environment; environment()\n"
        "print(sorted({'torch', 'transformers', 'lm_eval', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
