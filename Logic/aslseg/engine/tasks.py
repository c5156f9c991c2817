"""What the engine can do. Sessions stay warm: the second request about a volume is quick."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aslseg.data.images import read_volume
from aslseg.data.volume import Volume
from aslseg.engine.requests import check_request
from aslseg.engine.results import facts_of, write_answer
from aslseg.engine.settings import config_of, require_run, run_of, sam_settings, targets_of
from aslseg.engine.system import describe, download, remove
from aslseg.errors import ConfigError, ImageError
from aslseg.events import Monitor
from aslseg.inference.interactive.models import (
    SessionModels,
    models_of_ensemble,
    models_without_run,
)
from aslseg.inference.interactive.session import Session
from aslseg.networks.device import choose_device
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, new_run_id, run_named
from aslseg.prompts import SlicePrompts
from aslseg.runs import continue_run, load_ensemble, resume_run, start_run
from aslseg.storage import cache_folder

Arguments = Mapping[str, Any]
Result = dict[str, Any]


@dataclass
class _Cached:
    """Something that took long to make, and what it was made of."""

    key: tuple[Any, ...]
    value: Any


class Engine:
    """Does what requests ask for; keeps the last run's networks and the last volume's session."""

    def __init__(self) -> None:
        self._voices: _Cached | None = None
        self._session: _Cached | None = None

    @property
    def tasks(self) -> dict[str, Callable[[Arguments, Monitor], Result]]:
        """What can be asked for, by name; arguments are checked before anything is done."""
        return {
            name: partial(_do, name, task)
            for name, task in (
                ("segment", self.segment),
                ("refine", self.refine),
                ("train", self.train),
                ("resume", self.resume),
                ("describe", describe),
                ("download", download),
                ("remove", remove),
            )
        }

    def segment(self, arguments: Arguments, monitor: Monitor) -> Result:
        """Segment a volume with a run and write what each voice says."""
        require_run(arguments)
        return self._spoken(arguments, monitor, lambda session: session.refine((), monitor=monitor))

    def refine(self, arguments: Arguments, monitor: Monitor) -> Result:
        """Answer a person's prompts, about one slice or the whole volume."""
        given = prompts_of(arguments["prompts"])
        return self._spoken(
            arguments,
            monitor,
            lambda session: session.refine(
                given,
                arguments["slice_index"],
                edited_slices=arguments["edited_slices"],
                monitor=monitor,
            ),
        )

    def train(self, arguments: Arguments, monitor: Monitor) -> Result:
        """Start a run."""
        self._cool_down()
        project = open_project(Path(arguments["project"]))
        config = config_of(arguments["settings"], project.preset)
        if arguments["device"] is not None:
            config = config.model_copy(update={"device": arguments["device"]})
        name = arguments["run"] or new_run_id(config.method)
        monitor.artifact("run", run_named(project.folder, name).path)
        return _finished(start_run(project, config, monitor, name), monitor)

    def resume(self, arguments: Arguments, monitor: Monitor) -> Result:
        """Go on with a run; with `rounds`, for that many more."""
        self._cool_down()
        project = open_project(Path(arguments["project"]))
        more = arguments["rounds"] or 0
        name, device = arguments["run"], arguments["device"]
        if more > 0:
            folder = continue_run(project, name, more, monitor, device=device)
        else:
            folder = resume_run(project, name, monitor, device=device)
        return _finished(folder, monitor)

    def _spoken(
        self, arguments: Arguments, monitor: Monitor, ask: Callable[[Session], Any]
    ) -> Result:
        began = time.monotonic()
        output = Path(arguments["output"])
        run = run_of(arguments)
        session = self._session_of(run, arguments, monitor)
        answer = ask(session)
        files = write_answer(answer, output)
        for sentence in answer.unmet_clicks:
            monitor.warn(sentence)
        facts = {**facts_of(session, answer, run), "device": _device_name(run, arguments)}
        seconds = round(time.monotonic() - began, 3)
        return {"files": files, "facts": {**facts, "seconds": seconds}}

    def _session_of(self, run: RunFolder | None, arguments: Arguments, monitor: Monitor) -> Session:
        key = (*_file_key(arguments), *_voices_key(run, arguments))
        if self._session is None or self._session.key != key:
            self._session = None  # before the next one is made: two do not fit in memory
            volume = _read(arguments, monitor)
            predictions = self._voices_of(run, arguments, monitor)
            self._session = _Cached(key, Session(volume, predictions, monitor))
        session: Session = self._session.value
        return session

    def _voices_of(
        self, run: RunFolder | None, arguments: Arguments, monitor: Monitor
    ) -> SessionModels:
        key = _voices_key(run, arguments)
        if self._voices is None or self._voices.key != key:
            self._voices = None
            for _ in monitor.track(["networks"], "Loading the networks"):
                self._voices = _Cached(key, _load_models(run, arguments, monitor))
        predictions: SessionModels = self._voices.value  # type: ignore[union-attr]
        return predictions

    def _cool_down(self) -> None:
        """Free the memory of sessions for a training."""
        self._voices = self._session = None


def prompts_of(values: Any) -> list[SlicePrompts]:
    """Read prompts from JSON.

    Args:
        values: A list as `prompts.json` has it.

    Raises:
        ConfigError: When one says nothing or cannot be read.
    """
    try:
        return [SlicePrompts.from_json(value) for value in values or ()]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        msg = f"A prompt cannot be read ({error}); give slice_index, target, and a box or points."
        raise ConfigError(msg) from error


def _do(
    name: str, task: Callable[[Arguments, Monitor], Result], arguments: Arguments, monitor: Monitor
) -> Result:
    return task(check_request(name, arguments), monitor)


def _load_models(run: RunFolder | None, arguments: Arguments, monitor: Monitor) -> SessionModels:
    if run is not None:
        cache = run.path.parents[1] / "cache" / "embeddings"
        return models_of_ensemble(load_ensemble(run, monitor, arguments["device"]), cache)
    project = arguments["project"]
    cache = Path(project) / "cache" if project else cache_folder()
    settings = sam_settings(arguments["sam"])
    device = arguments["device"] or "auto"
    return models_without_run(targets_of(arguments), settings, cache / "embeddings", device)


def _read(arguments: Arguments, monitor: Monitor) -> Volume:
    for _ in monitor.track(["image"], "Reading the volume"):
        volume = read_volume(Path(arguments["image"]))
    return volume


def _file_key(arguments: Arguments) -> tuple[Any, ...]:
    path = Path(arguments["image"])
    if not path.exists():
        msg = f"{path} does not exist; give the path of an image or of a DICOM folder."
        raise ImageError(msg)
    return str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size


def _device_name(run: RunFolder | None, arguments: Arguments) -> str:
    wish = arguments["device"] or (run.config.device if run else "auto")
    return choose_device(wish).torch_device.type


def _voices_key(run: RunFolder | None, arguments: Arguments) -> tuple[Any, ...]:
    """Return what the networks are made of: another of these, and they are loaded anew."""
    trained = () if run is None else (str(run.path), run.status.get("best_round"))
    names = ("project", "device", "sam", "targets")
    return (*trained, *(str(arguments[name]) for name in names))


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
