"""Which slices of a case are labelled where some alone are: for all studies of sparse labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def even_slices(filled: NDArray[np.bool_], count: int) -> list[int]:
    """Return slices evenly among those that show something, without the first and the last.

    Args:
        filled: (D,) whether a slice shows something; one does.
        count: How many; fewer are returned where fewer show something.
    """
    shown = np.flatnonzero(filled)
    places = np.linspace(0, len(shown) - 1, count + 2)[1:-1]
    return sorted({int(shown[round(place)]) for place in places})
