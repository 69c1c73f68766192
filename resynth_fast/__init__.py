"""Say which text-to-image generator made a picture: resynthesis attribution on fast engines, without torch."""

from __future__ import annotations

__version__ = "0.1.0"

from .attributor import Attributor
from .backends import telemetry
from .errors import ResynthError
from .options import Options
from .types import Verdict

__all__ = ["Attributor", "Options", "ResynthError", "Verdict", "__version__"]

telemetry.switch_off()  # here, since every module of the package, of the exporter and of a plug-in is imported after this line
