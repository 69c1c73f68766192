"""G3: attribution among ten candidates against the loop over diffusers pipelines: resident, swapping, racing."""

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
"""References of a candidate with racing, which may save some of them. Without racing there is one."""
PROBE = 1000
"""Seed of the probe, not that of any reference."""


def resident(s: Setting) -> Iterator[Row]:
    """All candidates, ours and the peer's, stay in the device's memory."""
    yield from _attributed(s, "resident", swapping=False, goal=2.5)


def swapping(s: Setting) -> Iterator[Row]:
    """Ours may use half of the memory that its engines need. The peer has one pipeline on the device at a time."""
    yield from _attributed(s, "swapping", swapping=True, goal=5.0)


def _attributed(s: Setting, case: str, *, swapping: bool, goal: float) -> Iterator[Row]:
    """Rows without racing and with it. Racing has twice the goal."""
    candidates = ten(s)
    dtype = s.dtype(FLUX)  # one type for all, because they share a pool
    sizes = [engine_ref(component).size_bytes for sibling in candidates for component in sibling.bundle.components.values()]
    pool = s.pool(s.ours(FLUX), budget_bytes=max(sum(sizes) // 2, *sizes) if swapping else None, prefetch=True)
    engines = [EngineCandidate(sibling.bundle, pool) for sibling in candidates]
    space = open_space(zoo.bundle(zoo.TEXTURE), pool)
    loop = Loop(s, candidates, dtype, swapping=swapping)
    probe = picture(by_us(engines[0], pool, [PROBE])[0])

    def ours(options: Options) -> Verdict:
        pool.text_cache = TextCache()
        [verdict] = Attributor(engines, PromptCaptioner(), space, pool, options)([probe])
        return verdict

    def theirs(references: int) -> object:
        return nearest(space, probe.pixels, loop(range(references)))

    _compared(s, candidates, ours(Options(references=1, steps=1)), loop)
    races = [] if s.tiny and swapping else [(True, 2 if s.tiny else AT_MOST)]  # tiny pipelines test racing once, resident
    for racing, references in ((False, 1), *races):
        options = Options(references=references, steps=1, guidance=(1,), race=racing)
        name = f"{len(candidates)} candidates, {case}"
        if racing:
            name += f", racing ({_saved(ours(options), ours(Options(references=references, steps=1, guidance=(1,))))})"
        calls: dict[str, Any] = {"ours": functools.partial(ours, options), "diffusers": functools.partial(theirs, references)}
        yield from timed(
            s, "gpu attribution", name, calls, ["ours"], {"diffusers": goal * (1 + racing)}, rounds=s.few if swapping else s.rounds
        )


def _compared(s: Setting, candidates: Sequence[Sibling], verdict: Verdict, loop: Loop) -> None:
    """SystemExit unless ours and the loop generate the same ten pictures, and no two candidates the same one."""
    first = {evidence.name: [r.pixels for r in evidence.resyntheses] for evidence in verdict.candidates}
    for name, pictures in loop([0]).items():
        agree(s, name, {"diffusers": functools.partial(list, pictures), "ours": functools.partial(list, first[name])})
    if len({pixels.tobytes() for [pixels] in first.values()}) < len(candidates):
        raise SystemExit("two candidates generated the same picture; their weights must differ")


def _saved(raced: Verdict, exhaustive: Verdict) -> str:
    """How many pictures racing generated, and whether it changed the first candidate."""
    used, total = (sum(len(evidence.resyntheses) for evidence in verdict.candidates) for verdict in (raced, exhaustive))
    same = raced.candidates[0].name == exhaustive.candidates[0].name
    return f"generated {used} of {total} pictures, {'the same' if same else 'another'} first candidate"


class PromptCaptioner:
    """A captioner that captions every picture with the prompt."""

    name, sha256 = "prompt", ""

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """See `Captioner.caption`."""
        return [shapes.PROMPT] * len(pictures)
