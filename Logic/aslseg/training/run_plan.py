"""The plan of a run over all its rounds, and how long it takes.

The steps are what takes long alone: each training, and the cases of a round. What cases take is
counted in seconds of the specialist's steps and of SAM's encoder, so that it grows with the
computer; its factors were measured on phantoms, by processor time of one core (ours).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aslseg.config import RunConfig, SamName, SSLName
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Geometry
from aslseg.project.case import Case
from aslseg.project.project import Project
from aslseg.targets import CascadeStage, cascade_stages, is_given
from aslseg.training.calibration import Speed
from aslseg.training.cascade import network_names, scheduled, step_voxels
from aslseg.training.co_training_gate import ALONE
from aslseg.training.cross_fitting import CROSS_FITTED, folds_of
from aslseg.training.fusion import fold_steps
from aslseg.training.rounds import COMPARING, SEGMENTING
from aslseg.training.selection import accepted_share

_MVOXEL = 1e6
STEP_COSTS: Mapping[SSLName, float] = {
    "supervised": 1.0,
    "mean_teacher": 1.8,
    "uncertainty_aware": 8.0,
    "cross_pseudo": 3.3,
    "unimatch": 3.7,
    "bidirectional_copy_paste": 1.0,
}
"""Time of a step by paradigm, of one on labels alone; processor time of `demo` on one core."""
ENCODER_COSTS: Mapping[SamName, float] = {"vit_t": 1.0, "vit_b": 10.0, "vit_l": 35.0, "vit_h": 70.0}
"""Time of SAM's encoders, of MobileSAM's: about their ratios of multiplications (ours)."""
_SUPERVISED_S, _ENCODER_S, _ENCODER_PX = 2.2, 0.4, 512


MOST_HEADERS = 16
"""So many volumes are looked at; the others are taken to be as large as their mean."""
FORWARD_SHARE = 0.7
"""Of a step on labels alone, per voxel of its patches: predicting the same voxels."""
PARENT_SHARE = 0.25
"""Part of a volume that the box around a parent is taken to fill."""
DECODING_SHARE = 0.3
"""Of MobileSAM's encoding of a slice: decoding all prompts of the slice."""
PROMPTING_SHARE = 0.8
"""Of MobileSAM's encoding of a slice: SAM's masks of what a student predicts on a slice. Measured
1.0 for livers and 0.6 for tumours of LiTS in the first steps of `quick`, while networks still
predict many components."""
TUNING_SHARE = 2.2
"""Of MobileSAM's encoding of a slice: a step that tunes the decoder."""
TRAINING_SHARE = 3.0
"""Of encoding a picture: training SAM on it. Measured 2.7 to 3.8 with SC-SAM and CPC-SAM on patches
of `quick`, while the computer was busy; less of the smaller pictures of the hippocampus."""
SAMPLES_SHARE = 1.0
"""Of a step on a million voxels: making one sample of a million voxels for the adaptation."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of a run.

    Attributes:
        round: That it belongs to, from 1.
        task: As its progress events name it.
        kind: Steps of one kind take the same time per unit.
        units: How often the same is done: steps of an optimiser, or cases.
        unit_s: Seconds per unit, to begin with; what is measured counts more.
        before_s: Seconds of what is prepared before the first unit, to begin with.
    """

    round: int
    task: str
    kind: str
    units: int
    unit_s: float
    before_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """How long a run would take.

    Attributes:
        rounds: Of the run, at most.
        steps: Over all rounds.
        seconds: For all of them, with what is prepared for SAM and the adaptation network.
    """

    rounds: int
    steps: int
    seconds: float


def trained_stages(project: Project) -> list[CascadeStage]:
    """Return the stages that a run trains: not those of which every case has masks."""
    stages = cascade_stages(project.targets)
    return [stage for stage in stages if not is_given(stage, project.given_organs)]


def estimate_of(steps: Sequence[PlannedStep]) -> RunEstimate:
    """Return how long some steps would take."""
    seconds = sum(step.before_s + step.units * step.unit_s for step in steps)
    return RunEstimate(steps[-1].round if steps else 0, len(steps), seconds)


