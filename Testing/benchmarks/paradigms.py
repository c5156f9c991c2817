"""Train the tumour stage by each paradigm in equal steps, inside one predicted liver, and score it.

    python Testing/benchmarks/paradigms.py --work local/paradigms --rows supervised unimatch

The first two volumes of draw A of LiTS (`protocol_2` of splits.json) are labelled; the other
training volumes are unlabelled, and scored against labels that are opened after the training. The
liver is found by one supervised stage, the same for all rows; its weights and regions of interest
are kept in `<work>/shared`. Rows are `ROWS` below; `scsam...` trains SC-SAM's U-Net and SAM
together and scores both. Written to `<work>/<row>/`: `cases.csv` and `candidates.csv` as of
`specialist.py`, `curves.csv` (mean of each term over each tenth of the schedule), and a line of
`<work>/summary.txt`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from specialist import (
    CANDIDATE_THRESHOLD,
    Lesions,
    found_at,
    hits_of,
    read_table,
    study_project,
    write_table,
)
from torch import nn

from aslseg.cli.settings import changed
from aslseg.config import RunConfig
from aslseg.context import RunContext
from aslseg.data.images import read_labelmap
from aslseg.data.masks import drop_small, within_reach
from aslseg.data.orientation import axial_labelmap
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.evaluation.metrics import dice
from aslseg.events import Event, Metric, Monitor
from aslseg.inference.cascade import StagePrediction, predict_roi
from aslseg.inference.classwise_sam import ClasswisePredictor
from aslseg.inference.loading import build_classwise
from aslseg.methods.scsam import CoTraining
from aslseg.networks.unet import build_network
from aslseg.overrides import with_overrides
from aslseg.preprocessing.patches import TrainingCase
from aslseg.preprocessing.roi import Roi, build_roi, load_roi, save_roi, to_volume
from aslseg.presets import published_changes, read_preset
from aslseg.project.run_folder import create_run
from aslseg.targets import CascadeStage, cascade_stages
from aslseg.training import cascade
from aslseg.training.cascade import CascadeTrainingPlan, default_ssl_method
from aslseg.training.stage_cases import RoiPreparation, labelled_cases, predict_parent

SMALL = (
    "organ.iterations=300", "organ.batch_size=6", "organ.roi.pixel_mm=4.0",
    "organ.patch_size=96", "organ.network.channels=[16,32,64,128]",
    "lesion.iterations=300", "lesion.batch_size=6", "lesion.patch_size=96",
    "lesion.network.channels=[16,32,64,128]",
)  # fmt: skip
SCSAM = (
    "method=scsam",
    "scsam.input_size=112",
    "sam.model=vit_t",
    "lesion.batch_size=4",
    "lesion.iterations=200",
)
CONFIDENT = "lesion.unlabelled_loss=confident"
ROWS: Mapping[str, tuple[str, ...]] = {
    "supervised": ("paradigm=supervised",),
    "mean_teacher_published": ("paradigm=mean_teacher", "published"),
    "mean_teacher": ("paradigm=mean_teacher", CONFIDENT),
    "uncertainty_aware": ("paradigm=uncertainty_aware", CONFIDENT),
    "cross_pseudo": ("paradigm=cross_pseudo", CONFIDENT),
    "unimatch_published": ("paradigm=unimatch", "published"),
    "unimatch": ("paradigm=unimatch", CONFIDENT),
    "bidirectional_copy_paste_published": ("paradigm=bidirectional_copy_paste", "published"),
    "bidirectional_copy_paste": ("paradigm=bidirectional_copy_paste", CONFIDENT),
    "scsam_published": (*SCSAM, "published"),
    "scsam_published_without_points": (*SCSAM, "published", "scsam.points=0"),
    "scsam_published_without_entropy": (*SCSAM, "published", "scsam.entropy_weight=0"),
    "scsam": SCSAM,
    "scsam_without_points": (*SCSAM, "scsam.points=0"),
}
STAGE_SEED = 0


@dataclass(frozen=True, slots=True)
class Study:
    """What all rows share: regions of interest of the tumour stage, and predicted livers."""

    arguments: argparse.Namespace
    context: RunContext
    stage: CascadeStage
    labelled: list[TrainingCase]
    unlabelled: list[TrainingCase]
    livers: Mapping[str, Mask]


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    for row in arguments.rows:
        if (arguments.work / row / "cases.csv").exists():
            continue
        study = study_of(arguments, row)
        began = time.process_time()
        terms = Terms(study.context.config.lesion.iterations)
        context = replace(study.context, monitor=Monitor(terms.listen))
        found = trained(replace(study, context=context), row)
        seconds = time.process_time() - began
        for source, network in found.items():
            name = row if source == "unet" else f"{row}-{source}"
            score(study, name, network)
            line = f"{summary(arguments.work / name)}; {seconds:.0f} s of training"
            print(line, terms.shares(), flush=True)
            with (arguments.work / "summary.txt").open("a", encoding="utf-8") as file:
                file.write(f"{line} {terms.shares()}\n")
        write_table(arguments.work / row / "curves.csv", terms.rows())


def parse() -> argparse.Namespace:
    shared = Path(os.environ.get("ASLSEG_SHARED", "../shared"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=shared / "data" / "lits")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--set", nargs="*", default=[], help="settings of all rows: name=value")
    parser.set_defaults(draw="A", labelled=2)
    return parser.parse_args()


def config_of(arguments: argparse.Namespace, row: str) -> RunConfig:
    own = [setting for setting in ROWS[row] if setting != "published"]
    config = changed(read_preset("quick"), [*SMALL, *arguments.set, *own])
    if "published" in ROWS[row]:
        config = with_overrides(config, published_changes(config.paradigm, config.method))
        config = changed(config, own)
    return config


def study_of(arguments: argparse.Namespace, row: str) -> Study:
    config = config_of(arguments, row)
    project = study_project(arguments)
    run = create_run(project.folder, config, f"{row}-{time.time_ns()}")
    context = RunContext(project, config, run, torch.device("cpu"), Monitor())
    organ, stage = cascade_stages(context.targets)
    shared = arguments.work / "shared"
    plan = CascadeTrainingPlan(shared, "supervised", {}, {})
    if not (shared / "ready").exists():
        cascade._train_stage(context, plan, organ, {})
        prepare(context, plan, stage, shared)
    folders = sorted((shared / "rois").iterdir())
    return Study(
        arguments,
        context,
        stage,
        [
            TrainingCase(load_roi(folder))
            for folder in folders
            if folder.name.startswith("labelled")
        ],
        [
            TrainingCase(load_roi(folder), case_id=folder.name)
            for folder in folders
            if not folder.name.startswith("labelled")
        ],
        {path.stem: np.load(path) for path in (shared / "livers").iterdir()},
    )


def prepare(
    context: RunContext, plan: CascadeTrainingPlan, stage: CascadeStage, shared: Path
) -> None:
    """Keep the regions of interest of all cases, and the predicted livers of the unlabelled."""
    settings = context.config.lesion
    networks = {
        "liver": cascade.load_stage(context, plan.folder, cascade_stages(context.targets)[0])[-1]
    }
    (shared / "livers").mkdir(parents=True, exist_ok=True)
    preparation = RoiPreparation(stage, settings, shared / "parts", networks)
    for number, case in enumerate(labelled_cases(context, preparation)):
        save_roi(case.roi, shared / "rois" / f"labelled-{number}")
    for case in context.unlabelled:
        volume = context.image(case)
        liver = predict_parent(volume, networks, context, stage)
        np.save(shared / "livers" / f"{case.id}.npy", liver)
        save_roi(build_roi(volume, stage, settings, parent=liver), shared / "rois" / case.id)
    (shared / "ready").touch()


def trained(study: Study, row: str) -> dict[str, Any]:
    """Train a row; return what predicts a case's probabilities, by source."""
    context, settings = study.context, study.context.config.lesion
    torch.manual_seed(STAGE_SEED)
    folder = study.arguments.work / row / "weights"
    plan = CascadeTrainingPlan(folder, context.config.paradigm, {}, {})
    if row.startswith("scsam"):
        sam = build_classwise(context, study.stage)
        torch.manual_seed(STAGE_SEED)
        method = CoTraining(
            lambda: build_network(study.stage, settings), settings, sam, context.config.scsam
        )
    else:
        method = default_ssl_method(context.config.paradigm, study.stage, settings)
    unlabelled = study.unlabelled if method.uses_unlabelled else []
    training = cascade._StageTraining(
        f"{plan.name}-{study.stage.name}",
        folder,
        study.stage,
        plan.settings(context.config, study.stage),
    )
    cascade._fit(context, training, method, (study.labelled, unlabelled))
    network = method.average.eval()
    found: dict[str, Any] = {"unet": lambda _, roi, __: by_network(network, roi, context)}
    if isinstance(method, CoTraining):
        found["sam"] = BySam(study, network, method)
    return found


