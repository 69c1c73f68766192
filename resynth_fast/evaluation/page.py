"""The result of an evaluation as files: JSON and CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ..output import evaluation_rows


def write(folder: Path, result: dict[str, Any]) -> None:
    """`result.json` and `result.csv` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    rows = evaluation_rows(result)
    with (folder / "result.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
