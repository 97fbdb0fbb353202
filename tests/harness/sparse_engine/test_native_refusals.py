"""What the native decoder refuses: wrong calls, states, structures and shapes, each in words."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("harness.engines.sparse._kernels")

from harness.engines.sparse._kernels import Decoder
from harness.engines.sparse.native import NativeModel, Unsupported

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("native_models.py"))))

BAD_CALLS = {
    "row 2 is not one of the state's 2 rows": ([2], [[1]], 1),
    "row -1 is not one": ([-1], [[1]], 1),
    "row 0 was given twice": ([0, 0], [[1], [2]], 1),
    "row 1 was given no tokens": ([0, 1], [[1], []], 1),
    "token 131 is outside the vocabulary of 131": ([0], [[131]], 1),
    "token -1 is outside": ([0], [[5, -1]], 1),
    "row 0: logits of 2 tokens were asked for, of 1 given": ([1, 0], [[1, 2], [1]], 2),
    "more tokens were asked for than were given": ([0], [[1]], 1 << 60),
    "keep must not be negative": ([0], [[1]], -1),
    "row 0 has 3 tokens and a capacity of 8: no room for 6 more": ([0], [[1] * 6], 1),
    "as many lists of tokens": ([0], [[1], [2]], 1),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_wrong_calls_change_nothing(message: str) -> None:
    decoder = kit.native(kit.make_model("llama"))
    state = decoder.new_state(8, rows=2)
    decoder.forward(state, [0], [[1, 2, 3]])
    rows, tokens, keep = BAD_CALLS[message]
    with pytest.raises(ValueError, match=message):
        decoder.forward(state, rows, tokens, keep=keep)
    assert state.lengths == [3, 0]


def test_wrong_states_and_steps() -> None:
    decoder = kit.native(kit.make_model("llama"))
    with pytest.raises(ValueError, match="capacity must be"):
        decoder.new_state(0)
    with pytest.raises(ValueError, match="rows must be"):
        decoder.new_state(8, rows=0)
    with pytest.raises(ValueError, match="more than the model's 256 positions"):
        kit.native(kit.make_model("opt")).new_state(257)
    state = decoder.new_state(8)
    with pytest.raises(ValueError, match="cannot be cut to 3"):
        state.truncate(0, 3)
    with pytest.raises(ValueError, match="not one of"):
        state.drop(1)
    with pytest.raises(ValueError, match="steps must be"):
        decoder.greedy(state, [0], [1], steps=9)
    decoder.forward(state, [0], [[1, 2, 3]])
    with pytest.raises(ValueError, match="no room for 6"):
        decoder.greedy(state, [0], [1], steps=6)
    with pytest.raises(ValueError, match="threads"):
        state.forward([0], [[1]], threads=0)
    with pytest.raises(ValueError, match="isa must be"):
        state.forward([0], [[1]], isa="avx9000")


def test_unknown_structures_are_refused_by_name() -> None:
    model = kit.make_model("llama")
    matrices = kit.float_matrices(model)
    del matrices["model.layers.1.mlp.up_proj"]
    with pytest.raises(Unsupported, match=r"model\.layers\.1\.mlp\.up_proj has no packed matrix"):
        NativeModel.build(model, matrices)
    model.config.model_type = "mixtral"
    with pytest.raises(Unsupported, match="mixtral"):
        NativeModel.build(model, matrices)
    with pytest.raises(Unsupported, match="opt-350m"):
        kit.native(kit.make_model("opt", do_layer_norm_before=False))
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(Unsupported, match="dynamic"):
        kit.native(kit.make_model("llama", rope_parameters=dynamic))
    with pytest.raises(Unsupported, match="QuickGELU"):
        kit.native(kit.make_model("llama", hidden_act="quick_gelu"))


def test_matrices_of_the_wrong_shape_are_an_error() -> None:
    model = kit.make_model("llama")
    matrices = kit.float_matrices(model)
    matrices["model.layers.2.mlp.down_proj"] = matrices["model.layers.2.mlp.up_proj"]
    with pytest.raises(ValueError, match="layer 2: down is 80 x 48, not 48 x 80"):
        NativeModel.build(model, matrices)
    with pytest.raises(TypeError):
        Decoder(hidden=3)


@pytest.mark.parametrize(
    ("target", "source", "said"),
    [
        # Streams of 40, 32, 40, 24, 36, 17 and 48: a shortcut that takes another width, and one that gives another.
        ("1.attn_shortcut", "0.attn_shortcut", "layer 1: output is 24 x 48, not 32 x 48"),
        ("2.attn_shortcut", "1.attn_shortcut", "layer 2: output is 17 x 48, not 24 x 48"),
        ("2.mlp_shortcut", "1.mlp_shortcut", "layer 2: down is 48 x 80, not 36 x 80"),
    ],
)
def test_shortcuts_of_the_wrong_shape_are_an_error(target: str, source: str, said: str) -> None:
    """Widths of a sliced model must follow from each other, from the embedding to the head."""
    model = kit.make_model("sliced-llama")
    matrices = kit.float_matrices(model)
    matrices[f"model.layers.{target}"] = matrices[f"model.layers.{source}"]
    with pytest.raises(ValueError, match=said):
        NativeModel.build(model, matrices)


def test_a_head_that_does_not_fit_the_last_width() -> None:
    model = kit.make_model("sliced-llama")
    matrices = kit.float_matrices(model)
    matrices["lm_head"] = matrices["model.layers.0.mlp.up_proj"]
    with pytest.raises(ValueError, match="head is 80 x 32, not 131 x 48"):
        NativeModel.build(model, matrices)
