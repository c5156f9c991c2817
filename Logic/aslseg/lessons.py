"""What SAM and the adaptation network learn from: labelled cases with synthetic pseudo-labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from aslseg.adaptation import Lesson, Voices
from aslseg.components import region_mask
from aslseg.config import RunConfig, SamConfig, SpecialistConfig, Target
from aslseg.corruption import corrupt, draw_corruption
from aslseg.events import Monitor
from aslseg.generalist import Generalist, Pupil, Question, questions_from
from aslseg.inference import clean_container
from aslseg.proposals import propose, proposed_masks
from aslseg.stages import Stage, stages_of
from aslseg.views import Float32, View, build_view, from_volume
from aslseg.volume import Labelmap, Mask, Volume

SOFTNESS_PX = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVolume:
    """A volume with a person's label map on its grid.

    Attributes:
        case_id: For messages and seeds.
        volume: The image.
        labels: Its label map.
    """

    case_id: str
    volume: Volume
    labels: Labelmap


def synthetic_masks(
    labelled: LabelledVolume, targets: Sequence[Target], rng: np.random.Generator
) -> dict[str, Mask]:
    """Return one synthetic pseudo-label: by target, the damaged region."""
    regions = {t.name: region_mask(labelled.labels.labels, t, targets) for t in targets}
    everywhere = np.ones(labelled.labels.labels.shape, bool)
    spacing = labelled.volume.geometry.spacing_mm
    return {
        t.name: corrupt(
            regions[t.name],
            draw_corruption(rng),
            spacing,
            everywhere if t.inside is None else regions[t.inside],
        )
        for t in targets
    }


def pupil_of(
    labelled: LabelledVolume,
    targets: Sequence[Target],
    settings: SamConfig,
    seed: int,
    said: Mapping[str, Float32] | None = None,
) -> Pupil:
    """Make the questions that SAM is tuned on.

    Args:
        labelled: The case.
        targets: All targets.
        settings: Number of damaged versions, prompts.
        seed: Of damage and prompts.
        said: What a specialist that never saw the case says about it.

    Returns:
        Prompts of the true mask, of damaged ones, and of what was said, each with the truth.
    """
    rng = np.random.default_rng([seed, 11, case_number(labelled.case_id)])
    questions: dict[str, list[Question]] = {t.name: [] for t in targets}
    truth = {t.name: region_mask(labelled.labels.labels, t, targets) for t in targets}
    versions = [truth] + [synthetic_masks(labelled, targets, rng) for _ in range(settings.versions)]
    versions += [] if said is None else [proposed_masks(said, targets, settings)]
    for masks in versions:
        for name, mask in masks.items():
            questions[name] += questions_from(mask, truth[name], name, settings, rng)
    return Pupil(labelled.volume, questions)


def lessons_of(
    labelled: LabelledVolume,
    targets: tuple[Target, ...],
    config: RunConfig,
    said: Mapping[str, Float32],
    sam: Mapping[str, Float32],
) -> dict[str, Lesson]:
    """Make the adaptation network's lessons of one case from what the voices said about it.

    Args:
        labelled: The case.
        targets: All targets.
        config: The run's settings.
        said: Specialist's probability by target: a synthetic pseudo-label, or a real one.
        sam: SAM's answers to its prompts.

    Returns:
        By target; contents of a container that the case does not show are missing.
    """
    lessons: dict[str, Lesson] = {}
    for stage in stages_of(targets):
        organ = None
        if stage.inside is not None:
            organ = _container(labelled, stage.inside, targets, (said, sam))
        if organ is not None and not organ.any():
            continue
        view = build_view(
            labelled.volume,
            stage,
            adaptation_view_settings(stage, config),
            organ=organ,
            labels=labelled.labels,
            targets=targets,
        )
        for number, target in enumerate(stage.targets, start=1):
            voices = voices_on(view, said[target.name], sam[target.name])
            lessons[target.name] = Lesson(view, voices, number)
    return lessons


def pseudo_labels_of(
    labelled: LabelledVolume, targets: Sequence[Target], config: RunConfig
) -> list[dict[str, Float32]]:
    """Return the synthetic pseudo-labels of a case, as soft probabilities by target."""
    rng = np.random.default_rng([config.seed, 13, case_number(labelled.case_id)])
    return [
        soften(synthetic_masks(labelled, targets, rng)) for _ in range(config.adaptation.versions)
    ]


def answers(
    generalist: Generalist,
    volume: Volume,
    said: Mapping[str, Float32],
    targets: Sequence[Target],
    monitor: Monitor,
) -> dict[str, Float32]:
    """Ask SAM with the prompts of each target's probability; silence where there are none."""
    silent = np.zeros(volume.geometry.shape, np.float32)
    prompts = propose(said, targets, generalist.settings)
    answered = generalist.ask(volume, prompts, monitor)
    return {name: answered.get(name, silent) for name in said}


def voices_on(view: View, specialist: Float32, sam: Float32) -> Voices:
    """Bring both voices into a view; without SAM the specialist speaks for both."""
    return Voices(from_volume(specialist, view), from_volume(sam, view))


def adaptation_view_settings(stage: Stage, config: RunConfig) -> SpecialistConfig:
    """Return how the adaptation network sees a stage: in slices, at its own pixel."""
    settings = config.stage(stage.inside.name if stage.inside else None)
    return settings.model_copy(
        update={
            "view": settings.view.model_copy(update={"pixel_mm": config.adaptation.pixel_mm}),
            "network": settings.network.model_copy(update={"dimensions": 2}),
        }
    )


def soften(masks: Mapping[str, Mask]) -> dict[str, Float32]:
    """Turn masks into probabilities as a network would give them: soft at the boundary."""
    blur = (0.0, SOFTNESS_PX, SOFTNESS_PX)
    return {
        name: ndimage.gaussian_filter(mask.astype(np.float32), blur).clip(0.02, 0.98)
        for name, mask in masks.items()
    }


def _container(
    labelled: LabelledVolume,
    target: Target,
    targets: Sequence[Target],
    voices: tuple[Mapping[str, Float32], Mapping[str, Float32]],
) -> Mask:
    """Return the container that the voices found, for contents are sought in such a one.

    Where they found none it is the true one.
    """
    found = clean_container(voices[0][target.name] + voices[1][target.name] > 1.0)
    return found if found.any() else region_mask(labelled.labels.labels, target, targets)


def case_number(case_id: str) -> int:
    """Return a number that is the same for a name in every process, as `hash` is not."""
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:6], "big")
