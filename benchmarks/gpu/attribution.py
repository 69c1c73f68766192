"""G3: a picture attributed among ten candidates, and the loop over diffusers pipelines; resident, swapping, racing."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import shapes
from bench_racing import picture
from paper import nearest
from timing import Row

from gpu.peers import by_us
from gpu.rows import Pixels, agree, timed
from gpu.setting import FLUX, Setting
from gpu.siblings import Loop, Sibling, ten
from resynth_fast import Attributor, zoo
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines.pool import engine_ref
from resynth_fast.engines.text_cache import TextCache
from resynth_fast.extractors.space import open_space
from resynth_fast.options import Options
from resynth_fast.types import Verdict

AT_MOST = 4
"""References of a candidate, where racing may save some of them; elsewhere one."""
PROBE = 1000
"""Seed of the probe: far from any reference's."""


def resident(s: Setting) -> Iterator[Row]:
    """All candidates in the device's memory, ours and theirs."""
    yield from _attributed(s, "resident", swapping=False, goal=2.5)


def swapping(s: Setting) -> Iterator[Row]:
    """Half of the memory for ours; theirs, one at a time on the device."""
    yield from _attributed(s, "swapping", swapping=True, goal=5.0)


def _attributed(s: Setting, case: str, *, swapping: bool, goal: float) -> Iterator[Row]:
    """Without racing and with it, which has twice the goal."""
    candidates = ten(s)
    dtype = s.dtype(FLUX)  # one for all, for they share a pool
    sizes = [engine_ref(component).size_bytes for each in candidates for component in each.bundle.components.values()]
    pool = s.pool(s.ours(FLUX), budget_bytes=max(sum(sizes) // 2, *sizes) if swapping else None, prefetch=True)
    engines = [EngineCandidate(each.bundle, pool) for each in candidates]
    space = open_space(zoo.bundle(zoo.TEXTURE), pool)
    loop = Loop(s, candidates, dtype, swapping=swapping)
    probe = picture(by_us(engines[0], pool, [PROBE])[0])

    def ours(options: Options) -> Verdict:
        pool.text_cache = TextCache()
        [verdict] = Attributor(engines, Said(), space, pool, options)([probe])
        return verdict

    def theirs(references: int) -> object:
        return nearest(space, probe.pixels, loop(range(references)))

    _compared(s, candidates, ours(Options(references=1, steps=1)), loop)
    races = [] if s.tiny and swapping else [(True, 2 if s.tiny else AT_MOST)]  # small ones show it once, resident
    for racing, references in ((False, 1), *races):
        options = Options(references=references, steps=1, race=racing)
        what = f"{len(candidates)} candidates, {case}"
        if racing:
            what += f", racing ({_told(ours(options), ours(Options(references=references, steps=1)))})"
        calls: dict[str, Any] = {"ours": functools.partial(ours, options), "diffusers": functools.partial(theirs, references)}
        yield from timed(
            s, "gpu attribution", what, calls, ["ours"], {"diffusers": goal * (1 + racing)}, rounds=s.few if swapping else s.rounds
        )


def _compared(s: Setting, candidates: Sequence[Sibling], verdict: Verdict, loop: Loop) -> None:
    """That both draw the same ten pictures, and that no two candidates draw the same."""
    first = {evidence.name: [r.pixels for r in evidence.resyntheses] for evidence in verdict.candidates}
    for name, pictures in loop([0]).items():
        agree(s, name, {"diffusers": functools.partial(list, pictures), "ours": functools.partial(list, first[name])})
    if len({pixels.tobytes() for [pixels] in first.values()}) < len(candidates):
        raise SystemExit("two candidates have drawn the same picture: they are one")


def _told(raced: Verdict, exhaustive: Verdict) -> str:
    """What racing has saved and whether it has changed the answer."""
    drawn, of = (sum(len(evidence.resyntheses) for evidence in verdict.candidates) for verdict in (raced, exhaustive))
    same = raced.candidates[0].name == exhaustive.candidates[0].name
    return f"drew {drawn} of {of} pictures, {'the same' if same else 'another'} first candidate"


class Said:
    """A captioner for which every picture shows the prompt."""

    name, sha256 = "prompt", ""

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """See `Captioner.caption`."""
        return [shapes.PROMPT] * len(pictures)
