"""Train the specialist alone on a draw of LiTS, and score it on the draw's unlabelled volumes.

    python Testing/benchmarks/specialist.py --work local/specialist --name quick --draw A
    python Testing/benchmarks/specialist.py --work local/specialist --name longer \
        --set organ.iterations=3000
    python Testing/benchmarks/specialist.py --work local/specialist --name pair --volumes 33 37
    python Testing/benchmarks/specialist.py --work local/sparse --name five --labelled 4 --slices 5

The first `--labelled` volumes of a draw (`protocol_2` of splits.json), or `--volumes`, are trained
on, with the schedule of a preset and changes to it. The other training volumes are segmented by the
trained cascade, no true liver given, and scored against labels that are opened here, after the
training. Another volume of a labelled patient is neither trained on nor scored.

With `--slices` each labelled volume shows so many of its slices, evenly over the liver, and where
there is one an empty slice above and one below; these alone are marked as complete, and the label
map is empty elsewhere.

Written to `<work>/<name>/`: `cases.csv` (Dice, lesions from 0.5 ml found, false ones),
`candidates.csv` (connected parts of the tumours' probability above 0.2 with their peak, from which
the free-response curve is read), and `seconds.json` (processor time by task).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from even_slices import even_slices

from aslseg.cli.settings import changed
from aslseg.context import RunContext
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.masks import label_components
from aslseg.data.orientation import axial_labelmap, to_axial
from aslseg.data.volume import Float32, Labelmap, Labels, Mask
from aslseg.evaluation.metrics import dice
from aslseg.events import Event, Monitor, Notice, Progress
from aslseg.inference.cascade import Specialist
from aslseg.inference.postprocessing import labels_from
from aslseg.networks.device import choose_device, tune_allocator
from aslseg.presets import read_preset
from aslseg.project.case import Case, CaseFiles
from aslseg.project.complete_slices import mark_slice_complete
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import create_run
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade

LEAST_ML = 0.5
"""Lesions below are neither required nor false."""

MIN_OVERLAP = 0.1
"""Of a lesion's voxels, for it to be found; of a candidate's, not to be false."""

CANDIDATE_THRESHOLD = 0.2


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    project = study_project(arguments)
    folder = arguments.work / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    clock = Clock()
    context = run_context(arguments, project, clock)
    plan = CascadeTrainingPlan(
        folder=folder / "weights", ssl_name=context.config.paradigm, pseudo={}, start={}
    )
    specialist = train_cascade(context, plan).specialist
    clock.charge("rest of the training")
    score(arguments, context.unlabelled, by_specialist(context, specialist), clock)
    clock.write(folder / "seconds.json")
    print(summary(folder, clock))


def parse() -> argparse.Namespace:
    parser = common_arguments(__doc__)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    return parser.parse_args()


def common_arguments(description: str) -> argparse.ArgumentParser:
    shared = Path(os.environ.get("ASLSEG_SHARED", "../shared"))
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, default=shared / "data" / "lits")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of this row of the comparison")
    parser.add_argument("--draw", default="A")
    parser.add_argument("--labelled", type=int, default=2)
    parser.add_argument("--volumes", type=int, nargs="*", help="to label, in place of a draw's")
    parser.add_argument("--slices", type=int, help="of each labelled volume; all without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser


@dataclass(frozen=True, slots=True)
class Volumes:
    """Numbers of the volumes that are trained on, and of those that are scored."""

    labelled: tuple[int, ...]
    scored: tuple[int, ...]


def volumes_of(arguments: argparse.Namespace) -> Volumes:
    protocol = json.loads((arguments.data / "splits.json").read_text(encoding="utf-8"))[
        "protocol_2"
    ]
    labelled = arguments.volumes or protocol["draws"][arguments.draw][: arguments.labelled]
    same_patient = {
        volume
        for volumes in protocol["patients"].values()
        if set(volumes) & set(labelled)
        for volume in volumes
    }
    scored = [n for n in protocol["training"] if n not in {*labelled, *same_patient}]
    return Volumes(tuple(labelled), tuple(scored))


def study_project(arguments: argparse.Namespace) -> Project:
    volumes = volumes_of(arguments)
    sparse = "" if arguments.slices is None else f"-{arguments.slices}-slices"
    drawn = arguments.volumes or [arguments.draw, arguments.labelled]
    folder = arguments.work / f"project-{'-'.join(map(str, drawn))}{sparse}"
    if (folder / "project.json").exists():
        return open_project(folder)
    files = [
        CaseFiles(
            id=f"lits-{n}",
            image=(arguments.data / f"volume-{n}.nii.gz").resolve(),
            label=shown_label(arguments, n) if n in volumes.labelled else None,
            split="train",
        )
        for n in [*volumes.labelled, *volumes.scored]
    ]
    project = create_project(folder, files)
    for n in volumes.labelled if arguments.slices else ():
        for k in shown_slices(read_labelmap(label_file(arguments, n)), arguments.slices):
            project = mark_slice_complete(project, f"lits-{n}", k)
    return project


def shown_label(arguments: argparse.Namespace, number: int) -> Path:
    """Return the label map of a labelled volume; with `--slices`, one that is empty elsewhere."""
    whole = label_file(arguments, number)
    if arguments.slices is None:
        return whole
    truth = read_labelmap(whole)
    along_axis = np.moveaxis(truth.labels, axial_axis(truth), 0)
    shown = np.zeros_like(truth.labels)
    for k in shown_slices(truth, arguments.slices):
        np.moveaxis(shown, axial_axis(truth), 0)[k] = along_axis[k]
    path: Path = arguments.work / f"sparse-{arguments.slices}" / f"segmentation-{number}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labelmap(Labelmap(shown, truth.geometry), path)
    return path.resolve()


def shown_slices(truth: Labelmap, count: int) -> list[int]:
    """Return slices evenly over the liver, one half-way above it and one half-way below."""
    filled = np.moveaxis(truth.labels, axial_axis(truth), 0).any(axis=(1, 2))
    liver, chosen = np.flatnonzero(filled), set(even_slices(filled, count))
    if liver[0] > 0:
        chosen.add(int(liver[0]) // 2)
    if liver[-1] < len(filled) - 1:
        chosen.add((int(liver[-1]) + len(filled)) // 2)
    return sorted(chosen)


def axial_axis(labelmap: Labelmap) -> int:
    return to_axial(labelmap.geometry).axes[0]


def label_file(arguments: argparse.Namespace, number: int) -> Path:
    return (arguments.data / f"segmentation-{number}.nii.gz").resolve()


@dataclass
class Clock:
    """Charges processor time to the task that reported last."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    last: float = field(default_factory=time.process_time)

    def listen(self, event: Event) -> None:
        if isinstance(event, Notice):
            print(event.message, flush=True)
        if isinstance(event, Progress):
            self.charge(event.task)

    def charge(self, task: str) -> None:
        now = time.process_time()
        self.seconds[task] += now - self.last
        self.last = now

    def write(self, path: Path) -> None:
        rounded = {task: round(seconds, 1) for task, seconds in self.seconds.items()}
        path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


