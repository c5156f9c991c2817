"""The containers that contents are taught in: true ones, worse ones, and found ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from aslseg.components import region_mask
from aslseg.corruption import Corruption, Flaw, corrupt
from aslseg.inference import clean_container, predict_view
from aslseg.job import Job
from aslseg.lessons import case_number
from aslseg.stages import Stage, scheduled, stages_of
from aslseg.views import build_view, to_volume
from aslseg.volume import Labelmap, Mask, Volume

NEAR_MM = 25.0
"""How far around an organ its worst stand-in reaches."""


def worse_containers(true: Mask, volume: Volume, case_id: str, seed: int) -> list[Mask]:
    """Return containers with tissue around them taken in, as an organ network takes it in."""
    rng = np.random.default_rng([seed, 23, case_number(case_id)])
    spacing = volume.geometry.spacing_mm
    near = corrupt(true, Corruption((Flaw.DILATED,), NEAR_MM, 0), spacing, true)
    invented = Corruption((Flaw.INVENTED,) * 8, 5.0, int(rng.integers(2**31)))
    return [true | corrupt(true, invented, spacing, near), near]


class Containers:
    """The containing target of a stage, as cases are taught and asked with it."""

    def __init__(
        self, job: Job, stage: Stage, witnesses: Mapping[str, Mapping[str, nn.Module]]
    ) -> None:
        """Keep what containers are made of.

        Args:
            job: Cases and settings.
            stage: Whose containing target is meant.
            witnesses: By case id, networks (by stage name) that never saw the case.
        """
        self._stage = stage
        self._job = job
        self._witnesses = witnesses

    def taught(self, case_id: str, volume: Volume, labels: Labelmap) -> list[Mask | None]:
        """Return the containers that a labelled case is taught with: the true one, and worse ones.

        At inference the container is a network's, and takes in tissue around the organ. A network
        that only ever saw true containers calls all of that a lesion. So it is shown the container
        that a network finds which never saw the case, one with invented parts added, and one that
        takes in all that is near.
        """
        if self._stage.inside is None:
            return [None]
        true = region_mask(labels.labels, self._stage.inside, self._job.targets)
        if not true.any():
            return []
        worse = worse_containers(true, volume, case_id, self._job.config.seed)
        if case_id in self._witnesses:
            found = self.found(volume, self._witnesses[case_id])
            worse += [found] if found is not None and found.any() else []
        return [true, *worse]

    def found(self, volume: Volume, networks: Mapping[str, nn.Module]) -> Mask | None:
        """Return the container that networks of the stages before find; None without any."""
        organ = None
        for stage in _path_to(self._stage, self._job):
            settings = scheduled(self._job.config, stage)
            view = build_view(volume, stage, settings, organ=organ)
            classes = predict_view(networks[stage.name], view, settings, self._job.device)
            inside = _next_container(stage, self._stage, self._job)
            organ = clean_container(to_volume(classes, view)[inside] > 0.5)
            if not organ.any():
                break
        return organ


def _path_to(stage: Stage, job: Job) -> list[Stage]:
    """Return the stages that lead to a stage's container, outermost first."""
    stages = {target.name: s for s in stages_of(job.targets) for target in s.targets}
    path: list[Stage] = []
    container = stage.inside
    while container is not None:
        path.insert(0, stages[container.name])
        container = stages[container.name].inside
    return path


def _next_container(stage: Stage, goal: Stage, job: Job) -> int:
    """Return the class number, in `stage`, of the target on the way to `goal`'s container."""
    wanted = [s.inside.name for s in [*_path_to(goal, job)[1:], goal] if s.inside is not None]
    return next(n for n, t in enumerate(stage.targets, start=1) if t.name in wanted)
