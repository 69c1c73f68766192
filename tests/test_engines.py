"""The engine pool respects its memory budget, and results do not depend on the order of calls."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resynth_fast import Attributor, images, zoo
from resynth_fast.bundle import Component, File
from resynth_fast.candidates import find
from resynth_fast.cli.options import parse_bytes
from resynth_fast.devices.base import CPU
from resynth_fast.engines.pool import EnginePool, engine_ref
from resynth_fast.engines.text_cache import TextCache
from resynth_fast.errors import BundleError, ConfigError, DeviceError

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.png"))[:3]


class Backend:
    """Engines that count how many of them are alive."""

    runs_on_caller_thread = False

    def __init__(self, load_s=0.0):
        self.load_s = load_s
        self.alive = {}
        self.most = 0
        self.lock = threading.Lock()

    def version(self):
        return "counting"

    def load(self, model, *, threads):
        time.sleep(self.load_s)
        if model.graph == b"broken":
            raise BundleError("broken")
        return Engine(self, len(model.graph))


class Engine:
    fallback = ""
    device = CPU

    def __init__(self, backend, size):
        self.backend, self.size = backend, size
        with backend.lock:
            backend.alive[id(self)] = size
            backend.most = max(backend.most, sum(backend.alive.values()))

    def __del__(self):
        with self.backend.lock:
            self.backend.alive.pop(id(self), None)

    def run(self, inputs):
        return {"size": np.full(1, self.size, np.float32)}


def component(folder, name, size):
    path = folder / f"{name}.onnx"
    path.write_bytes(b"x" * size)
    return Component(_Plain(path, f"{name}-{folder.name}"), "float32", {}, {})


class _Plain(File):
    def read(self):
        return self.path.read_bytes()


@pytest.fixture
def components(tmp_path: Path):
    return [component(tmp_path, f"c{i}", 1000 * (i + 1)) for i in range(6)]


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_engines_never_exceed_the_memory_budget(components: Any, prefetch: Any, threads: Any) -> None:
    backend = Backend(load_s=0.001)
    largest = engine_ref(components[-1]).size_bytes
    pool = EnginePool(backend, budget_bytes=2 * largest, prefetch=prefetch)
    pool.expect(components * 4)

    def use(seed):
        rng = random.Random(seed)
        for _ in range(30):
            chosen = rng.choice(components)
            with pool.hold(chosen) as engine:
                assert engine.size == chosen.file.path.stat().st_size
                assert chosen.file.sha256 in pool.resident
                time.sleep(0.0005)

    with ThreadPoolExecutor(threads) as workers:
        list(workers.map(use, range(threads)))
    assert pool.account.peak_bytes <= 2 * largest
    assert pool.account.evictions > 0
    assert pool.account.loads >= len(components)


def test_evicted_engines_are_freed(components: Any) -> None:
    backend = Backend()
    pool = EnginePool(backend, budget_bytes=engine_ref(components[-1]).size_bytes)
    for chosen in components * 2:
        with pool.hold(chosen) as engine:
            assert engine.size
        del engine
    assert backend.most <= engine_ref(components[-1]).size_bytes
    assert len(backend.alive) == len(pool.resident)


def test_announced_engines_are_loaded_while_others_compute(components: Any) -> None:
    backend = Backend(load_s=0.03)
    pool = EnginePool(backend, budget_bytes=1 << 20, prefetch=True)
    pool.expect(components)
    for chosen in components:
        with pool.hold(chosen):
            time.sleep(0.06)
    account = pool.account
    assert account.loads == len(components)
    assert account.waited_ms < 0.6 * account.load_ms


def test_a_pinned_engine_outlives_the_others(components: Any) -> None:
    sizes = [engine_ref(c).size_bytes for c in components]
    pool = EnginePool(Backend(), budget_bytes=sizes[0] + sizes[-1])
    pool.expect(components, pinned=[components[0].file.sha256])
    for chosen in components:
        with pool.hold(chosen):
            pass
    assert components[0].file.sha256 in pool.resident


def test_an_engine_over_the_budget_names_both_sizes(components: Any) -> None:
    pool = EnginePool(Backend(), budget_bytes=100)
    with (
        pytest.raises(DeviceError, match=r"takes 0\.0 MB in memory, more than the memory budget of 0\.0 MB; raise the budget"),
        pool.hold(components[0]),
    ):
        pass


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_graph_that_does_not_load_is_an_error_only_to_the_caller_that_needs_it(components: Any, prefetch: Any) -> None:
    components[1].file.path.write_bytes(b"broken")
    pool = EnginePool(Backend(), budget_bytes=1 << 20, prefetch=prefetch)
    pool.expect(components)
    with pool.hold(components[0]):
        pass
    for _ in range(2):
        with pytest.raises(BundleError, match="broken"), pool.hold(components[1]):
            pass
    with pool.hold(components[2]):
        pass


def test_equal_rows_run_once_and_come_back_in_order() -> None:
    asked = []

    def run(inputs):
        asked.append(inputs["tokens"].copy())
        return {"doubled": (2 * inputs["tokens"]).astype(np.float32)}

    memo = TextCache()
    first = memo("a", {"tokens": np.array([[1, 2], [3, 4], [1, 2]])}, run)
    np.testing.assert_array_equal(first["doubled"], [[2, 4], [6, 8], [2, 4]])
    second = memo("a", {"tokens": np.array([[5, 6], [3, 4]])}, run)
    np.testing.assert_array_equal(second["doubled"], [[10, 12], [6, 8]])
    memo("b", {"tokens": np.array([[1, 2]])}, run)
    np.testing.assert_array_equal(np.concatenate(asked), [[1, 2], [3, 4], [5, 6], [1, 2]])


def test_a_full_text_cache_forgets_the_least_recently_used_rows() -> None:
    calls = []

    def run(inputs):
        calls.append(len(inputs["x"]))
        return {"y": np.zeros((len(inputs["x"]), 100), np.float32)}

    memo = TextCache(limit_bytes=1000)
    assert memo("a", {"x": np.arange(20)[:, None]}, run)["y"].shape == (20, 100)
    memo("a", {"x": np.arange(20)[:, None]}, run)
    assert calls == [20, 18]


def test_a_text_is_encoded_once_for_all_candidates_that_share_the_encoder() -> None:
    pool = EnginePool()
    sharing = find(["zoo:zoo-sd", "zoo:zoo-sd-twin", "zoo:zoo-sd-v"], pool)
    runs = []
    kept = pool.text_cache.__call__

    class Watched(TextCache):
        def __call__(self, sha, inputs, run):
            return kept(sha, inputs, lambda rows: (runs.append(len(rows["tokens_0"])), run(rows))[1])

    pool.text_cache = Watched()
    for candidate in sharing:
        candidate.make(zoo.prompts()[:2], [0, 1], 1)
    assert runs == [3]  # two captions and the empty one of guidance


@pytest.mark.parametrize(("text", "size"), [("500MB", 500_000_000), ("8 GB", 8 * 10**9), ("1.5GiB", 3 << 29), ("1000", 1000), ("2k", 2000)])
def test_sizes_of_memory_are_parsed(text: str, size: Any) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1MB", "MB", "8TB", "1e9", "nan"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="as in 500MB or 8GB"):
        parse_bytes(text)


def answers(attributor, probes):
    return [
        (
            (v.status, v.label, [(c.name, [r.pixels.tobytes() for r in c.resyntheses]) for c in v.candidates]),
            [v.consistency, *(x for c in v.candidates for x in (c.score, c.probability))],
        )
        for v in attributor(probes)
    ]


def assert_same(found, expected):
    """Labels and pictures are equal to the bit; numbers up to the rounding of float64 matrix products of unequal size."""
    assert [exact for exact, _ in found] == [exact for exact, _ in expected]
    np.testing.assert_allclose([numbers for _, numbers in found], [numbers for _, numbers in expected], rtol=1e-9)


@pytest.fixture(scope="module")
def probes():
    return [images.read(path) for path in EXAMPLES]


@pytest.fixture(scope="module")
def expected(probes: Any):
    return answers(Attributor.open(references=2, steps=2, threads=1), probes)


@pytest.mark.parametrize("threads", [1, 2])
def test_half_the_memory_gives_the_same_pictures_and_reports_the_extra_loads(probes: Any, expected: Any, threads: Any) -> None:
    free = Attributor.open(references=2, steps=2, threads=threads)
    free(probes)
    budget = free.pool.account.peak_bytes // 2
    tight = Attributor.open(references=2, steps=2, threads=threads, memory_budget=budget)
    for _ in range(2):  # the second time with the engines that the first left in memory
        assert_same(answers(tight, probes), expected)
    assert tight.pool.account.peak_bytes <= budget
    [verdict, *_] = tight(probes)
    assert verdict.provenance["memory"]["budget_bytes"] == budget
    assert verdict.provenance["memory"]["evictions"] > 0
    assert any("memory budget" in warning for warning in verdict.warnings)
    assert verdict.timing_ms["weights_wait"] >= 0
    assert tight.pool.account.waited_ms > 0


def test_results_are_the_same_for_any_order_and_concurrency(probes: Any, expected: Any) -> None:
    by_order = dict(
        zip((2, 0, 1), answers(Attributor.open(references=2, steps=2, threads=1), [probes[2], probes[0], probes[1]]), strict=True)
    )
    assert_same([by_order[i] for i in range(3)], expected)
    shared = Attributor.open(references=2, steps=2, threads=1, memory_budget=60_000_000)
    with ThreadPoolExecutor(3) as workers:
        beside = list(workers.map(lambda probe: answers(shared, [probe])[0], probes))
    assert_same(beside, expected)
