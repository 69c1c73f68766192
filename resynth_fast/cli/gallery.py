"""`resynth gallery`: add, list, describe, remove, verify, prune and fit pictures whose generator is known."""

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
"""Pictures that are read and stored together. A stored chunk stays stored, whatever happens to the next one."""

app = typer.Typer(help="Pictures whose generator is known, stored as references for later attributions.", no_args_is_help=True)

GalleryOption = Annotated[
    Path | None,
    typer.Option(
        "--gallery", envvar="RESYNTH_GALLERY", help="Folder of the gallery [default: one for each extractor, in the user's data]."
    ),
]
ExtractorOption = Annotated[Path | None, typer.Option(help="Folder of an extractor bundle [default: the zoo's extractor].")]
FormatOption = Annotated[str, typer.Option(help="table or json.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The generator that made the pictures.")],
    inputs: Annotated[list[str], typer.Argument(help="Pictures, or folders of pictures.", metavar="FILE|DIR…")],
    gallery: GalleryOption = None,
    extractor: ExtractorOption = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt that all the pictures were made from.")] = None,
    prompts_from_folders: Annotated[
        bool,
        typer.Option("--prompts-from-folders", help="Take each prompt from the first folder in DIR: DIR/PROMPT/… or DIR/PROMPT/NAME/…"),
    ] = False,
    group: Annotated[str, typer.Option(help="Label of this batch; `fit` uses 'general' unless other labels are named.")] = "general",
    format: FormatOption = "table",
) -> None:
    """Add pictures by the generator NAME. One that is in the gallery already is not added again, but gets the prompt if one is given."""
    from ..gallery import Entry, Gallery, Layout, check_group
    from . import output as out

    out.check(format, ("table", "json"))
    if prompt is not None and prompts_from_folders:
        raise ConfigError("--prompt and --prompts-from-folders exclude each other; give one of them")
    try:
        Entry(generator=name, picture_sha256="0" * 64, prompt=prompt)
    except InputError as error:  # the name and the prompt are the same for every picture
        raise ConfigError(str(error)) from error
    check_group(group)
    space = _space(extractor)
    folder = gallery or _default(space)
    pictures, outcome = _pictures(name, inputs, prompt, prompts_from_folders)
    with Gallery.create(folder, Layout.of(space)) as store:
        progress = out.progress("adding")
        for start in range(0, len(pictures), CHUNK):
            progress(start, len(pictures))
            _add(store, space, name, pictures[start : start + CHUNK], group, outcome)
        progress(len(pictures), len(pictures))
        total = len(store)
    if format == "json":
        print(json.dumps({"gallery": str(folder), "generator": name, "entries": total, **asdict(outcome)}, indent=2))
    else:
        if outcome.failed:
            out.print_table(["picture", "error"], [[failure["path"], failure["error"]] for failure in outcome.failed])
        print(
            f"{name}: {outcome.added} added, {outcome.present} in the gallery already, {len(outcome.failed)} failed; {total} in {folder}"
            + (f"; {outcome.prompts_set} prompts set" if outcome.prompts_set else "")
        )
        if prompt is None and not prompts_from_folders:
            print("no prompts: a fit takes them; add the pictures again with --prompt or --prompts-from-folders, or use `set-prompt`")
    if outcome.failed:
        raise typer.Exit(1)


@app.command("set-prompt")
def set_prompt(
    name: Annotated[str, typer.Argument(help="The generator that made the pictures.")],
    inputs: Annotated[list[str], typer.Argument(help="Pictures in the gallery, or folders of them.", metavar="FILE|DIR…")],
    gallery: GalleryOption = None,
    extractor: ExtractorOption = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt that all the pictures were made from.")] = None,
    prompts_from_folders: Annotated[
        bool, typer.Option("--prompts-from-folders", help="Take each prompt from the first folder in DIR, as in `add`.")
    ] = False,
) -> None:
    """Give pictures by NAME that are in the gallery a prompt, or another one; fit again afterwards."""
    if (prompt is None) is not prompts_from_folders:
        given = "neither of them" if prompt is None else f"--prompt {prompt[:80]!r} and --prompts-from-folders"
        raise ConfigError(f"set-prompt takes --prompt or --prompts-from-folders, and has {given}; name one of them")
    pictures, outcome = _pictures(name, inputs, prompt, prompts_from_folders)
    with _open(gallery, extractor) as store:
        by_prompt: dict[str | None, list[int]] = {}
        for path, text in pictures:
            try:
                by_prompt.setdefault(text, []).append(_row(store, name, path))
            except InputError as error:
                outcome.fail(path, error)
        changed = sum(store.set_prompt(rows, text) for text, rows in by_prompt.items())
    _print_changed(f"{name}: {changed} prompts set", outcome)


