"""`resynth doctor`: which parts of the package work on this machine."""

from __future__ import annotations

import json
import os
import platform
from typing import Any

import typer

from .. import __version__, files, kernels
from ..backends import telemetry
from ..errors import ResynthError
from .options import JsonOption


def doctor(as_json: JsonOption = False) -> None:
    """Report what works here: versions, instruction set, backends, devices, the zoo's files."""
    findings = examine()
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        for name, value in findings.items():
            print(f"{name:<16} {value}")
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
