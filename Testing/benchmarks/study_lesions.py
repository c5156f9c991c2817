"""Lesions that each stage of a finished run of `lits_study.py` finds, from the label maps it wrote.

    python Testing/benchmarks/study_lesions.py local/study/A-labelled-2 aslseg-0 --data <lits>

Prints, by round, split and prediction, lesions from 0.5 ml that are found, false ones a case, and
Dice, by the scores of `lesion_candidates.py`. Hidden labels are opened here alone. With `--rule`
test cases are segmented again, and what the benchmark's false-positive rule leaves is scored too.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from lesion_candidates import scores, summary
from lits_study import label_maps, truth_path

from aslseg.benchmark.scoring import CasePrediction, with_lesion_rule
from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap
from aslseg.data.volume import Labelmap
from aslseg.inference.loading import load_ensemble
from aslseg.networks.device import tune_allocator
from aslseg.project.case import Case
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder, open_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("run")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rule", action="store_true")
    arguments = parser.parse_args()
    project, run = open_project(arguments.project), open_run(arguments.project, arguments.run)
    if arguments.rule:
        print(f"test, {summary('the rule', rule_scores(project, run, arguments.data))}")
    for number in run.rounds:
        rows: dict[tuple[str, str], list[dict]] = defaultdict(list)
        for case in [*project.unlabelled, *project.test]:
            truth = truth_of(case, arguments.data)
            for source, path in label_maps(run.round(number), case.id):
                found = axial_labelmap(read_labelmap(path))
                rows[case.split, source].append(scores(found, truth))
        for (split, source), of_source in rows.items():
            print(f"round {number}, {split} ({len(of_source)}), {summary(source, of_source)}")


def truth_of(case: Case, data: Path) -> Labelmap:
    return axial_labelmap(read_labelmap(truth_path(data, case.id)))


def rule_scores(project: Project, run: RunFolder, data: Path) -> list[dict]:
    """Return the scores of test cases as the run segments them, without what the rule drops."""
    torch.set_num_threads(1)
    tune_allocator()
    ensemble = load_ensemble(run)
    rows = []
    for case in project.test:
        found = ensemble.segment(project.load_image(case))
        ruled = with_lesion_rule(
            CasePrediction(found.refined, found.probabilities), project.targets
        )
        rows.append(scores(axial_labelmap(ruled.labels), truth_of(case, data)))
    return rows


if __name__ == "__main__":
    main()
