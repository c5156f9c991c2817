"""One process of those that `torchrun` would start: a run of the tiny project, perhaps resumed.

    RANK=0 WORLD_SIZE=2 ... python -m support.rank_of_a_run PROJECT NOTES METHOD [DIE_AT_STEP]

NOTES gets a line for each training that this process takes part in, with a digest of the weights in
the end, and for each case that it segments. With DIE_AT_STEP the last process is killed before that
step of the first training.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aslseg.config import (
    CpcSamConfig,
    PromptConfig,
    RunConfig,
    SamConfig,
    ScSamConfig,
    SemiSamConfig,
)
from aslseg.errors import AslsegError
from aslseg.project.project import open_project
from aslseg.project.run_folder import runs_of
from aslseg.runs import resume_run, start_run
from aslseg.training import rounds, trainer
from aslseg.training.trainer import Trainer
from support.tiny_project import ADAPTATION, SPECIALIST, tiny_config
from support.whole_runs import use_small_sam

RUN = "shared"
STAGE = SPECIALIST.model_copy(update={"iterations": 8})
CONFIG = tiny_config(
    rounds=1,
    crossfit_share=0.0,
    organ=STAGE,
    lesion=STAGE,
    adaptation=ADAPTATION.model_copy(update={"iterations": 2, "versions": 1}),
)
WITH_SAM = SamConfig(
    model="vit_t", input_size=128, iterations=2, versions=1, prompts=PromptConfig(min_area_px=4)
)
METHODS: dict[str, dict[str, object]] = {
    "aslseg without SAM": {},
    "aslseg": {"sam": WITH_SAM},
    "semisam": {"sam": WITH_SAM, "semisam": SemiSamConfig(gate=False, planes=2)},
    "scsam": {"sam": WITH_SAM, "scsam": ScSamConfig(input_size=128, planes=2, gate=False)},
    "cpcsam": {"sam": WITH_SAM, "cpcsam": CpcSamConfig(input_size=128, rank=2)},
}


def config_of(method: str) -> RunConfig:
    """Return the settings of a method, with SAM or without."""
    changes = {"method": method.split()[0], **METHODS[method]}
    return CONFIG.model_copy(update=changes)


def main() -> None:
    torch.set_num_threads(1)
    folder, notes, method = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    note_work(notes)
    use_small_sam(pytest.MonkeyPatch())
    if len(sys.argv) > 4:
        die_at(int(sys.argv[4]))
    project = open_project(folder)
    try:
        if runs_of(folder):
            resume_run(project)
        else:
            start_run(project, config_of(method), run_id=RUN)
    except AslsegError as error:
        sys.exit(str(error))


def note_work(notes: Path) -> None:
    save, train = rounds.save_predictions, Trainer.run

    def note(*words: str) -> None:
        with notes.open("a", encoding="utf-8") as file:
            file.write(" ".join([*words, os.environ["RANK"]]) + "\n")

    def saved(place: Path, *args: Any) -> None:
        note("case", place.name)
        save(place, *args)

    def trained(self: Trainer, *args: Any) -> None:
        train(self, *args)
        note("training", f"{self.schedule.name}={digest_of(self.module)}")

    rounds.save_predictions = saved
    Trainer.run = trained  # type: ignore[method-assign]


def digest_of(module: torch.nn.Module) -> str:
    """Return hexadecimal digits that name the weights that are trained."""
    digest = hashlib.sha256()
    for value in module.parameters():
        if value.requires_grad:
            digest.update(value.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


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
