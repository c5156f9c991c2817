"""SemiSAM and its teacher on the left atrium with one label: Docs/studies/results-methods.md.

    python Testing/benchmarks/atrium_study.py --data ../shared/data/left_atrium \
        --work local/atrium --arms mean_teacher semisam --seeds 0 1

Of the ten volumes, in order of their names, the first is labelled, the next six are not, the last
three are for testing. Scores are of the last round on the test cases, and on the unlabelled ones
against labels that are opened here, after the run, and nowhere else.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import torch
from study_runs import finished_run

from aslseg.cli.settings import changed
from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap
from aslseg.evaluation.scores import score_rows
from aslseg.networks.device import tune_allocator
from aslseg.presets import PUBLISHED_METHODS
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import METRIC_COLUMNS, read_table
from aslseg.targets import Target

ATRIUM = (Target(name="atrium", value=1),)
ARMS = {
    "supervised": {"method": "specialist", "paradigm": "supervised"},
    "mean_teacher": {"method": "specialist", "paradigm": "mean_teacher"},
    "semisam": {"method": "semisam", "paradigm": "mean_teacher"},
    "uncertainty_aware": {"method": "specialist", "paradigm": "uncertainty_aware"},
    "semisam_uncertainty_aware": {"method": "semisam", "paradigm": "uncertainty_aware"},
    "scsam": {"method": "scsam"},
}
STAGE = {
    "iterations": 800,
    "batch_size": 4,
    "patch_size": 64,
    "unlabelled_loss": "published",
    "consistency_weight": 1.0,
    "lesion_share": 0.5,
    "network": {"channels": (16, 32, 64, 128), "dropout": 0.1},
    "roi": {"pixel_mm": 1.25, "slice_mm": 1.25, "context_mm": 1.25, "window_hu": (0.0, 255.0)},
}
SETTINGS = {
    "rounds": 1,
    "device": "cpu",
    "sam": {"model": "vit_t", "input_size": 256, "window_hu": (0.0, 255.0)},
    "semisam": {**PUBLISHED_METHODS["semisam"], "clicks": 3},
    "scsam": dict(PUBLISHED_METHODS["scsam"]),
}


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    project = study_project(arguments)
    for seed in arguments.seeds:
        for arm in arguments.arms:
            experiment(arguments, project, arm, seed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=["mean_teacher", "semisam"], choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--dimensions", type=int, default=2, choices=[2, 3])
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    parser.add_argument("--name", default="", help="added to the names of the rows")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def study_project(arguments: argparse.Namespace) -> Project:
    folder = arguments.work / "project"
    if (folder / "project.json").exists():
        return open_project(folder)
    images = sorted(arguments.data.resolve().glob("*_image.nii.gz"))
    files = [
        CaseFiles(
            id=f"la-{number}",
            image=image,
            label=truth_of(image) if number == 0 or number >= 7 else None,
            split="test" if number >= 7 else "train",
        )
        for number, image in enumerate(images)
    ]
    return create_project(folder, files, ATRIUM)


def truth_of(image: Path) -> Path:
    return image.with_name(image.name.replace("_image", "_label"))


def experiment(arguments: argparse.Namespace, project: Project, arm: str, seed: int) -> None:
    name = f"{arm}-{arguments.dimensions}d{arguments.name}"
    table = arguments.work / f"{name}-{seed}.csv"
    if table.exists():
        return
    began = time.perf_counter()
    run = finished_run(project, settings(arguments, arm, seed), f"{name}-{seed}")
    rows = read_table(run.round(1) / "metrics.csv") + unlabelled_scores(run, project, arguments)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "seed", *METRIC_COLUMNS])
        writer.writeheader()
        writer.writerows([{**row, "name": name, "seed": seed} for row in rows])
    print(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    for split in ("test", "unlabelled"):
        for source in ("specialist", "sam", "refined"):
            found = [float(r["dice"]) for r in rows if (r["split"], r["source"]) == (split, source)]
            if found:
                each = " ".join(f"{value:.3f}" for value in found)
                print(f"  {split} {source}: {sum(found) / len(found):.3f} ({each})", flush=True)


def settings(arguments: argparse.Namespace, arm: str, seed: int) -> RunConfig:
    network = {**STAGE["network"], "dimensions": arguments.dimensions}
    values = {**SETTINGS, **ARMS[arm], "seed": seed, "organ": {**STAGE, "network": network}}
    return changed(RunConfig.model_validate(values), arguments.set)


def unlabelled_scores(
    run: RunFolder, project: Project, arguments: argparse.Namespace
) -> list[dict]:
    """Score the unlabelled cases against labels that no run has seen."""
    rows: list[dict] = []
    images = sorted(arguments.data.resolve().glob("*_image.nii.gz"))
    for case in project.unlabelled:
        truth = read_labelmap(truth_of(images[int(case.id.removeprefix("la-"))]))
        for source in ("specialist", "sam", "refined"):
            path = run.round(1) / "predictions" / case.id / f"{source}.nii.gz"
            if path.exists():
                facts = {"round": 1, "source": source, "split": "unlabelled", "case": case.id}
                rows += score_rows(read_labelmap(path), truth, project.targets, facts)
    return rows


if __name__ == "__main__":
    main()
