"""Files are replaced completely or not at all, and a failed write says what to do."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from resynth_fast import files
from resynth_fast.errors import ConfigError, DeviceError


@pytest.fixture
def old(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def test_a_file_is_replaced_and_nothing_else_stays(old: Any) -> None:
    files.write(old, b"new")
    assert old.read_bytes() == b"new"
    assert os.listdir(old.parent) == ["file"]


@pytest.mark.parametrize("fault", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_content(old: Any, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fault, full)
    with pytest.raises(DeviceError, match=r"file cannot be written \(No space left on device\); free space"), files.write_errors(old):
        files.write(old, b"new")
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == ["file"]


def test_an_interrupted_write_keeps_the_old_content(old: Any) -> None:
    def interrupted():
        with files.replacing(old) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == ["file"]


def test_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path, contents = tmp_path / "file", [bytes([i]) * (1 << 16) for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: files.write(path, content), contents))
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["file"]


def test_the_name_outlasts_a_power_cut(old: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    files.write(old, b"new")
    assert len(synced) == 2
    assert synced[0].endswith(".part")
    assert synced[1] == str(old.parent)


def test_an_output_follows_a_link_and_replaces_only_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.write_output("--output", tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "text"
    for path, reason in ((tmp_path, "is not a regular file"), (tmp_path / "missing" / "file", "No such file")):
        with pytest.raises(ConfigError, match=reason):
            files.write_output("--output", path, "text")
