"""The command line: results on stdout, progress and faults on stderr, one exit code a kind of outcome."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..bundle import Bundle
from ..errors import ConfigError, ResynthError
from ..export.cli import app as export_app
from .config_file import defaults
from .gallery import app as gallery_app

app = typer.Typer(
    name="resynth",
    help="Say which text-to-image generator made a picture, by resynthesis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "RESYNTH"},
)
candidates_app = typer.Typer(help="The generators in the running.", no_args_is_help=True)
app.add_typer(candidates_app, name="candidates")
app.add_typer(gallery_app, name="gallery")
app.add_typer(export_app, name="export")

CandidatesOption = Annotated[
    list[str],
    typer.Option(
        "--candidates",
        "-c",
        help="zoo:, zoo:NAME, a bundle's folder or a folder of bundles, NAME=FOLDER of given pictures, NAME=https://HOST#model=MODEL,key=VARIABLE (an images API); repeatable.",
    ),
]
ReferencesOption = Annotated[int, typer.Option("--references", "-k", help="Resyntheses by each candidate.")]
StepsOption = Annotated[int, typer.Option(help="Denoising steps of a resynthesis.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the first reference.")]
ExtractorOption = Annotated[Path | None, typer.Option(help="An extractor's bundle, in place of the zoo's weightless descriptor.")]
BackendOption = Annotated[
    str, typer.Option(help="What runs the engines: onnxruntime[:cuda|:tensorrt], openvino[:bf16] or tensorrt[:FOLDER of plans].")
]
MemoryOption = Annotated[str | None, typer.Option(help="What all loaded engines may take in memory together, as in 500MB or 8GB.")]
ThreadsOption = Annotated[int, typer.Option(help="Threads of an engine; 0: as many as there are cores.")]


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="TOML file with defaults, a table for each command.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Command line > RESYNTH_* > ./resynth.toml or --config > user configuration > built-in default."""
    if version:
        print(__version__)
        raise typer.Exit
    context.default_map = {**(context.default_map or {}), **defaults(config)}


@app.command()
def attribute(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, or folders of pictures.", metavar="FILE|DIR…")],
    candidates: CandidatesOption = ["zoo:"],  # noqa: B006
    references: ReferencesOption = 2,
    steps: StepsOption = 8,
    seed: SeedOption = 0,
    together: Annotated[
        bool, typer.Option("--together", help="The pictures lend each other their resyntheses, as a gallery would.")
    ] = False,
    same_source: Annotated[
        bool, typer.Option("--same-source", help="All pictures are declared to come from one generator: one answer.")
    ] = False,
    caption: Annotated[
        str, typer.Option(help="Words to resynthesise: tagger, metadata (the prompt in the file, if any) or text:WORDS.")
    ] = "tagger",
    race: Annotated[
        bool, typer.Option("--race", help="Every candidate draws once; up to --references only the leader and its challenger.")
    ] = False,
    max_pictures: Annotated[int | None, typer.Option(help="Resyntheses of a picture, at most, over all candidates.")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds for a picture; then the answer rests on what was drawn.")] = None,
    extractor: ExtractorOption = None,
    gallery: Annotated[Path | None, typer.Option(help="Folder of a gallery: what its fit says of the candidates is used.")] = None,
    fit: Annotated[str | None, typer.Option(help="Which fit of the gallery, by its hash; default: the newest.")] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="How --gallery is used: generate (every resynthesis is made), both (kept ones are looked up, the others made and kept), look-up (none is made)."
        ),
    ] = "generate",
    format: Annotated[str, typer.Option(help="table, json, jsonl or csv.")] = "table",
    report: Annotated[Path | None, typer.Option(help="Write the evidence to this HTML page.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write results here instead of to stdout.")] = None,
    fail_on: Annotated[list[str], typer.Option(help="Exit with 1 when a verdict has this status; repeatable.")] = [],  # noqa: B006
    captioner: Annotated[
        str, typer.Option(help="zoo:, a captioner's bundle, or https://HOST#model=MODEL,key=VARIABLE: the pictures are sent to that host.")
    ] = "zoo:",
    backend: BackendOption = "onnxruntime",
    strict_backend: Annotated[
        bool, typer.Option("--strict-backend", help="Fail where the backend would fall back to something else, instead of warning.")
    ] = False,
    threads: ThreadsOption = 0,
    memory_budget: MemoryOption = None,
) -> None:
    """Attribute pictures: which candidate is each most consistent with?"""
    from .. import batch, captioners
    from ..attributor import Attributor
    from ..engines import malloc
    from . import output as out

    out.check(format)
    attributor = Attributor.open(
        candidates,
        extractor=extractor,
        gallery=gallery,
        fit=fit,
        backend=backend,
        threads=threads or None,
        references=references,
        steps=steps,
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
        memory_budget=malloc.parse_bytes(memory_budget) if memory_budget else None,
    )
    if notice := captioners.notice(captioner):
        print(f"resynth: {notice}", file=sys.stderr)
    results = batch.run(attributor, inputs, progress=out.progress())
    if report:
        from ..report import write

        done = list(results)
        write(report, [r.record for r in done], [r.images for r in done])
        results = iter(done)
    failed, statuses = out.write((r.record for r in results), format, output)
    if failed or set(statuses) & set(fail_on):
        raise typer.Exit(1)


