"""Loaded components, shared by content, within a memory budget: the only state that outlives a call."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from .. import backends
from ..bundle import Component
from ..errors import DeviceError
from ..scheduler.costs import CostTable
from ..scheduler.residency import EngineRef, Load, Residency
from . import malloc
from .batching import dynamic_batching, waiting_s
from .lanes import Lanes
from .text_cache import TextCache

EXPANSION, STORED_SMALLER = 3, {"float16-stored": 2}
"""How much more than its file a graph takes in memory: weights in two layouts and what was read; measured with ONNX Runtime.
Weights that are stored in 16 bits are computed with in 32."""
MAPPED = 2
"""The same where weights stand beside the graph: they are mapped, and one layer's at a time is widened."""

SMALL_FLOPS = 1 << 30
"""Of a row: below it one thread each. The zoo's networks, of less than half, gain 1.2 to 1.4 by a second thread and 1.9 side by side
(`benchmarks/bench_end_to_end.py`, two threads); where large ones begin is chosen, not measured."""


@dataclass(frozen=True, slots=True)
class Account:
    """What memory has cost so far."""

    loads: int = 0
    evictions: int = 0
    load_ms: float = 0.0
    """Loading, in the background too."""
    waited_ms: float = 0.0
    """Of it, what the computing had to wait for."""
    peak_bytes: int = 0

    def since(self, earlier: Account) -> Account:
        """The difference of two accounts; the peak is that of the later one."""
        return Account(
            self.loads - earlier.loads,
            self.evictions - earlier.evictions,
            self.load_ms - earlier.load_ms,
            self.waited_ms - earlier.waited_ms,
            self.peak_bytes,
        )

    def provenance(self, budget_bytes: int | None) -> dict[str, Any]:
        """What a verdict says of it, where there was a budget."""
        if budget_bytes is None:
            return {}
        return {"memory": {"budget_bytes": budget_bytes} | {name: round(value, 3) for name, value in asdict(self).items()}}

    def warnings(self, budget_bytes: int | None) -> tuple[str, ...]:
        """What a budget has cost, in words."""
        if budget_bytes is None or not self.evictions:
            return ()
        cost = f"{self.loads} loads and drove out {self.evictions} engines; computing waited {self.waited_ms:.0f} ms"
        return (f"the memory budget of {budget_bytes / 1e6:.1f} MB cost {cost}",)


