"""A run on disk: settings, state, events, rounds; enough to look at it, stop it and resume it."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aslseg import run_names, schema_1
from aslseg.config import RunConfig, read_run_config
from aslseg.data.images import read_geometry
from aslseg.data.orientation import ORIENTATION, axis_names
from aslseg.errors import AslsegError, ProjectError, RunError
from aslseg.events import Monitor
from aslseg.project.case import RUNS, Case, name_key
from aslseg.project.project import Project
from aslseg.project.remote_run import read_remote_run
from aslseg.project.run_status import LearntData, RunStatus
from aslseg.project.run_tables import read_cross_validation, round_number
from aslseg.reading import damage_told, read_object
from aslseg.storage import inside, sha256_of, write_json_atomic
from aslseg.targets import as_typed

_CLOCK_STEP_S = 2.0
"""No disk tells times less exactly."""
_DONE_AGAIN = "delete it and resume the run, which then does the round again"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: `<project>/runs/<id>`.
    """

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def is_external(self) -> bool:
        """Whether it holds label maps of another model, and nothing that was trained here."""
        return (self.path / run_names.EXTERNAL).exists()

    @property
    def config(self) -> RunConfig:
        """The settings that the run was started with."""
        return read_run_config(self.path / run_names.CONFIG)

    @property
    def status(self) -> RunStatus:
        """Contents of `status.json`.

        Raises:
            RunError: When the file is damaged.
        """
        path = self.path / run_names.STATUS
        if not path.exists():
            return RunStatus()
        remedy = "restore it from a copy, or start a new run"
        found = schema_1.renamed(read_object(path, RunError, remedy), schema_1.STATUS)
        with damage_told(path, RunError, remedy):
            return RunStatus.model_validate(found)

    @property
    def noted(self) -> dict[str, Any]:
        """What `status.json` says, with what a later version of this program noted in it.

        Raises:
            RunError: When the file is damaged.
        """
        return self.status.model_dump(exclude_unset=True)

    @property
    def learnt_data(self) -> LearntData:
        """The labels and decisions that it learns from; empty before these are noted."""
        status = self.status
        return LearntData(status.label_digests, status.label_scopes, status.lesion_lines)

    @property
    def state(self) -> str:
        """How the run stands.

        When it says `running` and nobody works on it here, it is `elsewhere` if another computer
        may do so (see `remote_run`), else `interrupted`.

        Raises:
            RunError: When `status.json` is damaged.
        """
        state = self.status.state or "new"
        if state != "running":
            return state
        lock = FileLock(self.path / run_names.LOCK)
        try:
            with lock.acquire(timeout=0):
                note = read_remote_run(self.path)
                return "elsewhere" if note is not None and note.is_open else "interrupted"
        except (Timeout, OSError, NotImplementedError):  # held, or of a folder that is read-only
            return state

    def round(self, number: int) -> Path:
        """Return the folder of a round, counted from 1."""
        return self.path / f"round-{number:02d}"

    def predictions(self, number: int, case_id: str) -> Path:
        """Return the folder of a round's predictions on a case."""
        return schema_1.predictions_folder(self.round(number)) / case_id

    @property
    def rounds(self) -> list[int]:
        """Numbers of the rounds whose metrics are complete."""
        tables = self.path.glob(f"round-*/{run_names.METRICS}")
        return sorted(number for path in tables if (number := round_number(path.parent)))

    @property
    def best_round(self) -> int:
        """Number of the round that segments; 0 as long as none is finished."""
        return self.status.best_round

    @property
    def retrained_rounds(self) -> tuple[int, ...]:
        """Rounds in which what is trained once is trained anew, for the labels had changed."""
        return tuple(sorted({1, *self.status.retrained_rounds}))

    @property
    def short_rounds(self) -> tuple[int, ...]:
        """Rounds that train the stages of lesions alone, with all else of the round before."""
        return tuple(self.status.short_rounds)

    @property
    def images(self) -> dict[str, str]:
        """SHA-256 of the images that it has seen, by case."""
        return dict(self.status.images)

    @property
    def taught_rounds(self) -> tuple[int, ...]:
        """Rounds before which a person changed labels, or decided about lesions."""
        return tuple(self.status.taught_rounds)

    def first_folder(self, number: int) -> Path:
        """Return the folder of what a round uses beside its specialist, SAM for example."""
        while number in self.short_rounds:
            number -= 1
        if self.config.retrain:
            return self.round(number)
        return self.round(max(first for first in self.retrained_rounds if first <= number))

    def before(self, path: Path) -> Path | None:
        """Return what the round before has in place of a file or folder of a round.

        None where training does not go on from there: in round 1, after labels have changed, where
        the round before has nothing of that name, and for a path outside of the run's rounds.
        """
        if not path.is_relative_to(self.path):
            return None
        folder, *names = path.relative_to(self.path).parts
        number = round_number(Path(folder))
        if not number or number in self.retrained_rounds:
            return None
        earlier = self.round(number - 1).joinpath(*names)
        return earlier if earlier.exists() else None

    def finish(self, number: int, validation: float, checked_on: str = "") -> None:
        """Note that a round is complete: from now on it is read, never done again.

        Args:
            number: Of the round.
            validation: Its validation Dice; NaN without validation cases.
            checked_on: Digest of the label maps that this is of.
        """
        facts = {"validation": validation, "checked_on": checked_on}
        write_json_atomic(self.round(number) / run_names.ROUND, facts)

    def checked_alike(self, number: int, other: int) -> bool:
        """Return whether two finished rounds were checked on the same label maps, as far as known.

        Runs of earlier versions did not note it.
        """
        digests = [str(self._finished(one).get("checked_on") or "") for one in (number, other)]
        return "" in digests or digests[0] == digests[1]

    def score_of(self, number: int) -> float | None:
        """Return what the best round is chosen by; None of a round that is not finished.

        The validation Dice; without validation cases, the Dice by cross-validation among labelled
        cases. NaN if there is neither.
        """
        validation = self.validation_of(number)
        if validation is None or not math.isnan(validation):
            return validation
        return read_cross_validation(self.round(number))

    def validation_of(self, number: int) -> float | None:
        """Return the validation Dice of a finished round (NaN without cases); None of others.

        Raises:
            RunError: When its file is damaged.
        """
        path = self.round(number) / run_names.ROUND
        if not path.exists():
            return None
        value = self._finished(number).get("validation", "absent")
        if value is not None and type(value) not in (int, float):
            msg = f"{path} is damaged (its validation is no number); {_DONE_AGAIN}."
            raise RunError(msg)
        return math.nan if value is None else float(value)

    def _finished(self, number: int) -> dict[str, Any]:
        """Return what a finished round notes; nothing of others."""
        path = self.round(number) / run_names.ROUND
        return read_object(path, RunError, _DONE_AGAIN) if path.exists() else {}

    def write_status(self, **facts: Any) -> None:
        """Change some facts of `status.json`.

        Args:
            facts: By their names in `RunStatus`; what is not given stays as it is.

        Raises:
            RunError: When the file is damaged.
            StorageError: When it cannot be written.
        """
        noted, now = self.noted, datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json_atomic(self.path / run_names.STATUS, {**noted, **facts, "updated": now})


