"""The study of Docs/results.md: ASLseg's stages on LiTS with 2, 4 or 8 labelled volumes.

    python Testing/benchmarks/lits_study.py --data ../shared/data/lits --work local/study \
        --labelled 4 --seeds 0

For each number of labelled volumes and seed this makes a project that names no hidden label, runs a
method with a preset, and scores all predictions of all rounds: on the validation cases, and on the
unlabelled cases against labels that are opened here, after the run, and nowhere else. Rows are
written to a table in `<work>` for each run; those that are there already are skipped.

With `--blind` the validation cases are test cases whose label map the project does not name:
nothing is chosen on them, and they are scored after the run like the unlabelled ones.
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

from aslseg.cli.runs import changed
from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap
from aslseg.evaluation.scores import score_rows
from aslseg.networks.device import tune_allocator
from aslseg.presets import read_preset
from aslseg.project.case import CaseFiles, Split
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import METRIC_COLUMNS, PREDICTIONS, read_table


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    splits = json.loads((arguments.data / "splits.json").read_text(encoding="utf-8"))
    for labelled in arguments.labelled:
        for seed in arguments.seeds:
            experiment(arguments, splits, labelled, seed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--labelled", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--name", default="aslseg", help="name of this row of the study")
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    parser.add_argument("--blind", action="store_true", help="keep no case for validation")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def experiment(arguments: argparse.Namespace, splits: dict, labelled: int, seed: int) -> None:
    name = "blind-" * arguments.blind + arguments.name
    table = arguments.work / f"study-{name}-{labelled}-{seed}.csv"
    if table.exists():
        return
    began = time.perf_counter()
    config = settings(arguments, seed)
    project = study_project(arguments, splits, labelled)
    run = finished_run(project, config, f"{arguments.name}-{seed}")
    rows = scores(run, project, arguments.data, splits)
    for row in rows:
        row.update(name=arguments.name, labelled=labelled, seed=seed)
    columns = ["name", "labelled", "seed", *METRIC_COLUMNS]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{table.name}: {time.perf_counter() - began:.0f} s")


def settings(arguments: argparse.Namespace, seed: int) -> RunConfig:
    return changed(read_preset(arguments.preset), [*arguments.set, f"seed={seed}"])


def study_project(arguments: argparse.Namespace, splits: dict, labelled: int) -> Project:
    folder = arguments.work / f"labelled-{labelled}{'-blind' * arguments.blind}"
    if (folder / "project.json").exists():
        return open_project(folder)
    shown = set(splits["labelled_order"][:labelled])
    if labelled >= len(splits["training"]):
        shown = set(splits["training"])
    if not arguments.blind:
        shown |= set(splits["validation"])
    held_out: Split = "test" if arguments.blind else "validation"
    files = [
        CaseFiles(
            id=f"lits-{number}",
            image=(arguments.data / f"volume-{number}.nii.gz").resolve(),
            label=(arguments.data / f"segmentation-{number}.nii.gz").resolve()
            if number in shown
            else None,
            split=held_out if number in splits["validation"] else "train",
        )
        for number in [*splits["training"], *splits["validation"]]
    ]
    return create_project(folder, files)


def scores(run: RunFolder, project: Project, data: Path, splits: dict) -> list[dict]:
    """Collect the validation scores of all rounds, and score the unlabelled cases."""
    rows: list[dict] = []
    hidden = [*project.unlabelled, *project.test]
    for number in run.rounds:
        rows += read_table(run.round(number) / "metrics.csv")
        for case in hidden:
            split = "unlabelled" if case.split == "train" else "test"
            truth = read_labelmap(data / f"segmentation-{case.id.removeprefix('lits-')}.nii.gz")
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
