"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def parse_bytes(text: object) -> int:
    """`500MB`, `8GB`, `1.5GiB` or a number of bytes; ConfigError for anything else."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMG]I?)?B?\s*", str(text).upper())
    if not match or not (size := int(float(match[1]) * _UNITS[match[2] or ""])):
        raise ConfigError(f"memory budget is {str(text)[:40]!r}; write it as in 500MB or 8GB")
    return size


CandidatesOption = Annotated[
    list[str],
    typer.Option(
        "--candidates",
        "-c",
        help="A source of candidates: zoo:, zoo:NAME, gallery: or gallery:NAME (generators of --gallery), a bundle's folder or a folder "
        "of bundles, "
        "NAME=FOLDER (exemplars: pictures known to come from NAME), "
        "NAME=https://HOST#model=MODEL,key=VARIABLE (an images API); repeatable.",
    ),
]
ReferencesOption = Annotated[int, typer.Option("--references", "-k", help="Resyntheses per candidate.")]
StepsOption = Annotated[int, typer.Option(help="Denoising steps of a resynthesis.")]
GuidanceOption = Annotated[
    list[float],
    typer.Option(
        help="Guidance scale of a reference as a multiple of the candidate's own, 0: without guidance; repeatable, the references take "
        "them in turn, and the first is 1."
    ),
]
SeedOption = Annotated[int, typer.Option(help="Seed of the first reference.")]
ExtractorOption = Annotated[
    Path | None, typer.Option(help="Folder of an extractor bundle; default: the zoo's extractor, which has no weights.")
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="Backend that runs the engines: onnxruntime[:cuda|:tensorrt], openvino[:bf16], tensorrt[:FOLDER of plans] or torch[:cuda]."
    ),
]
MemoryOption = Annotated[
    int | None,
    typer.Option(parser=parse_bytes, metavar="SIZE", help="Memory budget of all loaded engines together, as in 500MB or 8GB."),
]
ThreadsOption = Annotated[int, typer.Option(help="Threads of an engine; 0: one per core.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
