"""The request scheduler: makespans on a fake clock for full-size candidates, its own overhead, and merged calls.

    python benchmarks/bench_scheduler.py [--json]

The durations of the fake clock come from `full_size.json`. They are calculated from parameters and FLOP; none was measured.
The peer is a server that takes requests in order of arrival and evicts the least recently used weights (FIFO with LRU). A
second peer combines the order of arrival with our residency: it separates the gain of prefetching and of evicting by future
use from the gain of reordering. `limit_pct` is the lower bound, max(all computing, all weights once over the bus), relative
to our makespan.

On GPUs, concurrent calls to one engine are merged (`resynth_fast.engines.batching`). The processor runs several calls at once, so
the package does not merge there. This benchmark measures merging on the processor all the same, against unmerged calls.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, commit, interleave, measured, processor, show

# isort: split
import argparse
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from resynth_fast import backends, zoo
from resynth_fast.backends import Arrays, Engine
from resynth_fast.backends.onnx_model import OnnxModel
from resynth_fast.bundle import Bundle, File, Guidance
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.devices.base import CPU, Device
from resynth_fast.engines.batching import DynamicBatcher
from resynth_fast.engines.pool import EnginePool
from resynth_fast.options import Options
from resynth_fast.resynthesis.executor import Executor
from resynth_fast.scheduler import BatchKey, Cost, CostTable, EngineRef, Residency, Use, Work, plan, simulate
from resynth_fast.types import Request

TABLE = Path(__file__).with_name("full_size.json")
MEMORY_GB = 72  # for weights; the rest of an 80 GB card is for activations
BOUND, BETTER, OVERHEAD_US = 1.10, 1.5, 50.0
CASES = ((1, 1), (4, 1), (8, 1), (32, 1), (1, 4), (8, 2))
NULL_CANDIDATES, NULL_STEPS, ROUNDS = 10, 8, 31
UNCONTENDED_US = 2.0
CLIENTS, CALLS, CLIENT_THREADS, CLIENT_ROUNDS = 4, 8, 2, 11


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--memory", type=float, default=MEMORY_GB, help="GB for weights on the fake machine")
    arguments = parser.parse_args()
    rows = [row for probes, references in CASES for row in simulated(probes, references, int(1e9 * arguments.memory))]
    show(
        [*rows, overhead(), uncontended(), *(clients(name, rows) for name in ("zoo-sd", "zoo-flux") for rows in (1, 4))],
        as_json=arguments.json,
    )


def simulated(probes: int, references: int, budget_bytes: int) -> list[Row]:
    """Makespans of a plan and of its peers. Only one reference has a goal: with more, computing dominates every order."""
    works, costs = full_size()
    requests = [Request(name, f"probe {i}", seed) for i in range(probes) for name in works for seed in range(references)]

    def load_s(graph: EngineRef) -> float:
        return costs.of(graph).load_s

    schedule = plan(requests, works, costs, budget_bytes=budget_bytes)
    memory = Residency(budget_bytes)
    memory.expect([use.graph for use in schedule.uses()], schedule.pinned)
    ours = simulate(schedule.uses(), memory, load_s)
    bound = max(ours.compute_s, sum(load_s(graph) for graph in {use.graph for use in schedule.uses()}))
    rows = []
    for name, ahead in (("FIFO with LRU", False), ("order of arrival, our residency", True)):
        uses = fifo(works, costs, probes, references)
        peer_memory = Residency(budget_bytes)
        if ahead:
            peer_memory.expect([use.graph for use in uses])
        peer = simulate(uses, peer_memory, load_s, prefetch=ahead)
        goal = BETTER if references == 1 and not ahead else None
        rows.append(_row(f"{probes} probes x {len(works)} candidates x {references}", ours.makespan_s, peer.makespan_s, name, goal, bound))
    rows.append(_row(f"{probes} probes x {len(works)} candidates x {references}", ours.makespan_s, bound, "bound", 1 / BOUND, bound))
    return rows


def fifo(works: Mapping[str, Work], costs: CostTable, probes: int, references: int) -> list[Use]:
    """The uses in order of arrival: probe by probe, candidate by candidate, a candidate's references in one batch."""
    uses: list[Use] = []
    for _ in range(probes):
        for work in works.values():
            uses += [Use(work.text, costs.of(work.text).row_s), *work.uses(references, costs)]
    return uses


def full_size() -> tuple[dict[str, Work], CostTable]:
    """Ten candidates, and the costs of their graphs on the fake machine."""
    table = json.loads(TABLE.read_text())
    graphs = {name: EngineRef(name, int(entry["bytes"])) for name, entry in table["graphs"].items()}
    costs = CostTable({name: Cost(entry["row_s"], entry["bytes"] / table["bytes_per_s"]) for name, entry in table["graphs"].items()})
    works = {
        name: Work(
            BatchKey(name, (0, 0), "bfloat16", Guidance("none", 1.0), c["calls"]),
            graphs[c["text"]],
            graphs[c["denoiser"]],
            graphs[c["decoder"]],
            c["calls"],
            c["rows"],
        )
        for name, c in table["candidates"].items()
    }
    return works, costs


