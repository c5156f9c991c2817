r"""Each prediction of each round of benchmark runs, scored alone, for Docs/results-benchmark.md.

    python Testing/benchmarks/round_scores.py --data <lits> \
        results-800/projects/labelled-2/runs/aslseg-*

Prints mean Dice over the held-out volumes, and the volume that is found in each of them. Their
labels are opened here, after the run, and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from aslseg.benchmark.data import BenchmarkData, choose_data
from aslseg.benchmark.experiments import held_out_rows
from aslseg.project.datasets import cases_from_folder
from aslseg.project.run_tables import PREDICTIONS
from aslseg.targets import LIVER_TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    chosen = parser.parse_args()
    data = lits(chosen.data)
    for run in chosen.runs:
        print(run)
        print_scores(data, run)


def lits(folder: Path) -> BenchmarkData:
    """Give the volumes of the study their parts in the benchmark."""
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    names = {key: [f"volume-{n}" for n in splits[key]] for key in ("validation", "labelled_order")}
    cases = cases_from_folder(folder)
    return choose_data(cases, names["validation"], names["labelled_order"], LIVER_TARGETS)


def print_scores(data: BenchmarkData, run: Path) -> None:
    """Print a line for each round, source and target of a run."""
    for folder in sorted(run.glob("round-*/predictions")):
        for source in PREDICTIONS:
            if not (folder / data.held_out[0] / f"{source}.nii.gz").exists():
                continue
            rows = held_out_rows(
                data, lambda case, of=folder, by=source: of / case / f"{by}.nii.gz"
            )
            for target in data.targets:
                these = [row for row in rows if row["target"] == target.name]
                dice = statistics.mean(float(row["dice"]) for row in these)
                volumes = " ".join(f"{float(row['volume_ml']):.0f}" for row in these)
                place = f"{folder.parent.name} {source} {target.name}"
                print(f"    {place}: {dice:.3f}  {volumes} ml", flush=True)


if __name__ == "__main__":
    main()
