"""`resynth bench`: latency and throughput of attribution by concurrency."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .options import (
    BackendOption,
    CandidatesOption,
    JsonOption,
    MemoryOption,
    ReferencesOption,
    StepsOption,
    ThreadsOption,
)

PROBES = 8
PROBE_STEPS = 8
PROBE_SEEDS = 1 << 40
"""Seeds of the probes start here, far from the seeds of references, so that no probe shares its noise with one."""


def bench(
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Pictures, or folders of pictures; default: eight by the zoo.", metavar="[FILE|DIR…]")
    ] = None,
    candidates: CandidatesOption = ["zoo:"],  # noqa: B006
    references: ReferencesOption = 2,
    steps: StepsOption = 8,
    race: Annotated[bool, typer.Option("--race", help="As in attribute.")] = False,
    concurrency: Annotated[
        str, typer.Option(help="Numbers of clients that each wait for their answer before they ask again, separated by commas.")
    ] = "1,4",
    window: Annotated[float, typer.Option(help="Seconds of a window; three windows that agree are a measurement.")] = 5.0,
    cold: Annotated[bool, typer.Option(help="Time a fresh process too.")] = True,
    backend: BackendOption = "onnxruntime",
    threads: ThreadsOption = 0,
    memory_budget: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure latency and throughput of attribution by concurrency, and cold, cached and warm starts.

    The scheduler uses the costs that it finds.
    """
    from .. import images
    from ..attributor import Attributor
    from . import closed_loop, output

    try:
        concurrencies = [int(text) for text in concurrency.split(",")]
    except ValueError:
        raise ConfigError(f"--concurrency is {concurrency!r}; it must be numbers separated by commas, as in 1,4") from None

    def open_attributor() -> Attributor:
        return Attributor.open(
            candidates,
            backend=backend,
            threads=threads or None,
            memory_budget=memory_budget,
            references=references,
            steps=steps,
            race=race,
        )

    with _probe_files(inputs or [], backend, threads) as files:
        arguments = ["attribute", str(files[0]), "--references", str(references), "--steps", str(steps), "--backend", backend]
        arguments += [text for candidate in candidates for text in ("--candidates", candidate)]
        arguments += ["--threads", str(threads)] + ["--race"] * race
        arguments += ["--memory-budget", str(memory_budget)] * (memory_budget is not None)
        result = closed_loop.measure(
            open_attributor,
            [images.read(path) for path in files],
            concurrencies,
            window_s=window,
            cold=arguments if cold else (),
            progress=output.progress("measuring"),
        )
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


@contextmanager
def _probe_files(inputs: Sequence[str], backend: str, threads: int) -> Iterator[list[Path]]:
    """The named pictures; without any, pictures that the zoo generates of captions it was not trained on."""
    from PIL import Image

    from .. import images, zoo
    from ..candidates import ZOO, GenerativeCandidate, find
    from ..engines.pool import EnginePool

    if inputs:
        yield images.paths(inputs)
        return
    with tempfile.TemporaryDirectory() as folder:
        candidates = find([ZOO], EnginePool(backend, threads=threads or os.cpu_count() or 1))
        generators = [candidate for candidate in candidates if isinstance(candidate, GenerativeCandidate)]
        files = [Path(folder) / f"{i}.png" for i in range(PROBES)]
        for i, (path, caption) in enumerate(zip(files, zoo.prompts(), strict=False)):
            [pixels] = generators[i % len(generators)].make([caption], [PROBE_SEEDS + i], PROBE_STEPS)
            Image.fromarray(pixels).save(path)
        yield files


def show(result: dict[str, Any]) -> None:
    """Print the result of `closed_loop.measure` as tables."""
    from . import output

    percentiles = ("p50", "p90", "p95", "p99")
    output.print_table(
        ["clients", "probes/s", *(f"{p} ms" for p in percentiles), "queue ms", "compute ms", "stable"],
        [
            [
                str(run["concurrency"]),
                f"{run['throughput_per_s']:.2f}",
                *(f"{run['latency_ms'][p]:.0f}" for p in percentiles),
                f"{run['queue_ms']:.0f}",
                f"{run['compute_ms']:.0f}",
                "yes" if run["stable"] else "no",
            ]
            for run in result["concurrency"]
        ],
    )
    roofline = result["roofline"]
    output.print_table(
        ["candidate", "component", "MFLOP/row", "ms/row", "GFLOP/s", f"of {roofline['peak_flops_per_s'] / 1e9:.0f}"],
        [
            [
                row["candidate"],
                row["component"],
                f"{row['flops'] / 1e6:.0f}",
                f"{row['row_ms']:.2f}",
                f"{row['flops_per_s'] / 1e9:.1f}",
                f"{100 * row['share_of_peak']:.0f} %",
            ]
            for row in roofline["components"]
        ],
    )
    start = {name.removesuffix("_ms"): f"{ms:.0f} ms" for name, ms in result["start"].items() if ms is not None}
    print(", ".join(f"{name} {text}" for name, text in start.items()) + f"; peak memory {result['peak_rss_bytes'] / 1e6:.0f} MB")
