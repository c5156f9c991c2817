"""One experiment of the benchmark: a run, and the scores of its predictions of held-out cases.

A finished experiment is one small file. It is written last and whole, so a benchmark that was
killed goes on with the experiments that have none, and resumes the run that was stopped.

In the table `schedule` every row has the schedule of the preset, and what its method does besides
comes on top. In the table `time` a row's schedule is lengthened, or cut, so that its training takes
the processor time of the reference row with the same draw and labels. Training time is proportional
to the schedule but for the preparation of images, so one measured run gives the factor.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from aslseg import run_names
from aslseg.benchmark.data import BenchmarkData, project_showing
from aslseg.benchmark.entries import ENTRIES, REFERENCE, BenchmarkEntry
from aslseg.benchmark.presets import BenchmarkPreset
from aslseg.benchmark.scoring import (
    CasePrediction,
    Predict,
    held_out_rows,
    stored_prediction,
    with_lesion_rule,
)
from aslseg.benchmark.true_boxes import TrueBoxes
from aslseg.config import RunConfig
from aslseg.data.images import read_volume
from aslseg.errors import RunError
from aslseg.events import Monitor
from aslseg.inference.loading import load_ensemble
from aslseg.overrides import with_overrides
from aslseg.project.case import CACHE
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder, open_run
from aslseg.reading import read_object
from aslseg.runs import resume_run, start_run
from aslseg.storage import write_json_atomic

ExperimentResult = dict[str, Any]
"""The file of a finished experiment: its fields, `factor` of its schedule, `seconds` by the clock,
`training_cpu_s` and `cpu_s` (of the last start only where `resumed` is true), `rows`."""


Table = Literal["schedule", "time"]


TABLES: tuple[Table, ...] = ("schedule", "time")


NO_DRAW = "all"
"""Of experiments that are the same for every draw."""


@dataclass(frozen=True, slots=True, order=True)
class Experiment:
    """One method with a draw of labelled cases and a seed.

    Attributes:
        table: Whether the schedule is the preset's, or as long as ASLseg takes.
        seed: Of the run.
        draw: Name of the draw.
        labelled: Number of labelled cases; 0 for all there are.
        entry: Name of the row.
    """

    table: Table
    seed: int
    draw: str
    labelled: int
    entry: str

    @property
    def name(self) -> str:
        """Name of its file."""
        parts = (self.entry, self.draw, str(self.labelled or "all"), str(self.seed))
        return "-".join(parts if self.table == "schedule" else (*parts, self.table))

    @property
    def run_id(self) -> str:
        """Name of its run in the project that shows the same labels."""
        parts = (self.entry, str(self.seed))
        return "-".join(parts if self.table == "schedule" else (*parts, self.table))


@dataclass(frozen=True, slots=True)
class BenchmarkSetup:
    """What all experiments share; it can be sent to another process.

    Attributes:
        folder: Of the benchmark.
        data: Cases and their parts, as they were given: label maps to score against are from here.
        preset: Settings and budget.
        copies: The same cases as copies, if projects are made of such.
    """

    folder: Path
    data: BenchmarkData
    preset: BenchmarkPreset
    copies: BenchmarkData | None = None

    @property
    def shown(self) -> BenchmarkData:
        """The cases as the methods see them."""
        return self.copies or self.data

    def experiments(self, entries: Sequence[BenchmarkEntry]) -> list[Experiment]:
        """List the experiments, draw after draw, so that a table is there as early as possible.

        Those of the table `time` come last, for they need the others' times.
        """
        found = [
            self._experiment(table, seed, draw, number, entry)
            for table in TABLES
            if table in self.preset.tables
            for seed in self.preset.seeds
            for draw in self.data.draws
            for number in self.preset.labelled
            for entry in entries
            if table == "schedule" or (entry.has_equal_time and entry.name != REFERENCE)
        ]
        return list(dict.fromkeys(found))

    def _experiment(
        self, table: Table, seed: int, draw: str, labelled: int, entry: BenchmarkEntry
    ) -> Experiment:
        if entry.depends_on_draw:
            return Experiment(table, seed, draw, labelled, entry.name)
        return Experiment(table, seed, NO_DRAW, 0, entry.name)

    def path(self, experiment: Experiment) -> Path:
        """Return the file of a finished experiment."""
        return self.folder / "cells" / f"{experiment.name}.json"

    def labels_folder(self, experiment: Experiment) -> Path:
        """Return where the label maps of an experiment are."""
        return self.folder / "labels" / experiment.name

    def external_folder(self, experiment: Experiment) -> Path:
        """Return where a person puts the label maps of another program."""
        name = f"{experiment.draw}-{experiment.labelled}"
        return self.folder / "external" / experiment.entry / name

    def project(self, experiment: Experiment) -> Project:
        """Open the project of an experiment; all with the same labels share it."""
        name = f"{experiment.draw}-{experiment.labelled or 'all'}"
        folder = self.folder / "projects" / name
        most = self.preset.unlabelled
        return project_showing(self.shown, folder, experiment.draw, experiment.labelled, most)

    def config(self, experiment: Experiment) -> tuple[RunConfig, float]:
        """Return the settings of an experiment's run, and the factor of its schedule.

        Raises:
            RunError: When the experiments that it is compared with are not finished.
        """
        config = ENTRIES[experiment.entry].settings(self.preset.config, experiment.seed)
        own_changes = self.preset.changes.get(experiment.entry, {})
        config = with_overrides(config, own_changes, f"benchmark row {experiment.entry}")
        if experiment.table == "schedule":
            return config, 1.0
        own = self._seconds(experiment, experiment.entry)
        return at_equal_time(config, own, self._seconds(experiment, REFERENCE))

    def _seconds(self, experiment: Experiment, entry: str) -> float:
        """Return the processor time of a row's training in the table `schedule`."""
        needed = Experiment(
            "schedule", experiment.seed, experiment.draw, experiment.labelled, entry
        )
        remedy = f"run row {entry} in the table 'schedule' first"
        path = self.path(needed)
        if not path.exists():
            msg = f"{experiment.name} gets the time of {needed.name}, which is missing; {remedy}."
            raise RunError(msg)
        result = read_object(path, RunError, remedy)
        if result["resumed"]:
            msg = f"The time of {needed.name} is not known, it was resumed; delete {path} and it."
            raise RunError(msg)
        return float(result["training_cpu_s"])

    def to_json(self) -> dict[str, Any]:
        """Return what all experiments of a folder have in common."""
        config = self.preset.config.model_dump(mode="json")
        given = {"grid": asdict(self.preset.grid), "unlabelled": self.preset.unlabelled}
        if self.preset.changes:
            given["changes"] = {row: dict(own) for row, own in self.preset.changes.items()}
        return {**self.data.to_json(), **given, "config": config}


