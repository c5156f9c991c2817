"""One process of those that `torchrun` would start: a run of the tiny project, perhaps resumed.

    RANK=0 WORLD_SIZE=2 ... python rank_of_a_run.py PROJECT NOTES [DIE_AT_STEP]

NOTES gets a line for each case that this process segments. With DIE_AT_STEP the last process is
killed before that step of the first training.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from aslseg.errors import AslsegError
from aslseg.project.project import open_project
from aslseg.project.run_folder import runs_of
from aslseg.runs import resume_run, start_run
from aslseg.training import rounds, trainer
from tiny_project import ADAPTATION, SPECIALIST, tiny_config

RUN = "shared"
STAGE = SPECIALIST.model_copy(update={"iterations": 8})
CONFIG = tiny_config(
    rounds=1,
    crossfit_share=0.0,
    organ=STAGE,
    lesion=STAGE,
    adaptation=ADAPTATION.model_copy(update={"iterations": 2, "versions": 1}),
)


def main() -> None:
    torch.set_num_threads(1)
    folder, notes = Path(sys.argv[1]), Path(sys.argv[2])
    note_cases(notes)
    if len(sys.argv) > 3:
        die_at(int(sys.argv[3]))
    project = open_project(folder)
    try:
        if runs_of(folder):
            resume_run(project)
        else:
            start_run(project, CONFIG, run_id=RUN)
    except AslsegError as error:
        sys.exit(str(error))


def note_cases(notes: Path) -> None:
    save = rounds.save_predictions

    def saved(place: Path, *args: Any) -> None:
        with notes.open("a", encoding="utf-8") as file:
            file.write(f"{os.environ['RANK']} {place.name}\n")
        save(place, *args)

    rounds.save_predictions = saved


def die_at(step: int) -> None:
    generator = trainer.step_generator
    is_last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1

    def until(seed: int, number: int, *part: Any) -> torch.Generator:
        if is_last and number == step:
            os._exit(9)
        return generator(seed, number, *part)

    trainer.step_generator = until


if __name__ == "__main__":
    main()
