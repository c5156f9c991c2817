"""The semi-supervised baselines as methods of their own: the specialist, and nobody else.

`paradigm` of the settings chooses supervised training, mean teacher, UA-MT or CPS. Methods that add
something to the training and need nothing more to segment start from here too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aslseg.context import RunContext
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.loading import BuildNetwork, load_cascade
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
    """Train the specialist, select what its checkpoints agree on, and measure it."""
    return run_with(context, this, default_ssl_method)


def run_with(
    context: RunContext, this: Round, build: Build, network: BuildNetwork = build_network
) -> RoundOutcome:
    """Run a round in which the specialist is trained with what `build` makes.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and what the rounds before left.
        build: Makes the paradigm of each stage.
        network: Makes the network of each stage, as `build` does.
    """
    trained = train_cascade(
        context, replace(training_plan_of(context, this, build), network=network)
    )
    ensemble = Ensemble(trained.specialist, None, UseSpecialist(), context.targets, context.config)
    return finish_round(context, this, ensemble, trained.earlier)


def load_ensemble(context: RunContext, folder: Path) -> Ensemble:
    """Read the specialist of a finished round.

    Raises:
        WeightsError: When a file is missing or damaged; nothing is trained here.
    """
    return load_with(context, folder, build_network)


def load_with(context: RunContext, folder: Path, network: BuildNetwork) -> Ensemble:
    """Read the specialist of a finished round into networks that `network` makes.

    Raises:
        WeightsError: When a file is missing or damaged; nothing is trained here.
    """
    specialist = load_cascade(context, folder, network).specialist
    return Ensemble(specialist, None, UseSpecialist(), context.targets, context.config)


def training_plan_of(context: RunContext, this: Round, build: Build) -> CascadeTrainingPlan:
    """Return what the specialist learns from in a round; later ones are shorter."""
    later = this.number > 1
    return CascadeTrainingPlan(
        folder=this.folder,
        paradigm=context.config.paradigm,
        pseudo=this.pseudo,
        start=this.start,
        share=context.config.later_share if later else 1.0,
        rate=context.config.later_learning_rate if later else 1.0,
        build=build,
    )
