"""Which lesions stay: the specialist at 0.5, the fixed rule, the classifier, and the adaptation.

    python Testing/benchmarks/lesion_candidates.py --data ../shared/data/lits --work local/lesions \
        --draw A --labelled 2 --set organ.iterations=600

Trains one round of ASLseg on the first cases of a draw of `protocol_2` in `splits.json`, for which
no hidden label is named, and then segments the unlabelled training volumes with parts of it.
Their labels are opened for the scores alone, by lesions of at least 0.5 ml: found is one of
which a tenth is predicted; a predicted lesion is false if less than a tenth of it is true (of
any size). Another volume of a labelled patient is neither trained on nor scored.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from study_runs import finished_run

from aslseg.cli.settings import changed
from aslseg.data.images import read_labelmap
from aslseg.data.masks import drop_small
from aslseg.data.volume import Labelmap, Volume
from aslseg.evaluation.metrics import detect_lesions, dice
from aslseg.inference.ensemble import Ensemble, Segmentation
from aslseg.inference.lesion_classifier import fixed_rule
from aslseg.inference.lesion_stage import LesionStage
from aslseg.inference.loading import load_ensemble
from aslseg.inference.refinement import UseSpecialist
from aslseg.networks.device import tune_allocator
from aslseg.presets import read_preset
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project

LEAST_ML = 0.5
COLUMNS = ("row", "case", "lesions", "found", "false", "dice", "liver_dice")


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    tune_allocator()
    began = time.process_time()
    project = project_of(arguments)
    config = changed(read_preset("quick"), ["rounds=1", "label_unlabelled=false", *arguments.set])
    run = finished_run(project, config, arguments.name)
    print(f"trained in {time.process_time() - began:.0f} s of one core")
    ensemble = load_ensemble(run)
    rows = []
    for case in project.unlabelled:
        truth = read_labelmap(arguments.data / f"segmentation-{case.id}.nii.gz")
        for name, found in segmentations(ensemble, project.load_image(case)):
            rows.append({"row": name, "case": case.id, **scores(found, truth)})
            print(rows[-1], flush=True)
    with (arguments.work / f"{arguments.name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for name in dict.fromkeys(row["row"] for row in rows):
        print(summary(name, [row for row in rows if row["row"] == name]))
    print(f"{time.process_time() - began:.0f} s of one core in all")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--draw", default="A")
    parser.add_argument("--labelled", type=int, default=2)
    parser.add_argument("--name", default="lesions")
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    return parser.parse_args()


def project_of(arguments: argparse.Namespace) -> Project:
    folder = arguments.work / f"draw-{arguments.draw}-{arguments.labelled}"
    if (folder / "project.json").exists():
        return open_project(folder)
    protocol = json.loads((arguments.data / "splits.json").read_text())["protocol_2"]
    labelled = protocol["draws"][arguments.draw][: arguments.labelled]
    patients = [set(volumes) for volumes in protocol["patients"].values()]
    twins = {v for volumes in patients if volumes & set(labelled) for v in volumes}
    wanted = [v for v in protocol["training"] if v in labelled or v not in twins]
    files = [
        CaseFiles(
            id=str(number),
            image=(arguments.data / f"volume-{number}.nii.gz").resolve(),
            label=(arguments.data / f"segmentation-{number}.nii.gz").resolve()
            if number in labelled
            else None,
        )
        for number in wanted
    ]
    return create_project(folder, files)


def segmentations(ensemble: Ensemble, volume: Volume) -> Iterator[tuple[str, Labelmap]]:
    """Yield each row's label map of a volume; the parts before the lesion stage run once."""
    stage = ensemble.lesion_stage
    if stage is None:
        msg = "Train with candidates.decide=classifier."
        raise ValueError(msg)
    rule = replace(stage, classifiers={name: fixed_rule() for name in stage.classifiers})
    alone = replace(ensemble, sam_predictor=None, refiner=UseSpecialist())
    without_sam = replace(rule, with_sam=False)
    whole = ensemble.segment(volume)
    yield "specialist at 0.5", whole.specialist
    yield "fixed rule", segmented(alone, without_sam, volume).refined
    yield "classifier", segmented(alone, stage, volume, whole).refined
    yield "adaptation alone", replace(ensemble, lesion_stage=None).segment(volume).refined
    yield "classifier + adaptation", whole.refined


def segmented(
    ensemble: Ensemble, stage: LesionStage, volume: Volume, whole: Segmentation | None = None
) -> Segmentation:
    """Segment with another lesion stage, or with decisions that were made already."""
    if whole is None:
        return replace(ensemble, lesion_stage=stage).segment(volume)
    decided = replace(ensemble, lesion_stage=Decided(whole))  # type: ignore[arg-type]
    return decided.segment(volume)


class Decided:
    """A lesion stage that repeats decisions."""

    def __init__(self, whole: Segmentation) -> None:
        self._whole = whole

    def classify(self, *_: object) -> object:
        return self._whole.candidates


def scores(found: Labelmap, truth: Labelmap) -> dict[str, float]:
    predicted, true = found.labels == 2, truth.labels == 2
    large = drop_small(true, round(LEAST_ML / truth.geometry.voxel_ml))
    detected = detect_lesions(predicted, large)
    return {
        "lesions": detected.true,
        "found": detected.found,
        "false": detect_lesions(predicted, true).false_positives,
        "dice": round(dice(predicted, true), 4),
        "liver_dice": round(dice(found.labels > 0, truth.labels > 0), 4),
    }


def summary(name: str, rows: list[dict]) -> str:
    total = {key: sum(row[key] for row in rows) for key in COLUMNS[2:]}
    false, mean = total["false"] / len(rows), total["dice"] / len(rows)
    with_tumour = [row["dice"] for row in rows if row["lesions"]]
    return (
        f"{name}: {total['found']} of {total['lesions']} found, "
        f"{false:.2f} false a case, tumour Dice {mean:.3f} "
        f"(where there are lesions {np.mean(with_tumour):.3f}), "
        f"liver Dice {total['liver_dice'] / len(rows):.3f}"
    )


if __name__ == "__main__":
    main()
