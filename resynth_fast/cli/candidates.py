"""`resynth candidates`: which bundles a source of candidates holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .options import CandidatesOption

if TYPE_CHECKING:
    from ..bundle import Bundle

app = typer.Typer(help="The generators that are compared.", no_args_is_help=True)

_FIELDS = ("name", "family", "role", "licence", "lineage", "resolution_px", "guidance")


@app.command("list")
def list_(
    candidates: CandidatesOption = ["zoo:"],  # noqa: B006
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and check its hash.")] = False,
) -> None:
    """List candidates: name, family, size, licence, shared components."""
    from ..candidates import bundles
    from . import output

    output.check(format, ("table", "json"))
    listed = [bundle for text in candidates for bundle in bundles(text)]
    if verify:
        for bundle in listed:
            bundle.verify()
    sizes = [sum(file.path.stat().st_size for file in bundle.files()) for bundle in listed]
    if format == "json":
        rows = [
            {key: bundle.manifest.get(key) for key in _FIELDS} | {"sha256": bundle.sha256, "bytes": size}
            for bundle, size in zip(listed, sizes, strict=True)
        ]
        print(json.dumps(rows, indent=2))
        return
    output.print_table(
        ["name", "family", "pixels", "MB", "licence", "shares"],
        [
            [b.name, b.family, "×".join(map(str, b.resolution_px)), f"{size / 1e6:.1f}", b.licence, ", ".join(_shared(b, listed))]
            for b, size in zip(listed, sizes, strict=True)
        ],
    )


def _shared(bundle: Bundle, listed: Sequence[Bundle]) -> list[str]:
    """Components that `bundle` has in common with another one in the list."""
    others = {sha256 for other in listed if other is not bundle for sha256 in other.lineage.values()}
    return [part for part, sha256 in bundle.lineage.items() if sha256 in others]


@app.command()
def show(name: Annotated[str, typer.Argument(help="zoo:NAME or the folder of a bundle.")]) -> None:
    """Print the manifest of a bundle, including its card."""
    from ..candidates import bundles

    print(json.dumps([dict(bundle.manifest) for bundle in bundles(name)], indent=2))
