"""The requests that the engine serves; networks and the last session stay in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aslseg.data.images import read_volume
from aslseg.data.volume import Volume
from aslseg.engine.requests import (
    ImageRequest,
    Refine,
    Resume,
    Segment,
    Train,
    check_request,
)
from aslseg.engine.results import facts_of, write_prediction
from aslseg.engine.settings import config_of, require_run, run_of, sam_settings, targets_of
from aslseg.engine.system import describe, download, remove
from aslseg.errors import ConfigError, ImageError
from aslseg.events import Monitor
from aslseg.inference.interactive.predictions import SessionPrediction
from aslseg.inference.interactive.session import (
    Session,
    SessionModels,
    models_of_ensemble,
    models_without_run,
)
from aslseg.inference.loading import load_ensemble
from aslseg.networks.device import choose_device
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, new_run_id, run_named
from aslseg.prompts import SlicePrompts
from aslseg.runs import continue_run, resume_run, start_run
from aslseg.storage import cache_folder

Result = dict[str, Any]
"""`files` and `facts` of a `done` event; of `describe`, other keys."""


@dataclass
class _Cached:
    """Something that is slow to make, and the key of what it was made of."""

    key: tuple[Any, ...]
    value: Any


class Engine:
    """Serves requests; keeps the networks of the last run and the session of the last volume."""

    def __init__(self) -> None:
        self._models: _Cached | None = None
        self._session: _Cached | None = None

    @property
    def tasks(self) -> dict[str, Callable[[Mapping[str, Any], Monitor], Result]]:
        """By name, what takes the arguments of a request, checks them, and serves it."""
        tasks: dict[str, Callable[[Any, Monitor], Result]] = {
            "segment": self.segment,
            "refine": self.refine,
            "train": self.train,
            "resume": self.resume,
            "describe": describe,
            "download": download,
            "remove": remove,
        }
        return {name: partial(_checked, name, task) for name, task in tasks.items()}

    def segment(self, request: Segment, monitor: Monitor) -> Result:
        """Segment a volume with a run, and write all predictions."""
        require_run(request)
        return self._predicted(
            request, monitor, lambda session: session.refine((), monitor=monitor)
        )

    def refine(self, request: Refine, monitor: Monitor) -> Result:
        """Predict with a person's prompts, one slice or the whole volume."""
        given = prompts_of([prompt.model_dump() for prompt in request.prompts or ()])
        return self._predicted(
            request,
            monitor,
            lambda session: session.refine(
                given, request.slice_index, edited_slices=request.edited_slices, monitor=monitor
            ),
        )

    def train(self, request: Train, monitor: Monitor) -> Result:
        """Start a run."""
        self._release_models()
        project = open_project(Path(request.project))
        config = config_of(request.settings, project.preset)
        if request.device is not None:
            config = config.model_copy(update={"device": request.device})
        name = request.run or new_run_id(config.method)
        monitor.artifact("run", run_named(project.folder, name).path)
        return _finished(start_run(project, config, monitor, name), monitor)

    def resume(self, request: Resume, monitor: Monitor) -> Result:
        """Go on with a run; with `rounds`, for that many more."""
        self._release_models()
        project = open_project(Path(request.project))
        name, more, device = request.run, request.rounds, request.device
        if more:
            folder = continue_run(project, name, more, monitor, device=device)
        else:
            folder = resume_run(project, name, monitor, device=device)
        return _finished(folder, monitor)

    def _predicted(
        self,
        request: Segment,
        monitor: Monitor,
        predict: Callable[[Session], SessionPrediction],
    ) -> Result:
        began = time.monotonic()
        run = run_of(request)
        session = self._session_of(run, request, monitor)
        prediction = predict(session)
        files = write_prediction(prediction, Path(request.output))
        for sentence in prediction.unmet_clicks:
            monitor.warn(sentence)
        facts = {**facts_of(session, prediction, run), "device": _device_name(run, request)}
        seconds = round(time.monotonic() - began, 3)
        return {"files": files, "facts": {**facts, "seconds": seconds}}

    def _session_of(self, run: RunFolder | None, request: Segment, monitor: Monitor) -> Session:
        key = (*_file_key(request), *_models_key(run, request))
        if self._session is None or self._session.key != key:
            self._session = None  # before the next one is made: two do not fit in memory
            volume = _read(request, monitor)
            models = self._models_of(run, request, monitor)
            self._session = _Cached(key, Session(volume, models, monitor))
        session: Session = self._session.value
        return session

    def _models_of(
        self, run: RunFolder | None, request: ImageRequest, monitor: Monitor
    ) -> SessionModels:
        key = _models_key(run, request)
        if self._models is None or self._models.key != key:
            self._models = None
            for _ in monitor.track(["networks"], "Loading the networks"):
                self._models = _Cached(key, _load_models(run, request, monitor))
        models: SessionModels = self._models.value  # type: ignore[union-attr]
        return models

    def _release_models(self) -> None:
        """Free the memory of sessions for a training."""
        self._models = self._session = None


def prompts_of(values: Any) -> list[SlicePrompts]:
    """Read prompts from JSON.

    Args:
        values: A list as `prompts.json` has it.

    Raises:
        ConfigError: When one is empty or cannot be read.
    """
    try:
        return [SlicePrompts.from_json(value) for value in values or ()]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        msg = f"A prompt cannot be read ({error}); give slice_index, target, and a box or points."
        raise ConfigError(msg) from error


def _checked(
    name: str,
    task: Callable[[Any, Monitor], Result],
    arguments: Mapping[str, Any],
    monitor: Monitor,
) -> Result:
    return task(check_request(name, arguments), monitor)


def _load_models(run: RunFolder | None, request: ImageRequest, monitor: Monitor) -> SessionModels:
    if run is not None:
        cache = run.path.parents[1] / "cache" / "embeddings"
        return models_of_ensemble(load_ensemble(run, monitor, request.device), cache)
    cache = Path(request.project) / "cache" if request.project else cache_folder()
    settings = sam_settings(request.sam)
    device = request.device or "auto"
    return models_without_run(targets_of(request), settings, cache / "embeddings", device)


def _read(request: ImageRequest, monitor: Monitor) -> Volume:
    for _ in monitor.track(["image"], "Reading the volume"):
        volume = read_volume(Path(request.image))
    return volume


def _file_key(request: ImageRequest) -> tuple[Any, ...]:
    path = Path(request.image)
    if not path.exists():
        msg = f"{path} does not exist; give the path of an image or of a DICOM folder."
        raise ImageError(msg)
    return str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size


def _device_name(run: RunFolder | None, request: ImageRequest) -> str:
    wish = request.device or (run.config.device if run else "auto")
    return choose_device(wish).torch_device.type


def _models_key(run: RunFolder | None, request: ImageRequest) -> tuple[Any, ...]:
    """Return what the networks depend on."""
    trained = () if run is None else (str(run.path), run.status.get("best_round"))
    parts = (request.project, request.device, request.sam, request.targets)
    return (*trained, *(str(part) for part in parts))


def _finished(folder: RunFolder, monitor: Monitor) -> Result:
    files: dict[str, str] = {}
    try:
        from aslseg.report.report import write_report

        files["report"] = str(write_report(folder.path))
    except ImportError as error:
        monitor.warn(f"The report was not written, for a package is missing: {error}.")
    facts = {
        "run": folder.run_id,
        "folder": str(folder.path),
        "best_round": folder.status.get("best_round"),
        "rounds": folder.rounds,
    }
    return {"files": files, "facts": facts}
