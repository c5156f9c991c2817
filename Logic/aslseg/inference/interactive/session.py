"""One volume with its predictions in memory: an edited prompt costs one pass of the mask decoder.

The first prediction is made when it is first asked for; growing a lesion needs none.

A person's prompts replace the proposed ones of the same slice and target; SAM predicts again only
where prompts have changed.

Prompts of a person overrule the trained parts (ours): where there are any, SAM's prediction stands
for the specialist's too, what is prompted inside of a parent is added to the parent, where the
adaptation network contradicts a click, SAM's prediction stays, and no candidate is rejected there.

Inside, everything lies on the volume's axial grid. Prompts and numbers of slices come and go on its
slice grid, label maps on its own voxels (see `data.orientation`); `_given` and `_prediction_of`
turn them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aslseg.config import RunConfig, SamConfig
from aslseg.data.orientation import axial_to_slices, axial_volume, to_axial
from aslseg.data.volume import Float32, Labelmap, Labels, Mask, Volume
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities
from aslseg.inference.ensemble import Ensemble, PromptPredictor
from aslseg.inference.interactive.first_prediction import first_prediction, parents_of
from aslseg.inference.interactive.growth import grow_lesion
from aslseg.inference.interactive.predictions import (
    PredictionStore,
    SessionPrediction,
    decided_slice,
    disagreement,
    follow_clicks,
    predict_slice,
    unmet_clicks,
)
from aslseg.inference.interactive.prompt_edits import (
    SlicePromptState,
    SliceTarget,
    merge,
    problem_of,
    with_mask_prompt,
)
from aslseg.inference.interactive.propagation import GrownSlice, GrowthEnd, SliceSam
from aslseg.inference.lesion_stage import CandidateEffect
from aslseg.inference.postprocessing import label_slice, labels_from, plain_labels
from aslseg.inference.prediction_cache import PredictionCache
from aslseg.inference.refinement import Planes, Refiner, SliceRefiner, geometry_of_slice
from aslseg.networks.device import choose_device
from aslseg.prompts import SliceCrop, SlicePrompts, turned_prompts
from aslseg.sam.crops import with_crops
from aslseg.sam.predictor import VolumeSamPredictor, build_sam_predictor
from aslseg.targets import Target, region_mask


@dataclass(frozen=True, slots=True, eq=False)
class SessionModels:
    """The models of a session.

    Attributes:
        targets: The classes.
        ensemble: The trained parts of a run; None when SAM is alone.
        sam: Predicts with a person's prompts; None without SAM.
        slice_sam: Grows lesions; None without SAM.
        predictions: Those of the run that are on disk; None where none are kept.
    """

    targets: tuple[Target, ...]
    ensemble: Ensemble | None
    sam: PromptPredictor | None
    slice_sam: SliceSam | None = None
    predictions: PredictionCache | None = None

    @property
    def proposes(self) -> bool:
        """Whether SAM predicts without a person's prompts too."""
        return self.ensemble is not None and self.ensemble.sam_predictor is not None

    def label_volume(self, probabilities: Probabilities, volume: Volume) -> Labelmap:
        """Return the label map of (D, H, W) probabilities; those of SAM alone are not cleaned."""
        if self.ensemble is None:
            return Labelmap(plain_labels(probabilities, self.targets), volume.geometry)
        least = self.ensemble.config.min_component_ml
        return labels_from(probabilities, self.targets, volume, least)

    def label_slice(self, planes: Planes, k: int, before: Labels, volume: Volume) -> Labels:
        """Return the labels (H, W) of the probabilities of slice `k`."""
        if self.ensemble is None:
            return plain_labels(planes, self.targets)
        least = self.ensemble.config.min_component_ml
        return label_slice(planes, k, before, self.targets, volume, min_component_ml=least)


