"""Checkpoints of a hub: the files of a folder written by `save_pretrained`, fetched once into the libraries' cache.

The network is asked only where a checkpoint is written `hub:ORG/NAME`, so that a misspelt folder never is a question to a
server. Pickles are not fetched; nor are, of a pipeline, the single-file checkpoints beside its folders, or its variants.
"""

from __future__ import annotations

import re
from pathlib import Path

from resynth_fast.errors import ConfigError

PREFIX = "hub:"
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
READ = ("*.json", "*.safetensors", "*.txt", "*.model")
VARIANTS = ("*.fp16.*", "*.bf16.*", "*.non_ema.*", "onnx/*", "openvino*", "flax*")


def folder(checkpoint: str, *, pipeline: bool = False) -> Path:
    """The folder of `checkpoint`, or of the snapshot of `hub:ORG/NAME` or `hub:ORG/NAME@REVISION`; ConfigError if it cannot be fetched."""
    if not checkpoint.startswith(PREFIX):
        return _existing(checkpoint)
    name, _, revision = checkpoint.removeprefix(PREFIX).partition("@")
    if not _ID.fullmatch(name):
        raise ConfigError(f"checkpoint is {checkpoint[:120]!r}; write hub:ORG/NAME or hub:ORG/NAME@REVISION")
    import huggingface_hub
    from huggingface_hub import errors

    patterns = ["model_index.json", *(f"*/{pattern}" for pattern in READ)] if pipeline else list(READ)
    try:
        found = huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=patterns, ignore_patterns=list(VARIANTS))
    except errors.GatedRepoError as error:
        raise ConfigError(f"{name} is gated; accept its licence on the hub, then log in (hf auth login) or set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(f"the hub has no {name} that you may read; check the name, or log in (hf auth login)") from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{name} has no revision {revision!r}; leave the revision out for the newest") from error
    except Exception as error:  # network errors depend on the HTTP client that the library uses
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"{name} cannot be fetched ({reason}); connect, unset HF_HUB_OFFLINE, or give a folder fetched elsewhere"
        ) from error
    return Path(found)


def name_of(checkpoint: str) -> str:
    """The default name of a bundle."""
    if checkpoint.startswith(PREFIX):
        return checkpoint.removeprefix(PREFIX).partition("@")[0].rpartition("/")[2]
    return Path(checkpoint).resolve().name


def _existing(checkpoint: str) -> Path:
    path = Path(checkpoint)
    if not path.exists() and _ID.fullmatch(checkpoint):
        raise ConfigError(f"no folder {checkpoint}; for a checkpoint on a hub write hub:{checkpoint}")
    return path
