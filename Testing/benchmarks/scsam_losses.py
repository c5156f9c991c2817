"""What SC-SAM's mutual losses do, for Docs/results-benchmark.md: runs without them, or with a ramp.

    python Testing/benchmarks/scsam_losses.py --data <lits> --work local/scsam-terms --budget 800 \
        --labelled 2 --seeds 0 1 --variants none ramp

Experiments of the benchmark's preset `small`, with terms of the loss changed here and nowhere else:
`released` changes nothing; `ramp` gives the U-Net's loss on SAM's map, and its entropy, the ramp of
SAM's loss on the U-Net's map; `none` has neither mutual losses nor entropy. Each prediction is
scored alone on the held-out volumes; experiments that are there already are not run again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from round_scores import lits, print_scores

from aslseg.benchmark.data import on_grid
from aslseg.benchmark.experiments import BenchmarkSetup, Experiment, run_experiment
from aslseg.benchmark.presets import benchmark_preset
from aslseg.methods.scsam import CoTraining
from aslseg.training.ssl.base import LossTerms

Change = Callable[[LossTerms, float], LossTerms]


def released(terms: LossTerms, ramp: float) -> LossTerms:
    return terms


def ramped(terms: LossTerms, ramp: float) -> LossTerms:
    further = {**terms.further, "entropy": terms.further["entropy"] * ramp}
    return replace(terms, unlabelled=terms.unlabelled * ramp, further=further)


def without(terms: LossTerms, ramp: float) -> LossTerms:
    further = {name: value * 0 for name, value in terms.further.items()}
    return replace(terms, unlabelled=terms.unlabelled * 0, further=further)


VARIANTS: dict[str, Change] = {"released": released, "ramp": ramped, "none": without}


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    preset = replace(benchmark_preset("small"), budget=arguments.budget)
    data = lits(arguments.data)
    copies = on_grid(data, arguments.work / "data", preset.spacing_mm)
    as_released = CoTraining.loss
    for variant in arguments.variants:
        change = VARIANTS[variant]

        def loss(self: CoTraining, *batch: object, change: Change = change) -> LossTerms:
            step = batch[2]
            return change(as_released(self, *batch), self.sam_weight(step))

        CoTraining.loss = loss
        setup = BenchmarkSetup(arguments.work / variant, data, preset, copies)
        for seed in arguments.seeds:
            experiment = Experiment(seed, arguments.labelled, "scsam")
            if not setup.path(experiment).exists():
                run_experiment(setup, experiment)
            print(f"{variant}, seed {seed}")
            print_scores(data, setup.project(experiment).folder / "runs" / experiment.run_id)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--budget", type=int, default=800)
    parser.add_argument("--labelled", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
