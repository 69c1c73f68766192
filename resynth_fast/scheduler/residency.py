"""Which graphs are in memory, which is loaded next, and which is evicted for it. Bookkeeping alone: no engine, no clock.

If the coming uses are announced, the graph whose next use is farthest away is evicted (Belády: A study of replacement
algorithms for a virtual-storage computer, 1966), and the next one is loaded while others compute. Otherwise the least
recently used graph is evicted, and a graph is loaded on request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class EngineRef:
    """The hash and memory of a component; equal hashes are one graph."""

    sha256: str
    size_bytes: int
    """Memory of the loaded graph."""


class Use(NamedTuple):
    """One stretch of computing with a graph."""

    graph: EngineRef
    seconds: float


class Load(NamedTuple):
    """A graph to load after the hashes in `evict` are evicted."""

    graph: EngineRef
    evict: tuple[str, ...]


class Residency:
    """State of a memory of `budget_bytes` (None: unlimited). Graphs that are held or loading are never evicted."""

    def __init__(self, budget_bytes: int | None = None, resident: Iterable[EngineRef] = ()) -> None:
        self.budget_bytes = budget_bytes
        self._sizes = {graph.sha256: graph.size_bytes for graph in resident}  # least recently used first
        self.peak_bytes = self.used_bytes
        self._loading: set[str] = set()
        self._held: Counter[str] = Counter()
        self._pinned: frozenset[str] = frozenset()
        self._coming: list[EngineRef] = []
        self._at: dict[str, list[int]] = {}
        self._position = 0
        self._scan = 0

    @property
    def used_bytes(self) -> int:
        """Memory of all graphs that are resident or loading."""
        return sum(self._sizes.values())

    @property
    def resident(self) -> frozenset[str]:
        """Hashes of the loaded graphs."""
        return frozenset(self._sizes.keys() - self._loading)

    def __contains__(self, graph: EngineRef) -> bool:
        return graph.sha256 in self._sizes and graph.sha256 not in self._loading

    def expect(self, coming: Iterable[EngineRef], pinned: Collection[str] = ()) -> None:
        """Announce the coming uses, in order. `pinned` hashes are evicted last: they will be used again after the end of the list."""
        self._coming = list(coming)
        self._pinned = frozenset(pinned)
        self._position = self._scan = 0
        self._at = {}
        for i, graph in enumerate(self._coming):
            self._at.setdefault(graph.sha256, []).append(i)

    def hold(self, graph: EngineRef) -> None:
        """Begin a use of `graph`, which is resident."""
        sha = graph.sha256
        assert sha in self._sizes
        assert sha not in self._loading
        self._held[sha] += 1
        self._sizes[sha] = self._sizes.pop(sha)
        self._position = max(self._position, min(self._next_use(sha) + 1, len(self._coming)) if sha in self._at else 0)

    def holders(self, graph: EngineRef) -> int:
        """Number of uses of `graph` that have begun and not ended."""
        return self._held[graph.sha256]

    def drop(self, graph: EngineRef) -> None:
        """End a use of `graph`."""
        self._held[graph.sha256] -= 1
        if not self._held[graph.sha256]:
            del self._held[graph.sha256]
        self._scan = min(self._scan, self._position)

    def next_load(self) -> Load | None:
        """The next graph to load ahead of its use, if no graph that is used sooner has to be evicted for it."""
        i = max(self._position, self._scan)
        while i < len(self._coming) and self._coming[i].sha256 in self._sizes:
            i += 1
        self._scan = i
        return self.room(self._coming[i], before=i) if i < len(self._coming) else None

    def room(self, graph: EngineRef, before: int = -1) -> Load | None:
        """The load of `graph` with its evictions, or None while there is no room. Only graphs whose next use is after `before` are evicted.

        ValueError if the graph alone is larger than the memory.
        """
        if self.budget_bytes is None:
            return Load(graph, ())
        if graph.size_bytes > self.budget_bytes:
            raise ValueError(graph.size_bytes)
        wanted = self.used_bytes + graph.size_bytes - self.budget_bytes
        victims: list[str] = []
        if wanted > 0:
            idle = [sha for sha in self._sizes if sha not in self._loading and sha not in self._held]
            for sha in sorted(idle, key=lambda sha: (sha in self._pinned, -self._next_use(sha))):  # stable: then the least recently used
                if self._next_use(sha) <= before:
                    continue
                victims.append(sha)
                wanted -= self._sizes[sha]
                if wanted <= 0:
                    break
        return Load(graph, tuple(victims)) if wanted <= 0 else None

    def begin(self, load: Load) -> None:
        """Begin a load; its evictions are done."""
        for sha in load.evict:
            del self._sizes[sha]
        self._sizes[load.graph.sha256] = load.graph.size_bytes
        self._loading.add(load.graph.sha256)
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        self._scan = min(self._scan, self._position)

    def loaded(self, graph: EngineRef) -> None:
        """End a load: `graph` is resident."""
        self._loading.discard(graph.sha256)

    def failed(self, graph: EngineRef) -> None:
        """End a load that failed: `graph` is not in memory."""
        self._loading.discard(graph.sha256)
        del self._sizes[graph.sha256]

    def loading(self, graph: EngineRef) -> bool:
        """Whether `graph` is loading."""
        return graph.sha256 in self._loading

    def release(self, shas: Collection[str]) -> tuple[str, ...]:
        """Evict the idle graphs among `shas`; return the evicted hashes."""
        evicted = tuple(sha for sha in shas if sha in self._sizes and sha not in self._held and sha not in self._loading)
        for sha in evicted:
            del self._sizes[sha]
        self._scan = min(self._scan, self._position)
        return evicted

    def _next_use(self, sha: str) -> int:
        uses: Sequence[int] = self._at.get(sha, ())
        i = bisect_left(uses, self._position)
        return uses[i] if i < len(uses) else NEVER
