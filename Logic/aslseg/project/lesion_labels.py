"""The label map that decisions about lesions make: of a case that is done, and of one that is not.

A case is done when every candidate is decided about and the person says that there are no more:
then its label map is a person's like any other. Before, what is decided is a label already, the
rest is not.
"""

from __future__ import annotations

from aslseg.data.images import read_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import ProjectError
from aslseg.project.candidate_lesions import read_candidate_lesions, undecided
from aslseg.project.lesions import read_lesions
from aslseg.project.project import Project, changing, open_project
from aslseg.project.review import correct, refined_path
from aslseg.project.run_folder import RunFolder


def finish_case(
    project: Project, run: RunFolder, case_id: str, *, labels: Labelmap | None = None
) -> Project:
    """Say that a case has no more lesions than those decided about: its label map is a person's.

    Args:
        project: The project.
        run: Whose candidates were reviewed, in its best round.
        case_id: The case.
        labels: What the person was shown; the refined label with the decisions when None.

    Raises:
        ProjectError: When there is no such case, or a candidate is undecided.
        RunError: When the run has no refined label of the case.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    path = refined_path(run, case_id)
    with changing(project.folder):
        current = open_project(project.folder)
        lesions = read_lesions(current, case_id)
        left = undecided(read_candidate_lesions(path.parent, current.targets), lesions)
        if left:
            msg = (
                f"{len(left)} lesions of case {case_id} are undecided; accept, edit or delete them "
                "first."
            )
            raise ProjectError(msg)
        if labels is None:
            refined = read_labelmap(path)
            labels = Labelmap(lesions.apply(refined.labels, current.targets), refined.geometry)
        return correct(current, case_id, labels, run)
