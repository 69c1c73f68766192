"""Many files through one attributor: a bad file becomes an error record and does not stop the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import images
from ..attributor import Attributor
from ..errors import InputError
from ..resynthesis.preparation import PreparedProbes
from ..resynthesis.timing import StageTimer
from ..types import Picture, Verdict
from . import record
from .record import Record

CHUNK = 16
"""Number of probes whose resyntheses are batched. Results do not depend on it; probes that are judged jointly form one chunk."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Result:
    """The record of one file, and the pictures for the report."""

    record: Record
    images: dict[str, Any] = field(default_factory=lambda: {"probe": None, "resyntheses": {}, "exemplars": {}})


def run(attributor: Attributor, inputs: Sequence[str], progress: Progress) -> Iterator[Result]:
    """One result per file that `inputs` name (files and folders), in their order; `progress` gets the files done and their number."""
    files = images.paths(inputs)
    size = len(files) if attributor.options.joint else CHUNK
    chunks = [files[start : start + size] for start in range(0, len(files), size or 1)]
    # While the pictures of one chunk are generated, the next one is prepared: a captioner may be a server, or slow.
    with ThreadPoolExecutor(1, thread_name_prefix="resynth-prepare") as ahead:
        coming = deque(ahead.submit(_prepare, attributor, chunk) for chunk in chunks[:1])
        for number, chunk in enumerate(chunks):
            progress(number * size, len(files))
            prepared, failed = coming.popleft().result()
            coming.extend(ahead.submit(_prepare, attributor, after) for after in chunks[number + 1 : number + 2])
            verdicts = iter(attributor.attribute_prepared(prepared))
            yield from (failed.get(path) or _result(attributor, path, next(verdicts)) for path in chunk)
    progress(len(files), len(files))


def _prepare(attributor: Attributor, files: Sequence[Path]) -> tuple[PreparedProbes, dict[Path, Result]]:
    """The files that can be read, prepared, and error results of the others."""
    pictures: list[Picture] = []
    failed: dict[Path, Result] = {}
    timer = StageTimer()
    with timer.stage("read"):
        for path in files:
            try:
                pictures.append(images.read(path))
            except InputError as error:
                failed[path] = Result(record.failed(str(path), error))
    return attributor.prepare(pictures, timer), failed


def _result(attributor: Attributor, path: Path, verdict: Verdict) -> Result:
    space = attributor.space
    resyntheses = {candidate.name: [r.pixels for r in candidate.resyntheses] for candidate in verdict.candidates}
    exemplars = {candidate.name: list(candidate.exemplars) for candidate in verdict.candidates}
    return Result(
        record.of(str(path), verdict, verdict.captioner, space.name, space.tap, attributor.options.steps),
        {"probe": verdict.probe.pixels, "resyntheses": resyntheses, "exemplars": exemplars},
    )
