"""Export generators of full size, with random weights in published configurations, and report time and memory.

python benchmarks/full_size_export.py sd15            Stable Diffusion 1.5, the whole pipeline
python benchmarks/full_size_export.py sdxl --json     Stable Diffusion XL at 512 px, as a JSON object

Three stages, each in a process of its own: write a checkpoint in float16; export it, with every component and a whole picture
compared with torch and diffusers; generate a picture of one step with the runtime. Peak resident memory is the kernel's
VmHWM, which includes pages of mapped files.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROMPT = "a small red house by the sea"
RESULTS = HERE / "results" / "full_size"
MODELS = ("sd15", "sdxl")
"""Keys of `shapes.FULL`. `shapes` is not imported here, because it imports torch and the last stage must run without it."""


def main() -> None:
    """Run each stage in its own process, one after the other, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help=f"write the result into {RESULTS.relative_to(HERE.parent)}")
    parser.add_argument("--work", type=Path, help="folder that keeps checkpoint and bundle (default: a temporary one)")
    parser.add_argument("--stage", choices=sorted(STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(STAGES[arguments.stage](arguments.model, arguments.work) | {"peak_bytes": _peak_bytes()}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        stages = {name: _stage(arguments.model, name, work) for name in STAGES}
    record = {
        "command": f"python benchmarks/full_size_export.py {arguments.model}",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} threads",
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": arguments.model,
        **stages,
    }
    if arguments.keep:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{arguments.model}.json").write_text(json.dumps(record, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(record))
        return
    for name, figures in stages.items():
        print(
            f"{name:10} {figures['seconds']:7.0f} s, peak {figures['peak_bytes'] / 2**30:5.1f} GiB",
            {k: v for k, v in figures.items() if isinstance(v, dict)},
        )


def _stage(model: str, name: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "full_size_export.py"), model, "--stage", name, "--work", str(work)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"seconds": time.perf_counter() - start, **json.loads(done.stdout.splitlines()[-1])}


def checkpoint(model: str, work: Path) -> dict[str, Any]:
    """Write a pipeline with random weights in float16, as `save_pretrained` does."""
    import shapes
    import torch

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    shapes.FULL[model]().save_pretrained(work / model, safe_serialization=True)
    return {"bytes": sum(path.stat().st_size for path in (work / model).rglob("*.safetensors"))}


def export(model: str, work: Path) -> dict[str, Any]:
    """Export the checkpoint in fp16 with one step table, compared with torch and diffusers."""
    from resynth_fast.export import pipelines
    from resynth_fast.export.verify import Parity

    parity = Parity()
    bundle = pipelines.export(work / model, work / "bundles", name=model, licence="none", steps=(1,), prompts=(PROMPT,), parity=parity)
    return {
        "bytes": {name: component.size_bytes for name, component in bundle.components.items()},
        "external": {name: len(component.data) for name, component in bundle.components.items()},
        "component_seconds": parity.seconds,
        "components": parity.components,
        "pictures": parity.pictures,
    }


def draw(model: str, work: Path) -> dict[str, Any]:
    """Generate a picture of one denoising step with the runtime, without torch."""
    from resynth_fast.bundle import Bundle
    from resynth_fast.candidates.engine import EngineCandidate
    from resynth_fast.engines.pool import EnginePool

    pool = EnginePool(threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    [picture] = EngineCandidate(Bundle.open(work / "bundles" / model), pool).make([PROMPT], [0], 1)
    assert "torch" not in sys.modules
    return {"shape": list(picture.shape), "deviation": float(picture.std()), "load_seconds": pool.account.load_ms / 1000}


STAGES: dict[str, Callable[[str, Path], dict[str, Any]]] = {"checkpoint": checkpoint, "export": export, "draw": draw}


def _peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
