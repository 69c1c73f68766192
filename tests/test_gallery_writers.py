"""Concurrent writers take turns, and a writer may die at any moment."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from galleries import BLOCKS, block_file, exemplar, features, nearest

from resynth_fast.errors import DeviceError
from resynth_fast.gallery import Gallery, lock

CRASH = Path(__file__).with_name("gallery_crash.py")


def test_threads_may_share_a_gallery(gallery: Gallery) -> None:
    failures = []

    def work(number):
        try:
            for i in range(5):
                x = features(2, seed=100 * number + i)
                added = gallery.add([exemplar(1000 * number + 2 * i + j, f"g{number}") for j in range(2)], x)
                np.testing.assert_array_equal(gallery.features([entry.row for entry in added.entries]), x)
                nearest(gallery, x[0], ["deep"])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(gallery) == 40
    assert gallery.verify() == []


def test_a_writer_waits_for_another_and_then_raises(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_WAIT_S", 0.05)
    with lock.locked(gallery.folder), pytest.raises(DeviceError, match="written by another process"):
        gallery.add([exemplar(1)], features(1))
    assert gallery.add([exemplar(1)], features(1)).new == (True,)


def test_a_commit_that_fails_is_rolled_back(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    run = gallery._index.run

    def fail(sql, values=()):
        if sql == "COMMIT":
            raise DeviceError("disk full")
        return run(sql, values)

    monkeypatch.setattr(gallery._index, "run", fail)
    with pytest.raises(DeviceError, match="disk full"):
        gallery.add([exemplar(1)], features(1))
    monkeypatch.undo()
    assert len(gallery) == 0
    assert gallery.add([exemplar(1)], features(1)).new == (True,)


def test_a_failed_write_leaves_no_entry(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(DeviceError, match="No space left"):
        gallery.add([exemplar(1)], features(1))
    monkeypatch.undo()
    assert len(gallery) == 0
    assert gallery.verify() == []
    [entry] = gallery.add([exemplar(2)], features(1, 2)).entries
    np.testing.assert_array_equal(gallery.features([entry.row]), features(1, 2))


def test_a_commit_that_becomes_visible_after_a_crash_is_whole(
    filled_gallery: tuple[Gallery, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dies between writing its commit to SQLite's log and publishing it. B does not see it, writes vectors, and dies too."""
    gallery, x = filled_gallery
    after = tmp_path / "after"
    shutil.copytree(gallery.folder, after, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    [entry] = gallery.add([exemplar(100)], features(1, 100)).entries  # by A; its log is not yet in the database
    for name in BLOCKS:
        shutil.copy(block_file(gallery, name), after / "vectors")
    with Gallery.open(after) as other:
        monkeypatch.setattr(other._index, "insert", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            other.add([exemplar(200)], features(1, 200))
    shutil.copy(gallery.folder / "index.sqlite-wal", after)
    with Gallery.open(after) as recovered:
        assert recovered.verify() == []
        assert len(recovered) == 13
        np.testing.assert_array_equal(recovered.features([11, entry.row]), np.concatenate([x[11:], features(1, 100)]))


def crash(folder, *arguments):
    done = subprocess.run([sys.executable, "-W", "error", CRASH, folder, *arguments], capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NOTHING = {"lost": 0, "altered": 0, "damaged": 0, "surplus": 0}


def test_a_writer_that_dies_at_any_write_leaves_the_gallery_unchanged(tmp_path: Path) -> None:
    found = crash(tmp_path / "gallery", "points")
    assert found["points"] == 2 * len(BLOCKS)  # write, sync
    assert found == {**found, **NOTHING}


@pytest.mark.slow
def test_two_writers_killed_at_random_lose_no_finished_entry(tmp_path: Path) -> None:
    """25 kills; set RESYNTH_TEST_KILLS=300 for the full trial."""
    kills = os.environ.get("RESYNTH_TEST_KILLS", "25")
    found = crash(tmp_path / "gallery", kills)
    assert found["kills"] == int(kills)
    assert found["finished"] >= int(kills) // 2  # they were writing when they were killed
    assert found == {**found, **NOTHING}


def test_several_processes_can_create_the_same_gallery(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[2]); from gallery_crash import *; "
    code += "Gallery.create(Path(sys.argv[1]), layout()).add(*one(int(sys.argv[3]), 0))"
    command = [sys.executable, "-P", "-c", code, tmp_path / "gallery", CRASH.parent]
    processes = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True) for number in range(4)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 4
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert len(gallery) == 4
        assert gallery.verify() == []
