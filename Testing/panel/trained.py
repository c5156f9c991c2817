"""A project of four tiny patients and a run trained on it in seconds.

The training has a process of its own, as in the application: `python trained.py FOLDER SAM`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "Logic"), str(ROOT / "Testing")]

from aslseg.config import RunConfig, SamConfig  # noqa: E402
from aslseg.project.create import create_project, select_cases  # noqa: E402
from aslseg.project.project import Project  # noqa: E402
from support.tiny_project import SPECIALIST, tiny_config, write_patients  # noqa: E402

CASES = ("c0", "c2", "c3", "c5")
LABELLED, UNLABELLED, VALIDATION = "c0", ("c2", "c3"), "c5"


def small_project(folder: Path) -> Project:
    """Make a project of which one patient is labelled, two are not, and one is for validation."""
    files = [one for one in write_patients(folder / "data") if one.id in CASES]
    chosen = select_cases(files, labelled=[LABELLED], validation=[VALIDATION])
    return create_project(folder / "project", chosen)


def small_settings(sam: str, rounds: int = 1, iterations: int = 60) -> RunConfig:
    """Return settings that learn to find these livers within seconds."""
    stage = SPECIALIST.model_copy(update={"iterations": iterations, "batch_size": 4})
    return tiny_config(
        rounds=rounds,
        patience=rounds,
        organ=stage,
        lesion=stage.model_copy(update={"iterations": 20}),
        sam=SamConfig(model=sam, input_size=256, iterations=2, batch_size=2, versions=1),
    )


def overrides_of(config: RunConfig) -> dict[str, Any]:
    """Return all settings as changes of a preset."""
    values = config.model_dump(mode="json")
    return {name: value for name, value in values.items() if name != "preset"}


def main() -> None:
    """Make the project and train on it."""
    import torch

    from aslseg.runs import start_run

    torch.set_num_threads(1)
    start_run(small_project(Path(sys.argv[1])), small_settings(sys.argv[2]))


if __name__ == "__main__":
    main()
