"""The semi-supervised baselines: the specialist alone.

`paradigm` of the settings chooses supervised training, mean teacher, UA-MT or CPS. Methods that
add to the training and segment with the specialist alone build on this one.
"""

from __future__ import annotations

from dataclasses import replace

from aslseg.context import RunContext
from aslseg.inference.lesion_stage import LesionStage
from aslseg.inference.loading import BuildNetwork, TrainedCascade, specialist_alone
from aslseg.methods.aslseg import training_plan_of
from aslseg.networks.unet import build_network
from aslseg.training.cascade import (
    Build,
    CascadeTrainingPlan,
    default_ssl_method,
    train_cascade,
)
from aslseg.training.cross_fitting import OutOfFoldModels, cross_fitted_models
from aslseg.training.lesion_training import train_lesion_stage
from aslseg.training.rounds import Round, RoundOutcome, finish_round


def run_round(context: RunContext, this: Round) -> RoundOutcome:
    """Train the specialist, select labels by the agreement of its checkpoints, and score them."""
    return run_with(context, this, default_ssl_method)


def run_with(
    context: RunContext,
    this: Round,
    build: Build,
    network: BuildNetwork = build_network,
    *,
    is_single: bool = False,
) -> RoundOutcome:
    """Run a round in which the specialist is trained with the SSL methods of `build`.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and the outcome of the round before.
        build: Builds the SSL method of each stage.
        network: Builds the network of each stage, like that of `build`.
        is_single: Train one network of each stage, also where the settings average several.
    """
    plan = training_plan_of(context, this, build)
    plan = replace(plan, network=network, is_single=is_single)
    trained = train_cascade(context, plan)
    lesion_stage = lesion_stage_of(context, plan, trained)
    ensemble = specialist_alone(context, trained.specialist, lesion_stage)
    return finish_round(context, this, ensemble, trained.earlier)


def lesion_stage_of(
    context: RunContext, plan: CascadeTrainingPlan, trained: TrainedCascade
) -> LesionStage | None:
    """Train the lesion stage of a method that has none of its own; None unless it is asked for.

    Specialists are cross-fitted for a classifier alone.
    """
    models: OutOfFoldModels = {}
    if context.config.lesion_decision == "classifier":
        models = cross_fitted_models(context, plan)
    return train_lesion_stage(context, plan.folder, trained.earlier, models)
