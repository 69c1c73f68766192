"""Pipelines of published configurations with random weights, on a GPU: diffusers and torch.compile against our backends.

    python benchmarks/bench_gpu.py [--json] [--stage latency ...] [--work DIR]     on a GPU; DIR keeps the exports
    python benchmarks/bench_gpu.py --tiny                                         tiny pipelines on the CPU, one thread: a smoke test

Results are compared before anything is timed. Every contestant encodes the text in every call. The limit is the components'
arithmetic divided by the device's peak (`roofline.py`). Nothing is measured in 8 bits, because no backend of ours computes in
fp8. The stages are in `gpu/`.
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
    """Measure and print, one stage after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny pipelines on the CPU")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument(
        "--depth", type=float, default=shapes.DEPTH, help="share of FLUX's layers to export; its goals are scaled by the same share"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--work", type=Path, help="folder that keeps checkpoints and bundles (default: a temporary one)")
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
