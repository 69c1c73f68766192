"""Stored arrays come back as they were, of any layout and type; and what is stored in them still does its work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from gaussian_pictures import CONSTANTS, world
from hypothesis import given
from PIL import Image

from resynth_fast import Attributor, files, zoo
from resynth_fast.candidates import find
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError
from resynth_fast.extractors.space import open_space, pack, unpack
from resynth_fast.images import perturbations
from resynth_fast.scoring.gallery_fit import GalleryFit
from resynth_fast.scoring.whitening import Moment, fit_constants, whitening_of

TYPES = st.sampled_from(["f2", "f4", "f8", ">f4", ">i8", "i1", "u1", "i4", "u8", "?"])
LAYOUTS = {
    "as it is": lambda array: array,
    "Fortran": np.asfortranarray,
    "transposed": lambda array: array.T,
    "reversed": lambda array: array[::-1] if array.ndim else array,
    "every second": lambda array: array[..., ::2] if array.ndim else array,
    "broadcast": lambda array: np.broadcast_to(array, (2, *array.shape)),
}


@given(
    TYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, max_side=5))),
    st.sampled_from(list(LAYOUTS)),
)
def test_an_array_comes_back_as_it_was(array: Any, layout: str) -> None:
    stored = LAYOUTS[layout](array)
    (read,) = files.unpack_arrays(files.pack_arrays({"x": stored}, {"about": "it"})).values()
    assert read.shape == stored.shape
    assert read.dtype == stored.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, stored)


def test_what_is_no_safetensors_file_is_a_value_error() -> None:
    for content in (b"", b"x" * 100, files.pack_arrays({"x": np.zeros(3)})[:-1]):
        with pytest.raises(ValueError, match="no safetensors file"):
            files.unpack_arrays(content)


@pytest.mark.parametrize("pictures", [60, 400])  # fewer and more than columns: the eigenvectors come in either memory layout
def test_stored_constants_are_those_that_were_fitted(pictures: int) -> None:
    rng = np.random.default_rng(0)
    x, generator, prompt = rng.normal(size=(pictures, 90)), np.arange(pictures) % 2, np.arange(pictures) // 10
    differences = rng.normal(size=(pictures, 90)) * rng.uniform(0.1, 3, 90)
    fitted = fit_constants(x, {"all": 90}, generator, prompt, {"noise": differences, "blur": differences[:20] ** 3})
    read = unpack(pack(fitted))
    assert set(read.nuisance) == {"noise", "blur"}
    for name in ("mean", "scale"):
        np.testing.assert_allclose(getattr(read, name), getattr(fitted, name), rtol=1e-6)
    np.testing.assert_allclose(read.foreign.values, fitted.foreign.values, rtol=1e-6)
    np.testing.assert_allclose(read.foreign.vectors, fitted.foreign.vectors, atol=2**-11)
    for family, rows in fitted.nuisance.items():
        np.testing.assert_allclose(read.nuisance[family], rows, atol=2**-11 * np.linalg.norm(rows, axis=1).max())


@pytest.mark.parametrize("part", ["vectors", "nuisance.jpeg"])
def test_constants_whose_rows_were_scrambled_are_refused(part: str) -> None:
    orthonormal = np.linalg.qr(np.random.default_rng(0).normal(size=(48, 20)))[0]
    constants = replace(CONSTANTS, foreign=Moment(orthonormal, np.full(20, 0.05)), nuisance={"jpeg": orthonormal.T})
    arrays = files.unpack_arrays(pack(constants))
    assert unpack(files.pack_arrays(arrays)).nuisance["jpeg"].shape == (20, 48)
    scrambled = arrays[part].reshape(arrays[part].shape[::-1]).T
    with pytest.raises(ValueError, match="not orthogonal"):
        unpack(files.pack_arrays({**arrays, part: scrambled}))


def test_a_fit_whose_directions_were_scrambled_is_refused() -> None:
    x, generator, prompt = world(3, prompts=3, copies=3)  # fewer pictures than columns: the directions are no square
    fit = GalleryFit.of(CONSTANTS.scaled(x), generator, prompt, ["a", "b", "c", "d"])
    stored = {"sha256": "0" * 64, "snapshot": "1" * 64}
    vectors = fit.arrays()["own.vectors"]
    again = GalleryFit.restored(fit.arrays(), fit.settings(), **stored).own
    assert again is not None
    np.testing.assert_allclose(again.vectors, vectors, atol=2**-11)
    with pytest.raises(BundleError, match="not orthogonal"):
        GalleryFit.restored({**fit.arrays(), "own.vectors": vectors.reshape(vectors.shape[::-1]).T}, fit.settings(), **stored)


def test_a_fit_whose_threshold_measures_something_else_is_refused() -> None:
    """A fit of before the version was stored looks like one of now; its threshold would call known pictures unknown, or the reverse."""
    x, generator, prompt = world(3, prompts=3, copies=3)
    fit = GalleryFit.of(CONSTANTS.scaled(x), generator, prompt, ["a", "b", "c", "d"])
    for version in ({}, {"version": 1}):
        settings = {key: value for key, value in fit.settings().items() if key != "version"} | version
        with pytest.raises(BundleError, match="another version"):
            GalleryFit.restored(fit.arrays(), settings, sha256="0" * 64, snapshot="1" * 64)


def test_the_stored_constants_of_the_zoo_hold_what_degradations_change(zoo_pool: EnginePool) -> None:
    """The effect: most of a real change lies in the stored directions, little of another family's, and whitening removes it."""
    space = open_space(zoo.bundle(zoo.TEXTURE))
    pictures = [p for c in find(["zoo:"], zoo_pool) for p in c.make(zoo.prompts()[:6], range(7000, 7006), 8)]
    clean = space.constants.scaled(space.features(pictures))
    for family, names in perturbations.NUISANCE.items():
        degrade = perturbations.perturbation(names[-1])
        change = space.constants.scaled(space.features([degrade(p) for p in pictures])) - clean
        rows = space.constants.nuisance[family]
        directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        inside = ((change @ directions.T) ** 2).sum() / (change**2).sum()
        assert inside > 0.7, f"{family}: {inside:.3f} of the change lies in the stored directions"
        kept, without = ((whitening(change) ** 2).sum() for whitening in (space.whitening, whitening_of(space.constants, families=())))
        assert kept < 0.6 * without, f"{family}: whitening keeps {kept / without:.3f} of what stays without these directions"


