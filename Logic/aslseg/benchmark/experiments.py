"""One cell of the benchmark: a run like any other, and the scores of its label maps.

A finished cell is one small file. It is written last and whole, so a benchmark that was killed goes
on with the cells that have none, and inside of a cell where its run was stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aslseg.benchmark.budget import allotted, planned_steps
from aslseg.benchmark.data import BenchmarkData, project_showing
from aslseg.benchmark.entries import ENTRIES, BenchmarkEntry
from aslseg.benchmark.presets import BenchmarkPreset
from aslseg.config import RunConfig
from aslseg.data.geometry import resample_labels
from aslseg.data.images import read_labelmap
from aslseg.errors import RunError
from aslseg.evaluation.scores import score_rows
from aslseg.events import Monitor
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder, open_run
from aslseg.reading import read_object
from aslseg.runs import resume_run, start_run
from aslseg.storage import write_json_atomic

ExperimentResult = dict[str, Any]
"""The file of a finished cell: the cell, `steps` by training, `seconds` and `cpu_seconds` (of the
last leg only where `resumed` is true), `rows`."""


@dataclass(frozen=True, slots=True, order=True)
class Experiment:
    """One method with a number of labelled volumes and a seed.

    Attributes:
        seed: Of the run.
        labelled: Volumes whose labels are shown; 0 for all there are.
        rival: Name of the row.
    """

    seed: int
    labelled: int
    rival: str

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.rival}-{self.labelled or 'all'}-{self.seed}"

    @property
    def run_id(self) -> str:
        """Name of its run in the project that shows as many labels."""
        return f"{self.rival}-{self.seed}"


@dataclass(frozen=True, slots=True)
class BenchmarkSetup:
    """All that a cell has to know, good to be sent to another process.

    Attributes:
        folder: Of the benchmark.
        data: Cases and their parts, as they were given: label maps to score against are from here.
        preset: Settings and budget.
        copies: The same cases on a coarser grid, if projects are made of such.
    """

    folder: Path
    data: BenchmarkData
    preset: BenchmarkPreset
    copies: BenchmarkData | None = None

    def cells(
        self, rivals: Sequence[BenchmarkEntry], labelled: Sequence[int], seeds: Sequence[int]
    ) -> list[Experiment]:
        """List the cells: seed after seed, so that a table is there as early as possible."""
        found = [
            Experiment(seed, 0 if rival.shows_all else number, rival.name)
            for seed in seeds
            for number in labelled
            for rival in rivals
        ]
        return list(dict.fromkeys(found))  # the upper bound is one cell, whatever the column

    def place(self, cell: Experiment) -> Path:
        """Return the file of a finished cell."""
        return self.folder / "cells" / f"{cell.name}.json"

    def project(self, cell: Experiment) -> Project:
        """Open the project of a cell; it is shared by all cells with as many labels."""
        name = f"labelled-{cell.labelled or 'all'}"
        shown = self.copies or self.data
        return project_showing(shown, self.folder / "projects" / name, cell.labelled or None)

    def config(self, cell: Experiment) -> RunConfig:
        """Return the settings of a cell's run, its share of the budget divided.

        Raises:
            ConfigError: When the budget is too small for the row.
        """
        wanted = ENTRIES[cell.rival].settings(self.preset.config, cell.seed)
        return allotted(wanted, self.preset.budget, self.data.targets, self._shown(cell))

    def steps(self, cell: Experiment) -> dict[str, int]:
        """Return how the budget of a cell is divided."""
        return planned_steps(self.config(cell), self.data.targets, self._shown(cell))

    def to_json(self) -> dict[str, Any]:
        """Return what all cells of a folder have in common."""
        config = self.preset.config.model_dump(mode="json")
        given = {"budget": self.preset.budget, "spacing_mm": self.preset.spacing_mm}
        return {**self.data.to_json(), **given, "config": config}

    def _shown(self, cell: Experiment) -> int:
        return len(self.data.shown(cell.labelled or None))


def run_experiment(bench: BenchmarkSetup, cell: Experiment, monitor: Monitor | None = None) -> None:
    """Run a cell, score what it made of the held-out cases, and write its file.

    Raises:
        CancelledError: When asked to stop; the run is resumed the next time.
        AslsegError: As `start_run`.
    """
    began, used = time.monotonic(), time.process_time()
    project = bench.project(cell)
    resumed = (project.folder / "runs" / cell.run_id / "config.json").exists()
    run = _finished_run(bench, project, cell, monitor or Monitor(), resumed=resumed)
    rows = held_out_rows(bench.data, lambda case: run.path / "labels" / f"{case}.nii.gz")
    facts = {
        **asdict(cell),
        "steps": bench.steps(cell),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "resumed": resumed,
        "rows": rows,
    }
    write_json_atomic(bench.place(cell), facts)


def _finished_run(
    bench: BenchmarkSetup, project: Project, cell: Experiment, monitor: Monitor, *, resumed: bool
) -> RunFolder:
    config, cache = bench.config(cell), bench.folder / "cache"
    if not resumed:
        return start_run(project, config, monitor, cell.run_id, cache=cache)
    run = open_run(project.folder, cell.run_id)
    if run.config != config:
        msg = f"{run.path} was made with other settings; delete it, or choose another folder."
        raise RunError(msg)
    done = run.status.get("state") == "done"
    return run if done else resume_run(project, cell.run_id, monitor, cache=cache)


def held_out_rows(data: BenchmarkData, place: Callable[[str], Path]) -> list[dict[str, Any]]:
    """Score label maps of the held-out cases, on the voxels of the images as they were given.

    Args:
        data: Cases and their truth.
        place: Gives the file of a case.
    """
    rows: list[dict[str, Any]] = []
    for case_id in data.held_out:
        truth = data.truth(case_id)
        # Copies are coarser, and axial.
        found = resample_labels(read_labelmap(place(case_id)), truth.geometry)
        rows += score_rows(found, truth, data.targets, {"case": case_id})
    return rows


def finished(
    bench: BenchmarkSetup, cells: Sequence[Experiment]
) -> dict[Experiment, ExperimentResult]:
    """Read the files of the cells that are done.

    Raises:
        RunError: When one is damaged.
    """
    remedy = "delete it and repeat the command"
    return {
        cell: read_object(bench.place(cell), RunError, remedy)
        for cell in cells
        if bench.place(cell).exists()
    }
