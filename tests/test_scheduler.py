"""Plans, residency and the fake clock: by property, and against bounds on full-size candidates."""

import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resynth_fast.bundle import Guidance
from resynth_fast.scheduler import BatchKey, Cost, CostTable, EngineRef, Residency, TextWave, Use, Wave, Work, plan, simulate
from resynth_fast.types import Request

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    """benchmarks/bench_scheduler.py, as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        specification = importlib.util.spec_from_file_location("bench_scheduler", BENCHMARKS / "bench_scheduler.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def work(name, denoiser, *, text="text", decoder=1, calls=4):
    key = BatchKey(name, (64, 64), "float32", Guidance("none", 1.0), calls)
    return Work(key, EngineRef(text, 5), EngineRef(f"{name}-denoiser", denoiser), EngineRef(f"{name}-decoder", decoder), calls, 1)


sizes = st.lists(st.integers(1, 50), min_size=1, max_size=7)


@given(sizes, st.integers(1, 3), st.integers(1, 3), st.integers(55, 200), st.booleans())
def test_a_plan_runs_every_request_once_text_first_with_one_load_a_graph(
    denoisers: Any, prompts: Any, seeds: Any, budget: Any, cheapest: Any
) -> None:
    works = {f"c{i}": work(f"c{i}", size, text=f"text-{i % 2}") for i, size in enumerate(denoisers)}
    requests = [Request(name, f"p{p}", s) for p in range(prompts) for name in works for s in range(seeds)]
    made = plan(requests * 2, works, budget_bytes=budget, max_rows=4, cheapest_first=cheapest)
    waves = [wave for wave in made.waves if isinstance(wave, Wave)]
    assert sorted(map(repr, itertools.chain(*(wave.requests for wave in waves)))) == sorted(map(repr, requests))
    assert all(len(wave.requests) <= 4 and {r.candidate for r in wave.requests} == {wave.candidate} for wave in waves)
    encoded = set()
    for wave in made.waves:
        if isinstance(wave, TextWave):
            texts = {works[name].text.sha256 for name in wave.candidates}
            assert len(texts) == 1
            assert not texts & encoded
            encoded |= texts
            assert set(wave.prompts) == {f"p{p}" for p in range(prompts)}
        else:
            assert works[wave.candidate].text.sha256 in encoded
    runs = [name for name, _ in itertools.groupby(wave.candidate for wave in waves)]
    assert len(runs) == len(set(runs)), "a candidate's waves are not one after another"
    memory = Residency(budget)
    memory.expect([use.graph for use in made.uses()], made.pinned)
    trace = simulate(made.uses(), memory, lambda graph: graph.size_bytes / 10)
    assert trace.peak_bytes <= budget
    assert trace.makespan_s >= max(trace.compute_s, sum(g.size_bytes for g in {u.graph for u in made.uses()}) / 10) - 1e-9


@given(sizes, st.integers(1, 4), st.integers(1, 5), st.integers(2, 6))
def test_waves_of_small_candidates_fill_the_lanes_longest_first(denoisers: Any, prompts: Any, seeds: Any, lanes: Any) -> None:
    works = {f"c{i}": replace(work(f"c{i}", size), in_lane=i % 3 > 0) for i, size in enumerate(denoisers)}
    requests = [Request(name, f"p{p}", s) for p in range(prompts) for name in works for s in range(seeds)]
    made = plan(requests, works, max_rows=4, lanes=lanes)
    in_lane, texts, remote, others = made.parts
    assert sorted(map(repr, (*texts, *in_lane, *others))) == sorted(map(repr, made.waves))
    assert not remote
    assert {r for wave in (*in_lane, *others) if isinstance(wave, Wave) for r in wave.requests} == set(requests)
    assert {wave.candidate for wave in in_lane} == {name for name, w in works.items() if w.in_lane}
    assert [wave.seconds for wave in in_lane] == sorted((wave.seconds for wave in in_lane), reverse=True)
    rows = [len(wave.requests) for wave in in_lane]
    assert max(rows, default=0) <= min(4, -(-sum(rows) // lanes)), "a lane has nothing to do while another has more than its share"
    ends = [0.0] * lanes  # each takes the next as it becomes free
    for wave in in_lane:
        ends[ends.index(min(ends))] += wave.seconds
    if len(in_lane) > lanes:
        assert max(ends) <= max(in_lane[0].seconds, sum(ends) / lanes + in_lane[lanes].seconds) + 1e-12, "a long one came last"


def test_remote_candidates_start_first_and_need_no_weights() -> None:
    made = plan([Request("mine", "p", 0), Request("server", "p", 0)], {"mine": work("mine", 3)})
    assert [getattr(wave, "candidate", "text") for wave in made.waves] == ["server", "text", "mine"]
    assert made.waves[0].uses == ()


def test_resident_graphs_run_first() -> None:
    works = {name: work(name, 100) for name in "abc"}
    made = plan([Request(name, "p", 0) for name in "abc"], works, budget_bytes=250, resident={"b-denoiser", "b-decoder", "text"})
    assert next(wave.candidate for wave in made.waves if isinstance(wave, Wave)) == "b"


def test_small_graphs_are_pinned_and_the_largest_stream() -> None:
    works = {name: work(name, size) for name, size in {"small": 10, "big": 100, "bigger": 120}.items()}
    made = plan([Request(name, "p", 0) for name in works], works, budget_bytes=240)
    assert made.pinned == {"small-denoiser", "small-decoder", "big-decoder", "bigger-decoder", "text"}


graphs = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=40)


@given(graphs, st.integers(10, 40), st.booleans(), st.booleans())
def test_memory_is_never_exceeded_and_every_use_is_run(sequence: Any, budget: Any, known: Any, prefetch: Any) -> None:
    uses = [Use(EngineRef(str(i), 1 + i), seconds) for i, seconds in sequence]
    memory = Residency(budget)
    if known:
        memory.expect([use.graph for use in uses])
    trace = simulate(uses, memory, lambda graph: float(graph.size_bytes), prefetch=prefetch)
    once = sum(graph.size_bytes for graph in {use.graph for use in uses})
    assert trace.peak_bytes <= budget
    assert trace.transfer_s >= once
    assert max(trace.compute_s, once) <= trace.makespan_s <= trace.compute_s + trace.transfer_s
    assert not any(memory.holders(use.graph) or memory.loading(use.graph) for use in uses)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=60), st.integers(1, 8))
def test_equal_sizes_without_prefetch_have_as_few_loads_as_belady_allows(sequence: Any, places: Any) -> None:
    """Against the minimum by exhaustive knowledge of the future, counted independently."""
    uses = [Use(EngineRef(str(i), 1), 1.0) for i in sequence]
    memory = Residency(places)
    memory.expect([use.graph for use in uses])
    loads = simulate(uses, memory, lambda graph: 1.0, prefetch=False).transfer_s
    here, expected = set(), 0
    for at, i in enumerate(sequence):
        if i in here:
            continue
        expected += 1
        if len(here) == places:
            here.remove(max(here, key=lambda j: sequence.index(j, at) if j in sequence[at:] else 10**9))
        here.add(i)
    assert loads == expected


def test_a_graph_larger_than_the_memory_is_an_error_not_a_deadlock() -> None:
    with pytest.raises(ValueError, match="9"):
        simulate([Use(EngineRef("a", 9), 1.0)], Residency(5), lambda graph: 1.0, prefetch=False)


@pytest.mark.parametrize(("probes", "references"), [(1, 1), (8, 1), (32, 1), (8, 2), (1, 4)])
def test_full_size_candidates_reach_the_bound_and_beat_fifo_with_lru(bench: Any, probes: Any, references: Any) -> None:
    rows = {row.peer_name: row for row in bench.simulated(probes, references, int(72e9))}
    assert rows["bound"].ratio >= 1 / 1.10
    if references == 1:
        assert rows["FIFO with LRU"].ratio >= 1.5
    else:  # computing alone decides there: nothing can be 1.5 times better
        assert rows["FIFO with LRU"].ratio >= 0.95 * rows["FIFO with LRU"].peer / rows["bound"].peer


def test_costs_are_measured_stored_and_read_back(tmp_path: Path) -> None:
    graph, path = EngineRef("a", 1000), tmp_path / "costs.json"
    costs = CostTable()
    assert graph not in costs
    costs.ran(graph, 4, 2.0)
    costs.loaded(graph, 3.0)
    assert costs.of(graph).row_s == 0.5
    assert graph in costs
    costs.write(path, "here")
    assert CostTable.read(path, "here").of(graph) == costs.of(graph)
    assert graph not in CostTable.read(path, "elsewhere")
    assert graph not in CostTable.read(tmp_path / "none.json", "here")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"device": "here", "costs": {"a": {"row_s": -1, "load_s": 0}}}',
        '{"device": "here", "costs": {"a": {"row_s": NaN, "load_s": 0}}}',
    ],
)
def test_a_broken_cost_table_is_set_aside(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)
    assert EngineRef("a", 1) not in CostTable.read(path, "here")
    assert not path.exists()
    assert path.with_suffix(".bad").read_text() == text


def test_a_cost_is_of_one_graph() -> None:
    costs = CostTable({"a": Cost(1.0, 2.0)})
    assert costs.of(EngineRef("b", 100)).row_s < 1e-6
