"""Means, spreads and paired tests over the experiments of a benchmark.

The unit of a mean is a seed: scores are averaged over the held-out cases of a seed, and what is
shown is mean and standard deviation of these averages. The unit of a difference is a pair: the same
case, seed and number of labelled volumes, with a method and with the row that it builds upon.

Pairs of one case with several seeds are not independent: its difficulty is in all of them. The test
over pairs (Wilcoxon's signed ranks) takes them for independent and is therefore too hopeful. The
test over cases first averages each case over its seeds; it is honest and has little power: with n
cases it cannot give less than 2 / 2^n.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import wilcoxon

from aslseg.evaluation.scores import Mean, mean_of

Score = Mapping[str, Any]
"""A row: entry, labelled (0 for all), seed, case, target, and metrics."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What a method adds to the row that it builds upon.

    Attributes:
        over_seeds: Of the mean difference of each seed (and number of labelled volumes).
        pairs: Number of pairs.
        wins: Pairs in which the method is better.
        p_pairs: Two-sided, taking pairs for independent; NaN when nothing differs.
        cases: Number of cases.
        p_cases: Two-sided, with one difference per case.
    """

    over_seeds: Mean
    pairs: int
    wins: int
    p_pairs: float
    cases: int
    p_cases: float


def over_seeds(scores: Iterable[Score], metric: str = "dice") -> Mean:
    """Return mean and deviation of the seeds' means.

    Args:
        scores: Of one row, number of labelled volumes and target.
        metric: Column; scores without a value are left out.
    """
    by_seed: dict[int, list[float]] = defaultdict(list)
    for score in scores:
        if score[metric] is not None and math.isfinite(score[metric]):
            by_seed[score["seed"]].append(score[metric])
    return mean_of([statistics.fmean(values) for values in by_seed.values()])


def gain(method: Iterable[Score], baseline: Iterable[Score]) -> Gain | None:
    """Compare a method with the row it builds upon, on the pairs that both have.

    Returns:
        None when they have no pair.
    """
    ours, theirs = _by_pair(method), _by_pair(baseline)
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    differences = {key: ours[key] - theirs[key] for key in both}
    by_run: dict[tuple[int, int], list[float]] = defaultdict(list)
    by_case: dict[str, list[float]] = defaultdict(list)
    for (labelled, seed, case), difference in differences.items():
        by_run[labelled, seed].append(difference)
        by_case[case].append(difference)
    return Gain(
        over_seeds=mean_of([statistics.fmean(values) for values in by_run.values()]),
        pairs=len(both),
        wins=sum(difference > 0 for difference in differences.values()),
        p_pairs=signed_rank_p(list(differences.values())),
        cases=len(by_case),
        p_cases=signed_rank_p([statistics.fmean(values) for values in by_case.values()]),
    )


def signed_rank_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; NaN when nothing differs.

    Differences of zero are left out; of up to 50 others without ties the distribution is exact.
    """
    moved = [round(difference, 6) for difference in differences if round(difference, 6)]
    if not moved:
        return math.nan
    return float(wilcoxon(moved).pvalue)


def _by_pair(scores: Iterable[Score]) -> dict[tuple[int, int, str], float]:
    return {
        (int(score["labelled"]), int(score["seed"]), str(score["case"])): float(score["dice"])
        for score in scores
    }
