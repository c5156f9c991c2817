"""Where does the time of a training go? Seconds of each stage, for Docs/studies/performance.md.

    python Testing/benchmarks/round_stages.py FOLDER --data LITS --share 0.3

Trains the preset `quick`, all schedules cut to a share, on LiTS volumes 4 and 33 with labels,
0 and 5 without, and 16 to validate on. FOLDER keeps project and run; a run that is there is gone on
with, so two versions can be compared from copies of one folder. What is planned for each step comes
first, by the measured speed of this computer. A row appears when a stage ends: processor seconds
since the row before, seconds by the clock, and what has ended. `--profile N` adds the N functions
of the main thread that took longest, by processor time.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from pathlib import Path

import torch
from study_runs import finished_run

from aslseg.cli.settings import changed
from aslseg.config import RunConfig
from aslseg.networks.device import tune_allocator
from aslseg.presets import read_preset
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import Project, open_project
from aslseg.training.calibration import measure_speed
from aslseg.training.run_plan import planned_steps, trained_stages

LABELLED, UNLABELLED, VALIDATION = (4, 33), (0, 5), 16


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    tune_allocator()
    project = project_in(arguments.folder / "project", arguments.data)
    profile = cProfile.Profile(time.thread_time)
    if arguments.profile:
        profile.enable()
    config = changed(shortened(arguments.share, arguments.rounds), arguments.set)
    print_plan(project, config)
    finished_run(project, config, "stages", timed=True)
    profile.disable()
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(arguments.profile)


def print_plan(project: Project, config: RunConfig) -> None:
    stage = trained_stages(project)[0]
    speed = measure_speed(config, stage, torch.device("cpu"))
    for step in planned_steps(config, project, speed):
        each = f"{step.units} of {1000 * step.unit_s:.0f} ms, {step.before_s:.1f} s before"
        print(f"planned: {step.task}: {each}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="volume-N and segmentation-N")
    parser.add_argument("--share", type=float, default=1.0, help="of all schedules")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--profile", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    return parser.parse_args()


def project_in(folder: Path, data: Path) -> Project:
    if folder.exists():
        return open_project(folder)
    files = [
        CaseFiles(f"c{n}", data / f"volume-{n}.nii.gz", data / f"segmentation-{n}.nii.gz")
        for n in (*LABELLED, *UNLABELLED, VALIDATION)
    ]
    labelled = [f"c{n}" for n in LABELLED]
    cases = select_cases(files, labelled=labelled, validation=(f"c{VALIDATION}",), test=())
    return create_project(folder, cases)


def shortened(share: float, rounds: int) -> RunConfig:
    config = read_preset("quick")
    parts = {
        name: group.model_copy(update={"iterations": max(1, round(group.iterations * share))})
        for name, group in (
            ("organ", config.organ),
            ("lesion", config.lesion),
            ("sam", config.sam),
            ("adaptation", config.adaptation),
        )
    }
    return config.model_copy(update={**parts, "rounds": rounds})


if __name__ == "__main__":
    main()
