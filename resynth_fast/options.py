"""Options of an attribution: how many pictures are generated, from which noise, and what a gallery may replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from .errors import ConfigError

GENERATE, LOOK_UP, BOTH = GALLERY_POLICIES = ("generate", "look-up", "both")
"""Generate every resynthesis; generate none; look up the cached ones, generate and cache the rest."""
TAGGER, METADATA, TEXT = "tagger", "metadata", "text:"
"""Sources of a caption: the captioner, the prompt recorded in the file, the user (text:WORDS)."""
GUIDANCE = (1.0, 1.0, 1.0, 1.0, 2.0, 0.0, 2.0, 0.0)
"""Default guidance of the references. The own scale comes first: with fewer of it, probes of that scale lose accuracy."""


class OptionFields(TypedDict, total=False):
    """The fields of `Options` as keyword arguments, for functions that pass them on."""

    references: int
    steps: int
    guidance: Sequence[float]
    seed: int
    together: bool
    same_source: bool
    caption: str
    race: bool
    max_pictures: int | None
    deadline: float | None
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How many pictures are generated, from which noise, and what a gallery may replace.

    Raises:
        ConfigError: A value is out of range, or two options exclude each other; the message names the field, its value,
            the allowed range and the way out.

    Example:
        >>> from resynth_fast import Options
        >>> Options(references=4, race=True).seeds
        range(0, 4)
    """

    references: int = 2
    """Resyntheses of the probe's caption by each candidate, 1 … 64."""
    steps: int = 8
    """Denoising steps of a resynthesis, 1 … 1000. `benchmarks/bench_steps.py` measures what fewer steps cost in accuracy."""
    guidance: Sequence[float] = GUIDANCE
    """Guidance scales of the references, in turn, as multiples of each candidate's own, 0 … 10; 0: without guidance. The first is 1.
    A probe may have been made with another guidance than the candidate's own. Candidates whose guidance cannot be changed keep theirs."""
    seed: int = 0
    """Seed of the first reference, from 0; the others have the seeds that follow."""
    together: bool = False
    """Probes attributed in one call lend each other their resyntheses, as a gallery would."""
    same_source: bool = False
    """All probes of one call are declared to come from one generator: they get one answer."""
    caption: str = TAGGER
    """Source of the caption: tagger (the captioner), metadata (the prompt recorded in the file, if there is one) or text:WORDS."""
    race: bool = False
    """Every candidate generates one reference. Further ones, up to `references`, are generated only for the leader and its
    challenger, until they are told apart."""
    max_pictures: int | None = None
    """Resyntheses of one probe over all candidates, at most; None: no limit."""
    deadline: float | None = None
    """Seconds per probe, from captioning on; None: no limit. When they are over, the answer rests on the pictures generated so far.
    Probes of one call share the sum of their seconds."""
    policy: str = GENERATE
    """How a gallery is used beside its fit. generate: every resynthesis is generated. both: resyntheses that the gallery holds are
    looked up, the others are generated and added to it. look-up: nothing is generated; a candidate without a cached resynthesis is
    judged by the gallery's pictures of similar content."""

    def __post_init__(self) -> None:
        for name, low, high in (("references", 1, 64), ("steps", 1, 1000), ("seed", 0, 2**32 - 65)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {low} … {high}")
        if not self.guidance or self.guidance[0] != 1 or not all(0 <= multiple <= 10 for multiple in self.guidance):
            raise ConfigError(
                f"guidance is {tuple(self.guidance)}; "
                "it must be multiples of a candidate's own guidance scale, 0 … 10, and the first of them 1"
            )
        if self.caption not in (TAGGER, METADATA) and not (self.caption.startswith(TEXT) and self.caption.removeprefix(TEXT).strip()):
            raise ConfigError(
                f"caption is {self.caption[:80]!r}; it must be {TAGGER}, {METADATA} or {TEXT}WORDS, as in '{TEXT}a red bicycle'"
            )
        if self.policy not in GALLERY_POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; it must be {', '.join(GALLERY_POLICIES)}")
        if self.policy == LOOK_UP and (self.joint or self.limited):
            raise ConfigError("policy look-up generates nothing; leave out together, same_source, race, max_pictures and deadline")
        if self.deadline is not None and not self.deadline > 0:
            raise ConfigError(f"deadline is {self.deadline}; it must be seconds above 0")
        if self.joint and self.limited:
            raise ConfigError("together and same_source rest on all references of all probes; leave out race, max_pictures and deadline")

    @property
    def limited(self) -> bool:
        """Whether a probe may get fewer than `references` pictures of a candidate."""
        return self.race or self.max_pictures is not None or self.deadline is not None

    @property
    def seeds(self) -> range:
        """Seeds of the references, the same for every probe and candidate."""
        return range(self.seed, self.seed + self.references)

    def multiple(self, index: int) -> float:
        """Guidance scale of the reference `index`, as a multiple of the candidate's own."""
        return self.guidance[index % len(self.guidance)]

    @property
    def joint(self) -> bool:
        """Whether an answer rests on all probes of its call."""
        return self.together or self.same_source
