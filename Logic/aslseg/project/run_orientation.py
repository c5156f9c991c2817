"""Whether the networks of a run were trained on volumes in today's orientation."""

from __future__ import annotations

from collections.abc import Iterator

from aslseg.data.images import read_geometry
from aslseg.data.orientation import ORIENTATION, axis_names
from aslseg.errors import RunError
from aslseg.events import Monitor
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder


def check_orientation(project: Project, run: RunFolder, monitor: Monitor) -> None:
    """Make sure that the networks of a run know volumes as they are shown to them now.

    A run notes its orientation. One that does not was trained by a version that showed volumes as
    their files store them: it is of use as long as all of these are stored in today's orientation.

    Args:
        project: Its cases say how they are stored.
        run: Of that project.
        monitor: Told of images that cannot be looked at.

    Raises:
        RunError: When its networks saw volumes in another orientation.
        ImageError: When an image is damaged.
    """
    if not any(run.path.glob("round-*")):
        return  # nothing has been trained yet
    noted = run.status.get("orientation")
    seen = [("its volumes", str(noted))] if noted else list(_stored(project, monitor))
    for what, orientation in seen:
        if orientation != ORIENTATION:
            msg = (
                f"The networks of run '{run.run_id}' saw {what} with axes {orientation}, and "
                f"all volumes are brought to {ORIENTATION} now: they would be mistaken. Train a "
                "new run."
            )
            raise RunError(msg)


def _stored(project: Project, monitor: Monitor) -> Iterator[tuple[str, str]]:
    for case in (*project.labelled, *project.unlabelled):
        path = project.image_path(case)
        if path.exists():
            yield f"case {case.id}", axis_names(read_geometry(path))
        else:
            monitor.warn(f"{path} is absent: how the run saw case {case.id} is not known.")
