"""What is asked of an attribution: how much is made, from which noise, and what may be looked up instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .captioners import choice
from .errors import ConfigError

GENERATE, LOOK_UP, BOTH = POLICIES = ("generate", "look-up", "both")
"""Make every resynthesis; make none; look up what is there and make, and keep, the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much is made, and from which noise."""

    references: int = 2
    """Resyntheses of the probe by each candidate."""
    steps: int = 8
    """Denoising steps of a resynthesis; what fewer of them cost in accuracy is what `benchmarks/bench_steps.py` measures."""
    seed: int = 0
    """Seed of the first reference; the next have the following ones."""
    together: bool = False
    """Probes attributed in one call lend each other their resyntheses, as a gallery would."""
    same_source: bool = False
    """All probes of one call are declared to come from one generator: one answer for them all."""
    caption: str = choice.TAGGER
    """Whose words are resynthesised: tagger (the captioner's), metadata (the prompt recorded in the file, where there is one), text:WORDS."""
    race: bool = False
    """Every candidate draws once; further references, up to `references`, only for the leader and its challenger, until they are told apart."""
    max_pictures: int | None = None
    """Resyntheses of one probe, at most, over all candidates."""
    deadline: float | None = None
    """Seconds for a probe: after them the answer rests on what was drawn. Of probes examined together, seconds for each."""
    policy: str = GENERATE
    """How a gallery is used beside its fit. generate: every resynthesis is made. both: those that the gallery holds are looked up, the
    others made and kept there. look-up: none is made; a candidate without any is judged by the gallery's pictures of like content."""

    def __post_init__(self) -> None:
        for name, low, high in (("references", 1, 64), ("steps", 1, 1000), ("seed", 0, 2**32 - 65)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be {low} … {high}")
        choice.check(self.caption)
        if self.policy not in POLICIES:
            raise ConfigError(f"policy is {self.policy!r}; it must be {', '.join(POLICIES)}")
        if self.policy == LOOK_UP and (self.joint or self.limited):
            raise ConfigError("policy look-up draws nothing; leave out together, same_source, race, max_pictures and deadline")
        if self.deadline is not None and not self.deadline > 0:
            raise ConfigError(f"deadline is {self.deadline}; it must be seconds above 0")
        if self.joint and self.limited:
            raise ConfigError("together and same_source rest on all references of all probes; leave out race, max_pictures and deadline")

    @property
    def limited(self) -> bool:
        """Whether fewer references may be drawn than there are at most."""
        return self.race or self.max_pictures is not None or self.deadline is not None

    @property
    def seeds(self) -> range:
        """Of the references."""
        return range(self.seed, self.seed + self.references)

    @property
    def joint(self) -> bool:
        """Whether an answer rests on all probes of a call."""
        return self.together or self.same_source

    def check(self, *, generators: int, exemplar_sources: Sequence[str], fitted: bool, cached: bool) -> None:
        """ConfigError where `makers` candidates that draw, others that were given pictures, or what a gallery is, do not allow it.

        `fitted`: a gallery's fit is used; `cached`: the gallery is looked into.
        """
        if (self.policy != GENERATE) != cached:
            raise ConfigError(f"policy is {self.policy!r}: it looks into a gallery, which must be given (--gallery)")
        if self.max_pictures is not None and self.max_pictures < generators:
            raise ConfigError(f"max_pictures is {self.max_pictures}; every one of {generators} candidates draws once at least")
        if self.together and fitted:
            raise ConfigError("together lends probes each other's resyntheses in place of a gallery; give one of the two")
        if self.together and exemplar_sources:
            raise ConfigError(f"together lends resyntheses, and {exemplar_sources[0]} makes none; leave one of the two out")
        if self.limited and exemplar_sources:
            raise ConfigError(
                f"race, max_pictures and deadline weigh candidates that draw, and {exemplar_sources[0]} makes nothing; leave one of the two out"
            )
