"""A random walker between seeds stops at edges and follows evidence beyond their reach."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.data.volume import Float32
from aslseg.inference.interactive.random_walker import walk

SPACING_MM = (1.0, 1.0, 1.0)


def row(values: Float32, evidence: Float32, *, length_mm: float) -> Float32:
    """Walk along a row whose first pixel is inside and whose last one is outside."""
    inside = np.zeros((1, 1, len(values)), bool)
    outside = inside.copy()
    inside[..., 0], outside[..., -1] = True, True
    found = walk(
        values[None, None], evidence[None, None], inside, outside,
        spacing_mm=SPACING_MM, length_mm=length_mm,
    )  # fmt: skip
    return found[0, 0]


def test_without_edges_and_evidence_the_middle_is_even() -> None:
    nothing = np.zeros(21, np.float32)
    found = row(nothing, nothing, length_mm=1000.0)
    assert found[[0, 10, 20]] == pytest.approx([1.0, 0.5, 0.0], abs=0.01)
    assert (np.diff(found) < 0).all()


def test_it_stops_at_an_edge() -> None:
    values = np.where(np.arange(21) < 6, 1.0, 0.0).astype(np.float32)
    found = row(values, np.zeros(21, np.float32), length_mm=1000.0)
    assert found[5] > 0.8
    assert found[6] < 0.3


def test_beyond_the_length_evidence_decides() -> None:
    nothing = np.zeros(41, np.float32)
    for log_odds in (-3.0, 3.0):
        found = row(nothing, np.full(41, log_odds, np.float32), length_mm=2.0)
        assert found[20] == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=0.01)
        assert found[1] > 0.6
