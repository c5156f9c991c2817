"""Train the adaptation networks of a run, and choose their fusion weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from aslseg import run_names
from aslseg.config import RunConfig
from aslseg.context import LabelledVolume, RunContext, labelled_volumes
from aslseg.distributed import WorkPart, together
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities, all_targets
from aslseg.inference.ensemble import sam_probabilities_of
from aslseg.inference.loading import TrainedCascade, load_adaptation, load_refiner
from aslseg.inference.refinement import Refiner
from aslseg.networks.adaptation import AdaptationNetwork, adaptation_roi_settings, build_adaptation
from aslseg.networks.checkpoints import Checkpoint, adaptation_path, save_checkpoint
from aslseg.preprocessing.augmentation import apply_intensity, sample_intensity
from aslseg.preprocessing.roi import image_channels
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.storage import scratch
from aslseg.targets import CascadeStage, Target
from aslseg.training.adaptation_samples import (
    AdaptationSampler,
    Sample,
    training_samples_of,
)
from aslseg.training.cross_fitting import OutOfFoldModels
from aslseg.training.fusion import (
    SAM_WEIGHTS,
    SAM_WEIGHTS_OF_TUNED,
    CaseSamples,
    cross_validated_weights,
    fold_steps,
    validated_weights,
)
from aslseg.training.held_out import predict_held_out, predict_sam_held_out
from aslseg.training.losses import soft_dice_loss
from aslseg.training.mask_corruption import pseudo_labels_of
from aslseg.training.sam_tuning import cross_fitted_sam
from aslseg.training.trainer import Prefetch, Schedule, Trainer, spare_threads

logger = logging.getLogger(__name__)


def adaptation_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return cross entropy plus Dice, with small components counting as much as large ones.

    Args:
        logits: (B, h, w).
        truth: (B, h, w) of 0 and 1.
    """
    logits = logits.float()
    probability = logits.sigmoid()
    weight = 1.0 + 2.0 * truth.to(logits)
    cross = F.binary_cross_entropy_with_logits(logits, truth.to(logits), weight)
    both = torch.stack([1 - probability, probability], 1)
    return cross + soft_dice_loss(both, truth)


def untrained_adaptation(
    stage: CascadeStage, config: RunConfig, device: torch.device
) -> AdaptationNetwork:
    """Build the adaptation network of a stage's targets with the weights that its seed gives."""
    torch.manual_seed(config.seed)
    return build_adaptation(stage, config).to(device)


def train_adaptation(
    name: str,
    network: AdaptationNetwork,
    stage: CascadeStage,
    samples: list[Sample],
    config: RunConfig,
    folder: Path,
    monitor: Monitor,
) -> AdaptationNetwork:
    """Train the adaptation network of a target, and return it.

    Args:
        name: Of the training, for its events and the file that it is resumed from.
        network: To start from.
        stage: Of the target.
        samples: To train from.
        config: The run's settings.
        folder: For the state of a training that is stopped.
        monitor: Who listens, and may ask to stop.
    """
    device = next(network.parameters()).device
    settings = config.adaptation
    source = AdaptationSampler(
        samples, settings, adaptation_roi_settings(stage, config), config.seed, device
    )

    images = image_channels(adaptation_roi_settings(stage, config))

    schedule = Schedule(
        name,
        settings.iterations,
        settings.learning_rate,
        settings.weight_decay,
        seed=config.seed,
    )
    trainer = Trainer(network, schedule, device, folder, most_parts=settings.batch_size)
    with Prefetch(source.batch, settings.iterations, spare_threads(device)) as batches:

        def step_loss(step: int, generator: torch.Generator, part: WorkPart) -> dict[str, Tensor]:
            image, predictions, truth = batches(step, part)
            seen = image[:, :images]
            change = sample_intensity(seen.shape, generator, settings.intensity_strength)
            image = torch.cat([apply_intensity(seen, change), image[:, images:]], 1)
            return {"loss": adaptation_loss(network(image, predictions), truth)}

        trainer.run(step_loss, monitor)
    return network


