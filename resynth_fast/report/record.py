"""Verdicts as JSON: the stable, versioned record of the command line (schema: schemas/record.schema.json)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from ..errors import ResynthError
from ..images import metadata, printable
from ..types import CandidateEvidence, Verdict

SCHEMA_VERSION = 3
Record = dict[str, Any]


def document(records: Sequence[Record]) -> dict[str, Any]:
    """The document that `--format json` prints."""
    return {"schema_version": SCHEMA_VERSION, "records": list(records)}


def of(path: str, verdict: Verdict, captioner: str, extractor: str, tap: str, steps: int) -> Record:
    """The record of a probe with a verdict."""
    probe = verdict.probe
    seeds = ([resynthesis.seed for resynthesis in candidate.resyntheses] for candidate in verdict.candidates if candidate.resyntheses)
    return {
        "schema_version": SCHEMA_VERSION,
        "input": {"path": printable(path), "sha256": probe.sha256, "format": probe.format, "size": [probe.width, probe.height]},
        "verdict": {
            "label": verdict.label,
            "family": verdict.family,
            "status": verdict.status,
            "probability": verdict.probability,
            "margin": verdict.margin,
            "consistency": verdict.consistency,
            "credible_set": list(verdict.credible_set),
            "summary": summary(verdict),
            "reason": verdict.reason,
        },
        "known_copies": [asdict(copy) for copy in verdict.known_copies],
        "candidates": [_candidate(candidate) for candidate in verdict.candidates],
        "evidence": {
            "caption": verdict.caption,
            "captioner": captioner,
            "seeds": next(seeds, []),
            "steps": steps,
            "extractor": extractor,
            "tap": tap,
        },
        "robustness": {"perturbations": verdict.perturbations, "flips": verdict.flips},
        "metadata": metadata.of(probe),
        "timing_ms": {stage: round(ms, 3) for stage, ms in verdict.timing_ms.items()},
        "provenance": dict(verdict.provenance),
        "warnings": list(verdict.warnings),
        "error": None,
    }


def failed(path: str, error: ResynthError) -> Record:
    """The record of a probe without a verdict: every field is present, and those of the verdict are empty."""
    nothing: Record = {
        "schema_version": SCHEMA_VERSION,
        "input": {"path": printable(path), "sha256": None, "format": None, "size": None},
        "verdict": {
            **dict.fromkeys(("label", "family", "status", "probability", "margin", "consistency")),
            "credible_set": [],
            "summary": "",
            "reason": "",
        },
        "known_copies": [],
        "candidates": [],
        "evidence": {"caption": None, "captioner": None, "seeds": [], "steps": None, "extractor": None, "tap": None},
        "robustness": {"perturbations": 0, "flips": None},
        "metadata": copy.deepcopy(metadata.NOT_EXAMINED),
        "timing_ms": {},
        "provenance": {},
        "warnings": [],
        "error": {"kind": type(error).__name__, "message": str(error)},
    }
    return nothing


def summary(verdict: Verdict) -> str:
    """The verdict as one sentence, which claims no more than the evidence."""
    first = verdict.candidates[0].name
    if verdict.status == "attributed":
        return f"Most consistent with {first}"
    if verdict.status == "unknown":
        return f"None of the candidates: even {first} is less consistent with it than its own pictures are"
    if len(verdict.credible_set) < 2:
        return f"Inconclusive: {first} comes first, but may not be named"
    return f"Inconclusive: {' or '.join(verdict.credible_set)}"


def copies_sentence(record: Mapping[str, Any]) -> str:
    """Where the picture was seen before, as a sentence without its full stop; empty if nowhere."""
    copies = record["known_copies"]
    same = list(dict.fromkeys(copy["generator"] for copy in copies if copy["kind"] == "same file"))
    near = {copy["generator"]: PurePath(copy["file"]).name for copy in reversed(copies) if copy["generator"] not in same}
    parts = [f"this very file was given as {' and as '.join(same)}"] if same else []
    parts += [f"a near copy of {file}, given as {generator}" for generator, file in reversed(near.items())]
    sentence = "; ".join(parts)
    return sentence[:1].upper() + sentence[1:]


def _candidate(candidate: CandidateEvidence) -> Record:
    return {
        "name": candidate.name,
        "family": candidate.family,
        "bundle": candidate.bundle,
        "score": candidate.score,
        "probability": candidate.probability,
        "resyntheses": len(candidate.resyntheses),
        "references": len(candidate.resyntheses) + max(len(candidate.exemplars), candidate.pictures),
        "guidance": [resynthesis.guidance for resynthesis in candidate.resyntheses],
        "best_guidance": candidate.best_guidance or None,
    }
