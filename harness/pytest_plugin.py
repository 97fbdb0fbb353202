"""pytest plugin: `pytest --sparsebench-gate=RUN` makes each check of the gate a test. Until asked it loads nothing."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("sparsebench", "sparsebench: each check of the gate is a test")
    group.addoption(
        "--sparsebench-gate",
        metavar="RUN",
        default=None,
        help="check the run in this folder: one test for each check (write it with =)",
    )
    group.addoption(
        "--sparsebench-against",
        metavar="DIR",
        action="append",
        default=[],
        help="folder or summary.json of an earlier run that nothing may be worse than; repeatable",
    )
    group.addoption(
        "--sparsebench-study", metavar="STUDY", default=None, help="take the rules from this study, not the run's own"
    )
    group.addoption(
        "--sparsebench-inconclusive",
        choices=("fail", "xfail", "skip"),
        default="fail",
        help="what a test is whose check too few items decide (default: fail)",
    )
    group.addoption(
        "--sparsebench-allow-different-data",
        action="store_true",
        help="pair with the earlier run by item although data, prompts or template differ",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that ask for nothing."""
    if config.getoption("sparsebench_gate") is None:
        for option in ("against", "study", "allow_different_data"):
            if config.getoption(f"sparsebench_{option}"):
                raise pytest.UsageError(
                    f"--sparsebench-{option.replace('_', '-')} needs a run: give --sparsebench-gate RUN"
                )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the checks, before `-k` chooses among all tests."""
    run = config.getoption("sparsebench_gate")
    if run is None:
        return
    from harness.gate.as_tests import GateRequest, gate_items

    request = GateRequest(
        run=Path(run),
        against=tuple(Path(path) for path in config.getoption("sparsebench_against")),
        study=config.getoption("sparsebench_study"),
        inconclusive=config.getoption("sparsebench_inconclusive"),
        allow_different_data=config.getoption("sparsebench_allow_different_data"),
    )
    items.extend(gate_items(session, request))
