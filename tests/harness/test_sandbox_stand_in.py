"""The judge's `allclose` against numpy's own, and what happens where a test asks for more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, SandboxUnavailable
from harness.evaluate.sandbox import Job, Problem, open_sandbox
from harness.evaluate.sandbox.stand_in import MissingFromStandIn, allclose

_NUMBERS = st.one_of(
    st.floats(width=64),
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-9, 1.0 + 1e-6, float("inf"), float("nan"), 1e308]),
    st.integers(-(2**40), 2**40),
    st.booleans(),
    st.complex_numbers(max_magnitude=1e150),
)
_VALUES = st.recursive(_NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner), max_leaves=6)
_ODD = st.one_of(_VALUES, st.none(), st.text(max_size=2), st.just({}), st.just([1, [2]]), st.just([[1.0], [2.0, 3.0]]))


def _outcome(function: object, *args: object) -> object:
    try:
        with np.errstate(all="ignore"):
            return bool(function(*args))  # type: ignore[operator]
    except (TypeError, ValueError):
        return "refused"


@settings(max_examples=600, deadline=None)
@given(_ODD, _ODD, st.sampled_from([1e-7, 1e-5, 0.0]), st.sampled_from([0.0, 1e-6]), st.booleans())
def test_it_agrees_with_numpy(a: object, b: object, rtol: float, atol: float, nan: bool) -> None:
    assert _outcome(allclose, a, b, rtol, atol, nan) == _outcome(np.allclose, a, b, rtol, atol, nan), (a, b)


@settings(max_examples=200, deadline=None)
@given(_VALUES, st.sampled_from([1e-9, 1e-7, 1e-6, 1e-3]))
def test_it_agrees_with_numpy_on_values_that_differ_little(a: object, shift: float) -> None:
    def moved(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [moved(item) for item in value]
        return value * (1 + shift)  # type: ignore[operator]

    assert _outcome(allclose, a, moved(a), 1e-7, 1e-6) == _outcome(np.allclose, a, moved(a), 1e-7, 1e-6)


def test_broadcasting_and_empty_arrays_are_numpys() -> None:
    pairs = [([], 1.0), ([], []), ([[]], []), ([1.0], 1.0), ([[1.0], [2.0]], [1.0, 2.0]), ([1.0, 1.0], [[1.0], [1.0]])]
    pairs += [
        ([1.0, 2.0], [1.0, 2.0, 3.0]),
        (10**30, 10**30),
        ([10**30], [1.0]),
        ([1.0], [10**30]),
        (None, []),
        ([], None),
        ("a", []),
        ({}, [[]]),
        (range(3), [0, 1, 2]),
    ]
    for a, b in pairs:
        for nan in (False, True):
            options = (1e-5, 1e-8, nan)
            assert _outcome(allclose, a, b, *options) == _outcome(np.allclose, a, b, *options), (a, b, nan)


def test_more_of_numpy_stops_the_run_and_fails_no_program() -> None:
    from harness.evaluate.sandbox import stand_in

    with pytest.raises(MissingFromStandIn, match="numpy.mean"):
        _ = stand_in.mean  # type: ignore[attr-defined]
    try:
        sandbox = open_sandbox(workers=1)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    good = "def f(x):\n    return x * 0.1\n"
    head = "import numpy as np\ndef check(candidate):\n"
    close = Problem("t", "", head + "    assert np.allclose(candidate(3), 0.3) and candidate(3) != 0.3\n", "f")
    assert sandbox.run([Job(close, good)])[0].passed
    more = Problem("t", "", head + "    assert np.mean([candidate(3)])\n", "f")
    with pytest.raises(ConfigError, match=r"problem t: its test uses numpy\.mean, which the judge does not offer"):
        sandbox.run([Job(more, good)])
    user = sandbox.run([Job(close, "import numpy\ndef f(x):\n    return 0.3\n")])
    assert user[0].status == "error:ModuleNotFoundError"
