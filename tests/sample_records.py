"""Records as `resynth attribute` writes them, and pictures for them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

NAMES = (("zoo-flux", "flux"), ("zoo-sd", "sd"), ("zoo-sd-twin", "sd"))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def answered(status: str = "attributed", probabilities: tuple[float, ...] = (0.9, 0.06, 0.04), words: str | None = None) -> dict[str, Any]:
    """A record as `resynth attribute` writes it."""
    first, family = NAMES[0]
    attributed = status == "attributed"
    return {
        "schema_version": 3,
        "input": {"path": "inbox/a.png", "sha256": sha256("a"), "format": "PNG", "size": [64, 48]},
        "verdict": {
            "label": first if attributed else None,
            "family": family if attributed else None,
            "status": status,
            "probability": probabilities[0],
            "margin": probabilities[0] - probabilities[1],
            "consistency": 0.71,
            "credible_set": [first],
            "summary": words or f"Most consistent with {first}",
            "reason": "" if attributed else "The first two candidates explain the picture equally well",
        },
        "known_copies": [],
        "candidates": [
            {"name": name, "family": family, "bundle": sha256(name), "score": -4.0 - i, "probability": probability, "resyntheses": 2}
            for i, ((name, family), probability) in enumerate(zip(NAMES, probabilities, strict=True))
        ],
        "evidence": {
            "caption": "a drawn face",
            "captioner": "zoo-tagger",
            "seeds": [11, 12],
            "steps": 8,
            "extractor": "zoo-texture",
            "tap": "texture",
        },
        "robustness": {"perturbations": 5, "flips": 1},
        "metadata": {"parameters": {"Software": "a camera"}},
        "timing_ms": {"read": 2.1, "caption": 4.2, "generate": 1841.5, "features": 212.3, "score": 0.04, "total": 2060.1},
        "provenance": {
            "resynth_fast": "0.1.0",
            "backend": "onnxruntime 1.30.0",
            "isa": "avx2",
            "captioner_sha256": sha256("captioner"),
            "extractor_sha256": sha256("extractor"),
            "noise_version": 1,
            "recipe": "one-shot",
            "gallery_per_candidate": 0,
            "fit_sha256": None,
            "calibration": "200 zoo probes",
        },
        "warnings": ["only the first frame was read"],
        "error": None,
    }


def failed() -> dict[str, Any]:
    empty = dict.fromkeys(("label", "family", "status", "probability", "margin", "consistency"))
    verdict = empty | {"credible_set": [], "summary": "", "reason": ""}
    return {
        "schema_version": 3,
        "input": {"path": "inbox/broken.png", "sha256": None, "format": None, "size": None},
        "verdict": verdict,
        "known_copies": [],
        "candidates": [],
        "evidence": {"caption": None, "captioner": None, "seeds": [], "steps": None, "extractor": None, "tap": None},
        "robustness": {"perturbations": 0, "flips": None},
        "metadata": {"parameters": {}},
        "timing_ms": {},
        "provenance": {},
        "warnings": [],
        "error": {"kind": "InputError", "message": "inbox/broken.png: cannot be decoded; the file is truncated, export it again"},
    }


def pictures(record: dict[str, Any], shape: tuple[int, int] = (48, 64)) -> dict[str, Any]:
    """Noise, different in every picture."""
    rng = np.random.default_rng(0)
    made = {c["name"]: [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(c["resyntheses"])] for c in record["candidates"]}
    return {"probe": rng.integers(0, 256, (*shape, 3), np.uint8), "resyntheses": made}
