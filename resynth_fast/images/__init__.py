"""Pictures: reading untrusted files, the hints in their metadata, and perturbed copies."""

from .reading import FORMATS, SUFFIXES, cleaned, digest, paths, printable, read

__all__ = ["FORMATS", "SUFFIXES", "cleaned", "digest", "paths", "printable", "read"]