class EnginePool:
    """Loads each distinct graph once, and never holds more than `budget_bytes` of them.

    Two bundles that name a file of the same SHA-256 (twins share an autoencoder, most share a text encoder) get the
    same engine. Who says what is coming (`expect`) has it loaded by a thread while others compute, if engines have more
    than one thread: with one, it is understood that one thread is all there is to be used. Of several threads, a large
    network gets all, and small ones get one each and run side by side in as many `lanes`, where memory is not short and
    the backend computes on the calling thread.
    `strict`: an engine that runs otherwise than was asked for is an error, else `fallbacks` tells of it.
    """

    def __init__(
        self,
        backend: str | backends.Backend = "onnxruntime",
        *,
        threads: int = 1,
        budget_bytes: int | None = None,
        prefetch: bool | None = None,
        strict: bool = False,
    ) -> None:
        self.backend = backends.get(backend) if isinstance(backend, str) else backend
        self.strict = strict
        self.fallbacks: list[str] = []
        self.threads = threads
        self.budget_bytes = budget_bytes
        self.prefetch = threads > 1 if prefetch is None else prefetch
        self.lanes = Lanes(threads if budget_bytes is None and self.backend.runs_on_caller_thread else 1)
        if budget_bytes is not None:
            malloc.map_large_blocks()
        self.costs = CostTable()
        self.text_cache = TextCache()
        self._engines: dict[str, backends.Engine] = {}
        self._memory = Residency(budget_bytes)
        self._known: dict[str, Component] = {}
        self._account = Account()
        self._changed = threading.Condition()
        self._loader: threading.Thread | None = None

    @property
    def machine(self) -> str:
        """What costs are measured on."""
        return f"{self.backend.version()}, {self.threads} threads, {platform.machine()} {platform.node()}"

    def in_lane(self, component: Component) -> bool:
        """Whether calls of `component` run on one thread each, beside others."""
        return self.lanes.count > 1 and 0 < component.flops < SMALL_FLOPS

    def get(self, component: Component) -> backends.Engine:
        """The engine of `component`, loaded and verified if it is not there; it may go from memory while it is used: see `hold`."""
        with self.hold(component) as engine:
            return engine

    @contextmanager
    def hold(self, component: Component, rows: int | None = None) -> Iterator[backends.Engine]:
        """The engine of `component`, in memory until the block ends. DeviceError if it is over the budget.

        A block that runs `rows` is timed, without what its thread did for others. A thread holds one at a time: two that each held one and waited for room would wait for ever.
        """
        graph = engine_ref(component)
        engine = self._obtain(component, graph)
        start = time.perf_counter() - waiting_s(engine)
        try:
            yield engine
            if rows:
                self.costs.ran(graph, rows, time.perf_counter() - waiting_s(engine) - start)
        finally:
            with self._changed:
                self._memory.drop(graph)
                self._changed.notify_all()
            self._load_ahead()

    def expect(self, components: Iterable[Component], pinned: Collection[str] = ()) -> None:
        """Say which components will be held, in order; `pinned` are hashes of graphs that stay as long as there is room."""
        coming = list(components)
        with self._changed:
            self._known = {component.file.sha256: component for component in coming}
            self._memory.expect([engine_ref(component) for component in coming], pinned)
        self._load_ahead()

    def release(self, component: Component) -> None:
        """`component` will not be needed soon."""
        with self._changed:
            self._forget(self._memory.release([component.file.sha256]))
        self._load_ahead()

    @property
    def resident(self) -> frozenset[str]:
        """Hashes of the graphs that are loaded."""
        with self._changed:
            return self._memory.resident

    @property
    def account(self) -> Account:
        """What memory has cost since the pool was made."""
        with self._changed:
            return replace(self._account, peak_bytes=self._memory.peak_bytes)

    def loaded_bytes(self) -> int:
        """What the loaded graphs take."""
        with self._changed:
            return self._memory.used_bytes

    def _obtain(self, component: Component, graph: EngineRef) -> backends.Engine:
        start = time.perf_counter()
        with self._changed:
            waited = graph not in self._memory
            while graph not in self._memory:
                load = None if self._memory.loading(graph) else self._room(component, graph)
                if load is None:
                    self._changed.wait()
                    continue
                self._begin(load)
                self._changed.release()
                try:
                    self._load(component, graph)
                finally:
                    self._changed.acquire()
            self._memory.hold(graph)
            if waited:
                self._account = replace(self._account, waited_ms=self._account.waited_ms + 1000 * (time.perf_counter() - start))
            return self._engines[graph.sha256]

    def _room(self, component: Component, graph: EngineRef) -> Load | None:
        try:
            return self._memory.room(graph)
        except ValueError:
            raise DeviceError(
                f"{component.file.path.name} ({graph.sha256[:12]}…) takes {graph.size_bytes / 1e6:.1f} MB in memory, "
                f"the memory budget is {(self.budget_bytes or 0) / 1e6:.1f} MB; raise it to that at least"
            ) from None

    def _begin(self, load: Load) -> None:
        self._forget(load.evict)
        self._memory.begin(load)

    def _forget(self, shas: Collection[str]) -> None:
        for sha in shas:
            del self._engines[sha]
        if shas:
            self._account = replace(self._account, evictions=self._account.evictions + len(shas))
            malloc.trim()

    def _note(self, fallback: str) -> None:
        if fallback and self.strict:
            raise DeviceError(f"{fallback}; install or choose another backend, or allow it without --strict-backend")
        if fallback and fallback not in self.fallbacks:
            self.fallbacks.append(fallback)

    def _load(self, component: Component, graph: EngineRef) -> None:
        """Outside the lock; the graph is resident afterwards, or nowhere."""
        start = time.perf_counter()
        try:
            engine = self.backend.load(component.onnx_model(), threads=1 if self.in_lane(component) else self.threads)
            engine = dynamic_batching(engine, holders=partial(self._memory.holders, graph))
            self._note(engine.fallback)
        except BaseException:
            with self._changed:
                self._memory.failed(graph)
                self._changed.notify_all()
            raise
        seconds = time.perf_counter() - start
        with self._changed:
            self._engines[graph.sha256] = engine
            self._memory.loaded(graph)
            self.costs.loaded(graph, seconds)
            self._account = replace(self._account, loads=self._account.loads + 1, load_ms=self._account.load_ms + 1000 * seconds)
            self._changed.notify_all()

    def _load_ahead(self) -> None:
        """See that a thread is loading, if there is something to load and room for it."""
        if not self.prefetch:
            return
        with self._changed:
            if self._loader is None and (component := self._next()):
                self._loader = threading.Thread(target=self._keep_loading, args=(component,), name="resynth-loader")
                self._loader.start()

    def _keep_loading(self, component: Component | None) -> None:
        while component:
            try:
                self._load(component, engine_ref(component))
            except Exception:  # who needs it will load it itself, and hear of it
                component = None
            with self._changed:
                component = self._next() if component and threading.main_thread().is_alive() else None
                if component is None:
                    self._loader = None

    def _next(self) -> Component | None:
        """What is to be loaded ahead of its use: its loading has been begun."""
        try:
            load = self._memory.next_load()
        except ValueError:  # larger than the budget: an error only for who needs it
            return None
        if load is None:
            return None
        self._begin(load)
        return self._known[load.graph.sha256]


def engine_ref(component: Component) -> EngineRef:
    """A component as the scheduler sees it."""
    sha = component.file.sha256
    if sha not in _sizes:
        factor = MAPPED if component.data else EXPANSION * STORED_SMALLER.get(component.precision, 1)
        _sizes[sha] = factor * component.size_bytes
    return EngineRef(sha, _sizes[sha])


_sizes: dict[str, int] = {}
