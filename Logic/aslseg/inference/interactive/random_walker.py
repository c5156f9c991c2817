"""A random walker with a prior: from seeds, intensities and evidence to a probability.

Grady, "Multilabel random walker image segmentation using prior models" (CVPR 2005), for two labels:
the probability x of inside minimises, over neighbours a and b and over voxels v,

    sum w_ab (x_a - x_b)^2  +  sum (pixel / length)^2 (x_v - prior_v)^2,

with x fixed at the seeds. Weights fall where intensities change and, as those of a Laplacian in mm,
where voxels are far apart. Measuring the prior's weight by a length in mm is ours: the same lesion
is found on coarse and fine voxels.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit

from aslseg.data.volume import Float32, Mask, Spacing3

Float64: TypeAlias = NDArray[np.float64]

EDGE = 4.0
"""Neighbours that differ by the whole contrast of inside and outside weigh exp(-EDGE)."""
LEAST_WEIGHT = 1e-4
TOLERANCE = 1e-3
MOST_STEPS = 300


def walk(
    values: Float32,
    evidence: Float32,
    inside: Mask,
    outside: Mask,
    *,
    spacing_mm: Spacing3,
    length_mm: float,
) -> Float32:
    """Return the probability (D, H, W) of inside.

    Args:
        values: (D, H, W) intensities, in units of the contrast of inside and outside.
        evidence: (D, H, W) log-odds of inside.
        inside: (D, H, W) seeds.
        outside: (D, H, W) seeds, none of them inside.
        spacing_mm: Voxel edge along (k, j, i).
        length_mm: How far seeds count: beyond it evidence decides.
    """
    weights = [_weights(values, axis, spacing_mm) for axis in range(values.ndim)]
    prior = (spacing_mm[1] / length_mm) ** 2
    diagonal = np.full(values.shape, prior)
    for axis, weight in enumerate(weights):
        low, high = _sides(axis)
        diagonal[low] += weight
        diagonal[high] += weight
    free = ~(inside | outside)
    probability: Float64 = inside.astype(np.float64)
    if free.any():
        given = prior * expit(evidence.astype(np.float64)) + _from_neighbours(probability, weights)
        probability[free] = _solve(weights, diagonal, free, given[free])
    return probability.astype(np.float32)


def _solve(weights: list[Float64], diagonal: Float64, free: Mask, given: Float64) -> Float64:
    """Return the probabilities of free voxels by conjugate gradients."""
    grid, own = np.zeros(free.shape), diagonal[free]

    def times(x: Float64) -> Float64:
        grid[free] = x
        product: Float64 = own * x - _from_neighbours(grid, weights)[free]
        return product

    size = (len(given), len(given))
    system = LinearOperator(size, matvec=times, dtype=np.float64)
    scaled = LinearOperator(size, matvec=lambda x: x / own, dtype=np.float64)
    found, _ = cg(system, given, rtol=TOLERANCE, maxiter=MOST_STEPS, M=scaled)
    solution: Float64 = found
    return solution


def _weights(values: Float32, axis: int, spacing_mm: Spacing3) -> Float64:
    low, high = _sides(axis)
    change = values[low].astype(np.float64) - values[high]
    scale = (spacing_mm[1] / spacing_mm[axis]) ** 2
    weights: Float64 = scale * np.exp(-EDGE * change**2) + LEAST_WEIGHT
    return weights


def _from_neighbours(x: Float64, weights: list[Float64]) -> Float64:
    total = np.zeros_like(x)
    for axis, weight in enumerate(weights):
        low, high = _sides(axis)
        total[low] += weight * x[high]
        total[high] += weight * x[low]
    return total


def _sides(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the index of all but the last and of all but the first along an axis."""
    before = (slice(None),) * axis
    return (*before, slice(None, -1)), (*before, slice(1, None))
