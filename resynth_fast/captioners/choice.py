"""The caption that a probe is resynthesised from: the captioner's, the prompt recorded in the file, or the user's own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..images import metadata
from ..options import METADATA, TEXT
from ..types import Caption, Picture
from . import Captioner

MAX_CHARS = 2000
"""Maximum length of a caption; more than any text encoder reads."""
_NETWORKS = re.compile(r"<(?:lora|lyco|hypernet)\w*:[^<>]{0,200}>")


def captions(choice: str, probes: Sequence[Picture], captioner: Captioner | None) -> list[Caption]:
    """One caption per probe, by `choice` as in `Options.caption`; the captioner describes only the probes that have no other caption.

    Without a captioner a probe has the user's text, the prompt recorded in its file, or an empty caption.
    """
    if choice.startswith(TEXT):
        return [Caption(choice.removeprefix(TEXT).strip()[:MAX_CHARS], "user")] * len(probes)
    if captioner is None:
        return [Caption(prompt, METADATA) if (prompt := recorded_prompt(probe)) else Caption("", "") for probe in probes]
    recorded = [recorded_prompt(probe) if choice == METADATA else None for probe in probes]
    missing = [probe for probe, prompt in zip(probes, recorded, strict=True) if prompt is None]
    described = iter(captioner.caption([probe.pixels for probe in missing]) if missing else ())
    note = (f"no prompt is recorded in the file; {captioner.name} described the picture instead",) if choice == METADATA else ()
    return [Caption(next(described), captioner.name, note) if prompt is None else Caption(prompt, METADATA) for prompt in recorded]


def recorded_prompt(probe: Picture) -> str | None:
    """The prompt in a picture's metadata, without the names of added networks. It is a claim of the file, which nothing verifies."""
    prompt = metadata.generation(probe.info).prompt
    return " ".join(_NETWORKS.sub(" ", prompt).split())[:MAX_CHARS] or None if prompt else None
