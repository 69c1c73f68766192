"""Plug-ins: modules found by listing a folder of this package and the entry points of installed packages.

A package adds a module to the group that is named like the folder:

    [project.entry-points."resynth_fast.backends"]
    mine = "my_package.my_backend"

docs/extending.md says what the modules of each group define.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from .errors import ConfigError

OWN = "resynth-fast"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A module that can be imported, and the package that it comes from."""

    name: str
    module: str
    package: str

    def load(self) -> ModuleType:
        """Import the module. ImportError if it, or a library that it needs, is not installed."""
        return importlib.import_module(self.module)

    def __str__(self) -> str:
        return f"{self.name} of {self.package}"


@functools.cache  # reading the metadata of 200 installed packages takes 16 ms
def listing(folder: str) -> Mapping[str, Plugin]:
    """Plug-ins of a folder, as in "resynth_fast.backends", by name and in the order of their names. ConfigError if two have one name."""
    group = f"resynth_fast.{folder.rpartition('.')[2]}"  # the exporter's folder has another parent in a checkout
    plugins = [
        Plugin(module.name, f"{folder}.{module.name}", OWN) for module in pkgutil.iter_modules(importlib.import_module(folder).__path__)
    ]
    plugins += [Plugin(entry.name, entry.value, entry.dist.name if entry.dist else entry.value) for entry in entry_points(group=group)]
    by_name: dict[str, Plugin] = {}
    for plugin in sorted(plugins, key=lambda plugin: (plugin.name, plugin.package != OWN, plugin.package)):
        if plugin.name in by_name:
            raise ConfigError(f"two plug-ins of {group} have one name: {by_name[plugin.name]} and {plugin}; uninstall {plugin.package}")
        by_name[plugin.name] = plugin
    return by_name


def match(folder: str, source: Any, label: str) -> ModuleType | None:
    """The one plug-in whose `matches(source)` is true; None if there is none. All are asked, so that no order decides.

    A module of the folder without `matches` is a helper. ConfigError if two match (`label` names the source), or if a
    plug-in of another package cannot be imported or has no `matches`.
    """
    found: list[tuple[Plugin, ModuleType]] = []
    for plugin in listing(folder).values():
        try:
            module = plugin.load()
        except ImportError as error:
            raise ConfigError(f"plug-in {plugin} cannot be imported ({error}); install what it needs, or uninstall it") from error
        if plugin.package != OWN and not hasattr(module, "matches"):
            raise ConfigError(f"plug-in {plugin} has no function `matches` in {plugin.module}; add it, or uninstall the package")
        if hasattr(module, "matches") and module.matches(source):
            found.append((plugin, module))
    if len(found) > 1:
        raise ConfigError(f"{label} is matched by two plug-ins, {found[0][0]} and {found[1][0]}; uninstall one of them")
    return found[0][1] if found else None


def scheme(text: str) -> str:
    """The word before the first colon, as `https` in https://a.example; empty for a path. A path with a colon is written ./a:b."""
    prefix = _SCHEME.match(text)
    return prefix[1].lower() if prefix else ""