def train_refiner(
    context: RunContext,
    trained: TrainedCascade,
    sam_predictor: VolumeSamPredictor | None,
    folder: Path,
    out_of_fold_models: OutOfFoldModels | None = None,
) -> Refiner:
    """Train the adaptation networks that the folder does not hold yet, and load all of them.

    They are trained on human labels, like SAM; their fusion weights are then chosen on the labelled
    validation cases, or by cross-validation if there are none. In a later round they start from the
    weights of the round before, for `later_share` of the steps.

    Args:
        context: Cases, settings, device, listener.
        trained: The specialist.
        sam_predictor: SAM as tuned on the labelled cases, if the run has one.
        folder: Of the round's weights.
        out_of_fold_models: By case; SAM is cross-fitted with them.
    """
    pairs = [
        (stage, target)
        for stage in context.stages
        for target in stage.targets
        if target.name not in context.given_targets
    ]
    paths = {t.name: adaptation_path(folder, t) for _, t in pairs}
    # Opened also where all is trained: a process may have been ended while these went.
    with scratch(folder / run_names.SAMPLES) as stored:
        if not all(path.exists() for path in paths.values()):
            samples = _training_samples(
                context, trained, sam_predictor, out_of_fold_models or {}, stored
            )
            validation = _validation_samples(context, trained, sam_predictor, stored)
            for stage, target in pairs:
                both = samples[target.name], validation[target.name]
                sam_weights = SAM_WEIGHTS if out_of_fold_models else SAM_WEIGHTS_OF_TUNED
                _train_refiner(context, stage, target, both, sam_weights, paths[target.name])
    return load_refiner(context, folder)


def _train_refiner(
    context: RunContext,
    stage: CascadeStage,
    target: Target,
    samples: tuple[list[CaseSamples], list[Sample]],
    sam_weights: Sequence[float],
    path: Path,
) -> None:
    """Train a target's network, and choose its fusion weights."""
    if path.exists():
        return
    cases, validation = samples
    settings, roi_settings = (
        context.config.adaptation,
        adaptation_roi_settings(stage, context.config),
    )
    training = [sample for case in cases for sample in case.train]
    if validation:
        network = _trained(context, stage, path, training)
        weights = validated_weights(network, validation, settings, roi_settings)
    else:
        train_fold = partial(_fold_network, context, stage, path)
        weights = cross_validated_weights(cases, train_fold, settings, roi_settings, sam_weights)
        network = _trained(context, stage, path, training)
    network.set_fusion_weights(weights)
    logger.info(
        "%s: weight of SAM %.2f, of the correction %.2f, %s",
        target.name,
        *weights,
        "by validation cases" if validation else "by cross-validation",
    )
    facts = {
        "adaptation": settings.model_dump(mode="json"),
        "sam_share": weights.sam,
        "correction": weights.correction,
        "chosen_by": "validation" if validation else "cross-validation",
    }
    save_checkpoint(path, Checkpoint("adaptation", network.state_dict(), facts))


def _fold_network(
    context: RunContext, stage: CascadeStage, path: Path, number: int, samples: list[Sample]
) -> AdaptationNetwork:
    """Train the network of a fold, or load it if a stopped run has trained it."""
    name = f"{path.stem}-fold-{number}"
    path_of_fold = path.parent / run_names.CROSSFIT / f"{name}.safetensors"
    if not path_of_fold.exists():
        settings = context.config.adaptation
        settings = settings.model_copy(update={"iterations": fold_steps(settings.iterations)})
        shorter = replace(
            context, config=context.config.model_copy(update={"adaptation": settings})
        )
        network = _trained(shorter, stage, path_of_fold, samples)
        facts = {"adaptation": settings.model_dump(mode="json"), "fold": number}
        save_checkpoint(path_of_fold, Checkpoint("adaptation", network.state_dict(), facts))
    return load_adaptation(context, stage, path_of_fold)


