"""The semi-supervised baselines: the specialist alone.

`paradigm` of the settings chooses supervised training, mean teacher, UA-MT or CPS. Methods that
add to the training and segment with the specialist alone build on this one.
"""

from __future__ import annotations

from dataclasses import replace

from aslseg.context import RunContext
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.loading import BuildNetwork
from aslseg.inference.refinement import UseSpecialist
from aslseg.networks.unet import build_network
from aslseg.training.cascade import (
    Build,
    CascadeTrainingPlan,
    default_ssl_method,
    train_cascade,
)
from aslseg.training.rounds import Round, RoundOutcome, finish_round


def run_round(context: RunContext, this: Round) -> RoundOutcome:
    """Train the specialist, select labels by the agreement of its checkpoints, and score them."""
    return run_with(context, this, default_ssl_method)


def run_with(
    context: RunContext, this: Round, build: Build, network: BuildNetwork = build_network
) -> RoundOutcome:
    """Run a round in which the specialist is trained with the SSL methods of `build`.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and the outcome of the round before.
        build: Builds the SSL method of each stage.
        network: Builds the network of each stage, like that of `build`.
    """
    trained = train_cascade(
        context, replace(training_plan_of(context, this, build), network=network)
    )
    ensemble = Ensemble(trained.specialist, None, UseSpecialist(), context.targets, context.config)
    return finish_round(context, this, ensemble, trained.earlier)


def training_plan_of(context: RunContext, this: Round, build: Build) -> CascadeTrainingPlan:
    """Return the training plan of a round; later rounds are shorter."""
    later = this.number > 1
    return CascadeTrainingPlan(
        folder=this.folder,
        ssl_name=context.config.paradigm,
        pseudo=this.pseudo,
        start=this.start,
        share=context.config.later_share if later else 1.0,
        rate=context.config.later_learning_rate if later else 1.0,
        build=build,
    )
