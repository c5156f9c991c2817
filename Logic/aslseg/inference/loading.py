"""Read the trained parts of a round from the run's folder; nothing is trained here.

`LOADERS` says which parts a method has, `methods` how they are trained. The names of the files of
weights are known here alone; `training` and `methods` write to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aslseg.config import SpecialistConfig
from aslseg.context import RunContext
from aslseg.data.volume import Volume
from aslseg.errors import ConfigError, entry_of
from aslseg.events import Monitor
from aslseg.inference.candidates import candidate_targets
from aslseg.inference.cascade import Specialist
from aslseg.inference.classwise_sam import ClasswisePredictor, picture01
from aslseg.inference.ensemble import Ensemble, Segmentation
from aslseg.inference.lesion_classifier import classifier_path, fixed_rule, load_classifier
from aslseg.inference.lesion_stage import LesionStage
from aslseg.inference.refinement import Refiner, UseSam, UseSpecialist
from aslseg.networks.adaptation import AdaptationNetwork, build_adaptation
from aslseg.networks.averaged import load_networks
from aslseg.networks.checkpoints import (
    SNAPSHOTS,
    adaptation_path,
    copy_sharing_frozen,
    load_checkpoint,
    load_weights,
    sam_path,
    scsam_path,
    specialist_paths,
)
from aslseg.networks.device import choose_device
from aslseg.networks.unet import build_network
from aslseg.preprocessing.roi import image_channels
from aslseg.project.case import EMBEDDINGS
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import (
    RunFolder,
    best_round,
    check_orientation,
    check_targets,
    require_trained,
)
from aslseg.project.run_tables import is_co_trained, round_number
from aslseg.sam.classwise import ClasswiseSam
from aslseg.sam.predictor import VolumeSamPredictor, build_sam_predictor
from aslseg.sam.tuning import load_trainable_state
from aslseg.sam.two_decoders import TwoDecoderSam
from aslseg.targets import CascadeStage

BuildNetwork = Callable[[CascadeStage, SpecialistConfig], nn.Module]
"""Builds the untrained network of a stage."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedCascade:
    """A trained specialist, and the same at each snapshot of its schedule."""

    specialist: Specialist
    earlier: tuple[Specialist, ...]


def load_stage(
    context: RunContext, folder: Path, stage: CascadeStage, network: BuildNetwork = build_network
) -> list[nn.Module]:
    """Load a stage's networks, one for each of `specialist_paths`, in evaluation mode.

    Raises:
        WeightsError: When a file is missing, damaged, or of a network of other sizes.
    """
    settings = context.config.stage(stage.parent_name)
    loaded = [
        load_networks(lambda: network(stage, settings), path)
        for path in specialist_paths(folder, stage)
    ]
    return [one.to(context.device).eval() for one in loaded]


def assemble_cascade(
    context: RunContext, stages: Mapping[str, Sequence[nn.Module]]
) -> TrainedCascade:
    """Put the networks of `load_stage` together.

    Args:
        context: Targets, settings, device.
        stages: By stage name.
    """
    *earlier, last = (
        Specialist(
            {name: networks[n] for name, networks in stages.items()},
            context.targets,
            context.config,
            context.device,
        )
        for n in range(len(SNAPSHOTS) + 1)
    )
    return TrainedCascade(last, tuple(earlier))


def load_cascade(
    context: RunContext, folder: Path, network: BuildNetwork = build_network
) -> TrainedCascade:
    """Load the networks of all stages.

    Args:
        context: Targets, settings, device.
        folder: With the files of `specialist_paths`.
        network: Builds the untrained network of each stage.

    Raises:
        WeightsError: As `load_stage`.
    """
    return assemble_cascade(
        context, {s.name: load_stage(context, folder, s, network) for s in context.stages}
    )


def load_adaptation(context: RunContext, stage: CascadeStage, path: Path) -> AdaptationNetwork:
    """Load the adaptation network of a target of a stage, in evaluation mode.

    Raises:
        WeightsError: When the file is missing, damaged, or of a network of other sizes.
    """
    network = build_adaptation(stage, context.config)
    load_weights(network, path, "adaptation")
    return network.to(context.device).eval()


def load_refiner(context: RunContext, folder: Path) -> Refiner:
    """Load the adaptation networks of all targets.

    Raises:
        WeightsError: As `load_adaptation`.
    """
    networks = {
        target.name: load_adaptation(context, stage, adaptation_path(folder, target))
        for stage in context.stages
        for target in stage.targets
        if target.name not in context.given_targets
    }
    return Refiner(networks, context.targets, context.config)


def load_lesion_stage(
    context: RunContext, folder: Path, earlier: Sequence[Specialist], *, with_sam: bool = False
) -> LesionStage | None:
    """Load the classifiers of all lesion targets; None where no candidate is decided about.

    Args:
        context: Targets and settings.
        folder: With the files of `classifier_path`.
        earlier: The specialist at the snapshots of its schedule.
        with_sam: Whether SAM proposes candidates too, and is a feature of them.

    Raises:
        WeightsError: When a file is missing, damaged, or of other features.
    """
    how, wanted = context.config.lesion_decision, candidate_targets(context.targets, context.config)
    if not wanted:
        return None
    classifiers = {
        target.name: fixed_rule()
        if how == "rule"
        else load_classifier(classifier_path(folder, target))
        for target in wanted
    }
    return LesionStage(
        classifiers, tuple(earlier), context.targets, context.config, with_sam=with_sam
    )


