"""Accuracy of attribution on pictures whose generator is known: `of_zoo` on generated probes, `of_folder` on a dataset.

Also what such pictures are needed for: calibrating a score (`calibrate`) and fitting a gallery (`fitting`).
"""

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
    probe_guidance: float,
    guidance: Sequence[float],
    extractor: Path | None,
    references: int,
    seed: int,
    together: int,
    race: bool,
    degradations: Sequence[str],
    backend: str,
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    """The result on probes that the embedded zoo generates from held-out captions.

    `race`: judged with and without racing; `degradations`: judged after each of them too.
    """
    from ..attributor import Attributor
    from ..images import perturbations
    from . import zoo

    if recipe not in ("one-shot", "together"):
        raise ConfigError(f"--recipe is {recipe!r}; zoo: has no gallery, so it must be one-shot or together")
    if together:
        raise ConfigError(f"--together is {together}; with zoo: all probes share their resyntheses, leave it out")
    for name in degradations:
        perturbations.perturbation(name)
    attributor = Attributor.open(
        [ZOO],
        extractor=extractor,
        backend=backend,
        threads=threads or None,
        references=references,
        steps=steps,
        guidance=guidance,
        seed=0,
        together=recipe == "together",
        race=race,
    )
    return zoo.evaluate(
        attributor,
        probes=probes,
        seed=seed,
        probe_steps=probe_steps,
        probe_guidance=probe_guidance,
        degradations=degradations,
        progress=progress,
    )


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
    """The result of a protocol on a labelled dataset on disk."""
    from .. import zoo
    from ..bundle import Bundle
    from ..engines.pool import EnginePool
    from ..extractors.space import open_space
    from ..images import perturbations
    from .config import EvaluationConfig
    from .harness import Run, evaluate

    config = EvaluationConfig(
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
        config=config,
        cache=cache,
        backend=space.extractor.backend,
        degradations=tuple(degradations) or perturbations.ROBUSTNESS,
        progress=progress,
    )
    return evaluate(run, protocol)