@candidates_app.command("list")
def candidates_list(
    candidates: CandidatesOption = ["zoo:"],  # noqa: B006
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and check its hash.")] = False,
) -> None:
    """List candidates: name, family, size, licence, lineage."""
    from ..candidates import bundles

    chosen = [bundle for text in candidates for bundle in bundles(text)]
    if verify:
        for bundle in chosen:
            bundle.verify()
    sizes = [sum(file.path.stat().st_size for file in bundle.files()) for bundle in chosen]
    if format == "json":
        fields = ("name", "family", "role", "licence", "lineage", "resolution_px", "guidance")
        rows = [{key: b.manifest.get(key) for key in fields} | {"sha256": b.sha256, "bytes": n} for b, n in zip(chosen, sizes, strict=True)]
        print(json.dumps(rows, indent=2))
        return
    from .output import table

    def shared(bundle: Bundle) -> str:
        """What it has in common with another candidate of the list."""
        others = [other.lineage for other in chosen if other is not bundle]
        return ", ".join(part for part, sha in bundle.lineage.items() if any(sha in lineage.values() for lineage in others))

    table(
        ["name", "family", "pixels", "MB", "licence", "shares"],
        [
            [b.name, b.family, "×".join(map(str, b.resolution_px)), f"{n / 1e6:.1f}", b.licence, shared(b)]
            for b, n in zip(chosen, sizes, strict=True)
        ],
    )


@candidates_app.command("show")
def candidates_show(name: Annotated[str, typer.Argument(help="zoo:NAME or a bundle's folder.")]) -> None:
    """Print a bundle's manifest, its card included."""
    from ..candidates import bundles

    print(json.dumps([dict(bundle.manifest) for bundle in bundles(name)], indent=2))


