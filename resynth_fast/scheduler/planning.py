"""`plan`: from requests to waves, in an order that overlaps computing with loading."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

from ..bundle import Guidance
from ..types import Request
from .costs import CostTable
from .residency import NEVER, EngineRef, Residency, Use
from .simulation import simulate

# Where batching saturates on a CPU for the zoo's denoisers; a GPU wants more.
MAX_ROWS = 8
NEGLIGIBLE = 0.02
"""If loading takes a smaller share of computing, no better order is searched for."""
EXCHANGED, PASSES = 16, 3
"""Maximum number of candidates for which exchanges of pairs are tried, and maximum number of passes over all pairs."""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Requests with equal keys may share a wave; seed and prompt are not part of it."""

    bundle: str
    resolution_px: tuple[int, int]
    precision: str
    guidance: Guidance
    steps: int


@dataclass(frozen=True, slots=True)
class Work:
    """The work of one candidate's pictures, at one number of steps."""

    key: BatchKey
    text: EngineRef
    denoiser: EngineRef
    decoder: EngineRef
    calls: int
    """Denoiser calls of one walk."""
    rows: int
    """Denoiser rows per sample: 2 if guidance doubles them, else 1."""
    in_lane: bool = False
    """Whether its waves run on one thread each, side by side with others."""

    def at(self, guidance: float) -> Work:
        """The work with `guidance` times the guidance scale."""
        scaled = self.key.guidance.scaled(guidance)
        return replace(self, key=replace(self.key, guidance=scaled), rows=self.rows if scaled.doubled == self.key.guidance.doubled else 1)

    def uses(self, pictures: int, costs: CostTable) -> tuple[Use, Use]:
        """Denoising and decoding of `pictures` pictures."""
        walk = self.calls * self.rows * pictures * costs.of(self.denoiser).row_s
        return Use(self.denoiser, walk), Use(self.decoder, pictures * costs.of(self.decoder).row_s)


@dataclass(frozen=True, slots=True)
class TextWave:
    """Prompts to encode for all candidates that share a text component, which may be evicted afterwards."""

    candidates: tuple[str, ...]
    prompts: tuple[str, ...]
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Wave:
    """One batch of one candidate; `key` is None for a candidate that a server runs."""

    candidate: str
    requests: tuple[Request, ...]
    key: BatchKey | None = None
    uses: tuple[Use, ...] = ()
    in_lane: bool = False

    @property
    def seconds(self) -> float:
        """Forecast of the computing, in seconds."""
        return sum(use.seconds for use in self.uses)