def by_network(network: nn.Module, roi: Roi, context: RunContext) -> Float32:
    """Return (D, H, W) probabilities; mirror images are left out to save time."""
    settings = context.config.lesion.model_copy(update={"mirror": False})
    return to_volume(predict_roi(network, roi, settings, context.device)[1:], roi)[0]


class BySam:
    """SAM's probabilities of a case, prompted from the U-Net's map."""

    def __init__(self, study: Study, network: nn.Module, method: CoTraining) -> None:
        self.study, self.network = study, network
        self.device = study.context.device
        self.sams = {study.stage.name: method.sam_predictor.eval()}
        self.roi: Roi | None = None
        self.liver: Mask | None = None

    def predict_stages(self, volume: Volume, _: object) -> list[StagePrediction]:
        if self.roi is None:
            return []
        settings = self.study.context.config.lesion.model_copy(update={"mirror": False})
        classes = predict_roi(self.network, self.roi, settings, self.device)
        return [StagePrediction(self.study.stage, self.roi, classes, self.liver, {})]

    def __call__(self, volume: Volume, roi: Roi, liver: Mask) -> Float32:
        self.roi, self.liver = roi, liver
        predictor = ClasswisePredictor(self, self.sams, self.study.context.config)  # type: ignore[arg-type]
        prompts = predictor.propose_prompts(volume, {}, self.study.stage.targets)
        return predictor.predict(volume, prompts)["tumour"]


