"""Loaded engines, shared by the content of their files, within a memory budget: the only state that outlives a call."""

from __future__ import annotations

import os
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
"""Memory of a loaded graph as a multiple of its file: weights in two layouts, and the file itself; measured with ONNX Runtime.
Weights stored in 16 bits take twice that, as they are widened to 32."""
MAPPED = 2
"""The same for weights in files of their own: they are mapped, and widened one layer at a time."""

SMALL_FLOPS = 1 << 30
"""Networks with fewer operations per row run on one thread each, in lanes. The zoo's networks have less than half of it: a second
thread makes them 1.2 to 1.4 times faster, two lanes 1.9 times (`benchmarks/bench_end_to_end.py`). The limit is chosen, not measured."""


@dataclass(frozen=True, slots=True)
class Account:
    """Loads, evictions and waiting of a pool so far."""

    loads: int = 0
    evictions: int = 0
    load_ms: float = 0.0
    """Milliseconds of all loads, those in the background included."""
    waited_ms: float = 0.0
    """Milliseconds that computation waited for weights."""
    peak_bytes: int = 0
    """Memory of all loaded engines together, at most."""

    def since(self, earlier: Account) -> Account:
        """The difference from an earlier account; the peak is that of this one."""
        return Account(
            self.loads - earlier.loads,
            self.evictions - earlier.evictions,
            self.load_ms - earlier.load_ms,
            self.waited_ms - earlier.waited_ms,
            self.peak_bytes,
        )

    def provenance(self, budget_bytes: int | None) -> dict[str, Any]:
        """The entry of a verdict's provenance; empty without a budget."""
        if budget_bytes is None:
            return {}
        return {"memory": {"budget_bytes": budget_bytes} | {name: round(value, 3) for name, value in asdict(self).items()}}

    def warnings(self, budget_bytes: int | None) -> tuple[str, ...]:
        """The cost of a budget, as a warning; empty if no engine was evicted."""
        if budget_bytes is None or not self.evictions:
            return ()
        cost = f"{self.loads} loads and {self.evictions} evictions of engines; computation waited {self.waited_ms:.0f} ms for weights"
        return (f"the memory budget of {budget_bytes / 1e6:.1f} MB cost {cost}",)


