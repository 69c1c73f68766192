"""Plug-ins: one module a kind, found by listing a folder of this package and the entry points of installed packages.

A package adds a module to the group that is named like the folder:

    [project.entry-points."resynth_fast.backends"]
    mine = "my_package.my_backend"
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from .errors import ConfigError


def names(package: str) -> list[str]:
    """The plug-ins of `package` (as in "resynth_fast.backends"), sorted; ConfigError if two have one name."""
    return sorted(_sources(package))


def load(package: str, name: str) -> ModuleType:
    """Import the plug-in `name` of `package`. ImportError if it, or a library that it needs, is not installed."""
    source = _sources(package)[name]
    if isinstance(source, str):
        return importlib.import_module(source)
    module = source.load()
    if not isinstance(module, ModuleType):
        raise ConfigError(f"entry point {source.value!r} of {package} is a {type(module).__name__}; it must be a module")
    return module


def modules(package: str) -> Iterator[tuple[str, ModuleType]]:
    """Name and module of every plug-in of `package`, in the order of their names."""
    return ((name, load(package, name)) for name in names(package))


def match(package: str, what: str, accepts: Callable[[ModuleType], bool]) -> ModuleType | None:
    """The one plug-in that `accepts`; None if there is none. ConfigError, naming both, if two do. `what` names the input."""
    found = [(name, module) for name, module in modules(package) if hasattr(module, "matches") and accepts(module)]
    if len(found) > 1:
        raise ConfigError(f"{what} is matched by two plug-ins of {package}, {found[0][0]} and {found[1][0]}; uninstall one of them")
    return found[0][1] if found else None


def _sources(package: str) -> dict[str, str | EntryPoint]:
    """Name → module name of this package, or the entry point of another package."""
    folder = importlib.import_module(package)
    found: dict[str, str | EntryPoint] = {m.name: f"{package}.{m.name}" for m in pkgutil.iter_modules(folder.__path__)}
    for point in entry_points(group=package):
        if point.name in found:
            raise ConfigError(f"two plug-ins of {package} are called {point.name!r}, one is {point.value}; rename or uninstall it")
        found[point.name] = point
    return found