def planned_steps(
    config: RunConfig,
    project: Project,
    speed: Speed | None = None,
    *,
    retrained_rounds: tuple[int, ...] = (1,),
    short_rounds: tuple[int, ...] = (),
) -> list[PlannedStep]:
    """Return the steps of a run in their order.

    Steps that a run leaves out, because they are done or nothing can be trained on, are among them.

    Args:
        config: The settings.
        project: The cases.
        speed: Of this computer with these settings; a typical one's when None.
        retrained_rounds: Rounds in which SAM and what follows it are trained, without `retrain`.
        short_rounds: Rounds that train the stages of lesions alone.

    Raises:
        ImageError: When the header of a volume cannot be read.
    """
    speed = speed or typical_speed(config)
    plan = _Plan(config, project, speed, CaseTimes(config, project, speed))
    steps: list[PlannedStep] = []
    for number in range(1, config.rounds + 1):
        is_short, is_first = number in short_rounds, number in retrained_rounds
        steps += plan.short_round(number) if is_short else plan.round(number, is_first=is_first)
    return steps


def typical_speed(config: RunConfig) -> Speed:
    """Return how fast one core trains, about: measured on one core of 2024 (ours)."""
    sam, embedding_s = config.sam, 0.0
    if sam.model != "none":
        edges = (sam.input_size / _ENCODER_PX) ** 2
        embedding_s = _ENCODER_S * edges * ENCODER_COSTS[sam.model]
    return Speed(_SUPERVISED_S * STEP_COSTS[config.paradigm], embedding_s)