def test_the_stored_calibration_of_the_zoo_holds_on_fresh_pictures(zoo_pool: EnginePool, tmp_path: Path) -> None:
    """The effect of temperature and thresholds, from the stored form, on captions and noise that nothing was fitted on."""
    attributor, candidates = Attributor.open(threads=1), find(["zoo:"], zoo_pool)
    prompts, seed = zoo.prompts()[200:228], 1 << 41
    probes = [(c.name, pixels) for i, c in enumerate(candidates) for pixels in c.make(prompts[i:20:4], range(seed + i, seed + 20, 4), 20)]
    [stranger] = [EngineCandidate(bundle, zoo_pool) for bundle in zoo.withheld()]
    strangers = stranger.make(prompts[20:], range(seed + 20, seed + 28), 20)
    paths = []
    for k, pixels in enumerate([*(pixels for _, pixels in probes), *strangers]):
        paths.append(tmp_path / f"{k:02}.png")
        Image.fromarray(pixels).save(paths[-1])
    verdicts = attributor(paths)
    known, unknown = verdicts[: len(probes)], verdicts[len(probes) :]
    named = [(v.label, truth) for v, (truth, _) in zip(known, probes, strict=True) if v.status == "attributed"]
    assert len(named) >= 0.4 * len(known)
    assert sum(label != truth for label, truth in named) <= 0.15 * len(known)
    assert sum(v.status == "unknown" for v in known) <= 0.2 * len(known)
    assert sum(v.status == "attributed" for v in unknown) <= 0.25 * len(unknown)
    assert sum(v.status == "unknown" for v in unknown) >= 0.5 * len(unknown)
    own = [next(c.probability for c in v.candidates if c.name == truth) for v, (truth, _) in zip(known, probes, strict=True)]
    assert -np.log(np.maximum(own, 1e-9)).mean() < 0.75 * np.log(len(candidates))  # a wrong temperature is worse than no answer
