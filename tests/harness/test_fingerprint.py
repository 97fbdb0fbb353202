"""Fingerprints change with what results depend on and with nothing else."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.fingerprint import (
    chat_template_sha256,
    environment,
    model_fingerprint,
    plan_sha256,
    tokenizer_sha256,
    weights_sha256,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (folder / "config.json").write_text("{}")
    return folder


def test_one_file_hashes_as_sha256sum_does(model: Path) -> None:
    assert weights_sha256(model) == hashlib.sha256(b"weights").hexdigest()
    (model / "masks.safetensors").write_bytes(b"bits")
    (model / "variant.json").write_text("{}")
    assert weights_sha256(model) == hashlib.sha256(b"weights").hexdigest(), "masks are not weights"


def test_shards_hash_as_their_concatenation(model: Path) -> None:
    (model / "model.safetensors").unlink()
    index = {"weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors", "c": "model-1.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "model-1.safetensors").write_bytes(b"wei")
    with pytest.raises(ConfigError, match=r"model-2\.safetensors is missing"):
        weights_sha256(model)
    (model / "model-2.safetensors").write_bytes(b"ghts")
    (model / "stray.safetensors").write_bytes(b"not named by the index")
    assert weights_sha256(model) == hashlib.sha256(b"weights").hexdigest()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ConfigError, match="outside its folder"):
        weights_sha256(model)
    (model / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        weights_sha256(model)


def test_each_part_has_its_own_hash(model: Path) -> None:
    before = model_fingerprint(model)
    (model / "tokenizer.json").write_text('{"version": 2}')
    after = model_fingerprint(model)
    assert after["tokenizer_sha256"] != before["tokenizer_sha256"]
    assert (after["weights_sha256"], after["chat_template_sha256"]) == (
        before["weights_sha256"],
        before["chat_template_sha256"],
    )
    (model / "model.safetensors").write_bytes(b"Weights")
    assert model_fingerprint(model)["weights_sha256"] != before["weights_sha256"]


def test_the_template_is_the_same_wherever_it_is_kept(model: Path) -> None:
    inside = chat_template_sha256(model)
    assert inside == hashlib.sha256(b"{{ messages }}").hexdigest()
    (model / "tokenizer_config.json").write_text("{}")
    assert chat_template_sha256(model) is None
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert chat_template_sha256(model) == inside


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no safetensors weights"):
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