def overhead() -> Row:
    """Microseconds per denoising step of ten candidates whose engines do nothing: the executor's own overhead."""
    model = next(bundle for bundle in zoo.candidates() if bundle.guidance.mode == "none")
    pool = EnginePool(NullBackend(model))
    candidates = {f"null-{i}": EngineCandidate(NullBundle(model, i), pool) for i in range(NULL_CANDIDATES)}
    executor = Executor(candidates, pool, Options(steps=NULL_STEPS))
    samples = []
    for i in range(ROUNDS + 1):
        requests = [Request(name, f"caption {i}", seed) for name in candidates for seed in range(2)]
        start = time.perf_counter()
        executor(requests)
        samples.append(1e6 * (time.perf_counter() - start) / (NULL_CANDIDATES * NULL_STEPS))
    ours = np.array(samples[1:])
    return Row(
        bench="scheduler",
        case=f"overhead a step, {NULL_CANDIDATES} candidates that do nothing x 2 x {NULL_STEPS} steps",
        unit="microseconds",
        ours=float(np.median(ours)),
        ours_p90=float(np.percentile(ours, 90)),
        peer=OVERHEAD_US,
        peer_p90=OVERHEAD_US,
        peer_name="allowance",
        ratio=OVERHEAD_US / float(np.median(ours)),
        goal=1.0,
        met=bool(np.median(ours) <= OVERHEAD_US),
        limit_pct=None,
        device=processor(),
        threads=1,
        commit=commit(),
    )


def uncontended() -> Row:
    """Microseconds that merging adds to a call on an idle engine."""
    engine = _NullEngine({"model_output": ("batch", 1)})
    samples = interleave(
        {
            name: partial(contestant.run, {"latents": np.zeros((1, 1))})
            for name, contestant in (("", engine), ("merged", DynamicBatcher(engine, lambda: CLIENTS)))
        }
    )
    added = np.subtract(samples["merged"], samples[""])
    return measured(
        "scheduler",
        "merging, a call on an idle engine",
        ours=float(np.median(added)),
        ours_p90=float(np.percentile(added, 90)),
        peer=UNCONTENDED_US,
        peer_name="allowance",
        goal=1.0,
    )


def clients(name: str, rows: int) -> Row:
    """Milliseconds per row of a denoiser that several clients call at once, merged and unmerged."""
    component = zoo.bundle(name).components["denoiser"]
    engine = backends.get("onnxruntime").load(component.onnx_model(), threads=CLIENT_THREADS)
    rng = np.random.default_rng(0)
    inputs = {
        key: rng.standard_normal([rows, *(int(size) for size in tensor.shape[1:])]).astype(tensor.dtype)
        for key, tensor in component.inputs.items()
    }

    def call_repeatedly(engine: Engine, client: int) -> None:
        for call in range(CALLS):
            engine.run({**inputs, "timestep": np.full(rows, 100.0 * client + call, np.float32)})

    samples: dict[str, list[float]] = {"merged": [], "unmerged": []}
    with ThreadPoolExecutor(CLIENTS) as workers:
        for number in range(-1, CLIENT_ROUNDS):  # the first warms up
            for way, contestant in (("merged", DynamicBatcher(engine, lambda: CLIENTS)), ("unmerged", engine)):
                start = time.perf_counter()
                list(workers.map(partial(call_repeatedly, contestant), range(CLIENTS)))
                if number >= 0:
                    samples[way].append(1e3 * (time.perf_counter() - start) / (CLIENTS * CALLS * rows))
    ours, peer = samples["merged"], samples["unmerged"]
    row = measured(
        "scheduler",
        f"{CLIENTS} clients at once, {name} denoiser, {rows} rows a call, merged",
        ours=float(np.median(ours)),
        ours_p90=float(np.percentile(ours, 90)),
        peer=float(np.median(peer)),
        peer_p90=float(np.percentile(peer, 90)),
        peer_name="unmerged",
        ratio=float(np.median(np.divide(peer, ours))),
        goal=None,
        unit="milliseconds a row",
    )
    return replace(row, threads=CLIENT_THREADS)


class NullBundle(Bundle):
    """A copy of a bundle whose graphs have hashes of their own."""

    def __init__(self, model: Bundle, index: int) -> None:
        super().__init__(model.folder, dict(model.manifest) | {"name": f"null-{index}"})
        self.__dict__["components"] = {
            name: replace(component, file=_Unread(component.file.path, f"{index:02d}{component.file.sha256[2:]}"))
            for name, component in model.components.items()
        }


class _Unread(File):
    """A file whose content is its name."""

    def read(self) -> bytes:
        return self.path.name.encode()


class NullBackend:
    """Engines that return zeros."""

    runs_on_caller_thread = False

    def __init__(self, model: Bundle) -> None:
        self._outputs = {component.file.path.name.encode(): component.outputs for component in model.components.values()}

    def version(self) -> str:
        return "null"

    def load(self, model: OnnxModel, *, threads: int) -> Any:
        return _NullEngine({name: tensor.shape for name, tensor in self._outputs[model.graph].items()})


class _NullEngine:
    fallback = ""
    device: Device[Any] = CPU

    def __init__(self, shapes: Mapping[str, Sequence[int | str]]) -> None:
        self._shapes = shapes

    def run(self, inputs: Arrays) -> dict[str, Any]:
        rows = len(next(iter(inputs.values())))
        return {name: np.zeros((rows, *(int(n) for n in shape[1:])), np.float32) for name, shape in self._shapes.items()}


def _row(case: str, ours: float, peer: float, name: str, goal: float | None, bound: float) -> Row:
    return Row(
        bench="scheduler",
        case=case,
        unit="seconds of the fake clock",
        ours=ours,
        ours_p90=ours,
        peer=peer,
        peer_p90=peer,
        peer_name=name,
        ratio=peer / ours,
        goal=goal,
        met=None if goal is None else peer / ours >= goal,
        limit_pct=100 * bound / ours,
        device="fake: H100, PCIe 5",
        threads=1,
        commit=commit(),
    )


if __name__ == "__main__":
    main()
