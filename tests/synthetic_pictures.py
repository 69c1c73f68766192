"""A small data set of synthetic pictures on disk, and `resynth evaluate` over it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from resynth_fast.cli import __main__ as cli
from resynth_fast.evaluation import spaces

NAMES = ("plain", "smooth", "waves")
PROMPTS, COPIES, SIDE = 6, 4, 96


def picture(prompt: int, generator: int, copy: int) -> Image.Image:
    """A blurred drawing that belongs to the prompt, under noise that belongs to the generator."""
    scene, rng = np.random.default_rng([7, prompt]), np.random.default_rng([8, prompt, generator, copy])
    coarse = scene.normal(size=(6, 6, 3)) + 0.4 * rng.normal(size=(6, 6, 3))
    coarse = ((coarse - coarse.min()) / np.ptp(coarse) * 255).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(float)
    noise = rng.normal(size=pixels.shape)
    if generator == 1:
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 1.7
    if generator == 2:
        noise = (noise + 1.5 * np.sin(np.arange(SIDE) * 1.1 + rng.random() * 6)[:, None]) / 1.5
    return Image.fromarray((pixels * 0.8 + 20 + noise * 9).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for p in range(PROMPTS):
        for g, name in enumerate(NAMES):
            folder = root / f"prompt {p}" / name
            folder.mkdir(parents=True)
            for copy in range(COPIES):
                picture(p, g, copy).save(folder / f"{copy}.png")
    (root / "prompt 2" / "waves" / "broken.png").write_bytes(b"no picture")
    (root / "prompt 2" / "waves" / "link.png").symlink_to(root / "gone.png")
    (root / "prompt 2" / "waves" / "notes.txt").write_text("no picture either")
    return root


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def evaluate(root: Path | str, cache_folder: Path, *options: object, format: str = "json") -> Any:
    """The result of `resynth evaluate` over `root`: the JSON document, or the text of another format."""
    arguments = ["evaluate", root, "--references", 2, "--draws", 2, "--threads", 1, "--cache", cache_folder, "--format", format, *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "FOLDS", 3)  # a covariance is fitted for each fold, and with six prompts three folds leave as many as five
        done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) if format == "json" else done.stdout


@pytest.fixture(scope="session")
def curve_result(picture_folder: Path, cache_folder: Path) -> dict[str, Any]:
    return evaluate(picture_folder, cache_folder, "--protocol", "curve")


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data