@dataclass
class CaseTimes:
    """What cases take, in the order of a run: a slice is encoded once, and its embedding kept.

    Args:
        config: The settings.
        project: With the volumes, whose headers are read.
        speed: Of the computer.

    Raises:
        ImageError: When a volume is missing or damaged.
    """

    config: RunConfig
    project: Project
    speed: Speed
    _slices: float = field(init=False)
    _mvoxels: float = field(init=False)
    _organ_px: float = field(init=False)
    _encoded: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        """Look at the volumes."""
        cases = self.project.cases
        looked_at = cases[:: max(1, -(-len(cases) // MOST_HEADERS))]
        seen = [self.project.geometry(case) for case in looked_at]
        axial = [to_axial(one).geometry(one) for one in seen]
        self._slices = float(np.mean([one.shape[0] for one in axial]))
        self._mvoxels = float(np.mean([np.prod(one.shape) for one in axial])) / 1e6
        self._organ_px = float(np.mean([_in_plane_mm2(one) for one in axial])) * self._slices

    @property
    def supervised_s(self) -> float:
        """Seconds of a step on labels alone, per million voxels of its patches."""
        return self.speed.training_s / STEP_COSTS[self.config.paradigm]

    @property
    def small_encoding_s(self) -> float:
        """Seconds that MobileSAM would take for a slice; 0 without SAM."""
        model = self.config.sam.model
        return 0.0 if model == "none" else self.speed.embedding_s / ENCODER_COSTS[model]

    def specialist_s(self) -> float:
        """Return the seconds of the specialist for a case."""
        mvoxels = 0.0
        outer, *inner = cascade_stages(self.project.targets)
        for stage, share in ((outer, 1.0), *((one, PARENT_SHARE) for one in inner[:1])):
            settings = scheduled(self.config, stage)
            seen = share * self._organ_px / settings.roi.pixel_mm**2 / 1e6
            networks = settings.averaged_networks + settings.second_pass
            mvoxels += seen * (2 if settings.mirror else 1) * networks
        return FORWARD_SHARE * self.supervised_s * mvoxels

    def encoding_s(self, cases: Sequence[Case]) -> float:
        """Return the seconds of SAM's encoder for those of some cases that are new to it."""
        new = [case for case in cases if case.id not in self._encoded]
        self._encoded.update(case.id for case in new)
        return self._slices * self.speed.embedding_s * len(new)

    def sam_s(self, cases: Sequence[Case]) -> float:
        """Return the seconds of SAM for some cases; those that are new to it are encoded first."""
        decoding = DECODING_SHARE * self.small_encoding_s * len(cases)
        return self.encoding_s(cases) + self._slices * decoding

    def forget_embeddings(self) -> None:
        """Let all cases be new to SAM: its encoder has changed."""
        self._encoded.clear()

    def segmenting_s(self, cases: Sequence[Case]) -> float:
        """Return the seconds for segmenting some cases."""
        earlier = 2 * sum(case.split == "train" for case in cases)
        times = self.specialist_s() * (len(cases) + earlier) + self.sam_s(cases)
        return times + self.supervised_s * self._mvoxels * len(cases)

    def samples_s(self, cases: Sequence[Case], versions: int) -> float:
        """Return the seconds for making the adaptation network's samples of some cases."""
        made = len(cases) * versions
        again = DECODING_SHARE * self.small_encoding_s * self._slices * made
        return SAMPLES_SHARE * self.supervised_s * self._mvoxels * made + again


def _in_plane_mm2(geometry: Geometry) -> float:
    _, rows, columns = geometry.shape
    _, row_mm, column_mm = geometry.spacing_mm
    return float(rows * row_mm * columns * column_mm)


@dataclass(frozen=True, slots=True)
class _Plan:
    config: RunConfig
    project: Project
    speed: Speed
    times: CaseTimes

    @property
    def folds(self) -> int:
        """Number of folds that networks are cross-fitted for."""
        return len(folds_of(case.patient for case in self.project.labelled))

    @property
    def has_sam(self) -> bool:
        """Whether SAM takes part."""
        return self.config.sam.model != "none"

    def round(self, number: int, *, is_first: bool) -> Iterator[PlannedStep]:
        """Yield the steps of a round, the first one or the first with new labels, or another."""
        later = self.config.later_share if number > 1 else 1.0
        trains_all = self.config.retrain or is_first
        if self.config.method == "aslseg":
            yield from self._crossfit(number, later) if trains_all else ()
            yield from self._cascade(number, "specialist", later)
            yield from self._sam_parts(number, later) if trains_all else ()
        else:
            yield from self._gate(number, later, is_first=is_first)
            yield from self._cascade(number, "specialist", later)
            judged = self.config.lesion_decision == "classifier"
            yield from self._crossfit(number, later) if judged else ()
        yield from self._segmenting(number)

    def _gate(self, number: int, later: float, *, is_first: bool) -> Iterator[PlannedStep]:
        """Yield what is trained to ask whether SAM helps the specialist."""
        config = self.config
        if config.method == "semisam" and config.semisam.gate and (config.retrain or is_first):
            yield from self._crossfit(number, later)
        if config.method == "scsam" and config.scsam.gate and is_first:
            yield from self._crossfit(number, later)
            for step in self._crossfit(number, later, ALONE):
                yield replace(step, kind=f"alone {step.kind}")

    def short_round(self, number: int) -> Iterator[PlannedStep]:
        """Yield the steps of a round that trains the stages inside of a parent alone."""
        inner = [stage for stage in trained_stages(self.project) if stage.inside is not None]
        yield from self._cascade(number, "specialist", self.config.review_share, inner)
        yield from self._segmenting(number)

    def _cascade(
        self, number: int, name: str, share: float, stages: Sequence[CascadeStage] | None = None
    ) -> Iterator[PlannedStep]:
        for stage in trained_stages(self.project) if stages is None else stages:
            step = self._stage(number, f"{name}-{stage.name}", stage, share, self.speed.training_s)
            trains_sam = self.config.method in ("scsam", "cpcsam") and not name.startswith(ALONE)
            prompts_sam = self.config.method == "semisam" and name == "specialist"
            if trains_sam:
                yield self._with_sam(step, stage)
                continue
            if prompts_sam:
                step = self._prompting_sam(step, stage)
            yield from self._each_network(step, stage) if name == "specialist" else (step,)

    def _each_network(self, step: PlannedStep, stage: CascadeStage) -> Iterator[PlannedStep]:
        """Yield the training of each network of a stage."""
        first, *others = network_names(step.task, scheduled(self.config, stage))
        yield replace(step, task=first)
        for name in others:
            yield replace(step, task=name, before_s=0.0)

    def _with_sam(self, step: PlannedStep, stage: CascadeStage) -> PlannedStep:
        """Return a training whose patches are SAM's pictures too; in CPC-SAM SAM's alone."""
        config, settings = self.config, scheduled(self.config, stage)
        size, network_s = config.cpcsam.input_size, 0.0
        pictures = 2 * settings.batch_size
        if config.method == "scsam":
            size, network_s = config.scsam.input_size, step.unit_s
            pictures *= config.scsam.planes if settings.network.dimensions == 3 else 1
        encoding_s = self.speed.embedding_s * (size / config.sam.input_size) ** 2
        return replace(step, unit_s=network_s + TRAINING_SHARE * pictures * encoding_s)

    def _prompting_sam(self, step: PlannedStep, stage: CascadeStage) -> PlannedStep:
        """Return a training in which SAM is prompted for all targets of all unlabelled patches.

        What the gate leaves out is not known yet, nor in which patches no target is found.
        """
        own, settings = self.config.semisam, scheduled(self.config, stage)
        planes = own.planes if settings.network.dimensions == 3 else 1
        prompts = settings.batch_size * planes * (own.clicks if own.prompts == "clicks" else 1)
        prompting_s = PROMPTING_SHARE * self.times.small_encoding_s * prompts
        before_s = self.times.encoding_s(self.project.unlabelled)
        return replace(step, unit_s=step.unit_s + prompting_s, before_s=before_s)

    def _supervised(self, number: int) -> Iterator[PlannedStep]:
        for stage in trained_stages(self.project):
            name = f"specialist-{stage.name}"
            step = self._stage(number, name, stage, 1.0, self.times.supervised_s, "supervised")
            yield from self._each_network(step, stage)

    def _stage(
        self,
        number: int,
        task: str,
        stage: CascadeStage,
        share: float,
        training_s: float,
        kind: str = "specialist",
    ) -> PlannedStep:
        settings = scheduled(self.config, stage, share)
        unit_s = training_s * step_voxels(settings) / _MVOXEL
        return PlannedStep(number, task, f"{kind}-{stage.name}", settings.iterations, unit_s)

    def _crossfit(
        self, number: int, share: float, name: str = CROSS_FITTED
    ) -> Iterator[PlannedStep]:
        part = self.config.crossfit_share
        for fold in range(1, self.folds + 1 if part else 1):
            before_s = self._fold_labels_s(number)
            for step in self._cascade(number, f"{name}-{fold}", part * share):
                yield replace(step, before_s=before_s)
                before_s = 0.0

    def _fold_labels_s(self, number: int) -> float:
        """Return the seconds in which a cross-fitted model labels what its successor learns from.

        That of a round predicts with two weights of its own, the stages of lesions with a third.
        """
        if number == 1:
            return 0.0
        share = accepted_share(self.config.reliability, number - 1)
        return 3 * self.times.specialist_s() * share * len(self.project.unlabelled)

    def _sam_parts(self, number: int, share: float) -> Iterator[PlannedStep]:
        yield from self._sam(number, share)
        settings = self.config.adaptation
        whole = max(1, round(settings.iterations * share))
        checked = any(case.label is not None for case in self.project.validation)
        before_s = self._samples_s()
        for target in self.project.targets:
            if target.name in self.project.given_organs:
                continue
            name = f"adaptation-{target.name}"
            folds = [] if checked else [f"{name}-fold-{fold}" for fold in (1, 2)]
            steps = [(task, fold_steps(whole)) for task in folds] + [(name, whole)]
            for task, units in steps:
                yield self._joining(number, task, units, before_s)
                before_s = 0.0  # all samples are made at once
        for _ in range(self.folds if self.config.crossfit_share else 0):
            yield from self._sam(number, self.config.crossfit_share * share)
        if self.config.trains_baseline and number == 1:
            yield from self._supervised(number)

    def _sam(self, number: int, share: float) -> Iterator[PlannedStep]:
        settings = self.config.sam
        if self.has_sam and settings.tuning != "none":
            steps = max(1, round(settings.iterations * share))
            unit_s, before_s = TUNING_SHARE * self.times.small_encoding_s, 0.0
            if settings.tuning in ("lora", "adapter"):
                unit_s += 3.0 * self.speed.embedding_s
                self.times.forget_embeddings()
            else:
                before_s = self.times.sam_s(self.project.labelled)
            yield PlannedStep(number, "sam", "sam", steps, unit_s, before_s)

    def _samples_s(self) -> float:
        """Return the seconds for the samples of the adaptation network, and for those to check."""
        labelled = self.project.labelled
        checked = [case for case in self.project.validation if case.label is not None]
        versions = self.config.adaptation.versions + bool(self.config.crossfit_share)
        seconds = self.times.sam_s(labelled) + self.times.samples_s(labelled, versions)
        return seconds + self.times.specialist_s() * len(checked) + self.times.sam_s(checked)

    def _joining(self, number: int, task: str, units: int, before_s: float) -> PlannedStep:
        settings = self.config.adaptation
        voxels = settings.batch_size * settings.patch_size**2
        unit_s = self.times.supervised_s * voxels / _MVOXEL
        return PlannedStep(number, task, "adaptation", units, unit_s, before_s)

    def _segmenting(self, number: int) -> Iterator[PlannedStep]:
        project, config = self.project, self.config
        compares = config.trains_baseline or (config.baseline and self.has_sam)
        held_out = [*project.validation, *project.test]
        scored = [case for case in held_out if case.label is not None]
        if compares and number == 1 and config.method == "aslseg" and scored:
            specialists = config.trains_baseline + self.has_sam
            seconds = specialists * self.times.specialist_s() * len(scored)
            seconds += self.times.sam_s(scored)
            yield PlannedStep(number, COMPARING, COMPARING, len(scored), seconds / len(scored))
        goes_on = number < config.rounds or config.label_unlabelled
        cases = [*held_out, *(project.unlabelled if goes_on else ())]
        if cases:
            unit_s = self.times.segmenting_s(cases) / len(cases)
            yield PlannedStep(number, SEGMENTING, SEGMENTING, len(cases), unit_s)
