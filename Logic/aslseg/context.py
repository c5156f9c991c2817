"""The context of a run: the project's cases, the settings, the folder, device and monitor.

Loading a run needs it as training does, so it lies below `inference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from aslseg.config import RunConfig
from aslseg.data.orientation import axial_labelmap, axial_volume
from aslseg.data.volume import Labelmap, Mask, Volume
from aslseg.events import Monitor
from aslseg.project.case import CACHE, Case
from aslseg.project.complete_slices import axial_incomplete
from aslseg.project.lesion_decisions import CaseLesions, read_lesions
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.targets import CascadeStage, Target, cascade_stages


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVolume:
    """A volume with its human label map, on its axial grid.

    Attributes:
        case_id: For messages and seeds.
        volume: The image.
        labels: Its label map.
        unknown: Names of the targets that it says nothing about.
        incomplete: (D, H, W) slices that are not marked as complete, or None.
    """

    case_id: str
    volume: Volume
    labels: Labelmap
    unknown: frozenset[str] = frozenset()
    incomplete: Mask | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RunContext:
    """One run of one method.

    Attributes:
        project: The cases.
        config: The settings.
        folder: Where the run is written.
        device: Of the networks.
        monitor: Who listens, and may ask to stop.
        shared_cache: Folder of what several projects compute once; None is the project's own.
    """

    project: Project
    config: RunConfig
    folder: RunFolder
    device: torch.device
    monitor: Monitor
    shared_cache: Path | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets."""
        return tuple(self.project.targets)

    @property
    def given_targets(self) -> frozenset[str]:
        """Names of organs of which every case had a mask when the run was last started."""
        return frozenset(self.folder.status.given_targets)

    @property
    def stages(self) -> tuple[CascadeStage, ...]:
        """The stages that are trained: not those whose targets all come with every volume."""
        given = self.given_targets
        return tuple(
            stage
            for stage in cascade_stages(self.targets)
            if any(target.name not in given for target in stage.targets)
        )

    @property
    def labelled(self) -> list[Case]:
        """Training cases with a human label."""
        return list(self.project.labelled)

    @property
    def unlabelled(self) -> list[Case]:
        """Training cases without."""
        return list(self.project.unlabelled)

    @property
    def held_out(self) -> list[Case]:
        """Validation and test cases; nothing is ever trained on them."""
        return [*self.project.validation, *self.project.test]

    @property
    def scored(self) -> list[Case]:
        """Held-out cases that have a label to score against."""
        return [case for case in self.held_out if case.label is not None]

    @property
    def cache(self) -> Path:
        """The cache; anything in it may be deleted."""
        return self.shared_cache or self.project.folder / CACHE

    def labelled_for(self, stage: CascadeStage) -> list[Case]:
        """Return the training cases of which some target of a stage is known for sure."""
        names = {target.name for target in stage.targets}
        return [
            case
            for case in (*self.project.labelled, *self.project.unlabelled)
            if names & self.project.known_targets(case)
        ]

    def image(self, case: Case) -> Volume:
        """Read a case's image on its axial grid, with the organ masks that are given for it."""
        return axial_volume(self.project.load_image(case))

    def labels(self, case: Case) -> Labelmap:
        """Read what is known of a case on the axial grid of its image.

        That is its human label, with the masks of organs that are given beside it.
        """
        if case.label is None:
            return axial_labelmap(self.project.labels_of_masks(case))
        return axial_labelmap(self.labels_in_file(case))

    def incomplete(self, case: Case) -> Mask | None:
        """Return where a case is not complete, (D, H, W) on its axial grid, or None: nowhere."""
        return None if case.complete_slices is None else axial_incomplete(self.project, case)

    def labels_in_file(self, case: Case) -> Labelmap:
        """Read a case's human label on the grid of its image.

        What the run began to learn from is read, also when a person has replaced it since then or
        taken it back.
        """
        return self.project.load_labels(case, self.folder.status.label_digests.get(case.id))

    def lesions(self, case: Case) -> CaseLesions:
        """Read a person's decisions about the lesions of a case, as the run began to learn them."""
        lines = self.folder.status.lesion_lines.get(case.id, 0)
        return read_lesions(self.project, case.id, lines)

    @contextmanager
    def round(self, number: int) -> Iterator[RunContext]:
        """Yield the context with its events marked as those of a round."""
        marked = replace(self.monitor, round=number)
        yield replace(self, monitor=marked)


def labelled_volumes(
    context: RunContext, cases: Sequence[Case], task: str
) -> Iterator[LabelledVolume]:
    """Read cases with their human labels, one after the other."""
    for case in context.monitor.track(cases, task):
        yield labelled_volume(context, case)


def labelled_volume(context: RunContext, case: Case) -> LabelledVolume:
    """Read a case with its human label."""
    unknown = context.project.unknown_targets(case)
    labels, incomplete = context.labels(case), context.incomplete(case)
    return LabelledVolume(case.id, context.image(case), labels, unknown, incomplete)
