"""Preprocessing settings of a transformers checkpoint: `preprocessor_config.json`, or the same inside `processor_config.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resynth_fast.errors import ConfigError

from .checkpoints import read_json

FILES = ("preprocessor_config.json", "processor_config.json")
BICUBIC = 3
"""Pillow's number of the bicubic filter."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How pictures become a network's input."""

    side: int
    """of the square input, in px"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int
    cropped: bool
    """whether a picture that is not square is cropped to its centre; else it is squeezed"""


def read(folder: Path) -> Preprocessing:
    """Read the settings of `folder`. ConfigError if there are none, or if a bundle cannot have them (other ranges, non-square inputs)."""
    for file in FILES:
        if (folder / file).is_file():
            entry = read_json(folder / file)
            own = entry if file == FILES[0] else entry.get("image_processor")
            if isinstance(own, dict):
                return _read(folder / file, own)
    raise ConfigError(
        f"{folder} has no {' or '.join(FILES)}, which hold its preprocessing settings; fetch the checkpoint with its processor"
    )


def _read(path: Path, entry: dict[str, Any]) -> Preprocessing:
    if abs(float(_number(path, entry, "rescale_factor", 1 / 255)) - 1 / 255) > 1e-9 or entry.get("do_rescale") is False:
        raise ConfigError(f"{path}: rescale_factor is {entry.get('rescale_factor')}; it must be 1/255, for pictures in [0, 1]")
    normalised = entry.get("do_normalize") is not False
    mean, std = (
        _three(path, entry, key, value) if normalised else (value,) * 3 for key, value in (("image_mean", 0.0), ("image_std", 1.0))
    )
    cropped = bool(entry.get("do_center_crop")) or "shortest_edge" in _size(entry.get("size"))
    if isinstance(patches := entry.get("max_num_patches"), int):  # pictures of any shape: take the largest square
        side = math.isqrt(patches) * int(_number(path, entry, "patch_size", 16))
        return Preprocessing(side=side, mean=mean, std=std, resample=int(_number(path, entry, "resample", BICUBIC)), cropped=False)
    size = _size(entry.get("crop_size") if entry.get("do_center_crop") else entry.get("size"))
    sides = {size[key] for key in ("height", "width", "shortest_edge") if key in size}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int) or side < 1:
        raise ConfigError(f"{path}: the input is {size or 'of no stated size'}; it must be square, as in {{'height': 224, 'width': 224}}")
    return Preprocessing(side=side, mean=mean, std=std, resample=int(_number(path, entry, "resample", BICUBIC)), cropped=cropped)


def _size(value: Any) -> dict[str, Any]:
    """The side of a size that is a number or an object."""
    return {"height": value, "width": value} if isinstance(value, int) else value if isinstance(value, dict) else {}


def _number(path: Path, entry: dict[str, Any], key: str, default: float) -> float:
    value = entry.get(key, default)
    if not isinstance(value, (int, float)):
        raise ConfigError(f"{path}: {key} is {value!r}; it must be a number")
    return value


def _three(path: Path, entry: dict[str, Any], key: str, default: float) -> tuple[float, ...]:
    value = entry.get(key, [default] * 3)
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, (int, float)) for v in value):
        raise ConfigError(f"{path}: {key} is {value!r}; it must be three numbers")
    return tuple(float(v) for v in value)
