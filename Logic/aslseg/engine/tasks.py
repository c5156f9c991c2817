"""The requests that the engine serves; networks and the last session stay in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from aslseg.batch import FolderOptions, segment_folder
from aslseg.config import RunConfig, SamConfig, parse_config
from aslseg.data.images import read_labelmap, read_volume, stamp_of, write_labelmap, write_volume
from aslseg.data.orientation import axial_labelmap
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.engine.facts import (
    EstimateFacts,
    ExportFacts,
    FillFacts,
    FolderFacts,
    PredictionFacts,
    RunFacts,
)
from aslseg.engine.filling import (
    DrawnLesion,
    filled_by_run,
    filled_lesion,
    filled_without_run,
    learns_slices,
)
from aslseg.engine.growing import grown
from aslseg.engine.protocol import (
    Done,
    Estimate,
    Export,
    FileName,
    FillBetween,
    FollowRun,
    Grow,
    ImageRequest,
    Refine,
    Resume,
    Segment,
    SegmentFolder,
    Train,
    TrainOn,
    check_request,
)
from aslseg.engine.settings import config_of
from aslseg.engine.system import describe, download, remove
from aslseg.errors import ConfigError, ImageError, RunError
from aslseg.events import Monitor
from aslseg.export.project import ExportOptions, export_project
from aslseg.inference.interactive.predictions import SessionPrediction
from aslseg.inference.interactive.session import (
    Session,
    SessionModels,
    models_of_ensemble,
    models_without_run,
)
from aslseg.inference.loading import load_ensemble
from aslseg.inference.prediction_cache import open_predictions, unchanged
from aslseg.networks.device import choose_device
from aslseg.project.case import CACHE, EMBEDDINGS
from aslseg.project.organ_masks import volume_with_organs
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import (
    RunFolder,
    latest_finished,
    new_run_id,
    open_run,
    run_named,
    weights_digest,
)
from aslseg.project.run_tables import PREDICTIONS
from aslseg.project.unlike_labelled import read_intensities, warn_of_unlike
from aslseg.prompts import SlicePrompts
from aslseg.runs import continue_run, estimate_run, resume_run, start_run, train_on
from aslseg.storage import cache_folder, write_json_atomic
from aslseg.targets import LIVER_TARGETS, Target

Key = tuple[Any, ...]
"""What something was made of."""


@dataclass(frozen=True)
class _Models:
    """Networks that are slow to load.

    Attributes:
        key: What they depend on.
        models: The networks.
        facts: About all predictions with them.
    """

    key: Key
    models: SessionModels
    facts: PredictionFacts


@dataclass(frozen=True)
class _OpenVolume:
    """The session of a volume, the networks that it uses, and the key of both."""

    key: Key
    models: _Models
    session: Session


class Engine:
    """Serves requests; keeps the networks of the last run and the session of the last volume."""

    def __init__(self) -> None:
        self._models: _Models | None = None
        self._volume: _OpenVolume | None = None

    @property
    def tasks(self) -> dict[str, Callable[[Mapping[str, Any], Monitor], Done]]:
        """By name, what takes the arguments of a request, checks them, and serves it."""
        tasks: dict[str, Callable[[Any, Monitor], Done]] = {
            "segment": self.segment,
            "refine": self.refine,
            "grow": self.grow,
            "fill_between": self.fill_between,
            "train": self.train,
            "estimate": self.estimate,
            "resume": self.resume,
            "follow_run": follow_run,
            "export": export,
            "segment_folder": self.segment_folder,
            "train_on": self.train_on,
            "describe": describe,
            "download": download,
            "remove": remove,
        }
        return {name: partial(_checked, name, task) for name, task in tasks.items()}

    def segment(self, request: Segment, monitor: Monitor) -> Done:
        """Segment a volume with a run, and write all predictions."""
        known = read_intensities(require_run(request).path)

        def predict(session: Session) -> SessionPrediction:
            found = session.refine((), monitor=monitor)
            if found.refined is not None:
                targets = session.models.targets
                labels = axial_labelmap(found.refined)
                warn_of_unlike(monitor, "this volume", session.volume, labels, targets, known)
            return found

        return self._predicted(request, monitor, predict)

    def refine(self, request: Refine, monitor: Monitor) -> Done:
        """Predict with a person's prompts, one slice or the whole volume."""
        given = prompts_of([prompt.model_dump() for prompt in request.prompts or ()])
        return self._predicted(
            request,
            monitor,
            lambda session: session.refine(
                given, request.slice_index, edited_slices=request.edited_slices, monitor=monitor
            ),
        )

    def estimate(self, request: Estimate, monitor: Monitor) -> Done:
        """Estimate how long a run would take."""
        project = open_project(Path(request.project))
        found = estimate_run(project, _wanted_config(request, project), monitor)
        facts = EstimateFacts(rounds=found.rounds, steps=found.steps, seconds=found.seconds)
        return Done(facts=facts)

    def grow(self, request: Grow, monitor: Monitor) -> Done:
        """Grow a lesion; each section is an event as soon as it is there."""
        opened = self._opened(run_of(request), request, monitor)
        labels = None if request.labels is None else read_labelmap(Path(request.labels))
        given = prompts_of([prompt.model_dump() for prompt in request.prompts])
        return Done(facts=grown(opened.session, opened.models.facts, given, labels, monitor))

    def fill_between(self, request: FillBetween, monitor: Monitor) -> Done:
        """Fill organs between slices that a person drew, and write the label map."""
        drawn, slices = read_labelmap(Path(request.labels)), request.slices
        run = None if request.target else run_of(request)
        if run is None or not learns_slices(run):
            found, facts = _filled_anew(request, drawn, monitor)
        else:
            opened = self._opened(run, request, monitor)
            found, facts = filled_by_run(
                opened.session, opened.models.facts, drawn, slices, monitor
            )
        path = Path(request.output) / "filled.nii.gz"
        write_labelmap(found, path)
        return Done(facts=facts, files={"filled": str(path)})

    def train(self, request: Train, monitor: Monitor) -> Done:
        """Start a run."""
        self._release_models()
        project = open_project(Path(request.project))
        config = _wanted_config(request, project)
        name = request.run or new_run_id(config.method)
        monitor.artifact("run", run_named(project.folder, name).path)
        return _finished(start_run(project, config, monitor, name), monitor)

    def resume(self, request: Resume, monitor: Monitor) -> Done:
        """Go on with a run; with `rounds`, for that many more."""
        self._release_models()
        project = open_project(Path(request.project))
        name, more, device = request.run, request.rounds, request.device
        if more:
            folder = continue_run(project, name, more, monitor, device=device)
        else:
            folder = resume_run(project, name, monitor, device=device)
        return _finished(folder, monitor)

    def segment_folder(self, request: SegmentFolder, monitor: Monitor) -> Done:
        """Segment the volumes of a folder."""
        self._release_models()
        organs = {name: Path(folder) for name, folder in request.organs.items()}
        options = FolderOptions(request.predictions, request.replace, request.device, organs)
        done = segment_folder(
            require_run(request),
            Path(request.images),
            Path(request.output),
            options,
            monitor=monitor,
        )
        facts = FolderFacts(
            done=list(done.done), skipped=list(done.skipped), failed=dict(done.failed)
        )
        return Done(facts=facts, files={"folder": str(done.folder)})

    def train_on(self, request: TrainOn, monitor: Monitor) -> Done:
        """Let a run learn from decisions about lesions."""
        self._release_models()
        project = open_project(Path(request.project))
        share, device = request.share, request.device
        run = train_on(project, request.run, monitor, share=share, device=device)
        return _finished(run, monitor)

    def _predicted(
        self,
        request: Segment,
        monitor: Monitor,
        predict: Callable[[Session], SessionPrediction],
    ) -> Done:
        opened = self._opened(run_of(request), request, monitor)
        opened.session.predict(monitor)
        prediction = predict(opened.session)
        for sentence in prediction.unmet_clicks:
            monitor.warn(sentence)
        about = {
            "slice_index": prediction.slice_index,
            "unmet_clicks": list(prediction.unmet_clicks),
        }
        files = write_prediction(prediction, Path(request.output))
        return Done(facts=opened.models.facts.model_copy(update=about), files=files)

    def _opened(
        self, run: RunFolder | None, request: ImageRequest, monitor: Monitor
    ) -> _OpenVolume:
        """Return the session of a request; that of the last one where nothing has changed."""
        models_key = _models_key(run, request)
        key = (*_file_key(request), *models_key)
        if self._volume is None or self._volume.key != key:
            self._volume = None  # before the next one is made: two do not fit in memory
            _require_run_for_organs(request, run)
            volume = _read(request, monitor)
            if self._models is None or self._models.key != models_key:
                self._models = None
                self._models = _load_models(models_key, run, request, monitor)
            session = Session(volume, self._models.models)
            self._volume = _OpenVolume(key, self._models, session)
        return self._volume

    def _release_models(self) -> None:
        """Free the memory of sessions for a training."""
        self._models = self._volume = None


