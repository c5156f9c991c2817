"""Where tumours are lost in a study of `lits_study.py`, and how often the loop helps.

    python Testing/benchmarks/study_losses.py --data ../shared/data/lits --work local/study

For each run: in how many cases the refined label beats the specialist's, and tumour Dice as it is
and as it would be without what is called tumour outside of the true liver. True labels of
unlabelled cases are opened here, after the run, and nowhere else.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

from lits_study import truth_path

from aslseg.data.images import read_labelmap
from aslseg.evaluation.metrics import dice
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, open_run

LIVER, TUMOUR = 1, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    chosen = parser.parse_args()
    for table in sorted(chosen.work.glob("study-*-aslseg-*.csv")):
        draw, _, labelled, seed = table.stem.split("-")[1:]
        project = open_project(chosen.work / f"{draw}-labelled-{labelled}")
        run = open_run(project.folder, f"aslseg-{seed}")
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        parts = (("test", project.test), ("unlabelled", project.unlabelled))
        for number in run.rounds:
            title = f"draw {draw}, {labelled} labelled, seed {seed}, round {number}"
            for split, cases in parts:
                names = [case.id for case in cases]
                print(f"{title}, {split}: {wins(rows, number, split)}")
                print(f"    {losses(chosen.data, run, number, names)}")


def wins(rows: list[dict[str, str]], number: int, split: str) -> str:
    """Count the cases in which the refined label is better, and worse, than the specialist's."""
    here = [r for r in rows if r["round"] == str(number) and r["split"] == split]
    scores = {(r["source"], r["target"], r["case"]): float(r["dice"]) for r in here}
    parts = []
    for target in ("liver", "tumour"):
        cases = [case for stage, name, case in scores if (stage, name) == ("refined", target)]
        gains = [scores["refined", target, c] - scores["specialist", target, c] for c in cases]
        better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        parts.append(f"{target} better in {better} of {len(gains)}, worse in {worse}")
    return "; ".join(parts)


def losses(data: Path, run: RunFolder, number: int, names: list[str]) -> str:
    """Score tumours as they are, and without what lies outside of the true liver."""
    plain, inside, outside = [], [], []
    for name in names:
        truth = read_labelmap(truth_path(data, name)).labels
        predicted = read_labelmap(
            run.round(number) / "predictions" / name / "refined.nii.gz"
        ).labels
        false = (predicted == TUMOUR) & (truth != TUMOUR)
        plain.append(dice(predicted == TUMOUR, truth == TUMOUR))
        inside.append(dice((predicted == TUMOUR) & (truth >= LIVER), truth == TUMOUR))
        share = (false & (truth < LIVER)).sum() / max(false.sum(), 1)
        outside.append(f"{name} {share:.0%} of {false.sum()}")
    as_it_is, in_liver = statistics.fmean(plain), statistics.fmean(inside)
    means = f"tumour {as_it_is:.3f}, in the true liver {in_liver:.3f}"
    return f"{means}; false voxels outside of it: {', '.join(outside)}"


if __name__ == "__main__":
    main()