def run_experiment(
    setup: BenchmarkSetup, experiment: Experiment, monitor: Monitor | None = None
) -> None:
    """Run an experiment, score its predictions of the held-out cases, and write its file.

    Raises:
        CancelledError: When asked to stop; the run is resumed the next time.
        AslsegError: As `start_run`.
    """
    began, used = time.monotonic(), time.process_time()
    trained = trained_experiment(setup, experiment, monitor or Monitor())
    training_cpu_s = time.process_time() - used
    rows = held_out_rows(setup.data, trained.predict, setup.labels_folder(experiment))
    facts = {
        **asdict(experiment),
        "factor": round(trained.factor, 4),
        "seconds": round(time.monotonic() - began, 1),
        "training_cpu_s": round(training_cpu_s, 2),
        "cpu_s": round(time.process_time() - used, 2),
        "resumed": trained.resumed,
        "rows": rows,
    }
    write_json_atomic(setup.path(experiment), facts)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedExperiment:
    """An experiment before any label of a held-out case is opened.

    Attributes:
        predict: Predicts held-out cases.
        factor: Of the schedule.
        resumed: Whether its run was stopped meanwhile.
    """

    predict: Predict
    factor: float = 1.0
    resumed: bool = False


def trained_experiment(
    setup: BenchmarkSetup, experiment: Experiment, monitor: Monitor
) -> TrainedExperiment:
    """Train what an experiment needs.

    Raises:
        AslsegError: As `start_run`.
    """
    entry = ENTRIES[experiment.entry]
    if entry.kind == "external":
        folder = setup.external_folder(experiment)
        return TrainedExperiment(lambda case: stored_prediction(folder, case))
    if entry.kind == "true_boxes":
        config = setup.preset.config
        boxes = TrueBoxes(setup.shown, setup.data, config, setup.folder / CACHE, monitor)
        return TrainedExperiment(boxes.predict)
    if entry.kind == "lesion_rule":
        under = trained_experiment(setup, _of_row(experiment, entry.baseline), monitor)
        targets = setup.data.targets
        return TrainedExperiment(
            lambda case: with_lesion_rule(under.predict(case), targets), resumed=under.resumed
        )
    project = setup.project(experiment)
    resumed = (project.folder / "runs" / experiment.run_id / run_names.CONFIG).exists()
    config, factor = setup.config(experiment)
    run = _finished_run(setup, project, experiment, config, monitor, resumed=resumed)
    return TrainedExperiment(_predictor(setup, run, monitor), factor, resumed)


def _of_row(experiment: Experiment, entry: str) -> Experiment:
    return Experiment(
        experiment.table, experiment.seed, experiment.draw, experiment.labelled, entry
    )


def _predictor(setup: BenchmarkSetup, run: RunFolder, monitor: Monitor) -> Predict:
    ensemble = load_ensemble(run, monitor)
    images = {case.id: case.image for case in setup.shown.cases}

    def predict(case_id: str) -> CasePrediction:
        found = ensemble.segment(read_volume(images[case_id]), monitor.without_events())
        return CasePrediction(found.refined, found.probabilities)

    return predict


def _finished_run(
    setup: BenchmarkSetup,
    project: Project,
    experiment: Experiment,
    config: RunConfig,
    monitor: Monitor,
    *,
    resumed: bool,
) -> RunFolder:
    cache = setup.folder / CACHE
    if not resumed:
        return start_run(project, config, monitor, experiment.run_id, cache=cache)
    run = open_run(project.folder, experiment.run_id)
    if run.config != config:
        msg = f"{run.path} was made with other settings; delete it, or choose another folder."
        raise RunError(msg)
    done = run.status.state == "done"
    return run if done else resume_run(project, experiment.run_id, monitor, cache=cache)


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


SHORTEST = 10
"""Steps of a stage that a cut schedule keeps."""


def at_equal_time(
    config: RunConfig, seconds: float, reference_seconds: float
) -> tuple[RunConfig, float]:
    """Return settings whose training takes as long as that of the reference row.

    Args:
        config: Settings of the row in the table `schedule`.
        seconds: Processor seconds that its training took there.
        reference_seconds: Those of the reference row.

    Returns:
        The settings with other numbers of steps of the specialist, and the factor between them.
    """
    factor = reference_seconds / seconds
    scaled = {
        name: stage.model_copy(
            update={"iterations": max(SHORTEST, round(stage.iterations * factor))}
        )
        for name, stage in (("organ", config.organ), ("lesion", config.lesion))
    }
    return config.model_copy(update=scaled), factor
