"""`resynth calibrate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    BackendOption,
    CandidatesOption,
    ExtractorOption,
    JsonOption,
    MemoryOption,
    ReferencesOption,
    StepsOption,
    ThreadsOption,
)


def calibrate(
    candidates: CandidatesOption,
    references: ReferencesOption = 2,
    steps: StepsOption = 8,
    captioner: Annotated[str, typer.Option(help="As of `resynth attribute`.")] = "zoo:",
    extractor: ExtractorOption = None,
    probes: Annotated[int, typer.Option(help="Number of probes, spread evenly over the candidates.")] = 60,
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, one a line, that the probes are made from; default: general ones.")
    ] = None,
    probe_steps: Annotated[int, typer.Option(help="Denoising steps of a probe; 0: the most that every candidate has.")] = 0,
    forecast: Annotated[bool, typer.Option("--forecast", help="Print how many pictures and seconds it would take, and stop.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure again what was measured before.")] = False,
    backend: BackendOption = "onnxruntime",
    threads: ThreadsOption = 0,
    memory_budget: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how often your generators are named rightly and wrongly, on pictures that they make themselves.

    `resynth attribute` names one of them only after this, with the same candidates (or some of them), captioner, extractor and steps.
    The result is kept in the user's cache.
    """
    from ..attributor import Attributor
    from ..errors import ConfigError
    from ..evaluation import generators
    from ..resynthesis import own_calibration
    from . import output

    attributor = Attributor.open(
        candidates,
        extractor=extractor,
        captioner=captioner,
        backend=backend,
        threads=threads or None,
        memory_budget=memory_budget,
        references=references,
        steps=steps,
    )
    parts = attributor.captioner, attributor.space, attributor.options
    known = own_calibration.find([candidate.sha256 for candidate in attributor.candidates.values()], *parts)
    if known and not again and not forecast and known.at(references, steps).references >= references:
        print(f"resynth: measured before, on {known.source}; --again measures again", file=sys.stderr)
        return
    texts = _lines(prompts) if prompts else generators.prompts(attributor, probes)
    if prompts and len(texts) < probes:
        raise ConfigError(f"{prompts} has {len(texts)} prompts for {probes} probes; add some, or ask for fewer --probes")
    probe_steps = probe_steps or generators.most_steps(attributor)
    pictures, seconds = generators.forecast(attributor, texts[:probes], probe_steps)
    print(f"resynth: generates at most {pictures} pictures, in about {seconds:.0f} s by measured or estimated costs", file=sys.stderr)
    for notice in attributor.notices():
        print(f"resynth: {notice}", file=sys.stderr)
    if forecast:
        return
    measured = generators.measure(attributor, texts[:probes], probe_steps=probe_steps, progress=output.progress("calibrating"))
    path = own_calibration.store(measured.calibration, *parts)
    print(json.dumps(_document(measured.figures, str(path)), indent=2) if as_json else "\n".join(_lines_of(measured.figures, path)))


def _lines(path: Path) -> list[str]:
    from ..errors import ConfigError

    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--prompts {path} cannot be read ({error}); give a text file with a prompt a line") from error


def _document(figures: dict[str, Any], path: str) -> dict[str, Any]:
    return {"references": figures, "file": path}


def _lines_of(figures: dict[str, Any], path: Path) -> list[str]:
    from ..report.text import table_lines

    header = ["references", "probes", "first is right", "named rightly", "named wrongly", "none of these"]
    keys = ("right", "named_right", "named_wrongly", "unknown")
    rows = [
        [count, part, *(f"{100 * shares[key]:.0f} %" for key in keys)] for count, parts in figures.items() for part, shares in parts.items()
    ]
    return [*table_lines(header, rows), f"kept in {path}"]
