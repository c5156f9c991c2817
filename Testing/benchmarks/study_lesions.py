"""Lesions that each stage of a finished run of `lits_study.py` finds, from the label maps it wrote.

    python Testing/benchmarks/study_lesions.py local/study/A-labelled-2 aslseg-0 --data <lits>

Prints, by round, split and prediction, lesions from 0.5 ml that are found, false ones a case, and
Dice, by the scores of `lesion_candidates.py`. Hidden labels are opened here alone.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from lesion_candidates import scores, summary
from lits_study import label_maps

from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap
from aslseg.project.project import open_project
from aslseg.project.run_folder import open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    project, run = open_project(arguments.project), open_run(arguments.project, arguments.run)
    for number in run.rounds:
        rows: dict[tuple[str, str], list[dict]] = defaultdict(list)
        for case in [*project.unlabelled, *project.test]:
            file = f"segmentation-{case.id.removeprefix('lits-')}.nii.gz"
            truth = axial_labelmap(read_labelmap(arguments.data / file))
            for source, path in label_maps(run.round(number), case.id):
                found = axial_labelmap(read_labelmap(path))
                rows[case.split, source].append(scores(found, truth))
        for (split, source), of_source in rows.items():
            print(f"round {number}, {split} ({len(of_source)}), {summary(source, of_source)}")


if __name__ == "__main__":
    main()
