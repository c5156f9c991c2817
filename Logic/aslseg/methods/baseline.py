"""The semi-supervised baselines as methods of their own: the specialist, and nobody else.

`paradigm` of the settings chooses supervised training, mean teacher, UA-MT or CPS. Methods that add
something to the training and need nothing more to segment start from here too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aslseg.inference.ensemble import Ensemble
from aslseg.inference.refinement import TrustSpecialist
from aslseg.networks.checkpoints import require_weights
from aslseg.networks.unet import build_network
from aslseg.targets import stages_of
from aslseg.training.cascade import (
    Build,
    BuildNetwork,
    Curriculum,
    plain,
    specialist_paths,
    teach_specialist,
)
from aslseg.training.context import Job
from aslseg.training.rounds import Round, RoundOutcome, finish_round


def run_round(job: Job, this: Round) -> RoundOutcome:
    """Train the specialist, select what its checkpoints agree on, and measure it."""
    return run_with(job, this, plain)


def run_with(
    job: Job, this: Round, build: Build, network: BuildNetwork = build_network
) -> RoundOutcome:
    """Run a round in which the specialist is trained with what `build` makes.

    Args:
        job: Cases, settings, device, listener.
        this: Number and folder of the round, and what the rounds before left.
        build: Makes the paradigm of each stage.
        network: Makes the network of each stage, as `build` does.
    """
    taught = teach_specialist(job, replace(curriculum_of(job, this, build), network=network))
    ensemble = Ensemble(taught.specialist, None, TrustSpecialist(), job.targets, job.config)
    return finish_round(job, this, ensemble, taught.earlier)


def load_ensemble(job: Job, folder: Path) -> Ensemble:
    """Read the specialist of a finished round.

    Raises:
        WeightsError: When a file is missing or damaged; nothing is trained here.
    """
    return load_with(job, folder, build_network)


def load_with(job: Job, folder: Path, network: BuildNetwork) -> Ensemble:
    """Read the specialist of a finished round into networks that `network` makes.

    Raises:
        WeightsError: When a file is missing or damaged; nothing is trained here.
    """
    require_weights([path for s in stages_of(job.targets) for path in specialist_paths(folder, s)])
    curriculum = Curriculum(folder, job.config.paradigm, {}, {}, network=network)
    specialist = teach_specialist(job, curriculum).specialist
    return Ensemble(specialist, None, TrustSpecialist(), job.targets, job.config)


def curriculum_of(job: Job, this: Round, build: Build) -> Curriculum:
    """Return what the specialist learns from in a round; later ones are shorter."""
    later = this.number > 1
    return Curriculum(
        folder=this.folder,
        paradigm=job.config.paradigm,
        pseudo=this.pseudo,
        start=this.start,
        share=job.config.later_share if later else 1.0,
        rate=job.config.later_learning_rate if later else 1.0,
        build=build,
    )
