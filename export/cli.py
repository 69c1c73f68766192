"""`resynth export`: convert checkpoints to bundles. Torch and the other libraries are imported only when a command runs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from resynth_fast.bundle import Bundle
from resynth_fast.errors import ConfigError, DeviceError

app = typer.Typer(help="Convert checkpoints to bundles (extra: export).", no_args_is_help=True)

FormatOption = Annotated[str, typer.Option(help="table or json.")]


@app.command()
def generator(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder of a diffusers pipeline (save_pretrained), or hub:ORG/NAME[@REVISION].", metavar="CHECKPOINT")
    ],
    to: Annotated[Path, typer.Option(help="Folder of bundles to write into.")],
    name: Annotated[str | None, typer.Option(help="Name of the bundle; default: the checkpoint's.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "unknown",
    steps: Annotated[
        str,
        typer.Option(
            help="Numbers of denoising steps that the bundle will support. Each is compared with diffusers, which takes time at full size."
        ),
    ] = "1,2,4,8,20",
    guidance_scale: Annotated[float | None, typer.Option(help="Guidance scale of diffusers' pipeline; default: the pipeline's.")] = None,
    guidance_rescale: Annotated[float, typer.Option(help="Guidance rescale of diffusers' pipeline, for families that have it.")] = 0.0,
    precision: Annotated[str, typer.Option(help="fp16: weights stored in 16 bits, computed in 32; fp32: unchanged weights.")] = "fp16",
    format: FormatOption = "table",
) -> None:
    """Export a text-to-image pipeline. It is compared with diffusers before anything is written."""
    _check(format)
    hub, parity = _exporter("hub"), _exporter("verify").Parity()
    bundle = _exporter("pipelines").export(
        hub.folder(checkpoint, pipeline=True),
        to,
        name=name or hub.name_of(checkpoint),
        licence=licence,
        steps=_numbers(steps),
        guidance_scale=guidance_scale,
        guidance_rescale=guidance_rescale,
        precision=precision,
        parity=parity,
    )
    _report(bundle, parity, format)


@app.command()
def extractor(
    source: Annotated[
        str,
        typer.Argument(
            help="ONNX file of an image encoder, a folder (save_pretrained), or hub:ORG/NAME[@REVISION].", metavar="FILE.onnx|CHECKPOINT"
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder of bundles to write into.")],
    taps: Annotated[str, typer.Option(help="Blocks whose outputs are the features, as in 5-9 or 4,6,8; 40 to 75 % of the depth is best.")],
    name: Annotated[str | None, typer.Option(help="Name of the bundle; default: the file's.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "unknown",
    pool: Annotated[
        list[str],
        typer.Option(help="cls: the class token of a tap; mean: the mean of its patches; repeatable; default: cls, or mean without one."),
    ] = [],  # noqa: B006
    size: Annotated[int | None, typer.Option(help="Side of the encoder's input in px, for a graph with a dynamic size.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Mean of the encoder's normalisation, three numbers; default: the checkpoint's, for a file CLIP's.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of the encoder's normalisation; default as for --mean.")] = None,
    keep_quantised: Annotated[
        bool, typer.Option("--keep-quantised", help="Keep 8-bit products (picture by picture, slower in batches).")
    ] = False,
    last: Annotated[bool, typer.Option(help="Keep the whole encoder too, for the score of the paper (evaluate --recipe paper).")] = True,
    working_size: Annotated[int, typer.Option(help="Side in px to which every picture is resized first.")] = 256,
    constants_from: Annotated[
        Path | None,
        typer.Option(help="Pictures <prompt>/<generator>/<pictures> to fit the constants on; default: pictures of the embedded zoo."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of the encoder.")] = 1,
    format: FormatOption = "table",
) -> None:
    """Export an image encoder as an extractor: find taps in the graph, fit constants, and calibrate if there are enough pictures."""
    _check(format)
    extractors, hub = _exporter("extractors"), _exporter("hub")
    pixels = importlib.import_module("resynth_fast.extractors.pixels").PixelRecipe(working_size=working_size)
    bundle = extractors.export(
        hub.folder(source),
        to,
        name=name or hub.name_of(source).removesuffix(".onnx"),
        licence=licence,
        taps=_blocks(taps),
        pools=pool,
        side=size,
        mean=_floats("mean", mean) if mean else None,
        std=_floats("std", std) if std else None,
        dequantise=not keep_quantised,
        last=last,
        pixels=pixels,
        constants_from=constants_from,
        threads=threads,
    )
    card, calibration = bundle.get("card", dict), bundle.get("calibration", dict)
    if format == "json":
        print(json.dumps({"bundle": str(bundle.folder), "sha256": bundle.sha256, "card": card, "calibration": calibration}, indent=2))
        return
    print(f"{bundle.folder}  {bundle.sha256[:12]}  {card['description']}")
    print(f"constants from {card['fitted_on']}; calibration: {calibration['source']}")


@app.command()
def captioner(
    checkpoint: Annotated[
        str, typer.Argument(help="Folder of an image-to-text model (save_pretrained), or hub:ORG/NAME[@REVISION].", metavar="CHECKPOINT")
    ],
    to: Annotated[Path, typer.Option(help="Folder of bundles to write into.")],
    name: Annotated[str | None, typer.Option(help="Name of the bundle; default: the checkpoint's.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the card.")] = "unknown",
    prompt: Annotated[str, typer.Option(help="Beginning of every caption, as in 'a picture of'.")] = "",
    max_tokens: Annotated[
        int | None, typer.Option(help="Maximum number of tokens of a caption, the prompt included; default: the checkpoint's.", min=2)
    ] = None,
    precision: Annotated[str, typer.Option(help="fp16: weights stored in 16 bits, computed in 32; fp32: unchanged weights.")] = "fp16",
    format: FormatOption = "table",
) -> None:
    """Export an image-to-text model. Its captions are compared with those of transformers before anything is written."""
    _check(format)
    hub, parity = _exporter("hub"), _exporter("verify").Parity()
    bundle = _exporter("captioners").export(
        hub.folder(checkpoint),
        to,
        name=name or hub.name_of(checkpoint),
        licence=licence,
        prompt=prompt,
        max_tokens=max_tokens,
        precision=precision,
        parity=parity,
    )
    _report(bundle, parity, format)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", metavar="BUNDLE")],
    checkpoint: Annotated[str, typer.Argument(help="The checkpoint that it was exported from.", metavar="CHECKPOINT")],
    format: FormatOption = "table",
) -> None:
    """Compare a bundle again with the checkpoint that it was exported from."""
    _check(format)
    opened = Bundle.open(bundle)
    exporter = _exporter("captioners" if opened.kind == "captioner" else "pipelines")
    _report(opened, exporter.verified(opened, _exporter("hub").folder(checkpoint, pipeline=opened.kind == "generator")), format)


@app.command()
def plans(
    bundles: Annotated[list[str], typer.Argument(help="zoo:, zoo:NAME, a bundle's folder or a folder of bundles.", metavar="BUNDLE…")],
    to: Annotated[Path, typer.Option(help="Folder of plans.")],
    compute_capability: Annotated[str, typer.Option(help="Compute capabilities of the GPUs, separated by commas.")] = "8.9,12.0",
    flavour: Annotated[
        str, typer.Option(help="tensorrt-rtx builds without a GPU; tensorrt builds for the GPU of this machine.")
    ] = "tensorrt-rtx",
    format: FormatOption = "table",
) -> None:
    """Build TensorRT plans of a bundle's components ahead of time. Plans that exist already are kept."""
    from resynth_fast.candidates import bundles as found

    _check(format)
    tensorrt = _exporter("tensorrt")
    rows = []
    for bundle in (bundle for text in bundles for bundle in found(text)):
        for name, component in bundle.components.items():
            for capability in compute_capability.split(","):
                key = tensorrt.key_of(component, compute_capability=capability.strip(), flavour=flavour)
                path = tensorrt.plan(to, component, key)
                row = {"bundle": bundle.name, "component": name, "compute_capability": capability.strip(), "plan": str(path)}
                rows.append(row | {"bytes": path.stat().st_size})
                if format == "table":
                    print(f"{bundle.name}  {name}  {capability}  {path.stat().st_size / 1e6:.1f} MB  {path}", flush=True)
    if format == "json":
        print(json.dumps(rows, indent=2))