def released_sam_predictor(context: RunContext, **changes: Any) -> VolumeSamPredictor | None:
    """Build SAM with released weights, ready for tuning; None when the settings have no SAM.

    Args:
        context: Settings, cache, device, monitor.
        changes: Settings of `sam` that take the place of the run's.

    Raises:
        WeightsError: When its weights cannot be had.
    """
    settings = context.config.sam.model_copy(update=changes)
    config = context.config.model_copy(update={"sam": settings})
    return build_sam_predictor(config, context.cache / EMBEDDINGS, context.device, context.monitor)


def required_sam_predictor(context: RunContext, **changes: Any) -> VolumeSamPredictor:
    """Build SAM as `released_sam_predictor` does, for a method that cannot do without.

    Raises:
        ConfigError: When the settings have no SAM.
        WeightsError: When its weights cannot be had.
    """
    sam_predictor = released_sam_predictor(context, **changes)
    if sam_predictor is None:
        msg = (
            f"The method {context.config.method} needs SAM; set sam.model to vit_t or a larger one."
        )
        raise ConfigError(msg)
    return sam_predictor


def load_sam_predictor(context: RunContext, folder: Path) -> VolumeSamPredictor | None:
    """Load SAM as it was tuned, or as released if it is not tuned; None if there is no SAM.

    Raises:
        WeightsError: When a file is missing or damaged.
    """
    sam_predictor = released_sam_predictor(context)
    if sam_predictor is not None and context.config.sam.tuning != "none":
        load_tuned_weights(sam_predictor, folder)
    return sam_predictor


def load_tuned_weights(sam_predictor: VolumeSamPredictor, folder: Path) -> None:
    """Load what was tuned of SAM into a predictor that is ready for tuning.

    Raises:
        WeightsError: When the file is missing or damaged.
    """
    load_trainable_state(sam_predictor.sam, load_checkpoint(sam_path(folder), "sam").tensors)
    sam_predictor.encoder_changed()


def aslseg_ensemble(context: RunContext, folder: Path) -> Ensemble:
    """Load specialist, SAM, adaptation networks and lesion stage of a finished round of ASLseg.

    Raises:
        WeightsError: When a file is missing or damaged.
    """
    first = context.folder.first_folder(round_number(folder))
    trained = load_cascade(context, folder)
    refiner = load_refiner(context, first)
    sam_predictor = load_sam_predictor(context, first)
    lesion_stage = load_lesion_stage(
        context, first, trained.earlier, with_sam=sam_predictor is not None
    )
    return Ensemble(
        trained.specialist, sam_predictor, refiner, context.targets, context.config, lesion_stage
    )


def specialist_ensemble(
    context: RunContext, folder: Path, network: BuildNetwork = build_network
) -> Ensemble:
    """Load the specialist of a finished round, which segments alone.

    Args:
        context: Targets, settings, device.
        folder: Of the round.
        network: Builds the untrained network of each stage.

    Raises:
        WeightsError: When a file is missing or damaged.
    """
    trained = load_cascade(context, folder, network)
    lesion_stage = load_lesion_stage(context, folder, trained.earlier)
    return specialist_alone(context, trained.specialist, lesion_stage)


def specialist_alone(
    context: RunContext, specialist: Specialist, lesion_stage: LesionStage | None
) -> Ensemble:
    """Return a specialist that segments alone, with or without a lesion stage."""
    targets, config = context.targets, context.config
    return Ensemble(specialist, None, UseSpecialist(), targets, config, lesion_stage)


def scsam_ensemble(
    context: RunContext, specialist: Specialist, folder: Path, lesion_stage: LesionStage | None
) -> Ensemble:
    """Put a specialist together with SAM, which was trained with it.

    Args:
        context: Targets, settings, device.
        specialist: Whose predictions prompt SAM.
        folder: With the files of `scsam_path`.
        lesion_stage: Accepts or rejects candidates; None keeps all.

    Raises:
        WeightsError: When a file is missing or damaged.
    """
    sams: dict[str, ClasswiseSam] = {}
    for stage in context.stages:
        sam = build_classwise(context, stage)
        load_classwise(sam, scsam_path(folder, stage.name))
        sams[stage.name] = sam.to(context.device).eval()
    targets, config = context.targets, context.config
    source = ClasswisePredictor(specialist, sams, config)
    return Ensemble(specialist, source, UseSam(), targets, config, lesion_stage)


def load_scsam(context: RunContext, folder: Path) -> Ensemble:
    """Load a finished round of SC-SAM: SAM and specialist, or the specialist that is better alone.

    Raises:
        RunError: When the table that says which is damaged.
        WeightsError: When a file is missing or damaged.
    """
    if not is_co_trained(folder):
        return specialist_ensemble(context, folder)
    trained = load_cascade(context, folder)
    lesion_stage = load_lesion_stage(context, folder, trained.earlier)
    return scsam_ensemble(context, trained.specialist, folder, lesion_stage)


