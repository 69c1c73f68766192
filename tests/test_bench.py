"""`resynth bench`: the rule of stable windows, the sums of its latencies, and the command."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resynth_fast import zoo
from resynth_fast.cli.closed_loop import Answered, Window, settled, summary


def window(latencies_ms, seconds=1.0, queue_ms=0.0):
    return Window(seconds, [Answered(0.0, queue_ms / 1000, ms / 1000, {"total": ms}) for ms in latencies_ms])


def test_three_windows_that_agree_are_stable() -> None:
    assert settled([window([100] * 10), window([105] * 10), window([95] * 10)])


@pytest.mark.parametrize(
    "windows",
    [
        [window([100] * 10)] * 2,
        [window([100] * 10), window([100] * 10), window([150] * 10)],
        [window([100] * 10), window([100] * 10), window([100] * 14)],
        [window([100] * 10), window([100] * 10), window([])],
    ],
)
def test_fewer_or_other_windows_are_not_stable(windows: Any) -> None:
    assert not settled(windows)


def test_only_the_last_windows_count() -> None:
    assert settled([window([900]), *[window([100] * 10)] * 3])


def test_latency_is_queue_and_compute() -> None:
    found = summary([window([100, 200, 300, 400], 2.0, queue_ms=50), window([100] * 4, 2.0, queue_ms=50)], 3, True)
    assert found["throughput_per_s"] == 2.0
    assert found["requests"] == 8
    assert math.isclose(found["queue_ms"] + found["compute_ms"], found["latency_ms"]["avg"])
    assert found["latency_ms"]["p50"] == 100
    assert found["latency_ms"]["p99"] <= 400


def run(*arguments, cache):
    import os

    command = [sys.executable, "-P", "-m", "resynth_fast.cli", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "XDG_CACHE_HOME": str(cache)})


def test_the_command_measures_graphs_and_stores_their_costs(tmp_path: Path) -> None:
    done = run("--concurrency", "1,2", "--window", "0.05", "--references", "1", "--steps", "1", "--threads", "1", "--json", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [r["concurrency"] for r in result["concurrency"]] == [1, 2]
    assert all(r["latency_ms"]["p50"] <= r["latency_ms"]["p99"] for r in result["concurrency"])
    assert result["start"]["cold_ms"] > result["start"]["warm_ms"] > 0
    parts = result["roofline"]["components"]
    assert {(r["candidate"], r["component"]) for r in parts} == {(c, p) for c in result["candidates"] for p in ("denoiser", "decoder")}
    for row in parts:
        assert row["flops_per_s"] == pytest.approx(1000 * row["flops"] / row["row_ms"])
        assert row["share_of_peak"] == pytest.approx(row["flops_per_s"] / result["roofline"]["peak_flops_per_s"])
    costs = json.loads((tmp_path / "resynth-fast" / "costs.json").read_text())["costs"]
    extractor = costs.pop(zoo.bundle(zoo.TEXTURE).sha256)
    assert extractor["row_s"] > 0
    assert extractor["load_s"] == 0, "an extractor is no engine: nothing is loaded"
    assert len(costs) >= 9
    assert all(cost["row_s"] > 0 and cost["load_s"] > 0 for cost in costs.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--concurrency", "x"), "--concurrency is 'x'"), (("--concurrency", "0"), "concurrency is 0"), (("--window", "0"), "window is 0.0")],
)
def test_wrong_options_of_bench_are_named(tmp_path: Path, arguments: Any, message: str) -> None:
    done = run(*arguments, "--steps", "1", cache=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
