"""The generalist that a run asks for: released weights, then tuned on the labelled cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aslseg.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from aslseg.config import RunConfig
from aslseg.crossfit import Witnesses
from aslseg.errors import ConfigError, ProjectError
from aslseg.events import Monitor
from aslseg.generalist import Generalist, Pupil
from aslseg.job import Job
from aslseg.lessons import LabelledVolume, pupil_of
from aslseg.project import Case
from aslseg.sam.models import build_sam
from aslseg.sam.tuning import load_trainable_state, trainable_state, tune, tunes_encoder
from aslseg.sam.weights import get_weights
from aslseg.training import Schedule, Trainer


def build_generalist(
    config: RunConfig, cache: Path, device: torch.device, monitor: Monitor
) -> Generalist | None:
    """Build SAM with released weights, ready for tuning; None when the settings want none.

    Args:
        config: Model, input size, tuning.
        cache: Folder of the embeddings.
        device: Where SAM goes.
        monitor: Told of a download.

    Raises:
        WeightsError: When the weights cannot be had or are not what they should be.
    """
    settings = config.sam
    if settings.model == "none":
        return None
    if settings.checkpoint is None:
        checkpoint = get_weights(settings.model, monitor=monitor)
    else:
        checkpoint = Path(settings.checkpoint)
    sam = build_sam(settings.model, input_size=settings.input_size, checkpoint=checkpoint)
    torch.manual_seed(config.seed)
    tune(sam, settings.tuning, rank=settings.rank)
    return Generalist(sam.to(device), settings, cache)


def required_generalist(job: Job, **changes: Any) -> Generalist:
    """Build SAM with released weights for a method that cannot do without.

    Args:
        job: Settings, device, listener.
        changes: Settings of `sam` that the method does not leave to the user.

    Raises:
        ConfigError: When the settings have no SAM.
        WeightsError: When its weights cannot be had.
    """
    changed = job.config.sam.model_copy(update=changes)
    config = job.config.model_copy(update={"sam": changed})
    generalist = build_generalist(config, job.cache / "embeddings", job.device, job.monitor)
    if generalist is None:
        msg = f"The method {config.method} needs SAM; set sam.model to vit_t or a larger one."
        raise ConfigError(msg)
    return generalist


def tuned_generalist(
    job: Job, folder: Path, witnesses: Witnesses | None = None
) -> Generalist | None:
    """Return SAM tuned on the labelled cases, training it if that was not done yet.

    It is tuned once: on human labels, which are the same in every round.
    """
    generalist = build_generalist(job.config, job.cache / "embeddings", job.device, job.monitor)
    if generalist is None or job.config.sam.tuning == "none":
        return generalist
    path = sam_path(folder)
    if not path.exists():
        _tune(job, generalist, folder, witnesses or {})
        tensors = trainable_state(generalist.sam)
        facts = {"sam": job.config.sam.model_dump(mode="json")}
        save_checkpoint(path, Checkpoint("sam", tensors, facts))
    load_trainable_state(generalist.sam, load_checkpoint(path, "sam").tensors)
    generalist.encoder_changed()
    return generalist


def sam_path(folder: Path) -> Path:
    """Return where the tuned part of SAM is kept."""
    return folder / "sam.safetensors"


def _tune(job: Job, generalist: Generalist, folder: Path, witnesses: Witnesses) -> None:
    settings, seed = job.config.sam, job.config.seed
    pupils = _pupils(job, generalist, witnesses)

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


def _pupils(job: Job, generalist: Generalist, witnesses: Witnesses) -> list[Pupil]:
    pupils: list[Pupil] = []
    for labelled in labelled_volumes(job, job.labelled, "Making questions for SAM"):
        witness = witnesses.get(labelled.case_id)
        said = witness.predict(labelled.volume, job.monitor) if witness else None
        pupil = pupil_of(labelled, job.targets, job.config.sam, job.config.seed, said)
        if any(pupil.questions.values()):
            pupils.append(generalist.prepare(pupil, job.monitor))
    if not pupils:
        msg = "No labelled case shows enough of a target to tune SAM; label a larger one."
        raise ProjectError(msg)
    return pupils


def labelled_volumes(job: Job, cases: Sequence[Case], stage: str) -> Iterator[LabelledVolume]:
    """Read cases with their human labels, one after the other."""
    for case in job.monitor.track(cases, stage):
        yield LabelledVolume(case.id, job.image(case), job.labels(case))
