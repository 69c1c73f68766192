"""`resynth gallery`: references whose generator is known, on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from unicodedata import normalize

import typer

from ..errors import ConfigError, InputError

if TYPE_CHECKING:
    from ..extractors.space import FeatureSpace
    from ..gallery import Damage, Entry, Gallery
    from ..types import Picture

CHUNK = 8
"""Pictures that are in memory, described and kept together; what is kept stays, whatever happens to the next."""

app = typer.Typer(help="References whose generator is known: kept for every later question.", no_args_is_help=True)

GalleryOption = Annotated[
    Path | None,
    typer.Option("--gallery", envvar="RESYNTH_GALLERY", help="The gallery's folder [default: one for the extractor, in the user's data]."),
]
ExtractorOption = Annotated[Path | None, typer.Option(help="An extractor bundle's folder [default: the zoo's].")]
FormatOption = Annotated[str, typer.Option(help="table or json.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The generator that made the pictures.")],
    inputs: Annotated[list[str], typer.Argument(help="Pictures, or folders of pictures.", metavar="FILE|DIR…")],
    gallery: GalleryOption = None,
    extractor: ExtractorOption = None,
    prompt: Annotated[str | None, typer.Option(help="What all the pictures were made from.")] = None,
    prompts_from_folders: Annotated[
        bool, typer.Option("--prompts-from-folders", help="DIR/PROMPT/… or DIR/PROMPT/NAME/…: the prompt is the name of the first folder.")
    ] = False,
    group: Annotated[str, typer.Option(help="Label of this batch; only 'general' is fitted without being named.")] = "general",
    format: FormatOption = "table",
) -> None:
    """Add pictures by the generator NAME; one that is there already is not added again."""
    from ..gallery import Entry, Gallery, Layout, check_group
    from . import output as out

    out.check(format, ("table", "json"))
    if prompt is not None and prompts_from_folders:
        raise ConfigError("--prompt and --prompts-from-folders are both given; choose one")
    try:
        Entry(generator=name, picture_sha256="0" * 64, prompt=prompt)
    except InputError as error:  # of every picture, so of the call
        raise ConfigError(str(error)) from error
    check_group(group)
    space = _space(extractor)
    folder = gallery or _default(space)
    wanted, outcome = _wanted(name, inputs, prompt, prompts_from_folders)
    with Gallery.create(folder, Layout.of(space)) as store:
        progress = out.progress("adding")
        for start in range(0, len(wanted), CHUNK):
            progress(start, len(wanted))
            _add(store, space, name, wanted[start : start + CHUNK], group, outcome)
        progress(len(wanted), len(wanted))
        total = len(store)
    if format == "json":
        print(json.dumps({"gallery": str(folder), "generator": name, "entries": total, **asdict(outcome)}, indent=2))
    else:
        if outcome.failed:
            out.print_table(["picture", "error"], [[failure["path"], failure["error"]] for failure in outcome.failed])
        print(f"{name}: {outcome.added} added, {outcome.there} there already, {len(outcome.failed)} failed; {total} in {folder}")
    if outcome.failed:
        raise typer.Exit(1)


@app.command("list")
def list_(gallery: GalleryOption = None, extractor: ExtractorOption = None, format: FormatOption = "table") -> None:
    """Generators, and how much there is of each."""
    from . import output as out

    out.check(format, ("table", "json"))
    with _open(gallery, extractor) as store:
        rows, groups, layout = store.summary(), store.groups(), store.layout
    if format == "json":
        described = {"name": layout.name, "sha256": layout.sha256, "dimension": layout.dimension, "storage": layout.storage}
        print(json.dumps({"gallery": str(store.folder), "extractor": described, "generators": rows, "groups": groups}, indent=2))
        return
    fields = ["generator", "entries", "prompts", "resyntheses"]
    out.print_table(fields, [[str(row[name]) for name in fields] for row in rows])
    labels = ", ".join(f"{label} {count}" for label, count in groups.items())
    print(f"{store.folder}: extractor {layout.name} {layout.sha256[:12]}…; groups: {labels or 'none'}")


@app.command()
def verify(gallery: GalleryOption = None, extractor: ExtractorOption = None, format: FormatOption = "table") -> None:
    """Read every entry and its features and check them; exit code 3 if one is damaged."""
    from . import output as out

    out.check(format, ("table", "json"))
    with _open(gallery, extractor) as store:
        count, damaged = len(store), store.verify()
    _report(damaged, count, format, "damaged; `resynth gallery prune` takes them out")
    if damaged:
        raise typer.Exit(3)


@app.command()
def prune(gallery: GalleryOption = None, extractor: ExtractorOption = None, format: FormatOption = "table") -> None:
    """Take damaged entries out, keeping a note of each; their pictures may be added again."""
    from . import output as out

    out.check(format, ("table", "json"))
    with _open(gallery, extractor) as store:
        count, damaged = len(store), store.prune()
    _report(damaged, count, format, "taken out")


@app.command()
def fit(
    gallery: GalleryOption = None,
    extractor: ExtractorOption = None,
    group: Annotated[list[str], typer.Option(help="Label of a batch that is fitted; repeatable.")] = ["general"],  # noqa: B006
    format: FormatOption = "table",
) -> None:
    """Freeze what is there now and fit it: `resynth attribute --gallery` uses the newest fit, and names it in every verdict."""
    from ..evaluation.fitting import fit as fit_gallery
    from ..gallery import Gallery
    from . import output as out

    out.check(format, ("table", "json"))
    space = _space(extractor)
    with Gallery.open(gallery or _default(space), space.sha256) as store:
        fitted = fit_gallery(store, space, group)
    counts = [
        {"generator": name, "pictures": int(n), "prompts": int(p)}
        for name, n, p in zip(fitted.names, fitted.pictures, fitted.prompts, strict=True)
    ]
    calibration = fitted.calibration.to_json() if fitted.calibration else None
    if format == "json":
        print(json.dumps({"fit": fitted.sha256, "snapshot": fitted.snapshot, "generators": counts, "calibration": calibration}, indent=2))
        return
    out.print_table(["generator", "pictures", "prompts"], [[str(value) for value in row.values()] for row in counts])
    print(
        f"fit {fitted.sha256}; calibrated on {fitted.calibration.source if fitted.calibration else 'nothing: too few prompts or pictures'}"
    )


@dataclass(slots=True)
class _Outcome:
    added: int = 0
    there: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def fail(self, path: Path, error: Exception) -> None:
        from ..images import printable

        name = printable(str(path))
        self.failed.append({"path": name, "error": str(error).removeprefix(f"{name}: ")})


def _add(store: Gallery, space: FeatureSpace, name: str, files: Sequence[tuple[Path, str | None]], group: str, outcome: _Outcome) -> None:
    """Describe and keep what can be read; the rest goes into `outcome`."""
    good: list[tuple[Entry, Picture]] = []
    for path, prompt in files:
        try:
            good.append(_read(store, name, path, prompt))
        except InputError as error:
            outcome.fail(path, error)
    if not good:
        return
    added = store.add([entry for entry, _ in good], space.features([picture.pixels for _, picture in good]), group=group)
    outcome.added += sum(added.new)
    outcome.there += len(good) - sum(added.new)


def _read(store: Gallery, name: str, path: Path, prompt: str | None) -> tuple[Entry, Picture]:
    from .. import images
    from ..gallery import Entry

    picture = images.read(path)
    others = {entry.generator for entry in store.contains(picture.sha256)} - {name}
    if others:
        raise InputError(f"{images.printable(str(path))}: is in the gallery as a picture by {others.pop()}; one of the two names is wrong")
    return Entry(generator=name, picture_sha256=picture.sha256, prompt=prompt), picture


def _wanted(name: str, inputs: Sequence[str], prompt: str | None, from_folders: bool) -> tuple[list[tuple[Path, str | None]], _Outcome]:
    """Files with their prompts, and those that have none where each should."""
    from .. import images

    outcome = _Outcome()
    if not from_folders:
        return [(path, prompt) for path in images.paths(inputs)], outcome
    wanted: dict[Path, str | None] = {}
    for root in map(Path, inputs):
        if not root.is_dir():
            raise ConfigError(f"{root} is no folder; --prompts-from-folders takes folders that hold a folder for each prompt")
        for path in images.paths([root]):
            folders = path.relative_to(root).parts[:-1]
            if not folders:
                outcome.fail(path, InputError("lies in no prompt's folder; move it into one, or leave --prompts-from-folders out"))
            elif len(folders) == 1 or folders[1] == name:  # DIR/PROMPT/OTHER/… are another generator's
                wanted[path] = normalize("NFC", folders[0])
    if not wanted and not outcome.failed:
        raise InputError(f"no picture by {name} found; it must lie at DIR/PROMPT/… or DIR/PROMPT/{name}/…")
    return list(wanted.items()), outcome


def _space(extractor: Path | None) -> FeatureSpace:
    from .. import zoo
    from ..bundle import Bundle
    from ..extractors.space import open_space

    return open_space(Bundle.open(extractor) if extractor else zoo.bundle(zoo.TEXTURE))


def _default(space: FeatureSpace) -> Path:
    from ..gallery import default_folder

    return default_folder(space.name, space.sha256)


def _open(folder: Path | None, extractor: Path | None) -> Gallery:
    """The gallery that is named, or the extractor's own; tied to the extractor only where one is named."""
    from ..gallery import Gallery

    if folder and not extractor:
        return Gallery.open(folder)
    space = _space(extractor)
    return Gallery.open(folder or _default(space), space.sha256)


def _report(damaged: Sequence[Damage], count: int, format: str, what: str) -> None:
    from . import output as out

    if format == "json":
        print(json.dumps({"entries": count, "damaged": [asdict(one) for one in damaged]}, indent=2))
        return
    if damaged:
        out.print_table(["row", "generator", "reason"], [[str(one.row), one.generator or "?", one.reason] for one in damaged])
    print(f"{count} entries, {len(damaged)} {what}" if damaged else f"{count} entries, all whole")
