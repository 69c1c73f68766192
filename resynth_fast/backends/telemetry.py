"""Switches off the telemetry of the libraries that run or export components; called when `resynth_fast` is imported.

* ONNX Runtime, from 1.29 on, uploads usage events and keeps a device identifier and a database in the user's cache.
* OpenVINO reports each import to an analytics service, and keeps a client identifier in the user's home.
* The hub's client describes the machine in every request for a checkpoint.

Each reads its setting once, when it is imported. So this must come first, and an import anywhere below `resynth_fast` comes after it.
"""

from __future__ import annotations

import os
import sys

VARIABLES = {"onnxruntime": "ORT_DISABLE_TELEMETRY", "huggingface_hub": "HF_HUB_DISABLE_TELEMETRY"}
"""Environment variables that switch the telemetry of a library off."""
OPENVINO = "openvino_telemetry"
"""The package that sends OpenVINO's events. The only setting is a file in the user's home, but OpenVINO does without the package."""

_started: list[str] = []


def switch_off() -> None:
    """Switch it off for this process and those that it starts, whatever the environment says."""
    for library, variable in VARIABLES.items():
        if library in sys.modules and os.environ.get(variable) != "1":
            _started.append(library)
        os.environ[variable] = "1"
    # Python raises ImportError for a module that is None here.
    if sys.modules.setdefault(OPENVINO, None) is not None:  # type: ignore[arg-type]
        _started.append("openvino")


def started() -> tuple[str, ...]:
    """Libraries that this process had imported, with their telemetry, before `resynth_fast`: theirs stays on."""
    return tuple(_started)
