"""One experiment of the benchmark: a run, and the scores of its label maps.

A finished experiment is one small file. It is written last and whole, so a benchmark that was
killed goes on with the experiments that have none, and resumes the run that was stopped.
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
"""The file of a finished experiment: its fields, `steps` by training, `seconds` and `cpu_seconds`
(of the last start only where `resumed` is true), `rows`."""


@dataclass(frozen=True, slots=True, order=True)
class Experiment:
    """One method with a number of labelled volumes and a seed.

    Attributes:
        seed: Of the run.
        labelled: Number of labelled volumes; 0 for all there are.
        entry: Name of the row.
    """

    seed: int
    labelled: int
    entry: str

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.entry}-{self.labelled or 'all'}-{self.seed}"

    @property
    def run_id(self) -> str:
        """Name of its run in the project that shows as many labels."""
        return f"{self.entry}-{self.seed}"


@dataclass(frozen=True, slots=True)
class BenchmarkSetup:
    """What all experiments share; it can be sent to another process.

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

    def experiments(
        self, entries: Sequence[BenchmarkEntry], labelled: Sequence[int], seeds: Sequence[int]
    ) -> list[Experiment]:
        """List the experiments: seed after seed, so that a table is there as early as possible."""
        found = [
            Experiment(seed, 0 if entry.shows_all else number, entry.name)
            for seed in seeds
            for number in labelled
            for entry in entries
        ]
        return list(dict.fromkeys(found))  # the upper bound is one experiment, whatever the column

    def path(self, experiment: Experiment) -> Path:
        """Return the file of a finished experiment."""
        return self.folder / "cells" / f"{experiment.name}.json"

    def project(self, experiment: Experiment) -> Project:
        """Open the project of an experiment; all with as many labels share it."""
        name = f"labelled-{experiment.labelled or 'all'}"
        shown = self.copies or self.data
        return project_showing(shown, self.folder / "projects" / name, experiment.labelled or None)

    def config(self, experiment: Experiment) -> RunConfig:
        """Return the settings of an experiment's run, its share of the budget divided.

        Raises:
            ConfigError: When the budget is too small for the row.
        """
        wanted = ENTRIES[experiment.entry].settings(self.preset.config, experiment.seed)
        return allotted(wanted, self.preset.budget, self.data.targets, self._shown(experiment))

    def steps(self, experiment: Experiment) -> dict[str, int]:
        """Return how the budget of an experiment is divided."""
        return planned_steps(self.config(experiment), self.data.targets, self._shown(experiment))

    def to_json(self) -> dict[str, Any]:
        """Return what all experiments of a folder have in common."""
        config = self.preset.config.model_dump(mode="json")
        given = {"budget": self.preset.budget, "spacing_mm": self.preset.spacing_mm}
        return {**self.data.to_json(), **given, "config": config}

    def _shown(self, experiment: Experiment) -> int:
        shown = self.data.shown(experiment.labelled or None)
        return len({self.data.patients[name] for name in shown})


def run_experiment(
    setup: BenchmarkSetup, experiment: Experiment, monitor: Monitor | None = None
) -> None:
    """Run an experiment, score its label maps of the held-out cases, and write its file.

    Raises:
        CancelledError: When asked to stop; the run is resumed the next time.
        AslsegError: As `start_run`.
    """
    began, used = time.monotonic(), time.process_time()
    project = setup.project(experiment)
    resumed = (project.folder / "runs" / experiment.run_id / "config.json").exists()
    run = _finished_run(setup, project, experiment, monitor or Monitor(), resumed=resumed)
    rows = held_out_rows(setup.data, lambda case: run.path / "labels" / f"{case}.nii.gz")
    facts = {
        **asdict(experiment),
        "steps": setup.steps(experiment),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "resumed": resumed,
        "rows": rows,
    }
    write_json_atomic(setup.path(experiment), facts)


def _finished_run(
    setup: BenchmarkSetup,
    project: Project,
    experiment: Experiment,
    monitor: Monitor,
    *,
    resumed: bool,
) -> RunFolder:
    config, cache = setup.config(experiment), setup.folder / "cache"
    if not resumed:
        return start_run(project, config, monitor, experiment.run_id, cache=cache)
    run = open_run(project.folder, experiment.run_id)
    if run.config != config:
        msg = f"{run.path} was made with other settings; delete it, or choose another folder."
        raise RunError(msg)
    done = run.status.get("state") == "done"
    return run if done else resume_run(project, experiment.run_id, monitor, cache=cache)


def held_out_rows(data: BenchmarkData, path_of: Callable[[str], Path]) -> list[dict[str, Any]]:
    """Score label maps of the held-out cases, on the voxels of the images as they were given.

    Args:
        data: Cases and their truth.
        path_of: Returns the file of a case.
    """
    rows: list[dict[str, Any]] = []
    for case_id in data.held_out:
        truth = data.truth(case_id)
        # Copies are coarser, and axial.
        found = resample_labels(read_labelmap(path_of(case_id)), truth.geometry)
        rows += score_rows(found, truth, data.targets, {"case": case_id})
    return rows


def finished(
    setup: BenchmarkSetup, experiments: Sequence[Experiment]
) -> dict[Experiment, ExperimentResult]:
    """Read the files of the experiments that are done.

    Raises:
        RunError: When one is damaged.
    """
    remedy = "delete it and repeat the command"
    return {
        experiment: read_object(setup.path(experiment), RunError, remedy)
        for experiment in experiments
        if setup.path(experiment).exists()
    }