def new_run_id(method: str) -> str:
    """Return a name that no run has yet: method, time, and some chance."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    return f"{method}-{stamp}-{secrets.token_hex(2)}"


def create_run(project_folder: Path, config: RunConfig, run_id: str | None = None) -> RunFolder:
    """Make the folder of a new run.

    Raises:
        RunError: When there is a run of that name, or the name is none of a folder.
        StorageError: When the project folder cannot be written.
    """
    name = run_id or new_run_id(config.method)
    folder = run_named(project_folder, name)
    if (folder.path / run_names.CONFIG).exists():
        msg = f"There is a run '{name}' already; resume it or give another name."
        raise RunError(msg)
    write_settings(folder, config)
    return folder


def write_settings(folder: RunFolder, config: RunConfig) -> None:
    """Write the settings of a run, which makes it the latest one of its project.

    Raises:
        StorageError: When the project folder cannot be written.
    """
    write_json_atomic(folder.path / run_names.CONFIG, config.model_dump(mode="json"))
    make_latest(folder)


def make_latest(folder: RunFolder) -> None:
    """Let a run, whose settings are there, be the latest one of its project.

    A number says so, for a copied project has other times of files. Runs of earlier versions have
    none: they come before the others, in the order of the times of their settings.

    Raises:
        StorageError: When the project folder cannot be written.
    """
    others = [other for other in folder.path.parent.iterdir() if other != folder.path]
    place = 1 + max(map(_place_of, others), default=0)
    write_json_atomic(folder.path / run_names.ORDER, {"place": place})
    path, files = folder.path / run_names.CONFIG, (one / run_names.CONFIG for one in others)
    youngest = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
    if path.stat().st_mtime <= youngest:  # two that are made at one moment have one number
        os.utime(path, (youngest + _CLOCK_STEP_S, youngest + _CLOCK_STEP_S))


def _place_of(run: Path) -> int:
    """Return the place of a run among those of its project, from 1; 0 where nothing says it."""
    path, place = run / run_names.ORDER, None
    if path.exists():
        with suppress(RunError):  # as where it is absent
            place = read_object(path, RunError, "delete it").get("place")
    return place if type(place) is int else 0


def run_named(project_folder: Path, name: str) -> RunFolder:
    """Return the folder of a run, which need not be there.

    Raises:
        RunError: When the name is none of a folder.
        StorageError: When a link leads out of the project.
    """
    letters = name.replace("_", "").replace("-", "").replace(".", "").replace(" ", "")
    if not letters.isalnum() or len(name) > 128 or name != name.strip(" .") or name[0] == "-":
        msg = f"'{name[:60]}' cannot be the name of a run; use letters, digits, '-', '_' and '.'."
        raise RunError(msg)
    return RunFolder(inside(project_folder, Path(RUNS, name)))


def open_run(project_folder: Path, run_id: str | None = None) -> RunFolder:
    """Open a run by name, or the latest one that was trained here.

    Labels of another model are opened by name, or where nothing was trained.

    Raises:
        RunError: When there is no such run, or the name is none of a folder.
        StorageError: When a link leads out of the project.
    """
    if run_id is not None:
        folder = run_named(project_folder, run_id)
        if (folder.path / run_names.CONFIG).exists():
            return folder
    found = runs_of(project_folder)
    if run_id is not None or not found:
        known = ", ".join(run.run_id for run in found) or "none"
        msg = f"{project_folder} has no run '{run_id or 'at all'}' (known: {known}); train first."
        raise RunError(msg)
    return ([run for run in found if not run.is_external] or found)[-1]


def require_trained(run: RunFolder) -> RunFolder:
    """Return a run that has networks.

    Raises:
        RunError: When it holds label maps of another model.
    """
    if run.is_external:
        msg = (
            f"'{run.run_id}' holds label maps of another model, which can be reviewed; there are "
            "no networks to segment or to train on with: name a trained run, or train one."
        )
        raise RunError(msg)
    return run


def best_round(run: RunFolder) -> int:
    """Return the number of the round that the run kept.

    Raises:
        RunError: When no round is finished.
    """
    best = run.best_round
    if best < 1:
        msg = (
            f"Run '{run.run_id}' has no finished round yet; resume it and let it finish one, or "
            "name another run."
        )
        raise RunError(msg)
    return best


def runs_of(project_folder: Path) -> list[RunFolder]:
    """Return all runs of a project, the latest last; links that lead out of it are left out."""
    placed = []
    for path in (project_folder / RUNS).glob(f"*/{run_names.CONFIG}"):
        with suppress(AslsegError, OSError):
            run = run_named(project_folder, path.parent.name)
            placed.append(((_place_of(run.path), path.stat().st_mtime, run.run_id), run))
    return [run for _, run in sorted(placed, key=lambda pair: pair[0])]


def refuse_foreign_results(project_folder: Path, cases: Iterable[Case]) -> None:
    """Make sure that no run has results of another image under the name of a case.

    Names that are one file on some systems count as one.

    Raises:
        ProjectError: When one has: they would be shown and exported as this case's.
    """
    for run in runs_of(project_folder):
        seen: dict[str, str] = {}
        with suppress(AslsegError):  # a damaged run is never shown
            seen = {name_key(name): digest for name, digest in run.images.items()}
        for case in cases:
            if seen.get(name_key(case.id), case.image_sha256) != case.image_sha256:
                msg = (
                    f"Run '{run.run_id}' has results of another image under the name {case.id}; "
                    "choose another name, or delete the run's folder if it is not needed any more."
                )
                raise ProjectError(msg)


def saw_another(seen: Mapping[str, str], case: Case) -> bool:
    """Return whether results of a case are of another image than it has now: nobody's then.

    Args:
        seen: Digests of the images that a run has seen, by case: `RunFolder.images`.
        case: The case.
    """
    return seen.get(case.id, case.image_sha256) != case.image_sha256


def finished_runs(project_folder: Path, *, external: bool = False) -> Iterator[RunFolder]:
    """Yield the runs with a finished round, latest first; each is looked at when it is its turn.

    Args:
        project_folder: Of the project.
        external: Whether labels of another model count too.

    Raises:
        RunError: When a run that is looked at is damaged.
    """
    runs = (run for run in reversed(runs_of(project_folder)) if external or not run.is_external)
    return (run for run in runs if run.best_round > 0)


def latest_finished(project_folder: Path, *, external: bool = False) -> RunFolder | None:
    """Return the latest of the `finished_runs`, or None.

    Raises:
        RunError: As `finished_runs`.
    """
    return next(finished_runs(project_folder, external=external), None)


def weights_digest(run: RunFolder, round_number: int) -> str:
    """Return 16 hexadecimal digits that name the trained weights of a round."""
    folders = dict.fromkeys([run.first_folder(round_number), run.round(round_number)])
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    whole = "".join(f"{path.name}{sha256_of(path)}" for path in files)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def noted_targets(project: Project) -> list[str]:
    """Return what a run notes of its targets, which its networks are for, in their order."""
    return [as_typed(one.name, one.value, one.inside) for one in project.targets]


def check_targets(project: Project, run: RunFolder) -> None:
    """Make sure that a project still has the targets that the networks of a run are for.

    Runs of earlier versions did not note them.

    Raises:
        RunError: When names, values, order or parents are others by now: label maps would mean
            something else than they show.
    """
    noted, now = run.status.targets, noted_targets(project)
    if noted and noted != now:
        msg = (
            f"The networks of run '{run.run_id}' are for {', '.join(noted)}, and the project has "
            f"{', '.join(now)} by now; restore its targets, or train a new run."
        )
        raise RunError(msg)


def check_orientation(project: Project, run: RunFolder, monitor: Monitor) -> None:
    """Make sure that the networks of a run know volumes as they are shown to them now.

    A run notes its orientation. One that does not was trained by a version that showed volumes as
    their files store them: it is of use as long as all of these are stored in today's orientation.

    Args:
        project: Its cases say how they are stored.
        run: Of that project.
        monitor: Told of images that cannot be looked at.

    Raises:
        RunError: When its networks saw volumes in another orientation.
        ImageError: When an image is damaged.
    """
    if not any(run.path.glob("round-*")):
        return  # nothing has been trained yet
    noted = run.status.orientation
    seen = [("its volumes", noted)] if noted else list(_stored(project, monitor))
    for what, orientation in seen:
        if orientation != ORIENTATION:
            msg = (
                f"The networks of run '{run.run_id}' saw {what} with axes {orientation}, and "
                f"all volumes are brought to {ORIENTATION} now: they would be mistaken. Train a "
                "new run."
            )
            raise RunError(msg)


def _stored(project: Project, monitor: Monitor) -> Iterator[tuple[str, str]]:
    for case in (*project.labelled, *project.unlabelled):
        path = project.image_path(case)
        if path.exists():
            yield f"case {case.id}", axis_names(read_geometry(path))
        else:
            monitor.warn(f"{path} is absent: how the run saw case {case.id} is not known.")
