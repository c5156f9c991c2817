"""ASLseg's stages on LiTS with 1, 2 or 4 labelled volumes, by patient (`protocol_2`).

    python Testing/benchmarks/lits_study.py --data ../shared/data/lits --work local/study \
        --draw A --labelled 2 --seeds 0

For each number of labelled volumes and seed this makes a project that names no hidden label, runs a
method with a preset, and scores all predictions of all rounds on the unlabelled cases and on the
test cases, against labels that are opened here, after the run, and nowhere else: nothing is chosen
on them. The volumes that are labelled are the first of the draw; another volume of their patients
is left out. Rows are written to a table in `<work>` for each run; those that are there already are
skipped. Docs/studies/results-earlier.md was made at earlier commits, whose split it names.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from study_runs import finished_run

from aslseg.cli.settings import changed
from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap
from aslseg.evaluation.scores import score_rows
from aslseg.networks.device import tune_allocator
from aslseg.presets import read_preset
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import METRIC_COLUMNS, PREDICTIONS


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    splits = json.loads((arguments.data / "splits.json").read_text(encoding="utf-8"))
    splits = splits["protocol_2"]
    for labelled in arguments.labelled:
        for seed in arguments.seeds:
            experiment(arguments, splits, labelled, seed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--draw", default="A")
    parser.add_argument("--labelled", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--name", default="aslseg", help="name of this row of the study")
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def experiment(arguments: argparse.Namespace, splits: dict, labelled: int, seed: int) -> None:
    name = f"{arguments.draw}-{arguments.name}-{labelled}-{seed}"
    table = arguments.work / f"study-{name}.csv"
    if table.exists():
        return
    began = time.perf_counter()
    config = settings(arguments, seed)
    project = study_project(arguments, splits, labelled)
    run = finished_run(project, config, f"{arguments.name}-{seed}")
    rows = scores(run, project, arguments.data)
    for row in rows:
        row.update(draw=arguments.draw, name=arguments.name, labelled=labelled, seed=seed)
    columns = ["draw", "name", "labelled", "seed", *METRIC_COLUMNS]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{table.name}: {time.perf_counter() - began:.0f} s")


def settings(arguments: argparse.Namespace, seed: int) -> RunConfig:
    return changed(read_preset(arguments.preset), [*arguments.set, f"seed={seed}"])


def study_project(arguments: argparse.Namespace, splits: dict, labelled: int) -> Project:
    folder = arguments.work / f"{arguments.draw}-labelled-{labelled}"
    if (folder / "project.json").exists():
        return open_project(folder)
    draw, training = splits["draws"][arguments.draw], splits["training"]
    shown = training if labelled >= len(training) else draw[:labelled]
    patients = {volume: patient for patient, all_ in splits["patients"].items() for volume in all_}
    known = {patients.get(number, str(number)) for number in shown}
    files = [
        CaseFiles(
            id=f"lits-{number}",
            image=(arguments.data / f"volume-{number}.nii.gz").resolve(),
            label=(arguments.data / f"segmentation-{number}.nii.gz").resolve()
            if number in shown
            else None,
            split="test" if number in splits["test"] else "train",
            patient=f"lits-{patients.get(number, number)}",
        )
        for number in [*training, *splits["test"]]
        if number in shown or patients.get(number, str(number)) not in known
    ]
    return create_project(folder, files)


def truth_path(data: Path, case_id: str) -> Path:
    """Return the file of the label map of a case, which no project names while it is hidden."""
    return data / f"segmentation-{case_id.removeprefix('lits-')}.nii.gz"


def scores(run: RunFolder, project: Project, data: Path) -> list[dict]:
    """Score the unlabelled and the test cases of all rounds."""
    rows: list[dict] = []
    hidden = [*project.unlabelled, *project.test]
    for number in run.rounds:
        for case in hidden:
            split = "unlabelled" if case.split == "train" else "test"
            truth = read_labelmap(truth_path(data, case.id))
            for source, path in label_maps(run.round(number), case.id):
                facts = {"round": number, "source": source, "split": split, "case": case.id}
                rows += score_rows(read_labelmap(path), truth, project.targets, facts)
    return rows


def label_maps(folder: Path, case_id: str) -> Iterator[tuple[str, Path]]:
    """Give each label map that a round has of an unlabelled case; `accepted` if it was."""
    files = {
        source: folder / "predictions" / case_id / f"{source}.nii.gz" for source in PREDICTIONS
    }
    files["accepted"] = folder / "pseudo" / f"{case_id}.nii.gz"
    for source, path in files.items():
        if path.exists():
            yield source, path


if __name__ == "__main__":
    main()
