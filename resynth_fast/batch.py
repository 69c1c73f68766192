"""Many pictures through one attributor: a bad one becomes an error record and does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import images, record
from .attributor import Attributor
from .errors import InputError
from .images import Picture
from .record import Record
from .types import Verdict

CHUNK = 8
"""Probes whose resyntheses are batched together; results do not depend on it, unless probes are judged jointly: then they are one chunk."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Result:
    """A record, and the pictures for the report."""

    record: Record
    images: dict[str, Any] = field(default_factory=lambda: {"probe": None, "resyntheses": {}, "given": {}})


def run(attributor: Attributor, inputs: Sequence[str], progress: Progress) -> Iterator[Result]:
    """A result for every file that `inputs` stand for, in their order."""
    files = images.paths(inputs)
    size = len(files) if attributor.options.joint else CHUNK
    for start in range(0, len(files), size or 1):
        progress(start, len(files))
        yield from _chunk(attributor, files[start : start + size])
    progress(len(files), len(files))


def _chunk(attributor: Attributor, files: Sequence[Path]) -> list[Result]:
    pictures: dict[Path, Picture] = {}
    results: dict[Path, Result] = {}
    for path in files:
        try:
            pictures[path] = images.read(path)
        except InputError as error:
            results[path] = Result(record.failed(str(path), error))
    for path, verdict in zip(pictures, attributor(pictures.values()), strict=True):
        results[path] = _result(attributor, path, verdict)
    return [results[path] for path in files]


def _result(attributor: Attributor, path: Path, verdict: Verdict) -> Result:
    space = attributor.space
    made = {candidate.name: [r.pixels for r in candidate.resyntheses] for candidate in verdict.candidates}
    given = {candidate.name: list(candidate.given) for candidate in verdict.candidates}
    return Result(
        record.of(str(path), verdict, verdict.captioner, space.name, space.tap, attributor.options.steps),
        {"probe": verdict.probe.pixels, "resyntheses": made, "given": given},
    )
