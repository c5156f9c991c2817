"""The steps of a run over all its rounds, as its settings and the cases make them (ours).

Only what takes long is a step: each training, and segmenting the cases of a round. What lies
between (preparing images, encoding slices) belongs to the step that follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aslseg.config import RunConfig, SpecialistConfig
from aslseg.inference.cascade import is_given
from aslseg.project.project import Project
from aslseg.targets import CascadeStage, cascade_stages
from aslseg.training.cascade import scheduled
from aslseg.training.cross_fitting import folds_of
from aslseg.training.fusion import fold_steps

SEGMENTING, COMPARING = "Segmenting all cases", "Segmenting for comparison"
_MVOXEL = 1e6


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of a run.

    Attributes:
        round: That it belongs to, from 1.
        task: As its progress events name it.
        kind: Steps of one kind take the same time per unit.
        units: How often the same is done: steps of an optimiser, or cases.
        unit_s: Seconds per unit, to begin with; what is measured counts more.
    """

    round: int
    task: str
    kind: str
    units: int
    unit_s: float


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a computer is; the values to begin with are of one core of 2024 (ours).

    Attributes:
        training_s: One step of the specialist's optimiser, per million voxels of its patches.
        embedding_s: SAM's encoder on one slice; 0 without SAM.
    """

    training_s: float = 4.0
    embedding_s: float = 0.5


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """How long a run would take.

    Attributes:
        rounds: Of the run, at most.
        steps: Over all rounds.
        seconds: For all of them; what is prepared between them is not in it.
    """

    rounds: int
    steps: int
    seconds: float


def step_voxels(settings: SpecialistConfig) -> int:
    """Return how many voxels of patches one step of the specialist's optimiser is about."""
    return 2 * settings.batch_size * settings.patch_size**settings.network.dimensions


def trained_stages(project: Project) -> list[CascadeStage]:
    """Return the stages that a run trains: not those of which every case has masks."""
    stages = cascade_stages(project.targets)
    return [stage for stage in stages if not is_given(stage, project.given_organs)]


def estimate_of(steps: list[PlannedStep]) -> RunEstimate:
    """Return how long some steps would take."""
    seconds = sum(step.units * step.unit_s for step in steps)
    return RunEstimate(steps[-1].round if steps else 0, len(steps), seconds)


def planned_steps(
    config: RunConfig,
    project: Project,
    speed: Speed | None = None,
    retrained_rounds: tuple[int, ...] = (1,),
) -> list[PlannedStep]:
    """Return the steps of a run in their order.

    Steps that a run leaves out, because they are done or nothing can be trained on, are among them.

    Args:
        config: The settings.
        project: The cases.
        speed: Of this computer; a typical one's when None.
        retrained_rounds: Rounds in which SAM and what follows it are trained, without `retrain`.
    """
    plan = _Plan(config, project, speed or Speed())
    return [
        step
        for number in range(1, config.rounds + 1)
        for step in plan.round(number, trains_all=config.retrain or number in retrained_rounds)
    ]


@dataclass(frozen=True, slots=True)
class _Plan:
    config: RunConfig
    project: Project
    speed: Speed

    @property
    def folds(self) -> int:
        """Number of folds that networks are cross-fitted for."""
        return len(folds_of(case.patient for case in self.project.labelled))

    @property
    def has_sam(self) -> bool:
        """Whether SAM takes part."""
        return self.config.sam.model != "none"

    def round(self, number: int, *, trains_all: bool) -> Iterator[PlannedStep]:
        """Yield the steps of a round."""
        later = self.config.later_share if number > 1 else 1.0
        if self.config.method == "aslseg":
            yield from self._crossfit(number, later) if trains_all else ()
            yield from self._cascade(number, "specialist", later)
            yield from self._sam_parts(number, later) if trains_all else ()
        else:
            gated = self.config.method == "semisam" and self.config.semisam.gate and trains_all
            yield from self._crossfit(number, later) if gated else ()
            yield from self._cascade(number, "specialist", later)
            judged = self.config.lesion_decision == "classifier"
            yield from self._crossfit(number, later) if judged else ()
        yield from self._segmenting(number)

    def _cascade(self, number: int, name: str, share: float) -> Iterator[PlannedStep]:
        for stage in trained_stages(self.project):
            settings = scheduled(self.config, stage, share)
            unit_s = self.speed.training_s * step_voxels(settings) / _MVOXEL
            kind = f"specialist-{stage.name}"
            yield PlannedStep(number, f"{name}-{stage.name}", kind, settings.iterations, unit_s)

    def _crossfit(self, number: int, share: float) -> Iterator[PlannedStep]:
        part = self.config.crossfit_share
        for fold in range(1, self.folds + 1 if part else 1):
            yield from self._cascade(number, f"cross-fitted-{fold}", part * share)

    def _sam_parts(self, number: int, share: float) -> Iterator[PlannedStep]:
        yield from self._sam(number, share)
        settings = self.config.adaptation
        whole = max(1, round(settings.iterations * share))
        checked = any(case.label is not None for case in self.project.validation)
        for target in self.project.targets:
            if target.name in self.project.given_organs:
                continue
            name = f"adaptation-{target.name}"
            folds = [] if checked else [f"{name}-fold-{fold}" for fold in (1, 2)]
            for task in folds:
                yield self._joining(number, task, fold_steps(whole))
            yield self._joining(number, name, whole)
        for _ in range(self.folds if self.config.crossfit_share else 0):
            yield from self._sam(number, self.config.crossfit_share * share)
        if self.config.baseline and number == 1:
            yield from self._cascade(number, "specialist", 1.0)

    def _sam(self, number: int, share: float) -> Iterator[PlannedStep]:
        settings = self.config.sam
        if self.has_sam and settings.tuning != "none":
            steps = max(1, round(settings.iterations * share))
            encodes = settings.tuning in ("lora", "adapter")
            unit_s = self.speed.embedding_s * (3.0 if encodes else 0.1)
            yield PlannedStep(number, "sam", "sam", steps, unit_s)

    def _joining(self, number: int, task: str, units: int) -> PlannedStep:
        settings = self.config.adaptation
        voxels = settings.batch_size * settings.patch_size**2
        return PlannedStep(
            number, task, "adaptation", units, self.speed.training_s * voxels / _MVOXEL
        )

    def _segmenting(self, number: int) -> Iterator[PlannedStep]:
        project, compares = self.project, self.config.baseline and number == 1
        held_out = [*project.validation, *project.test]
        scored = sum(case.label is not None for case in held_out)
        if compares and self.config.method == "aslseg" and scored:
            yield PlannedStep(number, COMPARING, COMPARING, scored, self._case_s)
        goes_on = number < self.config.rounds or self.config.label_unlabelled
        cases = len(held_out) + (len(project.unlabelled) if goes_on else 0)
        if cases:
            yield PlannedStep(number, SEGMENTING, SEGMENTING, cases, self._case_s)

    @property
    def _case_s(self) -> float:
        """Seconds to segment a case: as many patches as slices, and SAM on each of these (ours)."""
        slices = 60
        return 5.0 * self.speed.training_s + self.speed.embedding_s * slices * self.has_sam
