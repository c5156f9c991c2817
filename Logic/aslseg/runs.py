"""Start, resume and use runs: what the command line, the panel and scripts call."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass

from aslseg.config import RunConfig
from aslseg.devices import choose_device, tune_allocator
from aslseg.errors import RunError
from aslseg.events import Monitor
from aslseg.images import write_labelmap
from aslseg.job import Job
from aslseg.methods import method_named
from aslseg.project import Project, open_project
from aslseg.rounds import Method, Round, RoundOutcome
from aslseg.runfolder import RunFolder, create_run, open_run, running
from aslseg.speaking import Ensemble, Segmentation, read_voice
from aslseg.storage import write_json_atomic
from aslseg.volume import Volume


def start_run(
    project: Project, config: RunConfig, monitor: Monitor | None = None, run_id: str | None = None
) -> RunFolder:
    """Run all rounds of a method on a project, and write a label map for every volume.

    Returns:
        The run's folder.

    Raises:
        ProjectError: When no training case has a label.
        CancelledError: When asked to stop; `resume_run` goes on from there.
        AslsegError: When a file, a setting, the device or the disk is at fault.
    """
    method_named(config.method)
    project.require_labels()
    choose_device(config.device)
    folder = create_run(project.folder, config, run_id)
    return _run(project, folder, monitor or Monitor())


def resume_run(
    project: Project, run_id: str | None = None, monitor: Monitor | None = None
) -> RunFolder:
    """Go on with a run that was stopped, or the latest one; the result is that of an unbroken run.

    Raises:
        RunError: When there is no such run.
        AslsegError: As `start_run`.
    """
    project.require_labels()
    return _run(project, open_run(project.folder, run_id), monitor or Monitor())


def load_ensemble(run: RunFolder, monitor: Monitor | None = None) -> Ensemble:
    """Read the trained parts of a run's best round, ready to segment any volume.

    Raises:
        RunError: When the run has no finished round.
        WeightsError: When a file of trained weights is missing, damaged or changed.
    """
    project = open_project(run.path.parents[1])
    best = run.round(best_round(run))
    job = _job(project, run, monitor or Monitor())
    return method_named(job.config.method).load_ensemble(job, best)


def segment_volume(run: RunFolder, volume: Volume, monitor: Monitor | None = None) -> Segmentation:
    """Segment a volume with a run's best round; for several, use `load_ensemble` once.

    Raises:
        AslsegError: As `load_ensemble`, and when asked to stop.
    """
    return load_ensemble(run, monitor).segment(volume, monitor)


def best_round(run: RunFolder) -> int:
    """Return the number of the round that the run kept.

    Raises:
        RunError: When no round is finished.
    """
    best = int(run.status.get("best_round", 0))
    if best < 1:
        msg = f"Run '{run.run_id}' has no finished round yet; resume it and let it finish one."
        raise RunError(msg)
    return best


@dataclass
class _Progress:
    """What the loop over rounds carries along."""

    outcome: RoundOutcome | None = None
    best: int = 0
    best_validation: float = -math.inf

    def worse_for(self, number: int) -> int:
        """Return how many rounds have passed since the best one."""
        return number - self.best

    def take(self, number: int, outcome: RoundOutcome) -> None:
        """Note a finished round; without validation cases the latest is the best."""
        self.outcome = outcome
        if math.isnan(outcome.validation) or outcome.validation > self.best_validation:
            self.best = number
            self.best_validation = outcome.validation


def _job(project: Project, run: RunFolder, monitor: Monitor) -> Job:
    config = run.config
    return Job(project, config, run, choose_device(config.device).torch_device, monitor)


def _run(project: Project, folder: RunFolder, monitor: Monitor) -> RunFolder:
    config = folder.config
    tune_allocator()
    facts = {"rounds": config.rounds, "method": config.method, "sam": config.sam.model}
    with running(folder, monitor, **facts) as recording:
        job = _job(project, folder, recording)
        best = _rounds(job, method_named(config.method))
        _write_results(job, best)
    return folder


def _rounds(job: Job, method: Method) -> int:
    so_far = _Progress()
    for number in range(1, job.config.rounds + 1):
        this = Round(
            number,
            job.folder.round(number),
            job.folder.round(1),
            so_far.outcome.pseudo if so_far.outcome else {},
            so_far.outcome.networks if so_far.outcome else {},
        )
        with job.round(number) as marked:
            so_far.take(number, method.run_round(marked, this))
        job.folder.write_status(best_round=so_far.best)
        if so_far.worse_for(number) >= job.config.patience and number < job.config.rounds:
            job.monitor.warn(
                f"Stopped after round {number}: validation has not risen since round {so_far.best}."
            )
            break
    return so_far.best


def _write_results(job: Job, best: int) -> None:
    """Write one label map per case: a person's where there is one, else the refined label."""
    results = job.folder.path / "labels"
    origin: dict[str, str] = {}
    for case in job.project.cases:
        path = results / f"{case.id}.nii.gz"
        refined = read_voice(job.folder.round(best) / "voices" / case.id, "refined")
        if case.label is not None or refined is None:
            write_labelmap(job.labels(case), path)
            origin[case.id] = "human"
        else:
            write_labelmap(refined, path)
            origin[case.id] = f"refined, round {best}"
    write_json_atomic(results / "origin.json", origin)


def remove_run(run: RunFolder) -> None:
    """Delete a run with everything in it."""
    shutil.rmtree(run.path)
