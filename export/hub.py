"""Checkpoints of a hub: the files of a folder that `save_pretrained` wrote, fetched once into the libraries' own cache.

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
    """The folder of `checkpoint`, or of the snapshot of `hub:ORG/NAME` or `hub:ORG/NAME@REVISION`; ConfigError if it cannot be had."""
    if not checkpoint.startswith(PREFIX):
        return _existing(checkpoint)
    name, _, revision = checkpoint.removeprefix(PREFIX).partition("@")
    if not _ID.fullmatch(name):
        raise ConfigError(f"checkpoint is {checkpoint[:120]!r}; of a hub it is written hub:ORG/NAME or hub:ORG/NAME@REVISION")
    import huggingface_hub
    from huggingface_hub import errors

    patterns = ["model_index.json", *(f"*/{pattern}" for pattern in READ)] if pipeline else list(READ)
    try:
        found = huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=patterns, ignore_patterns=list(VARIANTS))
    except errors.GatedRepoError as error:
        raise ConfigError(f"{name} is gated: accept its licence on the hub, then log in (hf auth login) or set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(f"the hub has no {name}, or not for you: check the name, or log in (hf auth login)") from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{name} has no revision {revision!r}; leave it out for the newest") from error
    except Exception as error:  # the library's network errors are those of whichever client it uses
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"{name} cannot be fetched ({reason}); connect, unset HF_HUB_OFFLINE, or give a folder that was fetched elsewhere"
        ) from error
    return Path(found)


def name_of(checkpoint: str) -> str:
    """What a bundle is called unless it is told otherwise."""
    if checkpoint.startswith(PREFIX):
        return checkpoint.removeprefix(PREFIX).partition("@")[0].rpartition("/")[2]
    return Path(checkpoint).resolve().name


def _existing(checkpoint: str) -> Path:
    path = Path(checkpoint)
    if not path.exists() and _ID.fullmatch(checkpoint):
        raise ConfigError(f"there is no folder {checkpoint}; if it is on a hub, write hub:{checkpoint}")
    return path
