"""Small galleries, and ways to damage them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from resynth_fast.gallery import Entry, Gallery, Layout, ResynthesisKey

BLOCKS = {"shallow": 5, "deep": 24}
DIMENSION = sum(BLOCKS.values())


def layout(**changes):
    rng = np.random.default_rng(1)
    values = {
        "name": "test",
        "sha256": "a" * 64,
        "blocks": BLOCKS,
        "mean": rng.standard_normal(DIMENSION),
        "scale": rng.uniform(0.5, 2, DIMENSION),
    }
    return Layout(**{**values, **changes})


def exemplar(number, generator="g", prompt=None):
    return Entry(generator=generator, picture_sha256=f"{number:064x}", prompt=prompt)


def resynthesis_key(**changes):
    values = {
        "bundle_sha256": "b" * 64,
        "prompt": "a face",
        "table_sha256": "c" * 64,
        "steps": 4,
        "guidance_scale": 3.0,
        "resolution_px": (64, 48),
        "seed": 7,
        "backend": "onnxruntime 1.32.0",
        "precision": "denoiser fp16",
        "noise_version": 1,
    }
    return ResynthesisKey(**{**values, **changes})


def features(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="session")
def gallery_templates(tmp_path_factory: pytest.TempPathFactory):
    """An empty gallery and one of twelve entries by three generators. Both are created once, because creation syncs to disk and is slow."""
    folder = tmp_path_factory.mktemp("galleries")
    Gallery.create(folder / "empty", layout()).close()
    with Gallery.create(folder / "filled", layout()) as gallery:
        gallery.add([exemplar(i, f"g{i % 3}", f"prompt {i // 3}") for i in range(12)], features(12))
    return folder


@pytest.fixture
def gallery(gallery_templates: Path, tmp_path: Path):
    shutil.copytree(gallery_templates / "empty", tmp_path / "gallery")
    with Gallery.open(tmp_path / "gallery") as opened:
        yield opened


@pytest.fixture
def filled_gallery(gallery_templates: Path, tmp_path: Path):
    """A gallery of twelve entries, and their features (12, d)."""
    shutil.copytree(gallery_templates / "filled", tmp_path / "gallery")
    with Gallery.open(tmp_path / "gallery") as opened:
        yield opened, features(12)


def block_file(gallery, name="deep"):
    return gallery.folder / "vectors" / f"{name}.f32"


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def nearest(gallery, query, blocks, **options):
    """The neighbours of one query (d,)."""
    [found] = gallery.nearest(query[None], blocks, **options)
    return found
