"""Resyntheses as PNG, named by the hash of their pixels, so that a verdict that reuses one can still show it.

Added pictures are not copied: the user has the files, and may not want a second copy of them.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from .. import files, images
from ..errors import BundleError, InputError
from ..types import Pixels
from .entry import pixels_sha256

FOLDER = "pictures"


def write(folder: Path, sha256: str, pixels: Pixels) -> None:
    """Store the picture (H, W, 3) uint8 whose hash is `sha256`."""
    path = _path(folder, sha256)
    if path.exists():
        return
    with files.write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.sync_folder(path.parent.parent)
        with files.replacing(path) as file:
            Image.fromarray(pixels).save(file, "PNG", compress_level=1)


def read(folder: Path, sha256: str) -> Pixels | None:
    """The picture, None if it is not stored; BundleError if it is damaged."""
    path = _path(folder, sha256)
    if not path.exists():
        return None
    try:
        pixels = images.read(path).pixels
    except InputError as error:
        raise BundleError(f"a stored picture is damaged ({error}); delete it") from error
    if pixels_sha256(pixels) != sha256:
        raise BundleError(f"{path} holds pixels whose hash is not its name; delete it")
    return pixels


def set_aside(folder: Path, sha256: str) -> None:
    """Rename a damaged picture, so that it can be stored again."""
    path = _path(folder, sha256)
    with files.write_errors(path):
        path.replace(path.with_suffix(".damaged"))


def _path(folder: Path, sha256: str) -> Path:
    return folder / FOLDER / sha256[:2] / f"{sha256}.png"
