"""Noise belongs to the seed alone: known answers, moments, independence of batch and order."""

import numpy as np
import pytest

from resynth_fast.noise import normals, philox


@pytest.mark.parametrize(
    ("seed", "counter", "expected"),
    [  # known answers of the Random123 distribution for philox4x32-10
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, (0xFFFFFFFF,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x299F31D0 << 32) | 0xA4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(seed, counter, expected):
    assert tuple(philox(seed, np.array([counter], np.uint64))[0]) == expected


def test_normals_have_the_moments_of_a_standard_normal():
    x = np.concatenate([normals(seed, 0, (4, 64, 64)).ravel() for seed in range(20)]).astype(np.float64)
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    assert abs((x**4).mean() - 3) < 0.1


def test_seed_and_call_each_change_every_element():
    first = normals(1, 0, (3, 5))
    assert (first == normals(1, 0, (3, 5))).all()
    assert (first != normals(2, 0, (3, 5))).all()
    assert (first != normals(1, 1, (3, 5))).all()
    assert np.isfinite(first).all()


def test_a_shorter_draw_is_the_beginning_of_a_longer_one():
    assert (normals(9, 3, (7,)) == normals(9, 3, (31,))[:7]).all()