@app.command("list")
def list_(format: FormatOption = "table") -> None:
    """List what can be exported: families of generators, noise schedulers, extractors, captioners."""
    _check(format)
    found = {
        "families": [{"name": name} for name in _exporter("families").names()],
        "schedulers": _exporter("noise_schedulers").survey(),
        "extractors": [{"name": name} for name in ("onnx", *_exporter("encoders").names())],
        "captioners": [{"name": name} for name in _exporter("captioners").names()],
    }
    if format == "json":
        print(json.dumps(found, indent=2))
        return
    print("families  ", ", ".join(family["name"] for family in found["families"]))
    print("extractors", ", ".join(e["name"] for e in found["extractors"]))
    print("captioners", ", ".join(c["name"] for c in found["captioners"]))
    print("schedulers", ", ".join(s["name"] for s in found["schedulers"] if s["exportable"]))
    print("refused   ", "\n           ".join(f"{s['name']}: {s['reason']}" for s in found["schedulers"] if not s["exportable"]))


def _exporter(module: str) -> Any:
    """A module of the exporter; DeviceError if its libraries are not installed."""
    try:
        return importlib.import_module(f".{module}", __package__)
    except ImportError as error:
        raise DeviceError(f"the exporter cannot be used ({error}); pip install 'resynth-fast[export]'") from error


def _report(bundle: Bundle, parity: Any, format: str) -> None:
    """Print the bundle and its measured differences."""
    pictures = {str(steps): error for steps, error in parity.pictures.items()}
    if format == "json":
        print(
            json.dumps(
                {
                    "bundle": str(bundle.folder),
                    "sha256": bundle.sha256,
                    "family": bundle.family,
                    "components": parity.components,
                    "pictures": pictures,
                    "seconds": parity.seconds,
                },
                indent=2,
            )
        )
        return
    print(f"{bundle.folder}  {bundle.family}  {bundle.sha256[:12]}")
    print("largest difference from torch, relative to the largest output:", ", ".join(f"{k} {v:.1e}" for k, v in parity.components.items()))
    if pictures:
        print("largest difference from diffusers' pictures:", ", ".join(f"{v * 255:.2f}/255 at {k} steps" for k, v in pictures.items()))


def _numbers(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise ConfigError(f"--steps is {text!r}; give whole numbers separated by commas, for example 1,2,4,8,20") from error


def _blocks(text: str) -> list[int]:
    """Parse `5-9` or `4,6,8` or both, in ascending order."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.strip().isdecimal() or not (last or first).strip().isdecimal():
            raise ConfigError(f"--taps is {text!r}; give blocks as in 5-9 or 4,6,8")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def _floats(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--{option} is {text!r}; give three numbers separated by commas, as in 0.5,0.5,0.5") from error


def _check(format: str) -> None:
    if format not in ("table", "json"):
        raise ConfigError(f"--format is {format!r}; it must be table or json")