class Parts(NamedTuple):
    """A plan's waves by how they run: first texts, then waves in lanes and, beside them, calls of servers; the others run last."""

    lane_waves: tuple[Wave, ...]
    text_waves: tuple[TextWave, ...]
    remote: tuple[Wave, ...]
    sequential: tuple[TextWave | Wave, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Waves in their order, and the graphs to keep in memory."""

    waves: tuple[TextWave | Wave, ...]
    pinned: frozenset[str] = frozenset()
    """Hashes of the graphs with the lowest compute-to-load ratio, as many as fit beside the two that are streamed."""

    def uses(self) -> list[Use]:
        """All uses of graphs, in order."""
        return [use for wave in self.waves for use in wave.uses]

    @property
    def parts(self) -> Parts:
        """The waves, each in one part. Without waves in lanes, texts are in `sequential`, in order."""
        waves = [wave for wave in self.waves if isinstance(wave, Wave)]
        lane_waves = tuple(wave for wave in waves if wave.in_lane)
        text_waves = tuple(wave for wave in self.waves if isinstance(wave, TextWave) and lane_waves)
        remote = tuple(wave for wave in waves if wave.key is None)
        return Parts(lane_waves, text_waves, remote, tuple(wave for wave in self.waves if wave not in {*lane_waves, *text_waves, *remote}))

    @property
    def seconds(self) -> float:
        """Forecast of the computing, in seconds."""
        return sum(use.seconds for use in self.uses())


def plan(
    requests: Iterable[Request],
    works: Mapping[str, Work] | None = None,
    costs: CostTable | None = None,
    *,
    budget_bytes: int | None = None,
    resident: Collection[str] = (),
    max_rows: int = MAX_ROWS,
    cheapest_first: bool = False,
    lanes: int = 1,
) -> Plan:
    """Waves of at most `max_rows`. The waves of one candidate follow each other, so that its weights are loaded once.

    Equal requests are planned once. Noise belongs to the request, so the composition of a wave changes the speed, never a
    picture. Candidates without `works` (run by a server, for example) come first, in the order of their requests. The
    others follow the shortest order by a fake clock, among a few rules and their pairwise exchanges: `resident` graphs
    (hashes) first; then Johnson's rule for loading before computing (Naval Research Logistics Quarterly 1, 1954). A prompt
    is encoded once for all candidates that share a text component, just before the first of them. `cheapest_first` is for
    runs that a deadline may stop. With several `lanes`, waves of small candidates are small enough to fill all lanes, and
    the longest begin, so that the lanes end together (Graham, Bounds on Multiprocessing Timing Anomalies, 1969).
    """
    by_candidate: dict[str, list[Request]] = {}
    for request in dict.fromkeys(requests):
        by_candidate.setdefault(request.candidate, []).append(request)
    works, costs = works or {}, costs or CostTable()
    remote = [Wave(name, tuple(part)) for name, rows in by_candidate.items() if name not in works for part in _parts(rows, max_rows)]
    scheduled = {name: rows for name, rows in by_candidate.items() if name in works}
    if not scheduled:
        return Plan(tuple(remote))
    groups = {name: _by_guidance(rows, works[name]) for name, rows in scheduled.items()}
    jobs = _Jobs(scheduled, works, groups, costs, budget_bytes, frozenset(resident), lanes)
    order = jobs.cheapest_first() if cheapest_first else jobs.order()
    waves = list(jobs.waves(order, max_rows))
    if lanes > 1:
        waves.sort(key=lambda wave: (isinstance(wave, Wave), 0.0 if cheapest_first or isinstance(wave, TextWave) else -wave.seconds))
    return Plan((*remote, *waves), jobs.pinned())


@dataclass(frozen=True, slots=True)
class _Jobs:
    """Candidates to order, each with its requests."""

    requests: Mapping[str, Sequence[Request]]
    works: Mapping[str, Work]
    groups: Mapping[str, Sequence[tuple[Work, Sequence[Request]]]]
    """A candidate's requests by their guidance, with the work of each."""
    costs: CostTable
    budget_bytes: int | None
    resident: frozenset[str]
    lanes: int

    def cheapest_first(self) -> list[str]:
        computing = self._computing()
        return sorted(computing, key=lambda name: computing[name] / len(self.requests[name]))

    def order(self) -> list[str]:
        """The shortest order by the fake clock."""
        computing = self._computing()
        loading = {name: self._load_s((self.works[name].denoiser, self.works[name].decoder)) for name in self.requests}
        graphs = {graph for name in self.requests for work in [self.works[name]] for graph in (work.text, work.denoiser, work.decoder)}
        transfer = self._load_s(graphs)
        first = [name for name in computing if not loading[name]]
        johnson = sorted((n for n in computing if 0 < loading[n] < computing[n]), key=loading.__getitem__)
        johnson += sorted((n for n in computing if loading[n] >= computing[n] and loading[n]), key=computing.__getitem__, reverse=True)
        order = [*first, *johnson]
        if transfer <= NEGLIGIBLE * sum(computing.values()) or len(order) < 2:
            return order
        starts = [order, [*first, *reversed(johnson)], [*first, *sorted(johnson, key=computing.__getitem__)]]
        best = min(starts, key=self._seconds)
        return self._exchanged(best, max(transfer, sum(computing.values()))) if len(best) <= EXCHANGED else best

    def waves(self, order: Sequence[str], max_rows: int) -> Iterator[TextWave | Wave]:
        encoded: set[str] = set()
        shared = sum(len(rows) for name, rows in self.requests.items() if self.works[name].in_lane)
        for name in order:
            work = self.works[name]
            size = min(max_rows, -(-shared // self.lanes)) if work.in_lane else max_rows
            if work.text.sha256 not in encoded:
                encoded.add(work.text.sha256)
                sharing = tuple(n for n in order if self.works[n].text == work.text)
                prompts = tuple(dict.fromkeys(r.prompt for n in sharing for r in self.requests[n]))
                yield TextWave(sharing, prompts, (self._text_use(work.text, len(prompts)),))
            for scaled, requests in self.groups[name]:
                for part in _parts(requests, size):
                    yield Wave(name, tuple(part), scaled.key, scaled.uses(len(part), self.costs), work.in_lane and self.lanes > 1)

    def pinned(self) -> frozenset[str]:
        """Pin graphs with the lowest compute-to-load ratio first: their loading cannot be overlapped."""
        if self.budget_bytes is None:
            return frozenset()
        computing: dict[EngineRef, float] = {}
        for name, rows in self.requests.items():
            work = self.works[name]
            for use in (*self._uses(name), self._text_use(work.text, len(rows))):
                computing[use.graph] = computing.get(use.graph, 0.0) + use.seconds
        sizes = sorted((graph.size_bytes for graph in computing), reverse=True)
        room = self.budget_bytes - sum(sizes[:2])  # one computes while the next one loads
        pinned = []
        for graph in sorted(computing, key=lambda graph: computing[graph] / (self.costs.of(graph).load_s + 1e-12)):
            if graph.size_bytes <= room:
                pinned.append(graph.sha256)
                room -= graph.size_bytes
        return frozenset(pinned)

    def _exchanged(self, order: list[str], bound: float) -> list[str]:
        """Exchange pairs as long as that shortens the order; stop near `bound`, the least time of any order."""
        seconds = self._seconds(order)
        for _ in range(PASSES):
            before = seconds
            for i, j in combinations(range(len(order)), 2):
                if seconds <= (1 + NEGLIGIBLE) * bound:
                    return order
                other = list(order)
                other[i], other[j] = other[j], other[i]
                if (shorter := self._seconds(other)) < seconds:
                    order, seconds = other, shorter
            if seconds == before:
                break
        return order

    def _seconds(self, order: Sequence[str]) -> float:
        """Seconds of an order by the fake clock, from the graphs that are resident now."""
        uses = [use for wave in self.waves(order, NEVER) for use in wave.uses]
        memory = Residency(self.budget_bytes, {u.graph for u in uses if u.graph.sha256 in self.resident})
        memory.expect([use.graph for use in uses], self.pinned())
        return simulate(uses, memory, lambda graph: self.costs.of(graph).load_s).makespan_s

    def _computing(self) -> dict[str, float]:
        """Seconds of each candidate's denoising and decoding."""
        return {name: sum(use.seconds for use in self._uses(name)) for name in self.requests}

    def _uses(self, name: str) -> list[Use]:
        """All denoising and decoding of a candidate."""
        return [use for work, requests in self.groups[name] for use in work.uses(len(requests), self.costs)]

    def _text_use(self, text: EngineRef, prompts: int) -> Use:
        return Use(text, prompts * self.costs.of(text).row_s)

    def _load_s(self, graphs: Iterable[EngineRef]) -> float:
        return sum(self.costs.of(graph).load_s for graph in graphs if graph.sha256 not in self.resident)


def _by_guidance(rows: Sequence[Request], work: Work) -> list[tuple[Work, Sequence[Request]]]:
    """Requests of one candidate with equal guidance, and the work of these."""
    groups: dict[float, list[Request]] = {}
    for request in rows:
        groups.setdefault(request.guidance, []).append(request)
    return [(work.at(guidance), requests) for guidance, requests in groups.items()]


def _parts(rows: Sequence[Request], size: int) -> Iterator[Sequence[Request]]:
    for i in range(0, len(rows), size):
        yield rows[i : i + size]
