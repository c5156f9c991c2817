"""Whether the demonstration's gains are real: its settings on several sets of phantoms.

    python Testing/benchmarks/demo_study.py --work local/demo --seeds 0 1 2 --test 4

For each seed this draws a set of phantoms as `aslseg demo` does, with further ones for testing, on
which nothing is chosen, and runs the preset `demo` with that seed. Prints the processor time of
each task, and mean Dice and lesions of each source of each round on validation and test phantoms.
Sets that are done are kept in `<work>` and not run again; one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from aslseg.cli.demo import LABELLED, UNLABELLED, VALIDATION
from aslseg.cli.settings import changed
from aslseg.data.phantom.dataset import write_phantom_dataset
from aslseg.events import Event, Monitor, Progress
from aslseg.presets import read_preset
from aslseg.project.create import create_project, select_cases
from aslseg.project.datasets import cases_from_folder
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder, open_run
from aslseg.project.run_tables import Score, read_scores
from aslseg.runs import resume_run, start_run


class Stopwatch:
    """Adds up the processor time of tasks, by the events in which they begin."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._task, self._began = "start", time.process_time()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.task != self._task:
            now = time.process_time()
            self.seconds[self._task] += now - self._began
            self._task, self._began = event.task, now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--test", type=int, default=4, help="further phantoms of each set")
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scores = []
    for seed in arguments.seeds:
        run = run_of(arguments, seed)
        scores += [score for number in run.rounds for score in read_scores(run.round(number))]
    show(scores)


def run_of(arguments: argparse.Namespace, seed: int) -> RunFolder:
    project = project_of(arguments.work / f"set-{seed}", seed, arguments.test)
    is_begun = (project.folder / "runs" / "demo" / "config.json").exists()
    if is_begun and open_run(project.folder, "demo").state == "done":
        return open_run(project.folder, "demo")
    config = changed(read_preset("demo"), [f"seed={seed}", *arguments.set])
    watch, began = Stopwatch(), time.process_time()
    if is_begun:
        run = resume_run(project, "demo", Monitor(watch))
    else:
        run = start_run(project, config, Monitor(watch), "demo")
    for task, seconds in watch.seconds.most_common():
        print(f"{seconds:7.1f} s  {task}")
    print(f"{time.process_time() - began:7.1f} s  set {seed} in all", flush=True)
    return run


def project_of(folder: Path, seed: int, test: int) -> Project:
    if (folder / "project" / "project.json").exists():
        return open_project(folder / "project")
    data = write_phantom_dataset(
        folder / "data",
        cases=LABELLED + UNLABELLED + VALIDATION + test,
        labelled=LABELLED,
        validation=VALIDATION + test,
        seed=seed,
    )
    held_out = data.validation
    chosen = select_cases(
        cases_from_folder(data.images, data.labels),
        labelled=data.labelled,
        validation=held_out[:VALIDATION],
        test=held_out[VALIDATION:],
    )
    return create_project(folder / "project", chosen, preset="demo")


def show(scores: list[Score]) -> None:
    """Print a Markdown table, a line for each split, round and source."""

    def place(score: Score) -> tuple[str, int, str, str]:
        return score.split, score.round, score.source, score.target

    print("\n| phantoms | round | source | target | Dice | scores | found | false |")
    print("|---|---|---|---|---|---|---|---|")
    for (split, number, source, target), group in groupby(sorted(scores, key=place), key=place):
        rows = list(group)
        dice = np.array([row.dice for row in rows])
        found = sum(row.lesions_found for row in rows)
        true = sum(row.lesions_true for row in rows)
        false = sum(row.false_positives for row in rows) / len(rows)
        print(
            f"| {split} | {number} | {source} | {target} | {dice.mean():.3f} ± {dice.std():.3f} "
            f"| {len(rows)} | {found}/{true} | {false:.1f} |"
        )


if __name__ == "__main__":
    main()