def _trained(
    context: RunContext, stage: CascadeStage, path: Path, samples: list[Sample]
) -> AdaptationNetwork:
    path.parent.mkdir(exist_ok=True)
    before, config = context.folder.before(path), context.config
    if before is None:
        network = untrained_adaptation(stage, config, context.device)
    else:
        network = load_adaptation(context, stage, before)
        steps = max(1, round(config.adaptation.iterations * config.later_share))
        shorter = config.adaptation.model_copy(update={"iterations": steps})
        config = config.model_copy(update={"adaptation": shorter})
    return together(
        train_adaptation,
        path.stem,
        network,
        stage,
        samples,
        config,
        path.parent,
        context.monitor,
    )


def _training_samples(
    context: RunContext,
    trained: TrainedCascade,
    sam_predictor: VolumeSamPredictor | None,
    out_of_fold_models: OutOfFoldModels,
    folder: Path,
) -> dict[str, list[CaseSamples]]:
    """Make training samples of synthetic pseudo-labels and of predictions of specialists.

    The trained specialist overfits the labelled cases. Its first snapshot still makes errors there,
    and an out-of-fold model makes those of unseen cases; so does SAM, tuned without them.
    """
    sam_of_model = {
        model: cross_fitted_sam(context, model, out_of_fold_models)
        for model in dict.fromkeys(out_of_fold_models.values())  # cases of a fold share one
        if sam_predictor is not None
    }
    samples: dict[str, list[CaseSamples]] = {target.name: [] for target in context.targets}
    patients = {case.id: case.patient for case in context.labelled}
    for labelled in labelled_volumes(context, context.labelled, "Making training samples"):
        training: dict[str, list[Sample]] = {target.name: [] for target in context.targets}
        synthetic = pseudo_labels_of(labelled, context.targets, context.config)
        earlier = [one.predict(labelled.volume, context.monitor) for one in trained.earlier[:1]]
        for probabilities in [*synthetic, *earlier]:
            predictions = _with_sam(context, sam_predictor, labelled, probabilities)
            _add_samples(context, labelled, predictions, training, folder)
        model = out_of_fold_models.get(labelled.case_id)
        if model is not None:
            probabilities = all_targets(predict_held_out(context, model, labelled))
            sam, fitted = probabilities, sam_of_model.get(model)
            if fitted is not None:
                sam = predict_sam_held_out(context, model, labelled, probabilities, fitted)
            _add_samples(context, labelled, (probabilities, sam), training, folder)
        for name, found in training.items():
            validation = found[-1:] if earlier or model is not None else found
            samples[name].append(CaseSamples(patients[labelled.case_id], found, validation))
    return samples


def _validation_samples(
    context: RunContext,
    trained: TrainedCascade,
    sam_predictor: VolumeSamPredictor | None,
    folder: Path,
) -> dict[str, list[Sample]]:
    """Return samples of the predictions on the labelled validation cases."""
    samples: dict[str, list[Sample]] = {target.name: [] for target in context.targets}
    cases = [case for case in context.scored if case.split == "validation"]
    for labelled in labelled_volumes(context, cases, "Predicting validation cases"):
        probabilities = trained.specialist.predict(labelled.volume, context.monitor)
        predictions = _with_sam(context, sam_predictor, labelled, probabilities)
        _add_samples(context, labelled, predictions, samples, folder)
    return samples


def _with_sam(
    context: RunContext,
    sam_predictor: VolumeSamPredictor | None,
    labelled: LabelledVolume,
    probabilities: Probabilities,
) -> tuple[Probabilities, Probabilities]:
    """Return a specialist's probabilities with SAM's, which are the same without SAM."""
    if sam_predictor is None:
        return probabilities, probabilities
    sam = sam_probabilities_of(
        sam_predictor, labelled.volume, probabilities, context.targets, context.monitor
    )
    return probabilities, sam


def _add_samples(
    context: RunContext,
    labelled: LabelledVolume,
    predictions: tuple[Probabilities, Probabilities],
    samples: dict[str, list[Sample]],
    folder: Path,
) -> None:
    """Add samples of a case, with the probabilities of specialist and SAM."""
    for name, sample in training_samples_of(
        labelled, context.targets, context.config, *predictions
    ).items():
        place = f"{labelled.case_id}-{name.replace(' ', '_')}-{len(samples[name])}"
        samples[name].append(sample.stored(folder / place))
