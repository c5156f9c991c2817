"""Weights and predictions that are no numbers (NaN or infinity): found, named, refused."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from aslseg.data.volume import Float32
from aslseg.errors import RunError


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether no tensor holds NaN or infinity; whole numbers never do."""
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


def require_finite(prediction: Float32, who: str) -> Float32:
    """Return a prediction, any shape, if it is made of numbers.

    Args:
        prediction: Of a network.
        who: The network, at the beginning of a sentence.

    Raises:
        RunError: When one value is NaN or infinite: as a label map it would be empty.
    """
    if not np.isfinite(prediction).all():
        msg = (
            f"{who} predicts values that are no numbers: its weights are damaged, or the volume "
            "holds extreme intensities. Look at the volume's intensities, or train again."
        )
        raise RunError(msg)
    return prediction
