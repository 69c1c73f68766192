"""Plug-ins of another package: those of docs/extending.md, installed in a temporary folder and used together."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resynth_fast import Attributor, backends, captioners, plugins
from resynth_fast.candidates import find
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import ConfigError, DeviceError

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = dict(BLOCK.findall(PAGE.read_text()))
PACKAGE = "acme_resynth"


def install(folder: Path, name: str, groups: dict[str, dict[str, str]]) -> None:
    """What pip leaves of a package's metadata: its name and its entry points."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    sections = (f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items()) for group, entries in groups.items())
    (info / "entry_points.txt").write_text("\n".join(sections))
    plugins.listing.cache_clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports packages from, forgotten after the test."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    known = set(sys.modules)
    plugins.listing.cache_clear()
    yield folder
    plugins.listing.cache_clear()
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def acme(site: Path) -> Path:
    """The package of docs/extending.md."""
    (site / PACKAGE).mkdir()
    (site / PACKAGE / "__init__.py").touch()
    for name, text in EXAMPLES.items():
        if name.startswith(PACKAGE):
            (site / name).write_text(text)
    project = tomllib.loads(EXAMPLES["pyproject.toml"])["project"]
    install(site, project["name"], project["entry-points"])
    return site


def add(site: Path, module: str, text: str, kind: str, package: str = "other-resynth") -> None:
    """Install a package of one plug-in."""
    (site / f"{module}.py").write_text(text)
    install(site, package, {f"resynth_fast.{kind}": {module: module}})


def matrix(folder: Path) -> Path:
    """Pictures of three generators, each of its own noise, of four prompts."""
    rng = np.random.default_rng(0)
    for prompt in range(4):
        base = rng.integers(0, 200, (8, 8, 3))
        for generator in range(3):
            (folder / f"prompt-{prompt}" / f"g{generator}").mkdir(parents=True)
            for copy in range(2):
                picture = np.kron(base, np.ones((8, 8, 1), int)) + rng.integers(0, 10 + 20 * generator, (64, 64, 3))
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"prompt-{prompt}" / f"g{generator}" / f"{copy}.png")
    return folder


