"""Train the organ stage alone on each pair of a draw's volumes, and score the others' livers.

    python Testing/benchmarks/organ_pairs.py --work local/pairs --name shifted
    python Testing/benchmarks/organ_pairs.py --work local/pairs --name plain \
        --set organ.target_shift_chance=0

Which livers are found depends on how bright the two labelled ones are, so one pair says little.
The first `--labelled` volumes of a draw (`protocol_2` of splits.json), or `--volumes`, give the
pairs. All other volumes are segmented by the organ stage, and scored against labels that are opened
here, after the training; another volume of a labelled patient is left out.

Written to `<work>/<name>/cases.csv`: liver Dice by pair and case. Processor time, and the means
over training and test volumes, are printed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import torch
from specialist import Clock, common_arguments, label_file, run_context, write_table

from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap
from aslseg.evaluation.metrics import dice
from aslseg.networks.device import tune_allocator
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade

Pair = tuple[int, int]


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    rows: list[dict[str, Any]] = []
    protocol = read_protocol(arguments)
    of_draw = protocol["draws"][arguments.draw][: arguments.labelled]
    for pair in combinations(arguments.volumes or of_draw, 2):
        began = time.process_time()
        found = list(scores_of(arguments, protocol, pair))
        print(f"{in_words(pair, found)}; {time.process_time() - began:.0f} s", flush=True)
        rows += found
    write_table(arguments.work / arguments.name / "cases.csv", rows)
    print(in_words("all pairs", rows))


def parse() -> argparse.Namespace:
    parser = common_arguments(__doc__)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    parser.set_defaults(labelled=4)
    return parser.parse_args()


def read_protocol(arguments: argparse.Namespace) -> dict[str, Any]:
    splits = json.loads((arguments.data / "splits.json").read_text(encoding="utf-8"))
    protocol: dict[str, Any] = splits["protocol_2"]
    return protocol


def scores_of(
    arguments: argparse.Namespace, protocol: dict[str, Any], pair: Pair
) -> Iterator[dict[str, Any]]:
    """Train on a pair, and yield the score of each other volume."""
    project = pair_project(arguments, protocol, pair)
    settings = argparse.Namespace(**vars(arguments))
    settings.set = ["lesion.iterations=1", *arguments.set]
    context = run_context(settings, project, Clock())
    folder = arguments.work / arguments.name / f"weights-{pair[0]}-{pair[1]}"
    plan = CascadeTrainingPlan(folder=folder, ssl_name=context.config.paradigm, pseudo={}, start={})
    specialist = train_cascade(context, plan).specialist
    for case in context.unlabelled:
        number = int(case.id.removeprefix("lits-"))
        probability = specialist.predict_stages(context.image(case))[0].probabilities["liver"]
        truth = axial_labelmap(read_labelmap(label_file(arguments, number)))
        yield {
            "labelled": f"{pair[0]} and {pair[1]}",
            "case": number,
            "group": "test" if number in protocol["test"] else "training",
            "liver_dice": round(dice(probability > 0.5, truth.labels > 0), 4),
        }


def pair_project(arguments: argparse.Namespace, protocol: dict[str, Any], pair: Pair) -> Project:
    folder = arguments.work / f"project-{pair[0]}-{pair[1]}"
    if (folder / "project.json").exists():
        return open_project(folder)
    same_patient = {
        volume
        for volumes in protocol["patients"].values()
        if set(volumes) & set(pair)
        for volume in volumes
    }
    scored = [n for n in [*protocol["training"], *protocol["test"]] if n not in same_patient]
    files = [
        CaseFiles(
            id=f"lits-{n}",
            image=(arguments.data / f"volume-{n}.nii.gz").resolve(),
            label=label_file(arguments, n) if n in pair else None,
            split="train",
        )
        for n in [*pair, *(n for n in scored if n not in pair)]
    ]
    return create_project(folder, files)


def in_words(labelled: object, rows: list[dict[str, Any]]) -> str:
    means = (
        f"{group} {np.mean([row['liver_dice'] for row in rows if row['group'] == group]):.3f}"
        for group in ("training", "test")
    )
    worst = min(rows, key=lambda row: float(row["liver_dice"]))
    least = f"{worst['case']}: {worst['liver_dice']:.2f}"
    return f"{labelled}: liver Dice of volumes of {', of '.join(means)}, least {least}"


if __name__ == "__main__":
    main()
