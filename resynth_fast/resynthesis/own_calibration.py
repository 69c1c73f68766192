"""Calibrations that `resynth calibrate` measured on this machine, kept in the user's cache under all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from .. import files
from ..captioners import Captioner
from ..errors import BundleError
from ..extractors.space import FeatureSpace
from ..options import Options
from ..scoring.calibration import Calibration

VERSION = 1
"""Of what is measured; another version's calibrations are not used."""


def folder() -> Path:
    """Where calibrations are kept."""
    return files.user_cache() / "calibrations"


def find(identities: Collection[str], captioner: Captioner, space: FeatureSpace, options: Options) -> Calibration | None:
    """The calibration that was measured with these candidates (SHA-256 each) and as few others as possible; None if there is none."""
    wanted = _conditions(captioner, space, options)
    found = [calibration for conditions, calibration in _stored() if conditions == wanted and calibration.holds_for(identities)]
    return min(found, key=lambda calibration: len(calibration.candidates), default=None)


def store(calibration: Calibration, captioner: Captioner, space: FeatureSpace, options: Options) -> Path:
    """Keep a calibration for later attributions; returns its file. DeviceError if it cannot be written."""
    conditions = _conditions(captioner, space, options)
    key = json.dumps({**conditions, "candidates": sorted(calibration.candidates)}, sort_keys=True)
    path = folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    with files.write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps({"conditions": conditions, "calibration": calibration.to_json()}, indent=1).encode())
    return path


def _conditions(captioner: Captioner, space: FeatureSpace, options: Options) -> dict[str, Any]:
    """All that a calibration depends on beside the candidates. The number of references is not: it has a point for each."""
    settings = {"steps": options.steps, "guidance": list(map(float, options.guidance))}
    return {"version": VERSION, "captioner": captioner.sha256, "extractor": space.sha256, **settings}


def _stored() -> Iterator[tuple[dict[str, Any], Calibration]]:
    """Every calibration with its conditions. A broken file is ignored: it can be measured again."""
    for path in sorted(folder().glob("*.json")):
        try:
            entry = json.loads(path.read_text())
            yield entry["conditions"], Calibration.from_json(entry["calibration"], str(path))
        except (OSError, BundleError, KeyError, TypeError, ValueError):
            continue
