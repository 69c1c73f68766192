"""Defaults from TOML files: the user's configuration, overridden by the project's."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ConfigError

PROJECT = Path("resynth.toml")


def defaults(config: Path | None) -> dict[str, Any]:
    """Defaults by command, `{"attribute": {"references": 4}}`.

    `config` must exist, ./resynth.toml and the user's configuration may. ConfigError if a file cannot be read.
    """
    merged: dict[str, Any] = {}
    for path, required in (
        (files.user_config() / "config.toml", False),
        (config or PROJECT, config is not None),
    ):
        for command, table in _read(path, required).items():
            merged[command] = {**merged.get(command, {}), **table}
    return merged


def _read(path: Path, required: bool) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        if required:
            raise ConfigError(f"--config {path} does not exist; name a TOML file") from error
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); correct or remove it") from error
    for command, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {command} is not a table; put it into the table of a command, for example [attribute]")
    return {command: {key.replace("-", "_"): value for key, value in table.items()} for command, table in tables.items()}