@pytest.fixture
def bundle(acme: Path, tmp_path: Path) -> Path:
    """An extractor bundle, written as docs/extending.md says."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    written: Path = importlib.import_module(f"{PACKAGE}.publish").publish(tmp_path / "bundles", matrix(tmp_path / "matrix")).folder
    return written


def test_a_picture_is_attributed_by_plug_ins_alone(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "matrix" / "prompt-0"
    candidates = [f"acme{i}=replay:{folder / f'g{i}'}" for i in range(2)]
    probe = folder / "g0" / "0.png"
    attributor = Attributor.open(
        ["zoo:zoo-sd", *candidates],
        extractor=bundle,
        captioner="fixed:a red house",
        backend="acme",
        references=1,
        steps=1,
        threads=1,
    )
    verdicts = [attributor([probe])[0] for _ in range(2)]
    evidence = {candidate.name: candidate for candidate in verdicts[0].candidates}
    assert set(evidence) == {"zoo-sd", "acme0", "acme1"}
    assert verdicts[0].caption == "a red house"
    assert attributor.space.tap == "colours"
    assert str(attributor.evidence.provenance()["backend"]).startswith("acme, onnxruntime")
    assert any("acme0 replays pictures" in warning for warning in verdicts[0].warnings)
    assert [c.probability for c in verdicts[0].candidates] == [c.probability for c in verdicts[1].candidates]
    [drawn] = evidence["acme0"].resyntheses
    stored = [np.asarray(Image.open(path)) for path in sorted((folder / "g0").iterdir())]
    assert any((drawn.pixels == pixels).all() for pixels in stored)


@pytest.mark.usefixtures("acme")
def test_a_backend_of_another_package_computes_what_onnxruntime_does() -> None:
    pictures, expected = (
        [c.make(["a red house"], [1], 1)[0] for c in find(["zoo:zoo-sd"], EnginePool(b))] for b in ("acme", "onnxruntime")
    )
    assert "acme" in backends.names()
    assert np.abs(pictures[0].astype(int) - expected[0].astype(int)).max() <= 1
    with pytest.raises(ConfigError, match="backend is 'acme:fast'; it has no variants"):
        backends.get("acme:fast")


@pytest.mark.slow
@pytest.mark.usefixtures("acme")
def test_a_family_of_another_package_is_exported(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    from resynth_fast.export import families, pipelines, tiny

    parts = {**tiny.stable_diffusion().components}
    diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False).save_pretrained(tmp_path / "checkpoint")
    assert "acme-img2img" in families.names()
    exported = pipelines.export(tmp_path / "checkpoint", tmp_path / "bundles", name="acme", licence="Apache-2.0", steps=(2,))
    [candidate] = find([str(exported.folder)], EnginePool(threads=1))
    [picture] = candidate.make(["a red house"], [0], 2)
    assert (candidate.family, picture.shape) == ("stable-diffusion", (*exported.resolution_px, 3))


@pytest.mark.usefixtures("acme")
def test_two_plug_ins_that_match_one_text_are_an_error_that_names_both(site: Path, tmp_path: Path) -> None:
    add(site, "second", EXAMPLES[f"{PACKAGE}/candidate.py"], "candidates")
    with pytest.raises(ConfigError, match="matched by two plug-ins, replay of acme-resynth and second of other-resynth; uninstall one"):
        find([f"acme=replay:{tmp_path}"], EnginePool(threads=1))


@pytest.mark.parametrize("kind", ["candidates", "captioners", "extractors", "backends", "families"])
def test_two_plug_ins_of_one_name_are_an_error(site: Path, kind: str) -> None:
    for package in ("one-resynth", "two-resynth"):
        install(site, package, {f"resynth_fast.{kind}": {"acme": "acme"}})
    folder = f"resynth_fast.{'export.' if kind == 'families' else ''}{kind}"
    if kind == "families":
        pytest.importorskip("diffusers")
    with pytest.raises(
        ConfigError, match=rf"two plug-ins of resynth_fast\.{kind} have one name: acme of one-resynth and acme of two-resynth"
    ):
        plugins.listing(folder)


def test_plug_ins_are_listed_by_name_whatever_the_order_of_installation(site: Path) -> None:
    for name in ("zebra", "aardvark"):
        install(site, f"{name}-resynth", {"resynth_fast.backends": {name: name}})
    assert list(plugins.listing("resynth_fast.backends")) == sorted([*backends.names(), *backends.HELPERS])
    assert backends.names()[0] == "aardvark"
    assert backends.names()[-1] == "zebra"


def test_every_module_that_is_listed_as_a_backend_is_one() -> None:
    for name in backends.names():
        try:
            module = plugins.listing("resynth_fast.backends")[name].load()
        except ImportError:
            continue  # its library is not installed
        assert callable(module.backend), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_library\n", "plug-in broken of other-resynth cannot be imported"),
        ("def open(text, pool): ...\n", "plug-in broken of other-resynth has no function `matches` in broken"),
    ],
)
def test_a_broken_plug_in_is_named_with_its_package(site: Path, text: str, message: str) -> None:
    add(site, "broken", text, "captioners")
    with pytest.raises(ConfigError, match=message):
        captioners.find("zoo:", EnginePool(threads=1))


def test_a_backend_without_its_library_names_the_package_to_install(site: Path) -> None:
    add(site, "broken", "import no_such_library\n", "backends")
    assert backends.get("onnxruntime").version()
    with pytest.raises(DeviceError, match=r"no_such_library.*pip install 'other-resynth\[broken\]'"):
        backends.get("broken")


@pytest.mark.parametrize("text", ["acme=ftp://user:secret@host/x", "s3://user:secret@host"])
def test_a_text_that_no_kind_takes_is_refused_by_its_scheme_alone(text: str) -> None:
    pool = EnginePool(threads=1)
    with pytest.raises(ConfigError, match=r":… has no known form") as caught:
        find([text], pool)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^captioner: s3:… has no known form") as caught:
        captioners.find("s3://user:secret@host", pool)
    assert "secret" not in str(caught.value)
