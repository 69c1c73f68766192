"""The gallery: references whose generator is known, kept with exact provenance. One folder, one extractor.

    gallery.json        which extractor's features these are, and how they are stored
    scaling.safetensors the extractor's mean and scale: the coordinates in which neighbours are near
    index.sqlite        who made each picture, from what; the only place that says what exists
    vectors/BLOCK.f32   (rows, columns) of each block (tap) of the features, unscaled, one after another
    pictures/           resyntheses as PNG, under the hash of their pixels
    fits/               what was fitted on frozen snapshots, under its own hash

Rows are only ever appended, and no byte is written twice. A vector is on the disk before the index names it, so that
a writer may die at any moment: a row that the index does not name is nothing, and is left unused. Writers take turns
by a file lock; readers need none. Keep the folder on a local disk: SQLite's log does not work over a network share.
"""

from __future__ import annotations

from .entry import GENERAL, Entry, ResynthesisKey, StoredEntry, check_group, pixels_sha256
from .fits import StoredFit
from .layout import Layout, default_folder
from .nearest import Neighbour
from .store import Added, Damage, Gallery, Snapshot

__all__ = [
    "GENERAL",
    "Added",
    "Damage",
    "Entry",
    "Gallery",
    "Layout",
    "Neighbour",
    "ResynthesisKey",
    "Snapshot",
    "StoredEntry",
    "StoredFit",
    "check_group",
    "default_folder",
    "pixels_sha256",
]
