"""Where packed files are kept: beside the variant or in the cache, packed once, shared by processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.engines.sparse import cached, packed
from harness.engines.sparse.cached import FOLDER, Source, open_cached
from harness.engines.sparse.packed import read_key
from harness.errors import InfrastructureError

kit = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("packed_files.py"))))
same, some, write = kit.same, kit.some, kit.write


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packed"


def source(
    directory: Path, weights: str = "w", settings: str = "s", pack: Callable[[Path], object] | None = None
) -> Source:
    directory.mkdir(exist_ok=True)
    return Source(directory, weights, settings, pack or (lambda path: write(path, some(), f"{weights}/{settings}")))


def refuse(path: Path) -> None:
    raise AssertionError(f"packed again: {path}")


def test_it_is_packed_once_beside_the_variant(tmp_path: Path, own_cache: Path) -> None:
    first, events = open_cached(source(tmp_path / "v"))
    again, more = open_cached(source(tmp_path / "v", pack=refuse))
    assert events == more == [] and not own_cache.exists()
    assert [path.parent for path in (tmp_path / "v").rglob("*.safetensors")] == [tmp_path / "v" / FOLDER]
    same(first.matrices["layers.5.i8"], again.matrices["layers.5.i8"])


def test_other_settings_have_a_file_of_their_own_and_other_weights_replace_it(tmp_path: Path, own_cache: Path) -> None:
    for settings_ in ("s", "t"):
        open_cached(source(tmp_path / "v", settings=settings_))
    assert len(list((tmp_path / "v" / FOLDER).iterdir())) == 2
    open_cached(source(tmp_path / "v", weights="new"))
    (left,) = (tmp_path / "v" / FOLDER).iterdir()
    assert read_key(left) == "new/s"


def test_a_folder_that_cannot_be_written_is_not_needed(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / FOLDER).write_text("a file in its place: also root cannot make the folder")
    open_cached(source(tmp_path / "v"))
    open_cached(source(tmp_path / "v", pack=refuse))
    assert len(list(own_cache.iterdir())) == 1
    own_cache.parent.rename(tmp_path / "gone")
    own_cache.parent.write_text("nor here")
    with pytest.raises(InfrastructureError, match="SPARSEBENCH_CACHE"):
        open_cached(source(tmp_path / "v"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "v").mkdir(mode=0o555)
    open_cached(source(tmp_path / "v"))
    assert len(list(own_cache.iterdir())) == 1


def test_bundled_models_are_left_alone(own_cache: Path) -> None:
    from harness.models import BUNDLED

    open_cached(Source(BUNDLED["pocket"], "w", "s", lambda path: write(path, some(), "w/s")))
    assert len(list(own_cache.iterdir())) == 1 and not (BUNDLED["pocket"] / FOLDER).exists()


@pytest.mark.parametrize("damage", [lambda raw: raw[:100], lambda raw: raw[:-100] + bytes(100), lambda raw: b""])
def test_a_damaged_file_is_packed_again_and_that_is_said(
    tmp_path: Path, own_cache: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    open_cached(source(tmp_path / "v"))
    (path,) = (tmp_path / "v" / FOLDER).iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    found, events = open_cached(source(tmp_path / "v"))
    assert len(events) == 1 and str(path) in events[0] and "packed again" in caplog.text
    assert path.read_bytes() == whole
    same(found.matrices["layers.7.i4"], some()["layers.7.i4"])


def test_what_a_killed_process_left_is_removed(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "v" / FOLDER
    folder.mkdir(parents=True)
    old, new = folder / f"{packed.PART}old", folder / f"{packed.PART}new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    open_cached(source(tmp_path / "v"))
    assert not old.exists() and new.exists()


def _pack_at_once(directory: Path, ready: Any, log: Path, answers: Any) -> None:
    def pack(path: Path) -> None:
        with log.open("a") as stream:
            stream.write("packed\n")
        write(path, some(), "w/s")

    ready.wait()
    found, events = open_cached(Source(directory, "w", "s", pack))
    answers.put((sorted(found.matrices), events, float(found.matrices["layers.1.f32"].unpack().sum())))


@pytest.mark.parametrize("locks", [True, False])
def test_processes_that_pack_at_once_get_the_same(
    tmp_path: Path, own_cache: Path, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:  # as on a file system without them

        def none(handle: int, how: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(cached.fcntl, "flock", none)
    (tmp_path / "v").mkdir()
    context = multiprocessing.get_context("fork")
    ready, answers, log = context.Barrier(4), context.Queue(), tmp_path / "log"
    arguments = (tmp_path / "v", ready, log, answers)
    processes = [context.Process(target=_pack_at_once, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert all(answer == found[0] for answer in found) and found[0][1] == []
    times = log.read_text().count("packed")
    assert times == 1 if locks else 1 <= times <= 4
    assert len(list((tmp_path / "v" / FOLDER).iterdir())) == 1
