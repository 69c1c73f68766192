"""What the parts of an attributor were fitted on does not fit its candidates or pictures: what to say, and what to bring instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .. import zoo
from ..candidates import Candidate, GenerativeCandidate
from ..captioners import Captioner
from ..extractors.domain import of_captioner
from ..extractors.space import FeatureSpace
from ..scoring.calibration import Calibration
from ..types import Part

CALIBRATE = "`resynth calibrate` with the same candidates, captioner and extractor measures one"
BRING = {
    "captioner": "bring one that knows such pictures (--captioner, written by `resynth export captioner`)",
    "extractor": "bring one that knows such pictures (--extractor, written by `resynth export extractor`), or a gallery (--gallery)",
}


def foreign(parts: Iterable[Part], names: dict[Part, str]) -> str:
    """Why no candidate may be named for a picture that these parts do not know, as a sentence; "" if they all know it."""
    for part in parts:
        return f"Outside what the {part} knows: {names[part]} was fitted on pictures unlike this one; {BRING[part]}"
    return ""


def mismatches(candidates: Sequence[Candidate], captioner: Captioner, space: FeatureSpace, calibration: Calibration) -> Iterator[str]:
    """Warnings of parts of the zoo, and of stored calibrations, that judge generators which they were not made for."""
    generators = [candidate for candidate in candidates if isinstance(candidate, GenerativeCandidate)]
    own = {bundle.sha256 for bundle in (*zoo.candidates(), *zoo.withheld())}
    others = [candidate.name for candidate in generators if candidate.sha256 not in own]
    if not others:
        return
    if captioner.sha256 == zoo.bundle(zoo.TAGGER).sha256:
        yield f"the zoo's captioner describes every picture as a drawn face, and {others[0]} draws that; {BRING['captioner']}"
    if space.fit is None and space.sha256 == zoo.bundle(zoo.TEXTURE).sha256:
        yield f"the zoo's extractor was fitted on small drawn faces, not on pictures like those of {others[0]}; {BRING['extractor']}"
    if not calibration.measured and len(generators) == len(candidates):
        yield f"no calibration was measured with {others[0]} and the other candidates: none is named; {CALIBRATE}"


def ignorance(captioner: Captioner, space: FeatureSpace) -> Iterator[str]:
    """What cannot be noticed: parts that do not say which pictures they know."""
    silent = []
    if of_captioner(captioner) is None:
        silent.append(f"captioner {captioner.name}")
    if space.domain is None:
        silent.append(f"extractor {space.name}")
    for name in silent:
        yield f"{name} does not say which pictures it knows, so a picture that it cannot judge is not noticed"