def _filled_anew(
    request: FillBetween, drawn: Labelmap, monitor: Monitor
) -> tuple[Labelmap, FillFacts]:
    """Fill the organs, or the lesion of a request, by a new network."""
    volume, targets = _read(request, monitor), targets_of(request)
    device = choose_device(request.device or "auto")
    if request.target is None:
        return filled_without_run(volume, targets, drawn, request.slices, device, monitor)
    mask = None if request.lesion is None else read_labelmap(Path(request.lesion))
    lesion = DrawnLesion(request.target, drawn, mask)
    return filled_lesion(volume, targets, lesion, request.slices, device, monitor)


def export(request: Export, monitor: Monitor) -> Done:
    """Write the label maps of a project."""
    options = ExportOptions(
        format=request.format,
        labels=request.labels,
        cases=None if request.cases is None else tuple(request.cases),
        run=request.run,
        replace=request.replace,
    )
    done = export_project(
        open_project(Path(request.project)), Path(request.output), options, monitor=monitor
    )
    facts = ExportFacts(label_maps=dict(done.label_maps), notes=list(done.notes))
    return Done(facts=facts, files={"folder": str(done.folder)})


def follow_run(request: FollowRun, _: Monitor) -> Done:
    """Refuse: what is worked on elsewhere is followed by the process that stands for that host.

    Raises:
        RunError: Always.
    """
    run = open_run(Path(request.project), request.run)
    msg = f"Run '{run.run_id}' is this computer's; resume it, or choose the host that works on it."
    raise RunError(msg)


