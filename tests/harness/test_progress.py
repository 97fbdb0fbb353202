"""What a phase says where there is no terminal."""

from __future__ import annotations

import time

import pytest

from harness.progress import Phase


def test_an_estimate_comes_only_when_it_can_mean_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Phase("speed", 1) as phase:
        for now, done in ((10.0, 0.2), (20.0, 0.001), (40.0, 0.25), (41.0, 0.3), (60.0, 1.4)):
            clock[0] = now
            phase.update(done, 1.0, "note")
    told = capsys.readouterr().err.splitlines()
    assert told == ["speed: 0 % (note)", "speed: 25 %, about 120 s left (note)", "speed: 100 % (note)"]
