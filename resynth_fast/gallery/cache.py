"""A gallery as a cache of resyntheses. Where nothing may be generated, pictures of similar content are looked up instead."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..candidates import Candidate, GenerativeCandidate, ScheduledCandidate
from ..devices.base import CPU, Device
from ..engines.pool import EnginePool
from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..options import BOTH, GENERATE
from ..scoring.gallery_fit import GalleryFit
from ..types import Floats, Integers, Pixels, Request
from .entry import Entry, ResynthesisKey, pixels_sha256
from .layout import Layout
from .store import Gallery

CACHE_GROUP = "resyntheses"
"""Group of the resyntheses of probes; it is fitted only if it is named."""


@dataclass(frozen=True, slots=True)
class CachedResynthesis:
    """A resynthesis in the gallery."""

    pixels: Pixels
    features: Floats
    """(d,), unscaled, bit-identical to the extracted features"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResynthesisCache:
    """Resyntheses of some candidates, by everything that determines them: equal keys mean equal pictures."""

    gallery: Gallery
    origins: Mapping[str, ResynthesisKey]
    """By candidate, the key of its pictures with its own guidance, without prompt and seed. Others' pictures are not cached."""
    rows: Integers | None = None
    """Rows that are searched for similar content, those of a fit's snapshot; None: all."""

    def get(self, requests: Iterable[Request]) -> dict[Request, CachedResynthesis]:
        """The cached ones of `requests`; a damaged one counts as missing."""
        cached = {request: stored for request, key in self._keys(requests).items() if (stored := self.gallery.resynthesis(key))}
        features = self.gallery.features([entry.row for entry, _ in cached.values()])
        return {request: CachedResynthesis(pixels, row) for (request, (_, pixels)), row in zip(cached.items(), features, strict=True)}

    def put(self, pictures: Mapping[Request, Pixels], features: Floats) -> None:
        """Store generated pictures with their features (n, d)."""
        rows = dict(zip(pictures, features, strict=True))
        keys = self._keys(pictures)
        if keys:
            entries = [Entry.resynthesis(request.candidate, pixels_sha256(pictures[request]), key) for request, key in keys.items()]
            self.gallery.add(entries, np.stack([rows[r] for r in keys]), group=CACHE_GROUP, pixels=[pictures[r] for r in keys])

    def similar_content(
        self, queries: Floats, count: int, left_out: Sequence[Collection[int]], device: Device[Any] = CPU
    ) -> list[dict[str, Floats]]:
        """For each of `queries` (n, d), by generator, the features (k, d) of the `count` pictures most similar in content.

        `left_out`: for each query the rows that are none of its references, as copies of its picture. The nearest are taken
        from every generator separately, so that a generator's own style does not decide the choice.
        """
        wanted, blocks = count + max(map(len, left_out)), list(self.gallery.layout.blocks)
        neighbours = self.gallery.nearest(queries, blocks, per_generator=wanted, rows=self.rows, device=device)
        rows = [
            {name: [n.entry.row for n in near if n.entry.row not in copies][:count] for name, near in of_query.items()}
            for of_query, copies in zip(neighbours, left_out, strict=True)
        ]
        return [{name: self.gallery.features(selected) for name, selected in of_query.items() if selected} for of_query in rows]

    def _keys(self, requests: Iterable[Request]) -> dict[Request, ResynthesisKey]:
        return {
            request: replace(origin, prompt=request.prompt, seed=request.seed, guidance_scale=origin.guidance_scale * request.guidance)
            for request in requests
            if (origin := self.origins.get(request.candidate))
        }


def load_fit(gallery: Gallery, sha256: str | None = None) -> GalleryFit:
    """The fit whose hash begins with `sha256`; without one, the newest.

    ConfigError if there is none, or more than one with that beginning.
    """
    names = [name for name in gallery.fits() if name.startswith(sha256 or "")]
    if not names:
        wanted = f"no fit {sha256}" if sha256 else "no fit"
        raise ConfigError(
            f"{gallery.folder} has {wanted} for candidates that generate; make one with `resynth gallery fit`, "
            "or take the gallery's own generators with --candidates gallery:"
        )
    if sha256 and len(names) > 1:
        raise ConfigError(f"{len(names)} fits of {gallery.folder} begin with {sha256}; give more digits")
    stored = gallery.read_fit(names[0])
    return GalleryFit.restored(stored.arrays, stored.settings, sha256=stored.sha256, snapshot=stored.snapshot_sha256)


def _covering(fit: GalleryFit, candidates: Sequence[str], folder: Path) -> GalleryFit:
    """The fit, if it knows all candidates; ConfigError, with the way out, if it lacks one."""
    absent = [name for name in candidates if name not in fit.names]
    if len(absent) == len(candidates):
        raise ConfigError(
            f"the fit of {folder} knows {', '.join(fit.names)} and none of the candidates ({', '.join(absent)}); "
            "take the gallery's own generators with --candidates gallery:, or leave --gallery out"
        )
    if absent:
        raise ConfigError(
            f"the fit of {folder} has no pictures of {', '.join(absent)}, and verdicts between generators in the gallery and others are "
            "not calibrated; add pictures of them and fit again, leave these candidates out, or leave --gallery out"
        )
    return fit


def open_cache(
    folder: Path, space: FeatureSpace, candidates: Iterable[Candidate], pool: EnginePool, steps: int, *, policy: str, fit: str | None = None
) -> tuple[FeatureSpace, ResynthesisCache | None]:
    """The space fitted with the gallery's fit (by its hash; default: the newest), and the cache that `policy` needs.

    With policy `both` the gallery is created if there is none, and need not have a fit. ConfigError if the fit lacks a candidate:
    nothing was measured for candidates that it knows beside others.
    """
    candidates = list(candidates)
    generates = any(isinstance(candidate, GenerativeCandidate) for candidate in candidates)
    if fit and not generates:
        raise ConfigError(
            f"fit {fit[:12]}… is prior knowledge of candidates that generate, and none of these does; leave --fit out, "
            "or take the generators of its pictures with --candidates gallery:"
        )
    names = [candidate.name for candidate in candidates]
    if policy == GENERATE:
        with Gallery.open(folder, space.sha256) as gallery:
            return (space.fitted(_covering(load_fit(gallery, fit), names, folder)) if generates else space), None
    gallery = Gallery.create(folder, Layout.of(space)) if policy == BOTH else Gallery.open(folder, space.sha256)
    rows = None
    if generates and (fit or gallery.fits()):
        space = space.fitted(_covering(load_fit(gallery, fit), names, folder))
        sha256 = space.fit.sha256 if space.fit else None
        assert sha256
        rows = gallery.snapshot(keys=gallery.read_fit(sha256).keys).rows
    origins = {
        candidate.name: ResynthesisKey.of(candidate.bundle, "", seed=0, steps=steps, backend=pool.backend.version())
        for candidate in candidates
        if isinstance(candidate, ScheduledCandidate)
    }
    return space, ResynthesisCache(gallery=gallery, origins=origins, rows=rows)
