"""Export a tiny pipeline of each family and tabulate the measured differences.

python -m resynth_fast.export.docs_tables > docs/families.md
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from resynth_fast import backends
from resynth_fast.bundle import Bundle
from resynth_fast.errors import BundleError, ResynthError

from . import checkpoints, families, noise_schedulers, pipelines, tensorrt, tiny
from .graphs import Network
from .verify import Parity

CAPABILITIES = ("8.9", "12.0")
STEPS = (4, 8)
OPENVINO_TOLERANCE = 1e-4
LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxruntime", "openvino", "tensorrt-rtx-cu13")

HEAD = """# Families and noise schedulers

Written by `python -m resynth_fast.export.docs_tables > docs/families.md` with {versions}, one thread; do not edit by hand.

## Families

A tiny pipeline of each family (random weights, every kind of part that its full-size relatives have) is exported in
fp16 and compared. Weights are rounded to 16 bits first, so both sides of a comparison have the same weights. Each
component is compared with torch at two batch sizes (error: the largest difference, relative to the output's magnitude).
The whole picture is compared with diffusers' own pipeline at 4 and 8 steps from the same noise (picture: the largest
difference of 255; half a level is the rounding to 8 bits). Seconds are one export of that component on a shared, busy
processor. OpenVINO: compiles in float32 and agrees with ONNX Runtime. TensorRT-RTX: builds for compute capabilities
{capabilities}; built, not run.

| family | component | inputs | export s | error | OpenVINO | TensorRT-RTX | picture |
|---|---|---|---|---|---|---|---|
"""

RESULTS = Path("benchmarks/results/full_size")
FULL_SIZE = """
## Full size

`python benchmarks/full_size_export.py sd15 --keep`, and `sdxl`: pipelines of the published configurations (Stable Diffusion XL
at 512 px) with random weights, exported in fp16 as above and then drawn from by the runtime, one picture of one step. Weights
from 128 MiB on stand in a safetensors file beside their graph, which ONNX Runtime maps and widens where they are used. Two
shared cores, {machine}; memory is the largest resident set, mapped files included.

| model | component | weights GB | export s | error | whole export | picture | drawn by the runtime |
|---|---|---|---|---|---|---|---|
"""

SCHEDULERS = """
## Noise schedulers

Every noise scheduler of diffusers {version}, with Stable Diffusion's betas and without clipping, then with one option changed
at a time, at {steps} steps: {exportable} variants of {names} schedulers are exported as step tables and walk as diffusers does,
{refused} are refused: by diffusers itself, or because the replayed walk differs.

Exported: {exported}.

| refused | why |
|---|---|
"""


def main() -> None:
    """Print the page."""
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {version}" for name in LIBRARIES if (version := _version(name)))
    print(HEAD.format(versions=versions, capabilities=" and ".join(CAPABILITIES)), end="")
    with tempfile.TemporaryDirectory() as folder:
        for name in families.names():
            for row in _family(name, Path(folder)):
                print("|", " | ".join(row), "|", flush=True)
    _full_size()
    _schedulers()


def _family(name: str, folder: Path) -> Iterator[tuple[str, ...]]:
    """Rows of one family."""
    checkpoint, parity = folder / "checkpoints" / name, Parity()
    print(name, file=sys.stderr)
    with checkpoints.quiet():
        tiny.FAMILIES[name]().save_pretrained(checkpoint, safe_serialization=True)
        bundle = pipelines.export(checkpoint, folder, name=name, licence="none", steps=STEPS, parity=parity)
        networks = families.load(checkpoint, None).networks
    picture = ", ".join(f"{error * 255:.2f} ({steps})" for steps, error in parity.pictures.items())
    for part, error in parity.components.items():
        component = bundle.components[part]
        yield (
            name,
            part,
            ", ".join(component.inputs),
            f"{parity.seconds[part]:.0f}",
            f"{error:.1e}",
            _openvino(bundle, part, networks[part]),
            _tensorrt(bundle, part, folder),
            picture if part == "decoder" else "",
        )


def _openvino(bundle: Bundle, part: str, network: Network) -> str:
    """Whether OpenVINO, set to compute in float32, agrees with ONNX Runtime."""
    if importlib.util.find_spec("openvino") is None:
        return "not tried"
    model = bundle.components[part].onnx_model()
    inputs = {name: value.numpy() for name, value in network.example(3).items()}
    expected = backends.get("onnxruntime").load(model, threads=1).run(inputs)
    try:
        found = backends.get("openvino").load(model, threads=1).run(inputs)
    except BundleError as error:
        return f"refused: {_first(error)}"
    worst = max(_difference(found[name], value) for name, value in expected.items())
    return f"{worst:.1e}" if worst <= OPENVINO_TOLERANCE else f"differs: {worst:.1e}"


def _tensorrt(bundle: Bundle, part: str, folder: Path) -> str:
    """Whether TensorRT-RTX builds the component for each of CAPABILITIES."""
    component = bundle.components[part]
    try:
        for capability in CAPABILITIES:
            tensorrt.plan(folder / "plans", component, tensorrt.key_of(component, compute_capability=capability))
    except ResynthError as error:
        return "not tried" if error.exit_code == 4 else f"refused: {_first(error)}"
    return "built"


def _full_size() -> None:
    """The second table: stored measurements of full-size exports."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    if not records:
        return
    print(FULL_SIZE.format(machine=records[0]["machine"].rpartition(", ")[2]), end="")
    for record in records:
        exported, drawn = record["export"], record["draw"]
        whole = f"{exported['peak_bytes'] / 2**30:.1f} GiB"
        picture = ", ".join(f"{error * 255:.2f} ({steps})" for steps, error in exported["pictures"].items())
        last = f"{drawn['seconds']:.0f} s, {drawn['peak_bytes'] / 2**30:.1f} GiB"
        for name, error in exported["components"].items():
            cells = (f"{exported['bytes'][name] / 1e9:.2f}", f"{exported['component_seconds'][name]:.0f}", f"{error:.1e}")
            rest = (whole, picture, last) if name == "decoder" else ("", "", "")
            print("|", " | ".join((record["model"], name, *cells, *rest)), "|")


def _schedulers() -> None:
    """The third table: noise schedulers."""
    tried: Mapping[str, str | None] = {
        str(variant): noise_schedulers.refusal(variant)
        for name in noise_schedulers.schedulers()
        for variant in noise_schedulers.variants(name)
    }
    exported = sorted({name.split(",")[0] for name, reason in tried.items() if reason is None})
    refused = {name: reason for name, reason in tried.items() if reason is not None}
    print(
        SCHEDULERS.format(
            version=_version("diffusers"),
            steps=", ".join(map(str, noise_schedulers.STEPS)),
            exportable=len(tried) - len(refused),
            refused=len(refused),
            names=len(exported),
            exported=", ".join(exported),
        ),
        end="",
    )
    for name, reason in refused.items():
        print(f"| {name} | {_first(reason)} |")


def _difference(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Largest difference relative to the largest value; infinite if a value is not finite."""
    worst = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-9))
    return worst if np.isfinite(worst) else np.inf


def _first(error: object) -> str:
    """The first part of a message, which fits into a cell: the way out is dropped."""
    return str(error).splitlines()[0].split("; choose another")[0].replace("|", "/")[:160]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
