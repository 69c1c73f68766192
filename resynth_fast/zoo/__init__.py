"""The embedded zoo: small generators, a captioner and an extractor that come with the package.

They serve demonstration and tests. They are trained models, exported from diffusers pipelines, but very small ones.
"""

from __future__ import annotations

from pathlib import Path

from ..bundle import MANIFEST, Bundle
from ..errors import ConfigError

FOLDER = Path(__file__).parent
TAGGER = "tagger"
TEXTURE = "texture"


def bundle(name: str) -> Bundle:
    """The zoo's bundle called `name`."""
    names = sorted(path.parent.name for path in FOLDER.glob(f"[!.]*/{MANIFEST}"))
    if name not in names:
        raise ConfigError(f"the zoo has no {name[:80]!r}; it has {', '.join(names)}")
    return Bundle.open(FOLDER / name)


def candidates() -> list[Bundle]:
    """The generators that are candidates, by name, without the withheld one."""
    return [b for b in _generators() if b.manifest.get("role") == "candidate"]


def withheld() -> list[Bundle]:
    """Generators that are not candidates: their pictures should be answered with "none of these"."""
    return [b for b in _generators() if b.manifest.get("role") == "withheld"]


def prompts() -> list[str]:
    """Held-out captions: no model of the zoo was trained on them."""
    return (FOLDER / "prompts.txt").read_text().splitlines()


def _generators() -> list[Bundle]:
    bundles = [Bundle.open(path.parent) for path in sorted(FOLDER.glob(f"[!.]*/{MANIFEST}"))]
    return [b for b in bundles if b.kind == "generator"]
