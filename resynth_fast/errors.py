"""Errors by who can repair them; every class carries the exit code of the command line."""

from __future__ import annotations

from typing import ClassVar


class ResynthError(Exception):
    """Base of every error that a user, a file or a device can cause.

    The message names the thing, its value, what is allowed and the way out.
    """

    exit_code: ClassVar[int] = 1


class ConfigError(ResynthError):
    """A setting or an argument is wrong."""

    exit_code = 2


class InputError(ResynthError):
    """An input picture or data file cannot be used; other inputs are not affected."""

    exit_code = 1


class BundleError(ResynthError):
    """A bundle or a gallery is missing or broken."""

    exit_code = 3


class SourceError(ResynthError):
    """The server of a candidate or captioner cannot be reached, refuses, or answers without a picture or caption."""

    exit_code = 3


class DeviceError(ResynthError):
    """A device is missing, lost or out of memory."""

    exit_code = 4


class DeadlineError(ResynthError):
    """The deadline passed before there was anything to answer with."""

    exit_code = 5
