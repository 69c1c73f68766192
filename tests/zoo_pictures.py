"""Pictures by generators of the zoo, shared by the tests of candidates that are not engines."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from resynth_fast import zoo
from resynth_fast.candidates import find
from resynth_fast.engines.pool import EnginePool


@pytest.fixture(scope="session")
def zoo_pool() -> EnginePool:
    return EnginePool(threads=1)


@pytest.fixture(scope="session")
def exemplar_folders(zoo_pool: EnginePool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen pictures of each of two zoo generators, of different captions."""
    root = tmp_path_factory.mktemp("exemplars")
    for i, name in enumerate(("zoo-flux", "zoo-sd-v")):
        [candidate] = find([f"zoo:{name}"], zoo_pool)
        (root / name).mkdir()
        for j, pixels in enumerate(candidate.make(zoo.prompts()[12 * i : 12 * i + 12], [900 + 12 * i + j for j in range(12)], 8)):
            Image.fromarray(pixels).save(root / name / f"{j:02}.png")
    return root


@pytest.fixture(scope="session")
def zoo_probes(zoo_pool: EnginePool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three pictures of each of the two, of other captions and with other noise."""
    root = tmp_path_factory.mktemp("probes")
    found: dict[str, list[Path]] = {}
    for name in ("zoo-flux", "zoo-sd-v"):
        [candidate] = find([f"zoo:{name}"], zoo_pool)
        for j, pixels in enumerate(candidate.make(zoo.prompts()[40:43], [(1 << 40) + j for j in range(3)], 8)):
            path = root / f"{name}-{j}.png"
            Image.fromarray(pixels).save(path)
            found.setdefault(name, []).append(path)
    return found