def run_context(arguments: argparse.Namespace, project: Project, clock: Clock) -> RunContext:
    settings = [*arguments.set, f"seed={arguments.seed}"]
    if not any(setting.startswith("paradigm=") for setting in arguments.set):
        settings.append("paradigm=supervised")
    config = changed(read_preset(arguments.preset), settings)
    run = create_run(project.folder, config, f"{arguments.name}-{time.time_ns()}")
    device = choose_device(config.device).torch_device
    return RunContext(project, config, run, device, Monitor(clock.listen))


Segment = Callable[[Case], tuple[Labels, Float32]]
"""From a case to its label map (liver 1, tumour 2) and its probability of tumour, axially."""


def by_specialist(context: RunContext, specialist: Specialist) -> Segment:
    def segment(case: Case) -> tuple[Labels, Float32]:
        volume = context.image(case)
        found = specialist.predict(volume)
        labels = labels_from(found, context.targets, volume, context.config.min_component_ml)
        return labels.labels, found["tumour"]

    return segment


def score(
    arguments: argparse.Namespace, cases: Sequence[Case], segment: Segment, clock: Clock
) -> None:
    """Segment the cases, and write what was found beside their labels, which are read here."""
    rows: list[dict[str, Any]] = []
    candidates: list[dict[str, Any]] = []
    for case in cases:
        labels, tumour = segment(case)
        clock.charge("segmenting")
        number = int(case.id.removeprefix("lits-"))
        truth = axial_labelmap(read_labelmap(label_file(arguments, number)))
        lesions = Lesions.of(truth.labels == 2, truth.geometry.voxel_ml)
        low = lesions.candidates(tumour > CANDIDATE_THRESHOLD, tumour)
        candidates += [{"case": number, **candidate} for candidate in low]
        found = lesions.candidates(labels == 2, tumour)
        rows.append(
            {
                "case": number,
                "liver_dice": round(dice(labels > 0, truth.labels > 0), 4),
                "tumour_dice": round(dice(labels == 2, truth.labels == 2), 4),
                "lesions": len(lesions.required),
                "found": len({hit for one in found for hit in hits_of(one)}),
                "false": sum(one["false"] for one in found),
                "true_ml": lesions.millilitres(truth.labels == 2),
                "found_ml": lesions.millilitres(labels == 2),
            }
        )
        clock.charge("scoring")
        print(rows[-1], flush=True)
    folder = arguments.work / arguments.name
    write_table(folder / "cases.csv", rows)
    write_table(folder / "candidates.csv", candidates)


