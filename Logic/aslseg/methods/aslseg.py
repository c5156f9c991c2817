"""ASLseg: a specialist prompts SAM, an adaptation network repairs, reliable labels go round.

After Chen, Lin, Cheng and Tang, "ASLseg: Adapting SAM in the Loop for Semi-supervised Liver Tumor
Segmentation" (arXiv 2312.07969). No code was released and the abstract leaves most choices open, so
this is a reconstruction: Docs/methods.md says of each choice whether it is the paper's or ours.

A round: (1) train the specialist on labelled and unlabelled cases with a semi-supervised paradigm;
(2) its pseudo-labels prompt a SAM that was tuned on the labelled cases; (3) the adaptation network,
trained on synthetic pseudo-labels of the labelled cases, refines SAM's answers; (4) the reliable
ones join the training set for the next round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aslseg.adaptation import AdaptationNetwork, Lesson
from aslseg.blending import calibrate
from aslseg.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from aslseg.config import Target
from aslseg.generalist import Generalist
from aslseg.generalist_setup import build_generalist
from aslseg.inference import Probabilities, labels_from
from aslseg.job import Job
from aslseg.lessons import (
    LabelledVolume,
    adaptation_view_settings,
    answers,
    lessons_of,
    pseudo_labels_of,
    pupil_of,
)
from aslseg.project import Case
from aslseg.refinement import Refiner, build_adaptation, train_adaptation
from aslseg.rounds import Comparisons, Round, RoundOutcome, finish_round
from aslseg.sam.tuning import load_trainable_state, trainable_state, tunes_encoder
from aslseg.speaking import Ensemble
from aslseg.stages import Stage, stages_of
from aslseg.teaching import Curriculum, Taught, teach_specialist
from aslseg.training import Schedule, Trainer
from aslseg.volume import Labelmap, Volume


def run_round(job: Job, this: Round) -> RoundOutcome:
    """Run one round and say which pseudo-labels the next one may learn from.

    Args:
        job: Cases, settings, device, listener.
        this: Number and folder of the round, and what the rounds before left.
    """
    taught = teach_specialist(job, _curriculum(job, this))
    generalist = tuned_generalist(job, this.first_folder)
    refiner = trained_refiner(job, taught, generalist, this.first_folder)
    ensemble = Ensemble(taught.specialist, generalist, refiner, job.targets, job.config)
    return finish_round(job, this, ensemble, taught.earlier, _comparisons(job, this, taught))


def load_ensemble(job: Job, folder: Path) -> Ensemble:
    """Read the trained parts of a finished round, to segment other volumes with."""
    first = job.folder.round(1)
    taught = teach_specialist(job, Curriculum(folder, job.config.paradigm, {}, {}))
    generalist = tuned_generalist(job, first)
    refiner = trained_refiner(job, taught, generalist, first)
    return Ensemble(taught.specialist, generalist, refiner, job.targets, job.config)


def _comparisons(job: Job, this: Round, taught: Taught) -> Comparisons:
    """Return the rows to compare with: a supervised specialist, and SAM as it was released."""
    if not job.config.baseline or this.number > 1:
        return {}
    curriculum = Curriculum(this.folder / "baseline", "supervised", {}, {})
    supervised = teach_specialist(job, curriculum).specialist
    untrained = job.config.sam.model_copy(update={"tuning": "none"})
    released = build_generalist(
        job.config.model_copy(update={"sam": untrained}),
        job.cache / "embeddings",
        job.device,
        job.monitor,
    )

    def labels(said: Probabilities, volume: Volume) -> Labelmap:
        return labels_from(said, job.targets, volume, job.config.min_component_ml)

    def by_supervised(volume: Volume) -> Labelmap:
        return labels(supervised.predict(volume, job.monitor), volume)

    if released is None:
        return {"supervised": by_supervised}

    def by_released_sam(volume: Volume) -> Labelmap:
        said = taught.specialist.predict(volume, job.monitor)
        return labels(answers(released, volume, said, job.targets, job.monitor), volume)

    return {"supervised": by_supervised, "sam_untrained": by_released_sam}


def _curriculum(job: Job, this: Round) -> Curriculum:
    later = this.number > 1
    return Curriculum(
        folder=this.folder,
        paradigm=job.config.paradigm,
        pseudo=this.pseudo,
        start=this.start,
        share=job.config.later_share if later else 1.0,
    )


def tuned_generalist(job: Job, folder: Path) -> Generalist | None:
    """Return SAM tuned on the labelled cases, training it if that was not done yet.

    It is tuned once: on human labels, which are the same in every round.
    """
    generalist = build_generalist(job.config, job.cache / "embeddings", job.device, job.monitor)
    if generalist is None or job.config.sam.tuning == "none":
        return generalist
    path = folder / "sam.safetensors"
    if not path.exists():
        _tune(job, generalist, folder)
        tensors = trainable_state(generalist.sam)
        facts = {"sam": job.config.sam.model_dump(mode="json")}
        save_checkpoint(path, Checkpoint("sam", tensors, facts))
    load_trainable_state(generalist.sam, load_checkpoint(path, "sam").tensors)
    generalist.encoder_changed()
    return generalist


def _tune(job: Job, generalist: Generalist, folder: Path) -> None:
    settings, seed = job.config.sam, job.config.seed
    pupils = [
        generalist.prepare(pupil_of(labelled, job.targets, settings, seed), job.monitor)
        for labelled in _labelled_volumes(job, job.labelled, "Making questions for SAM")
    ]

    def step_loss(step: int, _: torch.Generator) -> dict[str, Tensor]:
        rng = np.random.default_rng([seed, 17, step])
        return {"loss": generalist.loss(pupils[rng.integers(len(pupils))], rng)}

    schedule = Schedule(
        "sam", settings.iterations, settings.learning_rate, settings.weight_decay, seed=seed
    )
    # Stored embeddings are float16, which CPUs cannot mix with bfloat16.
    precise = not tunes_encoder(generalist.sam)
    Trainer(generalist.sam, schedule, job.device, folder, precise=precise).run(
        step_loss, job.monitor
    )


def trained_refiner(
    job: Job, taught: Taught, generalist: Generalist | None, folder: Path
) -> Refiner:
    """Return the adaptation networks, training them if that was not done yet.

    They are trained once, on human labels, like SAM; how far they are followed is then chosen on
    the validation cases.
    """
    pairs = [(stage, target) for stage in stages_of(job.targets) for target in stage.targets]
    paths = {t.name: _adaptation_path(folder, t) for _, t in pairs}
    if not all(path.exists() for path in paths.values()):
        lessons = _training_lessons(job, taught, generalist)
        tests = _validation_lessons(job, taught, generalist)
        for stage, target in pairs:
            both = lessons[target.name], tests[target.name]
            _train_refiner(job, stage, target, both, paths[target.name])
    networks: dict[str, AdaptationNetwork] = {}
    for stage, target in pairs:
        network = build_adaptation(stage, job.config)
        network.load_state_dict(load_checkpoint(paths[target.name], "adaptation").tensors)
        networks[target.name] = network.to(job.device).eval()
    return Refiner(networks, job.targets, job.config)


def _adaptation_path(folder: Path, target: Target) -> Path:
    return folder / f"adaptation-{target.name.replace(' ', '_')}.safetensors"


def _train_refiner(
    job: Job, stage: Stage, target: Target, lessons: tuple[list[Lesson], list[Lesson]], path: Path
) -> None:
    if path.exists():
        return
    network = train_adaptation(
        target, stage, lessons[0], job.config, path.parent, job.device, job.monitor
    )
    view_settings = adaptation_view_settings(stage, job.config)
    share, strength = calibrate(network, lessons[1], job.config.adaptation, view_settings)
    job.monitor.metric(f"SAM's share {target.name}", share, 0, "adaptation")
    job.monitor.metric(f"correction {target.name}", strength, 0, "adaptation")
    facts = {"adaptation": job.config.adaptation.model_dump(mode="json")}
    save_checkpoint(path, Checkpoint("adaptation", network.state_dict(), facts))


def _training_lessons(
    job: Job, taught: Taught, generalist: Generalist | None
) -> dict[str, list[Lesson]]:
    """Make lessons of synthetic pseudo-labels, and of those of the unripe specialist.

    The specialist has learnt the labelled cases by heart at the end of its schedule; after the
    first third of it, it still makes mistakes of its own kind there.
    """
    lessons: dict[str, list[Lesson]] = {target.name: [] for target in job.targets}
    for labelled in _labelled_volumes(job, job.labelled, "Making lessons"):
        pseudo = pseudo_labels_of(labelled, job.targets, job.config)
        pseudo += [unripe.predict(labelled.volume, job.monitor) for unripe in taught.earlier[:1]]
        for said in pseudo:
            _add_lessons(job, generalist, labelled, said, lessons)
    return lessons


def _validation_lessons(
    job: Job, taught: Taught, generalist: Generalist | None
) -> dict[str, list[Lesson]]:
    """Return the real voices on the labelled validation cases, with their truth."""
    lessons: dict[str, list[Lesson]] = {target.name: [] for target in job.targets}
    cases = [case for case in job.scored if case.split == "validation"]
    for labelled in _labelled_volumes(job, cases, "Weighing the voices"):
        said = taught.specialist.predict(labelled.volume, job.monitor)
        _add_lessons(job, generalist, labelled, said, lessons)
    return lessons


def _add_lessons(
    job: Job,
    generalist: Generalist | None,
    labelled: LabelledVolume,
    said: Probabilities,
    lessons: dict[str, list[Lesson]],
) -> None:
    sam = said
    if generalist is not None:
        sam = answers(generalist, labelled.volume, said, job.targets, job.monitor)
    for name, lesson in lessons_of(labelled, job.targets, job.config, said, sam).items():
        lessons[name].append(lesson)


def _labelled_volumes(job: Job, cases: Sequence[Case], stage: str) -> Iterator[LabelledVolume]:
    for case in job.monitor.track(cases, stage):
        yield LabelledVolume(case.id, job.image(case), job.labels(case))