class ReleasedSam:
    """SAM with released weights, loaded at its first prediction.

    Args:
        config: Model, input size, device.
        cache: Folder of the embeddings.
    """

    def __init__(self, config: RunConfig, cache: Path) -> None:
        untuned = config.sam.model_copy(update={"tuning": "none"})
        self._config = config.model_copy(update={"sam": untuned})
        self._cache = cache
        self._loaded: VolumeSamPredictor | None = None

    def predict(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> Probabilities:
        """Predict as `VolumeSamPredictor.predict`.

        Raises:
            WeightsError: When the weights cannot be had.
            ConfigError: When the settings want no SAM.
        """
        return self._predictor(monitor or Monitor()).predict(volume, prompts, monitor)

    def predict_logits(
        self, volume: Volume, prompt: SlicePrompts, monitor: Monitor | None = None
    ) -> Float32:
        """Predict one mask as `VolumeSamPredictor.predict_logits`.

        Raises:
            WeightsError: When the weights cannot be had.
            ConfigError: When the settings want no SAM.
        """
        return self._predictor(monitor or Monitor()).predict_logits(volume, prompt, monitor)

    def _predictor(self, monitor: Monitor) -> VolumeSamPredictor:
        if self._loaded is None:
            device = choose_device(self._config.device).torch_device
            self._loaded = build_sam_predictor(self._config, self._cache, device, monitor)
        if self._loaded is None:
            msg = "Prompts need SAM, and the settings want none; choose a model."
            raise ConfigError(msg)
        return self._loaded


def models_of_ensemble(
    ensemble: Ensemble, cache: Path, predictions: PredictionCache | None = None
) -> SessionModels:
    """Return the models of a session with a run.

    An ensemble without SAM gets SAM as it was released, for a person's prompts; so does one whose
    SAM predicts all classes of a slice at once, for growing lesions.

    Args:
        ensemble: Of a run.
        cache: Folder of the embeddings.
        predictions: Those of that run that are on disk; None where none are kept.
    """
    trained = ensemble.sam_predictor
    if isinstance(trained, VolumeSamPredictor):
        return SessionModels(ensemble.targets, ensemble, trained, trained, predictions)
    wanted = ensemble.config.sam if ensemble.config.sam.model != "none" else SamConfig()
    released = ReleasedSam(ensemble.config.model_copy(update={"sam": wanted}), cache)
    sam = trained or released
    return SessionModels(ensemble.targets, ensemble, sam, released, predictions)


def models_without_run(
    targets: Sequence[Target], settings: SamConfig, cache: Path, device: str = "auto"
) -> SessionModels:
    """Return SAM as it was released, alone, for a person's prompts.

    Args:
        targets: The classes.
        settings: Model and input size.
        cache: Folder of the embeddings.
        device: Where to compute.

    Raises:
        DeviceError: When the device is not there.
    """
    choose_device(device)
    config = RunConfig(sam=settings).model_copy(update={"device": device})
    released = ReleasedSam(config, cache)
    return SessionModels(tuple(targets), None, released, released)


class Session:
    """The models, prompts and predictions of one volume.

    Args:
        volume: The image.
        models: The trained parts of a run, or SAM alone.

    Attributes:
        volume: The image on its axial grid.
        models: The trained parts of a run, or SAM alone.
        stored: Where the image's voxels lie as they are stored.
    """

    def __init__(self, volume: Volume, models: SessionModels) -> None:
        self.volume = axial_volume(volume)
        self.models = models
        self.stored = volume.geometry
        self._to_slices = axial_to_slices(volume.geometry)
        self._proposed: tuple[SlicePrompts, ...] = ()
        self._crops: Mapping[str, SliceCrop] = {}
        self._states: dict[SliceTarget, SlicePromptState] = {}
        self._labels: dict[str, Labelmap] = {}
        self._slices: SliceRefiner | None = None
        self._effects: Mapping[str, CandidateEffect] = {}
        self._stale = False
        self._last: SessionPrediction | None = None

    @property
    def proposed(self) -> tuple[SlicePrompts, ...]:
        """The run's prompts."""
        self.predict()
        return self._turned_out(self._proposed)

    @property
    def prediction(self) -> SessionPrediction:
        """The last prediction of the whole volume."""
        return self.predict()

    def predict(self, monitor: Monitor | None = None) -> SessionPrediction:
        """Return the last prediction of the whole volume; make the first one if there is none.

        Args:
            monitor: Told of the progress of the first prediction.

        Raises:
            CancelledError: When asked to stop.
        """
        if self._last is None:
            self._last = self._predict_first(monitor or Monitor())
        return self._last

    def grow(
        self,
        given: Sequence[SlicePrompts],
        labels: Labelmap | None = None,
        *,
        monitor: Monitor | None = None,
    ) -> Iterator[GrownSlice | GrowthEnd]:
        """Yield a lesion in three dimensions; see `grow_lesion`.

        Raises:
            ConfigError: When a prompt lies outside of the volume, or has an unknown target; as
                `grow_lesion`.
            ImageError: As `grow_lesion`.
            CancelledError: When asked to stop.
        """
        self._check(given, None)
        if self.models.slice_sam is None:
            msg = "Growing needs SAM, and this run has none; choose a SAM."
            raise ConfigError(msg)
        return grow_lesion(
            self.models.slice_sam,
            self.volume,
            given,
            stored=self.stored,
            targets=self.models.targets,
            labels=labels,
            monitor=monitor,
        )

    def refine(
        self,
        given: Sequence[SlicePrompts],
        slice_index: int | None = None,
        *,
        edited_slices: Iterable[int] = (),
        monitor: Monitor | None = None,
    ) -> SessionPrediction:
        """Return the prediction with a person's prompts.

        Args:
            given: All prompts of the person; in their slice, for their target, they replace what
                was proposed.
            slice_index: Predict this slice alone, with its prompts only; None for the whole volume.
            edited_slices: Slices in which the given prompts are all that counts.
            monitor: Told of the progress.

        Raises:
            ConfigError: When a prompt lies outside of the volume or has an unknown target.
            CancelledError: When asked to stop.
        """
        monitor = monitor or Monitor()
        self._check(given, slice_index)
        last = self.predict(monitor)
        given, slice_index, edited_slices = self._given(given, slice_index, edited_slices)
        wanted = merge(self._proposed, given, edited_slices)
        if slice_index is not None:
            others = {key: s for key, s in self._states.items() if key[0] != slice_index}
            wanted = others | {key: s for key, s in wanted.items() if key[0] == slice_index}
        self._update_sam(wanted, monitor)
        if slice_index is not None:
            return self._predict_slice(slice_index)
        if self._stale:
            monitor.check()
            last = self._last = self._predict_volume(*self._stored_probabilities(), monitor)
        return last

    def _predict_first(self, monitor: Monitor) -> SessionPrediction:
        shape, ensemble = self.volume.geometry.shape, self.models.ensemble
        if ensemble is None:
            self._store = PredictionStore(shape, self.models.targets, {}, {})
            return self._predict_volume({}, {}, monitor)
        kept = self.models.predictions
        stored = None if kept is None else kept.of(self.volume)
        first = first_prediction(ensemble, self.volume, stored, monitor)
        self._proposed, self._crops, self._effects = first.proposed, first.crops, first.effects
        self._states = merge(self._proposed, ())
        self._store = PredictionStore(shape, self.models.targets, first.specialist, first.sam)
        self._labels = dict(first.labels)
        self._prepare_slices(ensemble, first.parents)
        return self._prediction_of(self._labels, first.disagreement, None)

    def _given(
        self,
        given: Sequence[SlicePrompts],
        slice_index: int | None,
        edited_slices: Iterable[int],
    ) -> tuple[list[SlicePrompts], int | None, list[int]]:
        """Turn prompts and numbers of slices to the axial grid."""
        shape, turn = self._to_slices.shape(self.volume.geometry.shape), self._to_slices.inverse
        prompts = turned_prompts(given, turn, shape)
        edited = [turn.index(k, shape[0]) for k in edited_slices]
        return prompts, None if slice_index is None else turn.index(slice_index, shape[0]), edited

    def _turned_out(self, prompts: Iterable[SlicePrompts]) -> tuple[SlicePrompts, ...]:
        return tuple(turned_prompts(prompts, self._to_slices, self.volume.geometry.shape))

    def _check(self, given: Sequence[SlicePrompts], slice_index: int | None) -> None:
        shape = self._to_slices.shape(self.volume.geometry.shape)
        names = {target.name: target for target in self.models.targets}
        problems = [problem_of(prompt, shape, names) for prompt in given]
        problems += [
            f"The mask of {prompt.target} is given and stays; change that mask instead."
            for prompt in given
            if prompt.target in self.volume.given
        ]
        if slice_index is not None and not 0 <= slice_index < shape[0]:
            problems.append(f"There is no slice {slice_index}; the volume has 0 to {shape[0] - 1}.")
        if given and self.models.sam is None:
            problems.append("This run works without SAM, so prompts have no use; choose a SAM.")
        for problem in filter(None, problems):
            raise ConfigError(problem)

    def _update_sam(self, wanted: dict[SliceTarget, SlicePromptState], monitor: Monitor) -> None:
        """Run SAM on each slice and target whose prompts have changed."""
        nothing = SlicePromptState()
        changed = [
            key
            for key in sorted(wanted.keys() | self._states.keys())
            if not wanted.get(key, nothing).matches(self._states.get(key, nothing))
        ]
        for key in monitor.track(changed, "Running SAM on prompts") if changed else ():
            state = wanted.get(key, nothing)
            if self.models.sam is not None:
                found = predict_slice(
                    self.models.sam,
                    self.volume,
                    self._completed(key, state),
                    monitor.without_events(),
                )
                self._store.change(key, state, found)
            self._states[key] = state
            self._stale = True

    def _completed(self, key: SliceTarget, state: SlicePromptState) -> SlicePromptState:
        """Add to a person's prompts what the run's come with: a crop, and a mask."""
        user = state.user
        if self.models.proposes:
            parents = {target.inside for target in self.models.targets}
            proposed, is_parent = state.proposed + state.removed, key[1] in parents
            user = tuple(
                with_mask_prompt(prompt, self.volume, proposed, is_parent=is_parent)
                for prompt in user
            )
        return replace(state, user=tuple(with_crops(user, self._crops)))

    def _stored_probabilities(self) -> tuple[Probabilities, Probabilities]:
        probabilities = {} if self.models.ensemble is None else self._store.all_of("specialist")
        return probabilities, self._store.all_of("sam") if self._uses_sam else {}

    @property
    def _uses_sam(self) -> bool:
        return self.models.proposes or any(state.user for state in self._states.values())

    def _predict_volume(
        self, probabilities: Probabilities, sam_probabilities: Probabilities, monitor: Monitor
    ) -> SessionPrediction:
        predictions = [values for values in (probabilities, sam_probabilities) if values]
        self._labels.pop("sam", None)
        if self._uses_sam:
            self._labels["sam"] = self.models.label_volume(sam_probabilities, self.volume)
        if self.models.ensemble is not None:
            for _ in monitor.track(["all"], "Refining"):
                refined = self._refine_volume(
                    self.models.ensemble, probabilities, sam_probabilities
                )
            predictions.append(refined)
            self._labels["refined"] = self._refined_labels(
                refined, is_specialist=refined is probabilities
            )
        self._stale = False
        return self._prediction_of(self._labels, self._disagreement(predictions, None), None)

    def _refined_labels(self, refined: Probabilities, *, is_specialist: bool) -> Labelmap:
        if is_specialist and not any(state.is_edited for state in self._states.values()):
            return self._labels["specialist"]
        return self.models.label_volume(refined, self.volume)

    def _refine_volume(
        self, ensemble: Ensemble, probabilities: Probabilities, sam_probabilities: Probabilities
    ) -> Probabilities:
        of_sam = None if ensemble.sam_predictor is None else sam_probabilities
        refined = ensemble.refiner.refine(self.volume, probabilities, of_sam)
        refined = self._decided(refined)
        for (k, name), state in self._states.items():
            if state.user:
                refined[name][k] = follow_clicks(
                    refined[name][k], probabilities[name][k], state, sam_probabilities[name][k]
                )
        self._prepare_slices(ensemble, parents_of(self.volume, refined, self.models.targets))
        return refined

    def _prepare_slices(self, ensemble: Ensemble, parents: Mapping[str, Mask]) -> None:
        if isinstance(ensemble.refiner, Refiner) and self.models.sam is not None:
            self._slices = SliceRefiner(ensemble.refiner, self.volume, parents)

    def _decided(self, refined: Probabilities) -> Probabilities:
        """Apply the decisions about candidates, which were made once, without a person's edits."""
        if not self._effects:
            return refined
        decided = refined | {n: e.apply(refined[n]) for n, e in self._effects.items()}
        for (k, name), state in self._states.items():
            if name in self._effects and state.is_edited:
                decided[name][k] = self._decided_slice(name, k, refined[name][k])
        return decided

    def _decided_slice(self, name: str, k: int, refined: Float32) -> Float32:
        effect = self._effects.get(name)
        if effect is None:
            return refined
        state = self._states.get((k, name), SlicePromptState())
        return decided_slice(refined, k, effect, state, self._store.marked_by_user(name, k))

    def _predict_slice(self, k: int) -> SessionPrediction:
        names = [target.name for target in self.models.targets]
        sam = {name: self._store.sam(name, [k])[0] for name in names}
        planes = {"sam": sam} if self._uses_sam else {}
        predictions = list(planes.values())
        if self.models.ensemble is not None:
            probabilities = {name: self._store.specialist(name, [k])[0] for name in names}
            planes["refined"] = self._refined_planes(self.models.ensemble, k, probabilities, sam)
            predictions += [probabilities, planes["refined"]]
        labels = {source: self._label_slice(source, k, values) for source, values in planes.items()}
        thin = [{name: plane[None] for name, plane in values.items()} for values in predictions]
        return self._prediction_of(labels, self._disagreement(thin, k), k)

    def _disagreement(
        self, predictions: Sequence[Probabilities], k: int | None
    ) -> NDArray[np.uint8]:
        """Return that of predictions of the volume, or of slice `k`; zero of a single one."""
        if len(predictions) > 1:
            return disagreement(predictions)
        depth, *plane = self.volume.geometry.shape
        return np.zeros((depth if k is None else 1, *plane), np.uint8)

    def _refined_planes(
        self, ensemble: Ensemble, k: int, probabilities: Planes, sam: Planes
    ) -> Planes:
        if self._slices is not None:
            beside = self._store.sam if self.models.proposes else self._store.specialist
            refined = self._slices.refine(k, self._store.specialist, beside)
        else:  # rules that look at one voxel at a time need no neighbours
            voxels = self.volume.voxels[k : k + 1]
            thin = Volume(voxels, geometry_of_slice(self.volume.geometry, k))
            first, second = (
                {n: p[None] for n, p in planes.items()} for planes in (probabilities, sam)
            )
            found = ensemble.refiner.refine(thin, first, second if self.models.proposes else None)
            refined = {name: values[0] for name, values in found.items()}
        return {
            name: follow_clicks(
                self._decided_slice(name, k, plane),
                probabilities[name],
                self._states.get((k, name), SlicePromptState()),
                sam[name],
            )
            for name, plane in refined.items()
        }

    def _label_slice(self, source: str, k: int, planes: Planes) -> Labelmap:
        """Return the labels of a slice, and store them in those of the volume."""
        geometry = self.volume.geometry
        if source not in self._labels:
            self._labels[source] = Labelmap(np.zeros(geometry.shape, np.uint8), geometry)
        whole = self._labels[source].labels.copy()
        whole[k] = self.models.label_slice(planes, k, whole, self.volume)
        self._labels[source] = Labelmap(whole, geometry)
        return Labelmap(whole[k : k + 1], geometry_of_slice(geometry, k))

    def _prediction_of(
        self, labels: Mapping[str, Labelmap], difference: NDArray[np.uint8], k: int | None
    ) -> SessionPrediction:
        states = {key: s for key, s in self._states.items() if k in (None, key[0])}
        last = labels.get("refined", labels.get("sam"))
        turn = self._to_slices if k is not None else to_axial(self.stored).inverse
        geometry = self.stored if k is None else None
        stored = {source: turn.labelmap(found, geometry) for source, found in labels.items()}
        return SessionPrediction(
            slice_index=None if k is None else turn.index(k, len(self.volume.voxels)),
            specialist=stored.get("specialist"),
            sam=stored.get("sam"),
            refined=stored.get("refined"),
            disagreement=turn.array(difference),
            prompts=self._turned_out(p for s in states.values() for p in s.in_force),
            unmet_clicks=() if last is None else self._unmet_clicks(states, last, k or 0),
        )

    def _unmet_clicks(
        self, states: Mapping[SliceTarget, SlicePromptState], labels: Labelmap, first: int
    ) -> tuple[str, ...]:
        by_name = {target.name: target for target in self.models.targets}
        regions = {
            (k, name): region_mask(labels.labels[k - first], by_name[name], self.models.targets)
            for (k, name), state in states.items()
            if state.user
        }
        depth = self.volume.geometry.shape[0]
        return unmet_clicks(states, regions, lambda k: self._to_slices.index(k, depth))
