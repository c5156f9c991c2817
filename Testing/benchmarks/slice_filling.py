"""How right is a liver that is filled between slices which a person drew?

    python Testing/benchmarks/lits_study.py --data <lits> --work local/fill --draw A --labelled 2 \
        --seeds 0 --set method=specialist rounds=1 lesion.iterations=100 label_unlabelled=false
    python Testing/benchmarks/slice_filling.py local/fill/A-labelled-2 aslseg-0 --data <lits>

For each unlabelled case of a run of `lits_study.py`: the truth is drawn in slices so many mm apart,
the first and the last one of the liver among them. Between these lies what the specialist of the
run predicts, what the drawn outlines say (`economy.sight.filled_between`), what
`fill_between_slices` makes of both, or what `fill_without_run` makes of the outlines alone. Printed
is the surface Dice within 3 mm between the first and the last drawn slice, with the drawn ones, and
for how many cases it reaches 0.9. Labels are opened here, as those of a person who draws, and for
the scores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from economy.person import first_step
from economy.sight import Standard, filled_between, surface_dice
from lits_study import truth_path

from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap, axial_volume
from aslseg.data.volume import Labelmap, Mask, Volume
from aslseg.inference.cascade import Specialist
from aslseg.inference.loading import load_ensemble
from aslseg.inference.postprocessing import labels_from
from aslseg.networks.device import tune_allocator
from aslseg.project.project import open_project
from aslseg.project.run_folder import open_run
from aslseg.targets import cascade_stages
from aslseg.training.slice_filling import fill_between_slices, fill_without_run

STANDARD = Standard()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    tune_allocator()
    project = open_project(arguments.project)
    specialist = load_ensemble(open_run(arguments.project, arguments.run)).specialist
    stage = cascade_stages(specialist.targets)[0]
    organs = Specialist(specialist.networks, stage.targets, specialist.config, specialist.device)
    found: dict[tuple[float, str], list[float]] = defaultdict(list)
    for case in project.unlabelled[: arguments.cases]:
        truth = axial_labelmap(read_labelmap(truth_path(arguments.data, case.id)))
        volume = axial_volume(project.load_image(case))
        goal = truth.labels > 0
        predicted = labels_from(organs.predict(volume), stage.targets, volume, 0.0).labels > 0
        for apart_mm in arguments.apart_mm:
            drawn = drawn_slices(goal, truth.geometry.spacing_mm[0], apart_mm)
            if len(drawn) == drawn[-1] - drawn[0] + 1:
                print(f"{case.id}, {apart_mm:g} mm: all {len(drawn)} slices are drawn")
                continue
            began = time.process_time()
            rows = {
                "predicted": predicted,
                "by shape": filled_between(goal, drawn),
                "by image": filled(organs, volume, predicted, goal, drawn),
                "by a new network": newly_filled(organs, volume, goal, drawn),
            }
            seconds = time.process_time() - began
            dice = {name: score(mask, goal, drawn, truth) for name, mask in rows.items()}
            for name, value in dice.items():
                found[apart_mm, name].append(value)
            words = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
            print(f"{case.id}, {apart_mm:g} mm, {len(drawn)} slices, {seconds:.0f} s: {words}")
            sys.stdout.flush()
    for (apart_mm, name), values in found.items():
        right = sum(value >= STANDARD.least_surface_dice for value in values)
        print(f"{apart_mm:g} mm, {name}: {np.mean(values):.3f}, {right} of {len(values)} right")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--apart-mm", type=float, nargs="+", default=[16.0, 32.0])
    parser.add_argument("--cases", type=int, help="only the first so many")
    return parser.parse_args()


def drawn_slices(goal: Mask, depth_mm: float, apart_mm: float) -> list[int]:
    """Return slices of an organ, at most so far apart, the first and the last one among them."""
    slices = [int(k) for k in np.flatnonzero(goal.any(axis=(1, 2)))]
    return sorted({*slices[:: first_step(depth_mm, apart_mm, len(slices))], slices[-1]})


def filled(
    organs: Specialist, volume: Volume, predicted: Mask, goal: Mask, drawn: list[int]
) -> Mask:
    """Return the organ filled between the slices of the truth that were drawn."""
    shown = predicted.astype(np.uint8)
    shown[drawn] = goal[drawn]
    labels = Labelmap(shown, volume.geometry)
    mask: Mask = fill_between_slices(organs, volume, labels, drawn).labels > 0
    return mask


def newly_filled(organs: Specialist, volume: Volume, goal: Mask, drawn: list[int]) -> Mask:
    """Return the organ filled between the drawn slices, of which alone anything is shown."""
    shown = np.zeros(goal.shape, np.uint8)
    shown[drawn] = goal[drawn]
    labels = Labelmap(shown, volume.geometry)
    found = fill_without_run(organs.targets, volume, labels, drawn, device=organs.device)
    mask: Mask = found.labels > 0
    return mask


def score(mask: Mask, goal: Mask, drawn: list[int], truth: Labelmap) -> float:
    """Return the surface Dice; beyond the drawn slices, and in them, all is as it should be."""
    shown = goal.copy()
    shown[drawn[0] : drawn[-1] + 1] = mask[drawn[0] : drawn[-1] + 1]
    shown[drawn] = goal[drawn]
    return surface_dice(shown, goal, truth.geometry.spacing_mm, STANDARD.tolerance_mm)


if __name__ == "__main__":
    main()