def score(study: Study, row: str, predict: Any) -> None:
    cases: list[dict[str, Any]] = []
    candidates: list[dict[str, Any]] = []
    for case in study.unlabelled:
        number = int(case.case_id.removeprefix("lits-"))
        volume = study.context.image(study.context.project.case(case.case_id))
        liver = study.livers[case.case_id]
        probability = predict(volume, case.roi, liver) * within_reach(liver, volume)
        voxel_ml = volume.geometry.voxel_ml
        least = max(1, round(study.context.config.min_component_ml / voxel_ml))
        found = drop_small(probability > 0.5, least)
        path = study.arguments.data / f"segmentation-{number}.nii.gz"
        truth = axial_labelmap(read_labelmap(path)).labels == 2
        lesions = Lesions.of(truth, voxel_ml)
        low = lesions.candidates(probability > CANDIDATE_THRESHOLD, probability)
        candidates += [{"case": number, **one} for one in low]
        of_case = lesions.candidates(found, probability)
        cases.append(
            {
                "case": number,
                "tumour_dice": round(dice(found, truth), 4),
                "lesions": len(lesions.required),
                "found": len({hit for one in of_case for hit in hits_of(one)}),
                "false": sum(one["false"] for one in of_case),
                "true_ml": round(np.count_nonzero(truth) * voxel_ml, 2),
                "found_ml": round(np.count_nonzero(found) * voxel_ml, 2),
            }
        )
    (study.arguments.work / row).mkdir(exist_ok=True)
    write_table(study.arguments.work / row / "candidates.csv", candidates)
    write_table(study.arguments.work / row / "cases.csv", cases)


def summary(folder: Path) -> str:
    cases, candidates = read_table(folder / "cases.csv"), read_table(folder / "candidates.csv")
    tumour = np.mean([float(c["tumour_dice"]) for c in cases])
    with_tumour = np.mean([float(c["tumour_dice"]) for c in cases if float(c["true_ml"]) > 0])
    false = np.mean([float(c["false"]) for c in cases])
    found, lesions = (sum(int(c[name]) for c in cases) for name in ("found", "lesions"))
    curve = " / ".join(str(found_at(candidates, len(cases), rate)) for rate in (0.5, 1, 2))
    return (
        f"{folder.name}: tumour {tumour:.3f} (with tumour {with_tumour:.3f}), found {found} of "
        f"{lesions} with {false:.1f} false a case; at 0.5 / 1 / 2 false a case {curve}"
    )


class Terms:
    """The terms of the loss over the schedule."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    def listen(self, event: Event) -> None:
        if isinstance(event, Metric):
            self.values[event.name][10 * event.step // self.steps].append(event.value)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {"term": name, **{f"tenth_{n}": round(float(np.mean(of[n])), 5) for n in sorted(of)}}
            for name, of in self.values.items()
        ]

    def shares(self) -> str:
        return ", ".join(
            f"{name} {np.mean([v for n in range(5, 10) for v in of[n]]):.3f}"
            for name, of in self.values.items()
            if name.startswith("share")
        )


if __name__ == "__main__":
    main()
