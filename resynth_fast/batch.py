"""Many pictures through one attributor: a bad one becomes an error record and does not stop the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import images
from .attributor import Attributor, PreparedProbes
from .errors import InputError
from .report import record
from .report.record import Record
from .timing import StageTimer
from .types import Picture, Verdict

CHUNK = 16
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
    chunks = [files[start : start + size] for start in range(0, len(files), size or 1)]
    # While one chunk's pictures are made, the next one is read, captioned and described: a captioner may be a server, or slow.
    with ThreadPoolExecutor(1, thread_name_prefix="resynth-look") as ahead:
        coming = deque(ahead.submit(_look, attributor, chunk) for chunk in chunks[:1])
        for number, chunk in enumerate(chunks):
            progress(number * size, len(files))
            looked, failed = coming.popleft().result()
            coming.extend(ahead.submit(_look, attributor, after) for after in chunks[number + 1 : number + 2])
            verdicts = iter(attributor.attribute_prepared(looked))
            yield from (failed.get(path) or _result(attributor, path, next(verdicts)) for path in chunk)
    progress(len(files), len(files))


def _look(attributor: Attributor, files: Sequence[Path]) -> tuple[PreparedProbes, dict[Path, Result]]:
    """What there is to see of those that can be read, and the errors of the others."""
    pictures: list[Picture] = []
    failed: dict[Path, Result] = {}
    with StageTimer() as reading:
        for path in files:
            try:
                pictures.append(images.read(path))
            except InputError as error:
                failed[path] = Result(record.failed(str(path), error))
    return attributor.prepare(pictures, read_ms=reading.ms), failed


def _result(attributor: Attributor, path: Path, verdict: Verdict) -> Result:
    space = attributor.space
    made = {candidate.name: [r.pixels for r in candidate.resyntheses] for candidate in verdict.candidates}
    given = {candidate.name: list(candidate.exemplars) for candidate in verdict.candidates}
    return Result(
        record.of(str(path), verdict, verdict.captioner, space.name, space.tap, attributor.options.steps),
        {"probe": verdict.probe.pixels, "resyntheses": made, "given": given},
    )
