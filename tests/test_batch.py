"""Many files: results in order, errors in their positions, and the next chunk is prepared while the current one generates."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from resynth_fast import Attributor
from resynth_fast.report import batch

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.png"))


@pytest.fixture
def files(tmp_path: Path):
    """Nineteen, of which three cannot be read."""
    for i in range(19):
        shutil.copy(EXAMPLES[i % 3], tmp_path / f"{i:02}.png")
    for i in (0, 9, 18):
        (tmp_path / f"{i:02}.png").write_bytes(b"no picture")
    return [str(path) for path in sorted(tmp_path.iterdir())]


@pytest.mark.parametrize("deadline", [None, 1000.0])
def test_results_are_in_order_and_the_next_chunk_is_prepared_meanwhile(files: Any, monkeypatch: pytest.MonkeyPatch, deadline: Any) -> None:
    attributor = Attributor.open(["zoo:zoo-sd-v"], references=1, steps=1, threads=1, deadline=deadline)
    monkeypatch.setattr(batch, "CHUNK", 8)
    prepare, attribute, prepared, chunks = attributor.prepare, attributor.attribute_prepared, threading.Semaphore(0), []

    def preparing(pictures, timer):
        probes = prepare(pictures, timer)
        prepared.release()
        return probes

    def attributing(probes):
        chunks.append(len(probes.probes))
        assert prepared.acquire(timeout=20)
        if len(chunks) < 3:
            assert prepared.acquire(timeout=20), "the next chunk waits for this one"
            prepared.release()
        return attribute(probes)

    monkeypatch.setattr(attributor, "prepare", preparing)
    monkeypatch.setattr(attributor, "attribute_prepared", attributing)
    told = []
    results = list(batch.run(attributor, files, lambda done, of: told.append((done, of))))
    assert [r.record["input"]["path"] for r in results] == files
    assert [i for i, r in enumerate(results) if r.record["error"]] == [0, 9, 18]
    assert chunks == [7, 7, 2]
    assert told == [(0, 19), (8, 19), (16, 19), (19, 19)]


def test_an_error_in_a_chunk_prepared_ahead_is_raised(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attributor = Attributor.open(["zoo:zoo-sd-v"], references=1, steps=1, threads=1)
    monkeypatch.setattr(batch, "CHUNK", 8)
    prepare = attributor.prepare

    def failing(pictures, timer):
        if len(started) == 1:
            raise RuntimeError("the captioner is gone")
        started.append(pictures)
        return prepare(pictures, timer)

    started = []
    monkeypatch.setattr(attributor, "prepare", failing)
    results = batch.run(attributor, files, lambda done, of: None)
    assert len([next(results) for _ in range(8)]) == 8
    with pytest.raises(RuntimeError, match="the captioner is gone"):
        next(results)
