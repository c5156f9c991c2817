"""Intervals and paired tests over patients, as Docs/benchmark.md has them.

The unit is the patient: values of a patient are first averaged over draws, volumes and seeds.
Intervals are of the bootstrap over patients, p of Wilcoxon's signed-rank test over patients, and
all p of a family are corrected by Holm's method.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, wilcoxon

from aslseg.evaluation.lesion_matching import f1_of

Key = tuple[str, int, int, str]
"""Draw, number of labelled cases, seed, case."""
Values = Mapping[Key, float]
"""A value of each scored case; NaN where it has none."""

RESAMPLES = 9999
SEED = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over patients with its 95 % interval; NaN where nothing was measured."""

    value: float
    low: float
    high: float
    patients: int


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, slots=True)
class Gain:
    """What a row adds to the row that it builds upon.

    Attributes:
        difference: Over patients.
        wins: Patients for whom the row is better.
        p: Two-sided, not corrected; NaN when no patient differs.
    """

    difference: Estimate
    wins: int
    p: float


def over_patients(values: Values, patients: Mapping[str, str]) -> dict[str, float]:
    """Average the values of each patient; patients without any are left out.

    Args:
        values: Of cases.
        patients: Patient of each case.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for (*_, case), value in sorted(values.items()):
        if math.isfinite(value):
            found[patients[case]].append(value)
    return {patient: math.fsum(these) / len(these) for patient, these in found.items()}


def estimate(by_patient: Mapping[str, float]) -> Estimate:
    """Return the mean over patients and its bootstrap interval."""
    sample = np.array(list(by_patient.values()))
    if sample.size == 0:
        return NOTHING
    return bootstrapped(sample, sample.mean(), lambda index: sample[index].mean(-1))


def pooled_f1(counts: Mapping[str, Sequence[float]]) -> Estimate:
    """Return F1 of all lesions together and its bootstrap interval over patients.

    Args:
        counts: Found, missed and false lesions of each patient, over all draws.
    """
    sample = np.array(list(counts.values()), dtype=float).reshape(-1, 3)
    value = f1_of(tuple(sample.sum(0)))
    if not math.isfinite(value):
        return NOTHING

    def resampled(index: NDArray[np.int64]) -> NDArray[np.float64]:
        found, missed, false = np.moveaxis(sample[index].sum(-2), -1, 0)
        total = 2 * found + missed + false
        return np.where(total > 0, 2 * found / np.maximum(total, 1e-9), 0.0)

    return bootstrapped(sample, value, resampled)


def bootstrapped(
    sample: NDArray[np.float64],
    value: float,
    resampled: Callable[[NDArray[np.int64]], NDArray[np.float64]],
) -> Estimate:
    """Return a statistic of patients and its bootstrap interval.

    Args:
        sample: What the statistic is of, one row a patient.
        value: Of the statistic.
        resampled: Returns the statistic of rows by their indices, (..., patients) to (...).
    """
    if len(sample) < 2:
        return Estimate(float(value), math.nan, math.nan, len(sample))
    result = bootstrap(
        (np.arange(len(sample)),),
        lambda index, axis=-1: resampled(index),
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    interval = result.confidence_interval
    return Estimate(float(value), float(interval.low), float(interval.high), len(sample))


def gain(ours: Values, theirs: Values, patients: Mapping[str, str]) -> Gain | None:
    """Compare a row with the one it builds upon, on the cases of the same draws.

    Args:
        ours: Values of the row.
        theirs: Values of the row that it builds upon.
        patients: Patient of each case.

    Returns:
        None when they have nothing in common.
    """
    differences = {key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()}
    by_patient = over_patients(differences, patients)
    if not by_patient:
        return None
    moved = np.array(list(by_patient.values()))
    return Gain(estimate(by_patient), int((moved > 1e-6).sum()), signed_rank_p(moved))


def signed_rank_p(differences: Iterable[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; NaN when nothing differs.

    Differences of zero are left out; of up to 50 others without ties the distribution is exact.
    """
    moved = [round(float(d), 6) for d in differences if round(float(d), 6)]
    if not moved:
        return math.nan
    return float(wilcoxon(moved).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Return the p of a family of tests, corrected by Holm's step-down method.

    Args:
        values: Uncorrected; NaN is a test that was not made and stays.
    """
    made = sorted((p, n) for n, p in enumerate(values) if math.isfinite(p))
    corrected, largest = [math.nan] * len(values), 0.0
    for rank, (p, n) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * p))
        corrected[n] = largest
    return corrected
