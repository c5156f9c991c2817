"""Several changes of cases and targets at once: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aslseg.project.complete_slices import set_complete_slices, with_complete_slices
from aslseg.project.edit import (
    Removal,
    remove_cases,
    rename_case,
    restyle_targets,
    restyled,
    with_renamed,
    without_cases,
)
from aslseg.project.lock import changing
from aslseg.project.project import Project, open_project
from aslseg.project.roles import assign, assigned


@dataclass(frozen=True, slots=True)
class CaseChanges:
    """What shall be otherwise in a project, in the order in which it is done.

    Attributes:
        names: New name by case id; the changes below know a case by its new one.
        removed: Ids of cases that leave the project.
        patients: Patient by case id, as for `assign`.
        splits: What a case is for, by case id.
        complete_slices: By case id, as for `set_complete_slices`.
        colors: `#rrggbb` by target name, as for `restyle_targets`.
        terminologies: Terminology entry by target name.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    removed: Sequence[str] = ()
    patients: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    complete_slices: Mapping[str, Sequence[int] | None] = field(default_factory=dict)
    colors: Mapping[str, str] = field(default_factory=dict)
    terminologies: Mapping[str, str] = field(default_factory=dict)

    def check(self, project: Project) -> None:
        """Make sure that all of it can be done; nothing is written.

        Raises:
            ProjectError: When one of the changes is refused.
            ImageError: When the image of a case with complete slices cannot be read.
        """
        for case_id, name in self.names.items():
            project = with_renamed(project, case_id, name)
        if self.removed:
            project = without_cases(project, self.removed)
        project = assigned(project, self.patients, self.splits)
        for case_id, slices in self.complete_slices.items():
            project = with_complete_slices(project, case_id, slices)
        restyled(project, self.colors, self.terminologies)


def change_cases(project: Project, changes: CaseChanges) -> tuple[Project, list[Removal]]:
    """Change cases and targets; nothing is changed where one of the changes is refused.

    Returns:
        The project as it is on disk now, and what became of the files of removed cases.

    Raises:
        ProjectError: When one of the changes is refused; nothing changes then.
        ImageError: When the image of a case with complete slices cannot be read; as above.
        StorageError: When the folder cannot be written; changes before that one stay.
    """
    removals: list[Removal] = []
    with changing(open_project(project.folder).folder):
        project = open_project(project.folder)
        changes.check(project)
        for case_id, name in changes.names.items():
            project = rename_case(project, case_id, name)
        if changes.removed:
            project, removals = remove_cases(project, changes.removed)
        if changes.patients or changes.splits:
            project = assign(project, patients=changes.patients, splits=changes.splits)
        for case_id, slices in changes.complete_slices.items():
            project = set_complete_slices(project, case_id, slices)
        if changes.colors or changes.terminologies:
            project = restyle_targets(
                project, colors=changes.colors, terminologies=changes.terminologies
            )
    return project, removals
