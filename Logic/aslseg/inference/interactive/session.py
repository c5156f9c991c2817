"""One volume with everything warm: an edited prompt is answered in the time of one mask decoding.

A session keeps what the voices said about a volume. A person's prompts take the place of the
proposed ones where they speak; only what they change is asked again.

What a person says overrules the trained parts (ours): where a person prompts, SAM's answer stands
for the specialist's voice too, what they prompt inside of a container belongs to the container, and
where the adaptation network would contradict a click, SAM's answer stays.

Inside, everything lies on the volume's axial grid. Prompts and numbers of slices come and go on its
slice grid, label maps on its own voxels (see `orientation`); `_given` and `_answer_with` turn them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from aslseg.data.orientation import axial_to_slices, axial_volume, to_axial
from aslseg.data.volume import Labelmap, Volume
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.interactive.mask_prompts import with_mask_prompt
from aslseg.inference.interactive.models import SessionModels
from aslseg.inference.interactive.predictions import (
    PredictionStore,
    SessionPrediction,
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
)
from aslseg.inference.interactive.slice_refiner import Planes, SliceRefiner, geometry_of_slice
from aslseg.inference.refinement import Refiner
from aslseg.prompts import SlicePrompts, turned_prompts
from aslseg.targets import region_mask


class Session:
    """What is known about one volume, from the first look to the last prompt.

    Args:
        volume: The image.
        predictions: The trained parts of a run, or SAM alone.
        monitor: Told of the progress of the first look.

    Attributes:
        volume: The image on its axial grid.

    Raises:
        CancelledError: When asked to stop.
    """

    def __init__(
        self, volume: Volume, predictions: SessionModels, monitor: Monitor | None = None
    ) -> None:
        self.volume = axial_volume(volume)
        self.predictions = predictions
        self._stored = volume.geometry
        self._to_slices = axial_to_slices(volume.geometry)
        self._proposed: tuple[SlicePrompts, ...] = ()
        self._asked: dict[SliceTarget, SlicePromptState] = {}
        self._labels: dict[str, Labelmap] = {}
        self._slices: SliceRefiner | None = None
        self._stale = False
        self._answer = self._look(monitor or Monitor())

    @property
    def proposed(self) -> tuple[SlicePrompts, ...]:
        """The run's prompts."""
        return self._turned_out(self._proposed)

    @property
    def answer(self) -> SessionPrediction:
        """The last answer about the whole volume."""
        return self._answer

    def refine(
        self,
        given: Sequence[SlicePrompts],
        slice_index: int | None = None,
        *,
        edited_slices: Iterable[int] = (),
        monitor: Monitor | None = None,
    ) -> SessionPrediction:
        """Answer with a person's prompts.

        Args:
            given: All prompts of the person; in their slice, for their target, they replace what
                was proposed.
            slice_index: Answer about this slice alone, at once, and take in its prompts only; None
                for the whole volume.
            edited_slices: Slices in which the given prompts are all that counts.
            monitor: Told of the progress.

        Raises:
            ConfigError: When a prompt lies outside of the volume or asks for an unknown target.
            CancelledError: When asked to stop.
        """
        monitor = monitor or Monitor()
        self._check(given, slice_index)
        given, slice_index, edited_slices = self._given(given, slice_index, edited_slices)
        wanted = merge(self._proposed, given, edited_slices)
        if slice_index is not None:
            others = {place: a for place, a in self._asked.items() if place[0] != slice_index}
            wanted = others | {p: a for p, a in wanted.items() if p[0] == slice_index}
        self._ask(wanted, monitor)
        if slice_index is not None:
            return self._about_slice(slice_index)
        if self._stale:
            monitor.check()
            self._answer = self._about_volume(*self._opinions_of_all(), monitor)
        return self._answer

    def _look(self, monitor: Monitor) -> SessionPrediction:
        shape, ensemble = self.volume.geometry.shape, self.predictions.ensemble
        if ensemble is None:
            self._opinions = PredictionStore(shape, self.predictions.targets, None, {})
            return self._about_volume({}, {}, monitor)
        probabilities = ensemble.specialist.predict(self.volume, monitor)
        sam_probabilities: Probabilities = {}
        if ensemble.sam_predictor is not None:
            self._proposed = tuple(ensemble.propose_prompts(self.volume, probabilities))
            sam_probabilities = ensemble.sam_predictor.predict(self.volume, self._proposed, monitor)
            is_empty = np.zeros(shape, np.float32)
            sam_probabilities = {
                t.name: sam_probabilities.get(t.name, is_empty) for t in self.predictions.targets
            }
        self._asked = merge(self._proposed, ())
        self._opinions = PredictionStore(
            shape, self.predictions.targets, probabilities, sam_probabilities
        )
        self._labels["specialist"] = self.predictions.label_volume(probabilities, self.volume)
        monitor.check()
        return self._about_volume(probabilities, sam_probabilities, monitor)

    def _given(
        self,
        given: Sequence[SlicePrompts],
        slice_index: int | None,
        edited_slices: Iterable[int],
    ) -> tuple[list[SlicePrompts], int | None, list[int]]:
        """Turn what a person says about slices to the axial grid."""
        shape, turn = self._to_slices.shape(self.volume.geometry.shape), self._to_slices.inverse
        prompts = turned_prompts(given, turn, shape)
        edited = [turn.index(k, shape[0]) for k in edited_slices]
        return prompts, None if slice_index is None else turn.index(slice_index, shape[0]), edited

    def _turned_out(self, prompts: Iterable[SlicePrompts]) -> tuple[SlicePrompts, ...]:
        return tuple(turned_prompts(prompts, self._to_slices, self.volume.geometry.shape))

    def _check(self, given: Sequence[SlicePrompts], slice_index: int | None) -> None:
        shape = self._to_slices.shape(self.volume.geometry.shape)
        names = {target.name: target for target in self.predictions.targets}
        problems = [problem_of(prompt, shape, names) for prompt in given]
        if slice_index is not None and not 0 <= slice_index < shape[0]:
            problems.append(f"There is no slice {slice_index}; the volume has 0 to {shape[0] - 1}.")
        if given and self.predictions.sam is None:
            problems.append("This run works without SAM, so nobody answers prompts; choose a SAM.")
        for problem in filter(None, problems):
            raise ConfigError(problem)

    def _ask(self, wanted: dict[SliceTarget, SlicePromptState], monitor: Monitor) -> None:
        """Ask SAM again about the places whose prompts have changed."""
        nothing = SlicePromptState()
        changed = [
            place
            for place in sorted(wanted.keys() | self._asked.keys())
            if not wanted.get(place, nothing).says_the_same(self._asked.get(place, nothing))
        ]
        for place in monitor.track(changed, "Asking SAM about prompts") if changed else ():
            asked = wanted.get(place, nothing)
            if self.predictions.sam is not None:
                heard = predict_slice(
                    self.predictions.sam,
                    self.volume,
                    self._with_guesses(place, asked),
                    Monitor(token=monitor.token),
                )
                self._opinions.change(place, asked, heard)
            self._asked[place] = asked
            self._stale = True

    def _with_guesses(self, place: SliceTarget, asked: SlicePromptState) -> SlicePromptState:
        """Give a SAM that was tuned on prompts with masks what it is used to."""
        if not self.predictions.proposes:
            return asked
        parents = {target.inside for target in self.predictions.targets}
        own = [
            with_mask_prompt(
                prompt,
                self.volume,
                asked.kept + asked.dropped,
                is_container=place[1] in parents,
            )
            for prompt in asked.own
        ]
        return replace(asked, own=tuple(own))

    def _opinions_of_all(self) -> tuple[Probabilities, Probabilities]:
        probabilities = (
            {} if self.predictions.ensemble is None else self._opinions.all_of("specialist")
        )
        return probabilities, self._opinions.all_of("sam") if self._sam_speaks else {}

    @property
    def _sam_speaks(self) -> bool:
        return self.predictions.proposes or any(asked.own for asked in self._asked.values())

    def _about_volume(
        self, probabilities: Probabilities, sam_probabilities: Probabilities, monitor: Monitor
    ) -> SessionPrediction:
        said_now = [values for values in (probabilities, sam_probabilities) if values]
        self._labels.pop("sam", None)
        if self._sam_speaks:
            self._labels["sam"] = self.predictions.label_volume(sam_probabilities, self.volume)
        if self.predictions.ensemble is not None:
            for _ in monitor.track(["all"], "Refining"):
                refined = self._refine_volume(
                    self.predictions.ensemble, probabilities, sam_probabilities
                )
            said_now.append(refined)
            self._labels["refined"] = self._refined_labels(
                refined, is_said=refined is probabilities
            )
        self._stale = False
        return self._answer_with(self._labels, said_now, None)

    def _refined_labels(self, refined: Probabilities, *, is_said: bool) -> Labelmap:
        if is_said and not any(asked.is_edited for asked in self._asked.values()):
            return self._labels["specialist"]
        return self.predictions.label_volume(refined, self.volume)

    def _refine_volume(
        self, ensemble: Ensemble, probabilities: Probabilities, sam_probabilities: Probabilities
    ) -> Probabilities:
        with_sam = ensemble.sam_predictor is not None
        refined = ensemble.refiner.refine(
            self.volume, probabilities, sam_probabilities, with_sam=with_sam
        )
        for (k, name), asked in self._asked.items():
            if asked.own:
                heard = sam_probabilities[name][k]
                refined[name][k] = follow_clicks(
                    refined[name][k], probabilities[name][k], asked, heard
                )
        if isinstance(ensemble.refiner, Refiner) and self.predictions.sam is not None:
            self._slices = SliceRefiner(ensemble.refiner, self.volume, refined)
        return refined

    def _about_slice(self, k: int) -> SessionPrediction:
        names = [target.name for target in self.predictions.targets]
        sam = {name: self._opinions.sam(name, [k])[0] for name in names}
        planes = {"sam": sam} if self._sam_speaks else {}
        spoken = list(planes.values())
        if self.predictions.ensemble is not None:
            probabilities = {name: self._opinions.specialist(name, [k])[0] for name in names}
            planes["refined"] = self._refined_planes(
                self.predictions.ensemble, k, probabilities, sam
            )
            spoken += [probabilities, planes["refined"]]
        labels = {source: self._label_slice(source, k, values) for source, values in planes.items()}
        thin = [{name: plane[None] for name, plane in values.items()} for values in spoken]
        return self._answer_with(labels, thin, k)

    def _refined_planes(
        self, ensemble: Ensemble, k: int, probabilities: Planes, sam: Planes
    ) -> Planes:
        if self._slices is not None:
            second = self._opinions.sam if self.predictions.proposes else self._opinions.specialist
            refined = self._slices.refine(k, self._opinions.specialist, second)
        else:  # rules that look at one voxel at a time need no neighbours
            voxels = self.volume.voxels[k : k + 1]
            thin = Volume(voxels, geometry_of_slice(self.volume.geometry, k))
            predictions = [
                {n: p[None] for n, p in planes.items()} for planes in (probabilities, sam)
            ]
            found = ensemble.refiner.refine(thin, *predictions, with_sam=self.predictions.proposes)
            refined = {name: values[0] for name, values in found.items()}
        return {
            name: follow_clicks(
                plane,
                probabilities[name],
                self._asked.get((k, name), SlicePromptState()),
                sam[name],
            )
            for name, plane in refined.items()
        }

    def _label_slice(self, source: str, k: int, planes: Planes) -> Labelmap:
        """Label a slice, and note it in the label map that its neighbours are seen in."""
        geometry = self.volume.geometry
        if source not in self._labels:
            self._labels[source] = Labelmap(np.zeros(geometry.shape, np.uint8), geometry)
        whole = self._labels[source].labels.copy()
        whole[k] = self.predictions.label_slice(planes, k, whole, self.volume)
        self._labels[source] = Labelmap(whole, geometry)
        return Labelmap(whole[k : k + 1], geometry_of_slice(geometry, k))

    def _answer_with(
        self, labels: Mapping[str, Labelmap], spoken: Sequence[Probabilities], k: int | None
    ) -> SessionPrediction:
        depth, *plane = self.volume.geometry.shape
        apart = np.zeros((depth if k is None else 1, *plane), np.uint8)
        asked = {p: a for p, a in self._asked.items() if k in (None, p[0])}
        last = labels.get("refined", labels.get("sam"))
        turn = self._to_slices if k is not None else to_axial(self._stored).inverse
        geometry = self._stored if k is None else None
        stored = {source: turn.labelmap(found, geometry) for source, found in labels.items()}
        return SessionPrediction(
            slice_index=None if k is None else turn.index(k, depth),
            specialist=stored.get("specialist"),
            sam=stored.get("sam"),
            refined=stored.get("refined"),
            disagreement=turn.array(disagreement(spoken) if len(spoken) > 1 else apart),
            prompts=self._turned_out(p for a in asked.values() for p in a.in_force),
            unmet_clicks=() if last is None else self._unheard(asked, last, 0 if k is None else k),
        )

    def _unheard(
        self, asked: Mapping[SliceTarget, SlicePromptState], labels: Labelmap, first: int
    ) -> tuple[str, ...]:
        by_name = {target.name: target for target in self.predictions.targets}
        regions = {
            (k, name): region_mask(
                labels.labels[k - first], by_name[name], self.predictions.targets
            )
            for (k, name), here in asked.items()
            if here.own
        }
        depth = self.volume.geometry.shape[0]
        return unmet_clicks(asked, regions, lambda k: self._to_slices.index(k, depth))
