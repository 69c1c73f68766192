"""What works on this machine, for a person who wonders why something does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from typing import Any

from .. import __version__, backends, zoo
from ..errors import ResynthError
from ..kernels import similarity


def examine() -> dict[str, Any]:
    """Versions, instruction set, usable backends, CUDA, and whether every file of the zoo has its hash."""
    usable = {}
    for name in backends.names():
        try:
            usable[name] = backends.get(name).version()
        except ResynthError as error:
            usable[name] = f"not usable: {error}"
    cuda = "not built"
    if importlib.util.find_spec("resynth_fast.kernels._cuda"):
        from ..kernels import _cuda

        cuda = f"{_cuda.device_count()} device(s)" if _cuda.device_count() else f"built, no device: {_cuda.status()}"
    try:
        for bundle in (*zoo.candidates(), *zoo.withheld(), zoo.bundle(zoo.TAGGER), zoo.bundle(zoo.TEXTURE)):
            bundle.verify()
        state = f"{len(zoo.candidates())} candidates, every file verified"
        intact = True
    except ResynthError as error:
        state, intact = str(error), False
    return {
        "resynth_fast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "kernels": similarity.backend(),
        "cuda": cuda,
        "backends": usable,
        "zoo": state,
        "ok": intact and any(not text.startswith("not usable") for text in usable.values()),
    }