def build_classwise(context: RunContext, stage: CascadeStage) -> ClasswiseSam:
    """Build SAM with released weights and new adapters, for the classes of a stage."""
    own = context.config.scsam
    sam_predictor = required_sam_predictor(
        context, tuning=own.tuning, rank=own.rank, input_size=own.input_size
    )
    return ClasswiseSam(sam_predictor.sam, 1 + len(stage.targets), learned_boxes=own.learned_boxes)


def load_classwise(sam: ClasswiseSam, path: Path) -> None:
    """Load what a round has trained of SAM.

    Raises:
        WeightsError: When the file is missing, damaged or of another kind.
    """
    load_trainable_state(sam, load_checkpoint(path, "sam").tensors)


def cpcsam_networks(context: RunContext) -> BuildNetwork:
    """Return a function that builds SAM for a stage, with two new decoders for its classes.

    What stays frozen is the same in all of them, and in memory once.

    Raises:
        ConfigError: When a network has three dimensions; when there is no SAM, once one is built.
    """
    _refuse_blocks(context)
    own = context.config.cpcsam

    @cache
    def released() -> nn.Module:
        wanted = required_sam_predictor(
            context, tuning="lora", rank=own.rank, input_size=own.input_size
        )
        return wanted.sam

    def build(stage: CascadeStage, settings: SpecialistConfig) -> nn.Module:
        sam = copy_sharing_frozen(released())
        torch.manual_seed(context.config.seed)  # whether SAM was read just now or before
        classes, picture = 1 + len(stage.targets), _picture_of(stage, settings)
        return TwoDecoderSam(sam, classes, edge=settings.patch_size, picture=picture)

    return build


def _refuse_blocks(context: RunContext) -> None:
    for stage in context.stages:
        if context.config.stage(stage.parent_name).network.dimensions != 2:
            msg = (
                f"CPC-SAM looks at slices, but stage {stage.name} is to look at blocks; set "
                "organ.network.dimensions and lesion.network.dimensions to 2."
            )
            raise ConfigError(msg)


def _picture_of(stage: CascadeStage, settings: SpecialistConfig) -> Callable[[Tensor], Tensor]:
    middle, has_parent = image_channels(settings) // 2, stage.inside is not None
    return partial(_middle_picture, middle=middle, has_parent=has_parent)


def _middle_picture(inputs: Tensor, *, middle: int, has_parent: bool) -> Tensor:
    """Return the picture that SAM sees of a network's inputs; a function that can be pickled."""
    return picture01(inputs[:, middle], has_parent=has_parent)


LoadEnsemble = Callable[[RunContext, Path], Ensemble]
"""Loads the trained parts of a finished round from its folder."""

LOADERS: dict[str, LoadEnsemble] = {
    "aslseg": aslseg_ensemble,
    "cpcsam": lambda context, folder: specialist_ensemble(
        context, folder, cpcsam_networks(context)
    ),
    "scsam": load_scsam,
    "semisam": specialist_ensemble,
    "specialist": specialist_ensemble,
}
"""By method; its training is in `methods`, under the same name."""


def load_round(context: RunContext, folder: Path) -> Ensemble:
    """Load the trained parts of a finished round.

    Args:
        context: Its settings name the method.
        folder: Of the round.

    Raises:
        ConfigError: When there is no method of that name.
        WeightsError: When a file is missing or damaged.
    """
    load = entry_of(LOADERS, context.config.method, "There is no method")
    return load(context, folder)


def context_of(
    project: Project, run: RunFolder, monitor: Monitor, *, device: str | None = None
) -> RunContext:
    """Return the context of a run on the device of its settings, or on another one.

    Raises:
        DeviceError: When the device is not there.
    """
    config = run.config
    if device is not None:
        config = config.model_copy(update={"device": device})
    chosen = choose_device(config.device).torch_device
    return RunContext(project, config, run, chosen, monitor)


def load_ensemble(
    run: RunFolder, monitor: Monitor | None = None, device: str | None = None
) -> Ensemble:
    """Read the trained parts of a run's best round, ready to segment any volume.

    Args:
        run: With a finished round.
        monitor: Gets the events, and may ask to stop.
        device: Where to compute, whatever the run was trained on; None is what its settings say.

    Raises:
        DeviceError: When the device is not there.
        RunError: When the run has no finished round, or holds label maps of another model.
        WeightsError: When a file of trained weights is missing, damaged or changed.
    """
    project = open_project(run.path.parents[1])
    best = require_trained(run).round(best_round(run))
    check_targets(project, run)
    check_orientation(project, run, monitor or Monitor())
    context = context_of(project, run, monitor or Monitor(), device=device)
    return load_round(context, best)


def segment_volume(run: RunFolder, volume: Volume, monitor: Monitor | None = None) -> Segmentation:
    """Segment a volume with a run's best round; for several, use `load_ensemble` once.

    Raises:
        AslsegError: As `load_ensemble`, and when asked to stop.
    """
    return load_ensemble(run, monitor).segment(volume, monitor)
