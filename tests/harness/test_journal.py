"""The journal loses nothing that was acknowledged: torn writes, kill -9, full files, two writers, foreign rows."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, CorruptRecordError, InfrastructureError
from harness.journal import Journal

KEY: dict[str, Any] = {"weights_sha256": "aa", "suite": "gsm8k", "stop": ["\n"], "seed": 0}


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"request_id": f"r{i}", "output": f"é\u2028\n{'x' * (i % 7)}", "n_out": i} for i in range(start, stop)]


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cell.jsonl"
    with Journal(path, KEY) as journal:
        journal.append(rows(0, 3))
        journal.append([])
        journal.append(rows(3, 5))
        assert list(journal) == ["r0", "r1", "r2", "r3", "r4"] and "r4" in journal and len(journal) == 5
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 7 and lines[-1] == b""
    with Journal(path, {**KEY, "stop": ("\n",)}) as journal:
        assert list(journal.rows.values()) == rows(0, 5)
        assert journal.dropped_bytes == 0
        journal.append(rows(5, 6))
    with Journal(path, KEY) as journal:
        assert len(journal) == 6


def test_rows_are_read_only_and_unique(tmp_path: Path) -> None:
    with Journal(tmp_path / "cell.jsonl", KEY) as journal:
        journal.append(rows(0, 2))
        before = journal.path.read_bytes()
        for batch in (rows(1, 2), rows(2, 3) * 2, [{"output": "no key"}]):
            with pytest.raises(ValueError, match="request_id or is there already"):
                journal.append(batch)
        assert journal.path.read_bytes() == before and len(journal) == 2
        with pytest.raises(TypeError):
            journal.rows["r9"] = {}  # type: ignore[index]


def test_text_that_utf8_cannot_hold_is_kept(tmp_path: Path) -> None:
    row = {"request_id": "r", "output": "half \ud83d of a pair"}
    with Journal(tmp_path / "cell.jsonl", KEY) as journal:
        journal.append([row])
    with Journal(tmp_path / "cell.jsonl", KEY) as journal:
        assert journal.rows["r"] == row


def test_another_cells_rows_are_refused_naming_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    with Journal(path, KEY) as journal:
        journal.append(rows(0, 1))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"differs in seed, weights_sha256\)"):
        Journal(path, {**KEY, "weights_sha256": "bb", "seed": 1})
    with pytest.raises(ConfigError, match=r"differs in preset\)"):
        Journal(path, {**KEY, "preset": "pocket"})
    assert path.read_bytes() == before
    path.write_bytes(before.replace(b'"schema_version":1', b'"schema_version":9'))
    with pytest.raises(ConfigError, match="schema version 9"):
        Journal(path, KEY)


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    first = Journal(path, KEY)
    with pytest.raises(ConfigError, match=f"another run is using {tmp_path}") as caught:
        Journal(path, KEY)
    assert caught.value.exit_code == 2
    first.append(rows(0, 1))
    first.close()
    first.close()
    with Journal(path, KEY) as second:
        assert len(second) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b'{"request_id": "r1", "out', "is not a row"), (b"\0\0\0\0", "is not a row"), (b"[1]", "is not a row"),
     (b'{"output": "x"}', "is not a row"), (b'{"request_id": "r0"}', "repeats a row")],
)  # fmt: skip
@pytest.mark.parametrize("last", [False, True])
def test_a_corrupt_complete_line_is_named_not_dropped(tmp_path: Path, line: bytes, reason: str, last: bool) -> None:
    path = tmp_path / "cell.jsonl"
    with Journal(path, KEY) as journal:
        journal.append(rows(0, 1))
        journal.append(rows(5, 6))
    lines = path.read_bytes().splitlines(keepends=True)
    lines.insert(3 if last else 2, line + b"\n")
    path.write_bytes(b"".join(lines))
    with pytest.raises(CorruptRecordError) as caught:
        Journal(path, KEY)
    assert f"{path}:{4 if last else 3} {reason}" in str(caught.value) and caught.value.exit_code == 3
    assert path.read_bytes() == b"".join(lines), "a file that is not understood must not be changed"


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    for content in (b"notes\n", b"\n", b'{"a": 1}\n'):
        path.write_bytes(content)
        with pytest.raises(CorruptRecordError, match=":1 is not a journal header"):
            Journal(path, KEY)
        assert path.read_bytes() == content


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_truncation_at_any_byte_loses_no_complete_row(data: st.DataObject, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("journal") / "cell.jsonl"
    written = [
        {"request_id": f"r{i}", "output": text}
        for i, text in enumerate(data.draw(st.lists(st.text(max_size=8), max_size=5)))
    ]
    with Journal(path, KEY) as journal:
        journal.append(written)
    whole = path.read_bytes()
    ends = [i for i, byte in enumerate(whole) if byte == 0x0A]
    at = data.draw(
        st.one_of(st.integers(0, len(whole)), st.sampled_from(ends), st.sampled_from(ends).map(lambda e: e + 1))
    )
    path.write_bytes(whole[:at])
    # A row is complete when all its bytes are there; the newline behind it may be missing.
    complete = max(sum(end <= at for end in ends) - 1, 0)
    with Journal(path, KEY) as journal:
        assert list(journal.rows.values()) == written[:complete]
        assert (journal.dropped_bytes > 0) == (at not in {0, *ends, *(end + 1 for end in ends)})
        journal.append(written[complete:])
    assert path.read_bytes() == whole, "a repaired journal continues as if it had never been cut"


WRITER = """
import json, sys
from pathlib import Path
from harness.journal import Journal
key = json.loads(sys.argv[2])
with Journal(Path(sys.argv[1]), key) as journal:
    start = len(journal)
    print("open", start, flush=True)
    for batch in range(start // 3, 10_000):
        journal.append([{"request_id": f"r{i}", "output": "y" * 5000} for i in range(3 * batch, 3 * batch + 3)])
        print(3 * batch + 3, flush=True)
"""


def test_kill_9_loses_no_acknowledged_row(tmp_path: Path) -> None:
    path = tmp_path / "cell.jsonl"
    rng = random.Random(7)
    acknowledged = 0
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, str(path), json.dumps(KEY)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline().split() == ["open", str(acknowledged)]
        while acknowledged == 0:
            acknowledged = int(writer.stdout.readline())
        time.sleep(rng.uniform(0.0, 0.15))
        os.kill(writer.pid, signal.SIGKILL)
        told = [int(line) for line in writer.stdout.read().split()]
        writer.stdout.close()
        writer.wait()
        acknowledged = max([acknowledged, *told])
        with Journal(path, KEY) as journal:
            assert len(journal) >= acknowledged and len(journal) % 3 in (0, 1, 2)
            assert list(journal) == [f"r{i}" for i in range(len(journal))]
            # The writer numbers whole batches, so complete the one in flight before it starts again.
            missing = range(len(journal), -(-len(journal) // 3) * 3)
            journal.append([{"request_id": f"r{i}", "output": "y" * 5000} for i in missing])
            acknowledged = len(journal)
    assert acknowledged > 5


FULL = """
import json, resource, signal, sys
from pathlib import Path
from harness.errors import InfrastructureError
from harness.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
with Journal(path, {}) as journal:
    journal.append([{"request_id": "small", "output": "x"}])
    kept = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        journal.append([{"request_id": "big", "output": "x" * 9000}])
    except InfrastructureError as error:
        assert error.exit_code == 3 and str(path) in str(error) and "make room" in str(error), error
    else:
        raise SystemExit("a write beyond the limit must fail")
    assert path.read_bytes() == kept, "half a row must not stay"
    assert "big" not in journal
    journal.append([{"request_id": "next", "output": "x"}])
with Journal(path, {}) as journal:
    assert list(journal) == ["small", "next"], list(journal)
print("ok")
"""


def test_a_refused_write_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "cell.jsonl")], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("ok", 0), done.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot open"):
        Journal(tmp_path / "file" / "cell.jsonl", KEY)