@app.command()
def evaluate(
    dataset: Annotated[
        str, typer.Argument(help="zoo: draws fresh probes from the embedded zoo; else a folder <prompt>/<generator>/<pictures>.")
    ] = "zoo:",
    protocol: Annotated[str, typer.Option(help="closed, open, robustness or curve; zoo: knows closed alone.")] = "closed",
    recipe: Annotated[
        str,
        typer.Option(
            help="default (with a gallery: the other prompts), one-shot, together, layer or paper; for zoo: one-shot or together."
        ),
    ] = "",
    extractor: ExtractorOption = None,
    references: ReferencesOption = 4,
    draws: Annotated[int, typer.Option(help="How often a probe's references are drawn.")] = 5,
    seed: Annotated[int, typer.Option(help="Chooses references and folds; for zoo: captions and the probes' noise.")] = 0,
    without: Annotated[
        list[str], typer.Option(help="Leave out a step: scaling, whitening, own, nuisance, centring, gallery; repeatable.")
    ] = [],  # noqa: B006
    leave_out: Annotated[list[str], typer.Option(help="Leave a family of degradations out of the nuisance constants; repeatable.")] = [],  # noqa: B006
    together: Annotated[int, typer.Option(help="How many captions lend each other their resyntheses (recipe together); 0: all.")] = 0,
    degradation: Annotated[
        list[str], typer.Option(help="Condition of the robustness protocol, as in jpeg-50; repeatable; default: all.")
    ] = [],  # noqa: B006
    probes: Annotated[int, typer.Option(help="zoo: how many probes, spread evenly over the candidates.")] = 400,
    steps: StepsOption = 8,
    probe_steps: Annotated[int, typer.Option(help="zoo: denoising steps of a probe.")] = 20,
    race: Annotated[bool, typer.Option("--race", help="zoo: judge with racing too, and say how far the two agree.")] = False,
    format: Annotated[str, typer.Option(help="table, json or csv.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write result.json, result.csv, plots and a page into this folder.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps features between runs; default: the user's cache.")] = None,
    backend: BackendOption = "onnxruntime",
    threads: ThreadsOption = 0,
) -> None:
    """Measure attribution accuracy on pictures whose generator is known."""
    from ..evaluation import ZOO, of_folder, of_zoo
    from . import output

    output.check(format, ("table", "json", "csv"))
    common = {
        "references": references,
        "seed": seed,
        "together": together,
        "backend": backend,
        "threads": threads,
        "progress": output.progress(),
    }
    if dataset == ZOO:
        if protocol != "closed":
            raise ConfigError(f"--protocol is {protocol!r}; zoo: knows closed, which asks about a withheld generator too")
        if folder_only := [*without, *leave_out, *degradation]:
            raise ConfigError(
                f"{folder_only[0]!r}: --without, --leave-out and --degradation are for datasets in a folder; leave them out with zoo:"
            )
        result = of_zoo(recipe or "one-shot", probes=probes, steps=steps, probe_steps=probe_steps, race=race, extractor=extractor, **common)
    elif race:
        raise ConfigError("--race is for zoo:, whose references are drawn; in a folder they are there already: leave it out")
    else:
        result = of_folder(
            Path(dataset),
            protocol,
            recipe or "default",
            extractor=extractor,
            draws=draws,
            without=without,
            leave_out=leave_out,
            degradations=degradation,
            cache=cache,
            **common,
        )
    output.evaluation(result, format)
    if out:
        from ..evaluation.page import write

        write(out, result)


@app.command()
def bench(
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Pictures, or folders of pictures; default: eight of the zoo's.", metavar="[FILE|DIR…]")
    ] = None,
    candidates: CandidatesOption = ["zoo:"],  # noqa: B006
    references: ReferencesOption = 2,
    steps: StepsOption = 8,
    race: Annotated[bool, typer.Option("--race", help="As in attribute.")] = False,
    concurrency: Annotated[str, typer.Option(help="Clients that wait for an answer at once, separated by commas.")] = "1,4",
    window: Annotated[float, typer.Option(help="Seconds of a window; three that agree are a measurement.")] = 5.0,
    cold: Annotated[bool, typer.Option(help="Time a fresh process too.")] = True,
    backend: BackendOption = "onnxruntime",
    threads: ThreadsOption = 0,
    memory_budget: MemoryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Latency and throughput of attribution by concurrency, cold, cached and warm; what it measures helps the scheduler."""
    from ..engines import malloc
    from . import bench, output

    try:
        concurrencies = [int(text) for text in concurrency.split(",")]
    except ValueError:
        raise ConfigError(f"--concurrency is {concurrency!r}; it must be numbers separated by commas, as in 1,4") from None
    result = bench.run(
        inputs or [],
        concurrencies,
        window_s=window,
        cold=cold,
        progress=output.progress("measuring"),
        candidates=candidates,
        references=references,
        steps=steps,
        race=race,
        backend=backend,
        threads=threads or None,
        memory_budget=malloc.parse_bytes(memory_budget) if memory_budget else None,
    )
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        bench.show(result)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """What works here: versions, instruction set, backends, devices, the zoo's files."""
    from .doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        for name, value in findings.items():
            print(f"{name:<16} {value}")
    if not findings["ok"]:
        raise typer.Exit(3)


def main() -> None:
    """Entry point: every ResynthError becomes one line on stderr and its exit code."""
    try:
        app()
    except ResynthError as error:
        print(f"resynth: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader has gone (`resynth … | head`): that is no fault, and must not print one at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