def _wanted_config(request: Train | Estimate, project: Project) -> RunConfig:
    config = config_of(request.settings, project.preset)
    return (
        config if request.device is None else config.model_copy(update={"device": request.device})
    )


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
    task: Callable[[Any, Monitor], Done],
    arguments: Mapping[str, Any],
    monitor: Monitor,
) -> Done:
    asked = replace(monitor, may_download=name == "download")
    return task(check_request(name, arguments), asked)


def _load_models(
    key: Key, run: RunFolder | None, request: ImageRequest, monitor: Monitor
) -> _Models:
    wish = request.device or (run.config.device if run else "auto")
    device = choose_device(wish).torch_device.type
    for _ in monitor.track(["networks"], "Loading the networks"):
        if run is None:
            cache = Path(request.project) / CACHE if request.project else cache_folder()
            settings = sam_settings(request.sam)
            models = models_without_run(targets_of(request), settings, cache / EMBEDDINGS, wish)
        else:
            cache = run.path.parents[1] / CACHE
            stored = open_predictions(run, request.device)
            ensemble = load_ensemble(run, monitor, request.device)
            stored = unchanged(stored, run, request.device)
            models = models_of_ensemble(ensemble, cache / EMBEDDINGS, stored)
    return _Models(key, models, facts_of(models, run, device))


def _require_run_for_organs(request: ImageRequest, run: RunFolder | None) -> None:
    """Make sure that organ masks have a run's predictions to take the place of.

    Raises:
        ConfigError: When there is no run.
    """
    if request.organs and run is None:
        msg = "Organ masks are used with a trained run; train first, or leave them out."
        raise ConfigError(msg)


def _read(request: ImageRequest, monitor: Monitor) -> Volume:
    """Read the volume, with the masks of organs that shall not be predicted."""
    files = {name: Path(path) for name, path in request.organs.items()}
    for _ in monitor.track(["image"], "Reading the volume"):
        volume = volume_with_organs(read_volume(Path(request.image)), files, targets_of(request))
    return volume


