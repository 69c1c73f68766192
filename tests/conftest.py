"""Settings of the whole suite."""

import importlib.util

import pytest
from hypothesis import settings

# Timings of shared machines are noise, and a suite that gates a merge must not depend on luck.
settings.register_profile("resynth", deadline=None, derandomize=True)
settings.load_profile("resynth")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is no CUDA module or no device, and say which of the two."""
    if (reason := _why_no_gpu()) is None:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _why_no_gpu() -> str | None:
    if importlib.util.find_spec("resynth_fast._cuda") is None:
        return "resynth_fast was built without CUDA"
    from resynth_fast import _cuda

    return None if _cuda.device_count() else f"no CUDA device: {_cuda.status()}"