@dataclass(frozen=True)
class Lesions:
    """The true lesions of a volume.

    Attributes:
        numbered: (D, H, W) number of the lesion at each voxel, 0 outside.
        sizes: Voxels by number.
        required: Numbers of the lesions from `LEAST_ML`.
        voxel_ml: Volume of a voxel.
    """

    numbered: np.ndarray
    sizes: np.ndarray
    required: frozenset[int]
    voxel_ml: float

    @classmethod
    def of(cls, mask: Mask, voxel_ml: float) -> Lesions:
        numbered, count = label_components(mask)
        sizes = np.bincount(numbered.ravel(), minlength=count + 1)
        large = [n for n in range(1, count + 1) if sizes[n] * voxel_ml >= LEAST_ML]
        return cls(numbered, sizes, frozenset(large), voxel_ml)

    def millilitres(self, mask: Mask) -> float:
        return round(int(mask.sum()) * self.voxel_ml, 2)

    def candidates(self, mask: Mask, probability: Float32) -> list[dict[str, Any]]:
        """Describe each connected part of a mask."""
        parts, count = label_components(mask)
        found = []
        for n in range(1, count + 1):
            inside = parts == n
            under = np.bincount(self.numbered[inside], minlength=len(self.sizes))
            hits = [m for m in self.required if under[m] >= MIN_OVERLAP * self.sizes[m]]
            found.append(
                {
                    "peak": round(float(probability[inside].max()), 4),
                    "volume_ml": round(int(inside.sum()) * self.voxel_ml, 3),
                    "false": int(under[1:].sum() < MIN_OVERLAP * inside.sum()),
                    "hits": " ".join(map(str, sorted(hits))),
                }
            )
        return found


def hits_of(candidate: dict[str, Any]) -> list[str]:
    return str(candidate["hits"]).split()


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def found_at(candidates: list[dict[str, str]], cases: int, false_per_case: float) -> int:
    """Return the lesions found where at most so many candidates a case are false.

    Candidates are taken by falling peak; those of one peak stay or go together.
    """
    ordered = sorted(candidates, key=lambda one: -float(one["peak"]))
    allowed, false, found, best = false_per_case * cases, 0, set(), 0
    for n, one in enumerate(ordered):
        false += int(one["false"])
        found |= {(one["case"], hit) for hit in hits_of(one)}
        last_of_peak = n + 1 == len(ordered) or ordered[n + 1]["peak"] != one["peak"]
        if last_of_peak and false <= allowed:
            best = len(found)
    return best


def summary(folder: Path, clock: Clock) -> str:
    cases, candidates = read_table(folder / "cases.csv"), read_table(folder / "candidates.csv")
    mean = {name: np.mean([float(c[name]) for c in cases]) for name in cases[0] if name != "case"}
    total = {name: sum(int(c[name]) for c in cases) for name in ("lesions", "found")}
    curve = " / ".join(str(found_at(candidates, len(cases), rate)) for rate in (0.5, 1, 2))
    training = sum(
        seconds for task, seconds in clock.seconds.items() if task not in ("segmenting", "scoring")
    )
    return (
        f"{folder.name}: liver {mean['liver_dice']:.3f}, tumour {mean['tumour_dice']:.3f}, "
        f"found {total['found']} of {total['lesions']} with {mean['false']:.1f} false a case; "
        f"at 0.5 / 1 / 2 false a case {curve}; {training:.0f} s of training, "
        f"{clock.seconds['segmenting']:.0f} s of segmenting\n"
        f"{json.dumps({task: round(s) for task, s in clock.seconds.items()})}"
    )


if __name__ == "__main__":
    main()
