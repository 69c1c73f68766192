"""`resynth doctor`: which parts of the package work on this machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__, files, kernels
from ..backends import telemetry
from ..errors import ResynthError
from .options import CandidatesOption, ExtractorOption, JsonOption


def doctor(
    candidates: CandidatesOption = ["zoo:"],  # noqa: B006
    captioner: Annotated[str, typer.Option(help="As of `resynth attribute`.")] = "zoo:",
    extractor: ExtractorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report what works here: versions, instruction set, backends, devices, the zoo's files.

    Also whether captioner, extractor and calibration were made for the candidates, and what to bring where they were not.
    """
    findings = examine()
    if findings["ok"]:
        findings |= judges(candidates, captioner, extractor)
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        for name, value in findings.items():
            for line in value or ["nothing"] if isinstance(value, list) else [value]:
                print(f"{name:<16} {line}")
    if not findings["ok"]:
        raise typer.Exit(3)


def examine() -> dict[str, Any]:
    """Versions, instruction set, usable backends, CUDA, and whether every file of the zoo has its hash."""
    usable, backends = _backends()
    intact, zoo = _zoo()
    return {
        "resynth_fast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "kernels": kernels.isa(),
        "cuda": _cuda(),
        "network": _network(),
        "cache_folder": str(files.user_cache()),
        "backends": backends,
        "zoo": zoo,
        "ok": intact and usable,
    }


def judges(candidates: Sequence[str], captioner: str, extractor: Path | None) -> dict[str, Any]:
    """What captioner and extractor know, whether a calibration holds for the candidates, and what does not fit. ResynthError."""
    from ..attributor import Attributor
    from ..extractors.domain import of_captioner
    from ..resynthesis.advice import BRING

    opened = Attributor.open(candidates, captioner=captioner, extractor=extractor)
    known = {"captioner": of_captioner(opened.captioner) is not None, "extractor": opened.space.domain is not None}
    names = {"captioner": opened.captioner.name, "extractor": opened.space.name}
    calibration = opened.references.calibration
    return {
        **{
            part: f"{names[part]}: " + (f"names nobody for pictures that it does not know; {bring}" if known[part] else "knows no limits")
            for part, bring in BRING.items()
        },
        "calibration": calibration.source if calibration.measured else "none holds for these candidates, so none is named",
        "does not fit": opened.notices(),
    }


def _backends() -> tuple[bool, dict[str, str]]:
    """Whether a backend is usable, and the version of each, or why it is not."""
    from .. import backends

    usable, states = False, {}
    for name in backends.names():
        try:
            states[name] = backends.get(name).version()
            usable = True
        except ResynthError as error:
            states[name] = f"not usable: {error}"
    return usable, states


def _cuda() -> str:
    if (cuda := kernels.cuda()) is None:
        return "not built"
    return f"{cuda.device_count()} device(s)" if cuda.device_count() else f"built, no device: {cuda.status()}"


def _network() -> str:
    """What this process may send, and whether a library was imported too early for its telemetry to be switched off."""
    if early := telemetry.started():
        return f"telemetry of {', '.join(early)} is on: imported before resynth_fast; import resynth_fast first"
    return "only addresses that you name; telemetry of onnxruntime, openvino and huggingface_hub is off"


def _zoo() -> tuple[bool, str]:
    """Whether every file of the zoo has its hash, and a sentence about it."""
    from .. import zoo

    try:
        for bundle in (*zoo.candidates(), *zoo.withheld(), zoo.bundle(zoo.TAGGER), zoo.bundle(zoo.TEXTURE)):
            bundle.verify()
        return True, f"{len(zoo.candidates())} candidates, every file verified"
    except ResynthError as error:
        return False, str(error)