@app.command()
def rm(
    name: Annotated[str, typer.Argument(help="The generator whose pictures are removed.")],
    inputs: Annotated[list[str] | None, typer.Argument(help="Only these pictures; default: all by NAME.", metavar="[FILE|DIR…]")] = None,
    gallery: GalleryOption = None,
    extractor: ExtractorOption = None,
) -> None:
    """Remove the pictures by NAME from the gallery, or some of them. They can be added again; fit again afterwards."""
    outcome = _Outcome()
    with _open(gallery, extractor) as store:
        if inputs:
            rows = []
            for path, _ in _pictures(name, inputs, None, False)[0]:
                try:
                    rows.append(_row(store, name, path))
                except InputError as error:
                    outcome.fail(path, error)
        else:
            rows = [entry.row for entry in store.select(generator=name)]
            if not rows:
                raise ConfigError(f"{store.folder} has no pictures of {name[:80]!r}; see `resynth gallery list`")
        removed = store.remove(rows)
    _print_changed(f"{name}: {removed} removed", outcome)


@app.command("list")
def list_(gallery: GalleryOption = None, extractor: ExtractorOption = None, format: FormatOption = "table") -> None:
    """List the generators, and how many pictures, prompts and resyntheses the gallery has of each."""
    from . import output as out

    out.check(format, ("table", "json"))
    with _open(gallery, extractor) as store:
        rows, groups, layout = store.summary(), store.groups(), store.layout
        unsigned = sum(not picture.signature for picture in store.given().pictures)
    if format == "json":
        extractor_fields = {"name": layout.name, "sha256": layout.sha256, "dimension": layout.dimension, "storage": layout.storage}
        print(json.dumps({"gallery": str(store.folder), "extractor": extractor_fields, "generators": rows, "groups": groups}, indent=2))
        return
    fields = ["generator", "entries", "prompts", "resyntheses"]
    out.print_table(fields, [[str(row[name]) for name in fields] for row in rows])
    labels = ", ".join(f"{label} {count}" for label, count in groups.items())
    print(f"{store.folder}: extractor {layout.name} {layout.sha256[:12]}…; groups: {labels or 'none'}")
    if unsigned:
        print(f"near copies of {unsigned} pictures cannot be found: they are flat, or were added by an earlier version; add those again")


@app.command()
def verify(gallery: GalleryOption = None, extractor: ExtractorOption = None, format: FormatOption = "table") -> None:
    """Check every entry and its features; exit code 3 if one is damaged."""
    from . import output as out

    out.check(format, ("table", "json"))
    with _open(gallery, extractor) as store:
        count, damaged = len(store), store.verify()
    _print_damage(damaged, count, format, "damaged; remove them with `resynth gallery prune`")
    if damaged:
        raise typer.Exit(3)


@app.command()
def prune(gallery: GalleryOption = None, extractor: ExtractorOption = None, format: FormatOption = "table") -> None:
    """Remove damaged entries and keep a record of each; their pictures can be added again."""
    from . import output as out

    out.check(format, ("table", "json"))
    with _open(gallery, extractor) as store:
        count, damaged = len(store), store.prune()
    _print_damage(damaged, count, format, "removed")


@app.command()
def fit(
    gallery: GalleryOption = None,
    extractor: ExtractorOption = None,
    group: Annotated[list[str], typer.Option(help="Label of a batch to fit; repeatable.")] = ["general"],  # noqa: B006
    format: FormatOption = "table",
) -> None:
    """Freeze the present entries and fit them; `resynth attribute --gallery` uses the newest fit and names it in every verdict."""
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
    source = f"calibrated on {fitted.calibration.source}" if fitted.calibration else "not calibrated: too few prompts or pictures"
    print(f"fit {fitted.sha256}; {source}")


@dataclass(slots=True)
class _Outcome:
    added: int = 0
    present: int = 0
    prompts_set: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def fail(self, path: Path, error: Exception) -> None:
        from ..images import printable

        name = printable(str(path))
        self.failed.append({"path": name, "error": str(error).removeprefix(f"{name}: ")})


