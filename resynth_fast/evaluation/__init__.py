"""How well attribution works, on pictures whose generator is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .dataset import Progress

ZOO = "zoo:"


def of_zoo(
    recipe: str,
    *,
    probes: int,
    steps: int,
    probe_steps: int,
    extractor: Path | None,
    references: int,
    seed: int,
    together: int,
    race: bool,
    backend: str,
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    """Fresh probes of held-out captions, drawn by the embedded zoo's own generators; `race`: judged without and with racing."""
    from ..attributor import Attributor
    from . import zoo

    if recipe not in ("one-shot", "together"):
        raise ConfigError(f"--recipe is {recipe!r}; zoo: has no gallery and knows one-shot and together")
    if together:
        raise ConfigError(f"--together is {together}; zoo: lends the resyntheses of all its probes")
    attributor = Attributor.open(
        [ZOO],
        extractor=extractor,
        backend=backend,
        threads=threads or None,
        references=references,
        steps=steps,
        seed=0,
        together=recipe == "together",
        race=race,
    )
    return zoo.evaluate(attributor, probes=probes, seed=seed, probe_steps=probe_steps, progress=progress)


def of_folder(
    root: Path,
    protocol: str,
    recipe: str,
    *,
    extractor: Path | None,
    references: int,
    seed: int,
    draws: int,
    without: Sequence[str],
    leave_out: Sequence[str],
    together: int,
    degradations: Sequence[str],
    cache: Path | None,
    backend: str,
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    """A protocol over a labelled dataset on disk."""
    from .. import zoo
    from ..bundle import Bundle
    from ..engines.pool import EnginePool
    from ..extractors.network import NetworkExtractor
    from ..extractors.space import open_space
    from ..images import perturbations
    from .config import EvaluationConfig
    from .harness import Run, evaluate

    setting = EvaluationConfig(
        recipe=recipe,
        references=references,
        draws=draws,
        seed=seed,
        without=tuple(without),
        leave_out=tuple(leave_out),
        together=together or None,
    )
    pool = EnginePool(backend, threads=threads or os.cpu_count() or 1)
    space = open_space(Bundle.open(extractor) if extractor else zoo.bundle(zoo.TEXTURE), pool)
    for name in degradations:
        perturbations.perturbation(name)
    run = Run(
        root=root,
        space=space,
        setting=setting,
        cache=cache,
        backend=pool.backend.version() if isinstance(space.extractor, NetworkExtractor) else "",
        degradations=tuple(degradations) or perturbations.ROBUSTNESS,
        progress=progress,
    )
    return evaluate(run, protocol)
