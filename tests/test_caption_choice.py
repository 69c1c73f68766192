"""Captions come from a captioner, from the picture's metadata or from the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL.PngImagePlugin import PngInfo
from recorded_metadata import A1111, noise

from resynth_fast import Options, images
from resynth_fast.captioners import choice
from resynth_fast.errors import ConfigError
from resynth_fast.types import Picture


def picture(tmp_path: Path, **texts: str) -> Picture:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    noise().save(tmp_path / "a.png", pnginfo=info)
    return images.read(tmp_path / "a.png")


class Describes:
    name, sha256 = "describes", "0f" * 32

    def __init__(self) -> None:
        self.asked = 0

    def caption(self, pictures: Any) -> list[str]:
        self.asked += len(pictures)
        return ["a thing"] * len(pictures)


def test_a_recorded_prompt_is_the_caption_where_the_picture_has_one(tmp_path: Path) -> None:
    with_prompt, without = picture(tmp_path, parameters=A1111), picture(tmp_path, parameters="no such thing")
    captioner = Describes()
    said = choice.captions("metadata", [without, with_prompt, without], captioner)
    assert [c.text for c in said] == ["a thing", "a red fox, (snow:1.2) in a forest, Steps: many", "a thing"]
    assert [c.by for c in said] == ["describes", "metadata", "describes"]
    assert captioner.asked == 2
    assert "no prompt is recorded" in said[0].warnings[0]
    assert said[1].warnings == ()
    assert [c.text for c in choice.captions("tagger", [with_prompt], captioner)] == ["a thing"]
    assert [(c.text, c.by) for c in choice.captions("text: a cup ", [without], captioner)] == [("a cup", "user")]


def test_a_recorded_prompt_is_cut_and_cleaned(tmp_path: Path) -> None:
    long = picture(tmp_path, parameters="a\u202e<script> " + "x" * 400_000 + "\nSteps: 2, Seed: 1, CFG scale: 1")
    [said] = choice.captions("metadata", [long], Describes())
    assert said.text.startswith("a<script> xxx")
    assert len(said.text) == choice.MAX_CHARS


@pytest.mark.parametrize("misspelt", ["metdata", "text:", "text:  ", ""])
def test_a_misspelt_choice_of_captions_is_refused(misspelt: str) -> None:
    with pytest.raises(ConfigError, match=r"tagger, metadata or text:WORDS"):
        Options(caption=misspelt)
