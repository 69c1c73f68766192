"""Pipelines shaped as published ones, random weights, on a GPU: diffusers, torch.compile, our backends; `--tiny`: the same on the CPU.

    python benchmarks/bench_gpu.py [--json] [--stage latency ...] [--work DIR]     on a GPU; DIR keeps what was exported
    python benchmarks/bench_gpu.py --tiny                                         tiny pipelines, one thread: shows that it works

Results are compared before anything is timed. Text is encoded in every call by all. The limit is the components' arithmetic
over the device's peak (`roofline.py`). Nothing is measured in 8 bits: no backend of ours computes in fp8. The stages are in `gpu/`.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, show

# isort: split
import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import shapes
import torch
from gpu.attribution import resident, swapping
from gpu.generation import export, extractor, latency, step
from gpu.invariance import invariance
from gpu.plans import plans
from gpu.residency import rotation, transfer
from gpu.setting import Setting

from resynth_fast.export import checkpoints

STAGES: dict[str, Callable[[Setting], Iterator[Row]]] = {
    stage.__name__: stage for stage in (export, plans, latency, step, resident, swapping, transfer, rotation, extractor, invariance)
}


def main() -> None:
    """Measure and print, a stage after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny pipelines on the CPU")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--depth", type=float, default=shapes.DEPTH, help="share of FLUX's layers; its goals are scaled by it")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--work", type=Path, help="folder for checkpoints and bundles, which stay; else a temporary one")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        print("not run: torch finds no GPU; --tiny runs on the CPU", file=sys.stderr)
        return
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]) if arguments.tiny else os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as scratch, checkpoints.quiet():
        setting = Setting(tiny=arguments.tiny, work=arguments.work or Path(scratch), depth=arguments.depth)
        for stage in arguments.stage:
            show(STAGES[stage](setting), as_json=arguments.json)


if __name__ == "__main__":
    main()
