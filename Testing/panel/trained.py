"""A project of four tiny patients and a run trained on it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aslseg.config import RunConfig, SamConfig
from aslseg.project import Project, create_project, select_cases
from tiny_project import SPECIALIST, tiny_config, write_patients

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
