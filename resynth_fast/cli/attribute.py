"""`resynth attribute`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..options import GUIDANCE
from .options import (
    BackendOption,
    CandidatesOption,
    ExtractorOption,
    GuidanceOption,
    MemoryOption,
    ReferencesOption,
    SeedOption,
    StepsOption,
    ThreadsOption,
)


def attribute(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, or folders of pictures.", metavar="FILE|DIR…")],
    candidates: CandidatesOption = [],  # noqa: B006
    references: ReferencesOption = 2,
    steps: StepsOption = 8,
    guidance: GuidanceOption = list(GUIDANCE),  # noqa: B006
    seed: SeedOption = 0,
    together: Annotated[
        bool, typer.Option("--together", help="Score each picture with the resyntheses of the others too, as if they were a gallery.")
    ] = False,
    same_source: Annotated[
        bool, typer.Option("--same-source", help="All pictures are known to come from one generator: give one answer for all.")
    ] = False,
    caption: Annotated[
        str,
        typer.Option(
            help="Caption that is resynthesised: tagger (the captioner's), metadata (the prompt in the file, if any) or text:CAPTION."
        ),
    ] = "tagger",
    race: Annotated[
        bool,
        typer.Option(
            "--race", help="Generate one picture per candidate, then more (up to --references) for the leader and its challenger."
        ),
    ] = False,
    max_pictures: Annotated[int | None, typer.Option(help="Maximum number of resyntheses per picture, over all candidates.")] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds per picture; after that the answer uses the references generated so far.")
    ] = None,
    extractor: ExtractorOption = None,
    gallery: Annotated[
        Path | None,
        typer.Option(help="Folder of a gallery: its generators are the candidates or, with --candidates, its fit is a prior of these."),
    ] = None,
    fit: Annotated[str | None, typer.Option(help="Fit of the gallery, by the first digits of its hash; default: the newest.")] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="How --gallery is used: generate (generate every resynthesis), both (look resyntheses up, generate and store the missing "
            "ones) or look-up (generate none)."
        ),
    ] = "generate",
    format: Annotated[str, typer.Option(help="table, json, jsonl or csv.")] = "table",
    report: Annotated[Path | None, typer.Option(help="Write the evidence to this HTML page.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write results to this file instead of stdout.")] = None,
    fail_on: Annotated[
        list[str],
        typer.Option(
            help="Exit with 1 if a verdict is attributed, inconclusive or unknown, or a picture is a known-copy of a given one; repeatable."
        ),
    ] = [],  # noqa: B006
    captioner: Annotated[
        str,
        typer.Option(
            help="zoo:, the folder of a captioner bundle, or https://HOST#model=MODEL,key=VARIABLE, which sends the pictures to that host."
        ),
    ] = "zoo:",
    backend: BackendOption = "onnxruntime",
    strict_backend: Annotated[
        bool, typer.Option("--strict-backend", help="Fail instead of warning if the backend falls back to another provider.")
    ] = False,
    threads: ThreadsOption = 0,
    memory_budget: MemoryOption = None,
) -> None:
    """Attribute pictures: which candidate is each one most consistent with?"""
    from .. import captioners
    from ..attributor import Attributor
    from ..report import batch
    from . import output as out

    out.check(format)
    for status in fail_on:
        if status not in out.FAIL_ON:
            raise ConfigError(f"--fail-on is {status!r}; it must be {', '.join(out.FAIL_ON)}")
    attributor = Attributor.open(
        candidates or None,
        extractor=extractor,
        gallery=gallery,
        fit=fit,
        backend=backend,
        threads=threads or None,
        references=references,
        steps=steps,
        guidance=guidance,
        seed=seed,
        together=together,
        same_source=same_source,
        caption=caption,
        captioner=captioner,
        policy=policy,
        strict_backend=strict_backend,
        race=race,
        max_pictures=max_pictures,
        deadline=deadline,
        memory_budget=memory_budget,
    )
    if notice := captioners.notice(captioner):
        print(f"resynth: {notice}", file=sys.stderr)
    for notice in attributor.notices():
        print(f"resynth: {notice}", file=sys.stderr)
    results = batch.run(attributor, inputs, progress=out.progress("attributing"))
    if report:
        from ..report import page

        finished = list(results)
        page.write(report, [result.record for result in finished], [result.images for result in finished])
        results = iter(finished)
    failed, statuses = out.write((result.record for result in results), format, output)
    if failed or set(statuses) & set(fail_on):
        raise typer.Exit(1)
