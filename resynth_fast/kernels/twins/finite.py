"""Twin of the finite kernel."""

import numpy as np

from ...types import Floats


def all_finite(values: Floats) -> bool:
    """See `finite.all_finite`."""
    return bool(np.isfinite(values).all())