class EnginePool:
    """Loads each distinct graph once, and never holds more than `budget_bytes` of them.

    Two bundles that name a file of the same SHA-256 share its engine: twins share an autoencoder, most bundles a text encoder.
    Components announced with `expect` are prefetched on a background thread while others compute. With `threads=1`
    nothing is prefetched. With several threads a large network gets all of them; small networks get one each and run
    side by side in as many `lanes`, if there is no memory budget and the backend computes on the calling thread.
    Methods may be called from several threads.

    Args:
        backend: Name of the backend, with its device if it has several, as in onnxruntime:cuda; or a backend.
        threads: Threads of the engines together; None: one per core.
        budget_bytes: Memory of all loaded engines together, in bytes; None: unlimited.
        prefetch: Whether announced components are loaded in the background; by default if there is more than one thread.
        strict: Whether an engine that cannot run as the backend says is an error. Otherwise `fallbacks` lists it.

    Raises:
        ConfigError: There is no such backend.
        DeviceError: The device is missing.

    Example:
        >>> from resynth_fast.candidates import find
        >>> from resynth_fast.engines.pool import EnginePool
        >>> pool = EnginePool(threads=2, budget_bytes=500_000_000)
        >>> [candidate] = find(["zoo:zoo-flux"], pool)  # its engines load on first use
    """

    def __init__(
        self,
        backend: str | backends.Backend = "onnxruntime",
        *,
        threads: int | None = 1,
        budget_bytes: int | None = None,
        prefetch: bool | None = None,
        strict: bool = False,
    ) -> None:
        self.backend = backends.get(backend) if isinstance(backend, str) else backend
        self.strict = strict
        self.fallbacks: list[str] = []
        self.threads = threads or os.cpu_count() or 1
        self.budget_bytes = budget_bytes
        self.prefetch = self.threads > 1 if prefetch is None else prefetch
        self.lanes = Lanes(self.threads if budget_bytes is None and self.backend.runs_on_caller_thread else 1)
        if budget_bytes is not None:
            malloc.map_large_blocks()
        self.costs = CostTable()
        self.text_cache = TextCache()
        self._engines: dict[str, backends.Engine] = {}
        self._memory = Residency(budget_bytes)
        self._announced: dict[str, Component] = {}
        self._account = Account()
        self._changed = threading.Condition()
        self._loader: threading.Thread | None = None

    @property
    def machine(self) -> str:
        """The backend, threads and machine that costs are measured on."""
        return f"{self.backend.version()}, {self.threads} threads, {platform.machine()} {platform.node()}"

    def in_lane(self, component: Component) -> bool:
        """Whether calls of `component` run on one thread each, side by side with others."""
        return self.lanes.count > 1 and 0 < component.flops < SMALL_FLOPS

    def get(self, component: Component) -> backends.Engine:
        """The engine of `component`, loaded and verified if necessary. It may be evicted while it is used; `hold` prevents that."""
        with self.hold(component) as engine:
            return engine

    @contextmanager
    def hold(self, component: Component, rows: int | None = None) -> Iterator[backends.Engine]:
        """The engine of `component`, in memory until the block ends. DeviceError if it alone exceeds the budget.

        A block that runs `rows` is timed for the cost table, without the time that its thread spent on others' rows. A thread
        holds one engine at a time: two threads that each held one and waited for memory would wait for ever.
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
        """Announce the components that will be held, in order. `pinned`: hashes of graphs that are evicted last."""
        coming = list(components)
        with self._changed:
            self._announced = {component.file.sha256: component for component in coming}
            self._memory.expect([engine_ref(component) for component in coming], pinned)
        self._load_ahead()

    def release(self, component: Component) -> None:
        """Evict `component` if it is idle: it will not be needed soon."""
        with self._changed:
            self._evict(self._memory.release([component.file.sha256]))
        self._load_ahead()

    @property
    def resident(self) -> frozenset[str]:
        """SHA-256 of each loaded graph."""
        with self._changed:
            return self._memory.resident

    @property
    def account(self) -> Account:
        """Loads, evictions and waiting since the pool was created."""
        with self._changed:
            return replace(self._account, peak_bytes=self._memory.peak_bytes)

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
                f"more than the memory budget of {(self.budget_bytes or 0) / 1e6:.1f} MB; raise the budget to that at least"
            ) from None

    def _begin(self, load: Load) -> None:
        self._evict(load.evict)
        self._memory.begin(load)

    def _evict(self, shas: Collection[str]) -> None:
        for sha in shas:
            del self._engines[sha]
        if shas:
            self._account = replace(self._account, evictions=self._account.evictions + len(shas))
            malloc.trim()

    def _note(self, fallback: str) -> None:
        if fallback and self.strict:
            raise DeviceError(f"{fallback}; install or choose another backend, or allow the fallback by leaving out --strict-backend")
        if fallback and fallback not in self.fallbacks:
            self.fallbacks.append(fallback)

    def _load(self, component: Component, graph: EngineRef) -> None:
        """Load without holding the lock. Afterwards the graph is resident; after an error it is not there at all."""
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
        """Start the loading thread if a component is to be loaded and there is room for it."""
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
            except Exception:  # the thread that needs it loads it again and gets the error
                component = None
            with self._changed:
                component = self._next() if component and threading.main_thread().is_alive() else None
                if component is None:
                    self._loader = None

    def _next(self) -> Component | None:
        """The next component to load ahead of its use, whose load has been booked; None if there is none."""
        try:
            load = self._memory.next_load()
        except ValueError:  # larger than the budget: an error only for the thread that needs it
            return None
        if load is None:
            return None
        self._begin(load)
        return self._announced[load.graph.sha256]


def engine_ref(component: Component) -> EngineRef:
    """Hash and memory of a component, for the scheduler."""
    sha = component.file.sha256
    if sha not in _sizes:
        factor = MAPPED if component.data else EXPANSION * STORED_SMALLER.get(component.precision, 1)
        _sizes[sha] = factor * component.size_bytes
    return EngineRef(sha, _sizes[sha])


_sizes: dict[str, int] = {}