def _add(store: Gallery, space: FeatureSpace, name: str, files: Sequence[tuple[Path, str | None]], group: str, outcome: _Outcome) -> None:
    """Store the readable pictures with their features; the others go into `outcome`."""
    from ..images import copies

    readable: list[tuple[Entry, Picture]] = []
    for path, prompt in files:
        try:
            readable.append(_read(store, name, path, prompt))
        except InputError as error:
            outcome.fail(path, error)
    if not readable:
        return
    pixels = [picture.pixels for _, picture in readable]
    entries, signatures = [entry for entry, _ in readable], [copies.signature(picture) for picture in pixels]
    added = store.add(entries, space.features(pixels), group=group, signatures=signatures)
    outcome.added += sum(added.new)
    outcome.present += len(readable) - sum(added.new)
    for stored, (entry, _) in zip(added.entries, readable, strict=True):  # adding again with a prompt sets it
        if entry.prompt is not None:
            outcome.prompts_set += store.set_prompt([stored.row], entry.prompt)


def _row(store: Gallery, name: str, path: Path) -> int:
    """The row of a picture by the generator `name`; InputError if the gallery has none."""
    from .. import images

    sha256 = images.digest(path)
    rows = [entry.row for entry in store.contains(sha256) if entry.generator == name]
    if not rows:
        raise InputError(f"{images.printable(str(path))}: is not in the gallery as a picture by {name}; add it with `resynth gallery add`")
    return rows[0]


def _print_changed(text: str, outcome: _Outcome) -> None:
    from . import output as out

    if outcome.failed:
        out.print_table(["picture", "error"], [[failure["path"], failure["error"]] for failure in outcome.failed])
    print(f"{text}, {len(outcome.failed)} failed" if outcome.failed else text)
    if outcome.failed:
        raise typer.Exit(1)


def _read(store: Gallery, name: str, path: Path, prompt: str | None) -> tuple[Entry, Picture]:
    from .. import images
    from ..gallery import Entry

    picture = images.read(path)
    others = {entry.generator for entry in store.contains(picture.sha256)} - {name}
    if others:
        raise InputError(
            f"{images.printable(str(path))}: is in the gallery as a picture by {others.pop()}; correct the name, or leave the picture out"
        )
    return Entry(generator=name, picture_sha256=picture.sha256, prompt=prompt), picture


def _pictures(name: str, inputs: Sequence[str], prompt: str | None, from_folders: bool) -> tuple[list[tuple[Path, str | None]], _Outcome]:
    """Files with their prompts, and an outcome that lists the files without one where the folders should tell it."""
    from .. import images

    outcome = _Outcome()
    if not from_folders:
        return [(path, prompt) for path in images.paths(inputs)], outcome
    prompts: dict[Path, str | None] = {}
    for root in map(Path, inputs):
        if not root.is_dir():
            raise ConfigError(f"{root} is not a folder; --prompts-from-folders takes folders that hold a folder for each prompt")
        for path in images.paths([root]):
            folders = path.relative_to(root).parts[:-1]
            if not folders:
                outcome.fail(path, InputError("is not in the folder of a prompt; move it into one, or leave --prompts-from-folders out"))
            elif len(folders) == 1 or folders[1] == name:  # DIR/PROMPT/OTHER/… is by another generator
                prompts[path] = normalize("NFC", folders[0])
    if not prompts and not outcome.failed:
        raise InputError(f"no picture by {name} found; put pictures into DIR/PROMPT/… or DIR/PROMPT/{name}/…")
    return list(prompts.items()), outcome


def _space(extractor: Path | None) -> FeatureSpace:
    from .. import zoo
    from ..bundle import Bundle
    from ..extractors.space import open_space

    return open_space(Bundle.open(extractor) if extractor else zoo.bundle(zoo.TEXTURE))


def _default(space: FeatureSpace) -> Path:
    from ..gallery import default_folder

    return default_folder(space.name, space.sha256)


def _open(folder: Path | None, extractor: Path | None) -> Gallery:
    """The named gallery, or the extractor's own. It must belong to the extractor if that is named too."""
    from ..gallery import Gallery

    if folder and not extractor:
        return Gallery.open(folder)
    space = _space(extractor)
    return Gallery.open(folder or _default(space), space.sha256)


def _print_damage(damaged: Sequence[Damage], count: int, format: str, state: str) -> None:
    from . import output as out

    if format == "json":
        print(json.dumps({"entries": count, "damaged": [asdict(one) for one in damaged]}, indent=2))
        return
    if damaged:
        out.print_table(["row", "generator", "reason"], [[str(one.row), one.generator or "?", one.reason] for one in damaged])
    print(f"{count} entries, {len(damaged)} {state}" if damaged else f"{count} entries, none damaged")
