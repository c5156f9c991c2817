"""What a method works with: the project's cases, the settings, and where things are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from aslseg.config import RunConfig, Target
from aslseg.events import Monitor
from aslseg.orientation import axial_labelmap, axial_volume
from aslseg.project import Case, Project
from aslseg.runfolder import RunFolder
from aslseg.volume import Labelmap, Volume


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One run of one method.

    Attributes:
        project: The cases.
        config: The settings.
        folder: Where the run is written.
        device: Where networks live.
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
        """The classes of the label maps."""
        return tuple(self.project.targets)

    @property
    def labelled(self) -> list[Case]:
        """Training cases with a person's label."""
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
        return self.shared_cache or self.project.folder / "cache"

    def image(self, case: Case) -> Volume:
        """Read a case's image on its axial grid, as networks are taught with it."""
        return axial_volume(self.project.load_image(case))

    def labels(self, case: Case) -> Labelmap:
        """Read a case's human label on the axial grid of its image."""
        return axial_labelmap(self.labels_in_file(case))

    def labels_in_file(self, case: Case) -> Labelmap:
        """Read a case's human label on the grid of its image.

        What the run began to learn from is read, also when a person has replaced it since then or
        taken it back.
        """
        learnt = self.folder.status.get("learnt", {}).get(case.id)
        return self.project.load_labels(case, learnt)

    @contextmanager
    def round(self, number: int) -> Iterator[Job]:
        """Give the job with its events marked as those of a round."""
        marked = Monitor(self.monitor.listener, self.monitor.token, number)
        yield replace(self, monitor=marked)