def _file_key(request: ImageRequest) -> Key:
    """Return what changes when an image or mask of a request is replaced, also its voxels alone.

    Raises:
        ImageError: When one is missing, or cannot be looked at.
    """
    files = {"": Path(request.image), **{n: Path(path) for n, path in request.organs.items()}}
    for path in files.values():
        if not path.exists():
            msg = f"{path} does not exist; give the path of an image or of a DICOM folder."
            raise ImageError(msg)
    return tuple((name, str(file.resolve()), stamp_of(file)) for name, file in files.items())


def _models_key(run: RunFolder | None, request: ImageRequest) -> Key:
    """Return what the networks depend on."""
    trained = () if run is None else (str(run.path), run.best_round)
    parts = (request.project, request.device, request.sam, request.targets)
    return (*trained, *(str(part) for part in parts))


def _finished(folder: RunFolder, monitor: Monitor) -> Done:
    files: dict[FileName, str] = {}
    try:
        from aslseg.report.report import write_report

        files["report"] = str(write_report(folder.path))
    except ImportError as error:
        monitor.warn(f"The report was not written, for a package is missing: {error}.")
    return Done(facts=RunFacts(run=folder.run_id), files=files)


# -- what requests name --------------------------------------------------------------------------


def sam_settings(settings: Mapping[str, Any] | None) -> SamConfig:
    """Return the settings of SAM without a run; nothing of it is tuned.

    Raises:
        ConfigError: When a setting is unknown or out of range.
    """
    return parse_config({"sam": {**(settings or {}), "tuning": "none"}}, "SAM").sam


def run_of(request: ImageRequest | SegmentFolder) -> RunFolder | None:
    """Return the run that a request is about: the one named, else the latest finished one.

    None when no project is named, or when it has no finished run and the request names none.

    Raises:
        RunError: When the run that is named does not exist.
    """
    if request.project is None:
        return None
    folder = Path(request.project)
    if request.run is not None:
        return open_run(folder, request.run)
    return latest_finished(folder)


def require_run(request: ImageRequest | SegmentFolder) -> RunFolder:
    """Return the run that a request is about.

    Raises:
        RunError: When there is none.
    """
    run = run_of(request)
    if run is None:
        msg = f"{request.project or 'The request'} has no finished run yet; train first."
        raise RunError(msg)
    return run


def targets_of(request: ImageRequest) -> tuple[Target, ...]:
    """Return the classes: of the project, else those that the request lists, else liver's."""
    if request.project is not None:
        return open_project(Path(request.project)).targets
    return tuple(request.targets) if request.targets else LIVER_TARGETS


# -- what is answered ----------------------------------------------------------------------------


def write_prediction(prediction: SessionPrediction, folder: Path) -> dict[FileName, str]:
    """Write label maps, disagreement and prompts; label maps of one slice are named after it.

    Returns:
        Paths by name: `specialist`, `sam`, `refined`, `disagreement`, `prompts`; predictions that
        were not made are missing.
    """
    prefix = "" if prediction.slice_index is None else f"slice-{prediction.slice_index:04d}-"
    files: dict[FileName, Path] = {}
    geometry: Geometry | None = None
    for source in PREDICTIONS:
        labels: Labelmap | None = getattr(prediction, source)
        if labels is not None:
            files[source] = folder / f"{prefix}{source}.nii.gz"
            geometry = labels.geometry
            write_labelmap(labels, files[source])
    if geometry is not None:
        files["disagreement"] = folder / f"{prefix}disagreement.nii.gz"
        write_volume(Volume(prediction.disagreement, geometry), files["disagreement"])
    files["prompts"] = folder / f"{prefix}prompts.json"
    write_json_atomic(files["prompts"], [prompt.to_json() for prompt in prediction.prompts])
    return {name: str(path) for name, path in files.items()}


def facts_of(models: SessionModels, run: RunFolder | None, device: str) -> PredictionFacts:
    """Return what holds for all predictions with some models; without a run, with a note."""
    note = "No trained run: SAM alone predicts, as it was released, and only from your prompts."
    facts = PredictionFacts(
        run=None,
        method="sam",
        round=0,
        weights="",
        note=note,
        device=device,
        slice_index=None,
        targets=list(models.targets),
        unmet_clicks=[],
    )
    if run is None or models.ensemble is None:
        return facts
    best = run.best_round
    trained = {
        "run": run.run_id,
        "method": models.ensemble.config.method,
        "round": best,
        "weights": weights_digest(run, best),
        "note": "",
    }
    return facts.model_copy(update=trained)
