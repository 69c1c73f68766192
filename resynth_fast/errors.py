"""What can go wrong, by whom it can be mended; every class carries the exit code of the command line."""

from __future__ import annotations

from typing import ClassVar


class ResynthError(Exception):
    """Base of every error that a user, a file or a device can cause; its message names the value and the way out."""

    exit_code: ClassVar[int] = 1


class ConfigError(ResynthError):
    """A setting or an argument is wrong."""

    exit_code = 2


class InputError(ResynthError):
    """A given picture or data file cannot be used; other inputs may still be done."""

    exit_code = 1


class BundleError(ResynthError):
    """A bundle or a gallery is missing or broken."""

    exit_code = 3


class SourceError(ResynthError):
    """The server of a candidate or captioner cannot be reached, refuses, or answers with what is no picture, no caption."""

    exit_code = 3


class DeviceError(ResynthError):
    """A device is missing, lost or out of memory."""

    exit_code = 4


class DeadlineError(ResynthError):
    """The time allowed has passed before the work was done."""

    exit_code = 5
