"""The gallery: references whose generator is known, stored with exact provenance. One folder serves one extractor.

    gallery.json        the extractor whose features are stored, and their storage format
    scaling.safetensors the extractor's mean and scale, by which features are scaled before neighbours are searched
    index.sqlite        generator and prompt of each picture; an entry exists only if the index names it
    vectors/BLOCK.f32   (rows, columns) of one block (tap) of the features, unscaled, row after row
    pictures/           resyntheses as PNG, named by the hash of their pixels
    fits/               statistics fitted on frozen snapshots, named by their own hash

Rows are only appended, and no byte is written twice. A vector is on the disk before the index names it, so that a
writer may be killed at any moment: a row that the index does not name does not exist, and is left unused. Writers take
turns by a file lock; readers need none. Keep the folder on a local disk: SQLite's log does not work over a network share.
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
