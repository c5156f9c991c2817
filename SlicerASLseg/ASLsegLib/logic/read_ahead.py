"""The next case is read from disk in a thread while a person looks at this one.

The thread touches no MRML. At most one case is kept, and it is used only if nothing on disk that it
was read from has changed since.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aslseg.data.volume import give_back_memory
from aslseg.errors import AslsegError
from ASLsegLib.logic.project_data import label_digest
from ASLsegLib.logic.saved_predictions import SavedPredictions, read_saved_predictions
from ASLsegLib.scene.volumes import array_of, image_of

if TYPE_CHECKING:
    from aslseg.data.volume import Volume
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.project.lesion_decisions import CaseLesions
    from aslseg.project.project import Project

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseRead:
    """A case as it is on disk.

    Attributes:
        case_id: Its name.
        project: As it was on disk.
        state: What it depends on, see `state_of`.
        volume: The image; None when it was not wanted.
        saved: Label map and predictions, or None.
        lesions: Its lesions and the decisions about them; None where they are not listed yet.
        image: The volume's voxels as VTK's image, to be shown; None without a volume.
    """

    case_id: str
    project: Project
    state: object
    volume: Volume | None
    saved: SavedPredictions | None
    lesions: tuple[list[ReviewedLesion], CaseLesions] | None = None
    image: Any | None = None


class ReadAhead:
    """Reads one case in a thread and keeps it until it is taken.

    Attributes:
        is_busy: Whether a case is being read.
    """

    def __init__(self) -> None:
        self.is_busy = False
        self._case_id = ""
        self._thread: threading.Thread | None = None
        self._found: list[CaseRead] = []

    def begin(self, case_id: str, read: Callable[[], CaseRead]) -> None:
        """Read a case; the one of before is dropped. Nothing is read while another one is.

        Afterwards freed memory goes back to the system: glibc keeps what each case, and each lesion
        that grew in it, leaves in pieces, so that a review took more with each of its first cases.

        Args:
            case_id: Its name.
            read: Called in the thread.
        """
        if case_id == self._case_id or self.is_busy:
            return
        found: list[CaseRead] = []

        def work() -> None:
            try:
                found.append(read())
            except (AslsegError, OSError, MemoryError) as error:
                logger.info("Case %s was not read ahead: %s", case_id, error)
            finally:
                give_back_memory()  # and what the case before left in pieces
                self.is_busy = False

        self.is_busy = True
        self._case_id, self._found = case_id, found
        self._thread = threading.Thread(target=work, name="ASLseg next case", daemon=True)
        self._thread.start()

    def take(self, case_id: str) -> CaseRead | None:
        """Return a case, waiting until it is read, and forget it; None for another one.

        It is called in a thread, for it may wait.
        """
        if case_id != self._case_id or self._thread is None:
            return None
        self._thread.join()
        found = self._found
        self.forget()
        return found[0] if found else None

    def forget(self) -> None:
        """Drop what was read."""
        self._case_id, self._found = "", []


def state_of(project: Project, case_id: str) -> object:
    """Return what the read values of a case depend on, to be compared: case, files, decisions."""
    from aslseg.project.run_folder import runs_of
    from aslseg.schema_1 import prediction_file

    lesions = project.lesion_path(case_id)
    runs = []
    for run in runs_of(project.folder):
        best = run.best_round
        path = prediction_file(run.predictions(best, case_id))
        runs.append((run.run_id, best, path.stat().st_mtime_ns if path.exists() else 0))
    return (
        project.folder,
        project.targets,
        project.case(case_id),
        label_digest(project, case_id),
        lesions.stat().st_size if lesions.exists() else 0,
        tuple(runs),
    )


def read_case(project: Project, case_id: str, *, with_volume: bool = True) -> CaseRead:
    """Read a case of a project as it is on disk now.

    Raises:
        AslsegError: When a file is damaged.
    """
    from aslseg.project.project import open_project

    now = open_project(project.folder)  # another program may have saved a label
    state = state_of(now, case_id)
    volume = image = None
    if with_volume:
        volume = now.load_image(now.case(case_id))
        image = image_of(volume.voxels)
        volume = replace(volume, voxels=array_of(image))  # once in memory
    saved = read_saved_predictions(now, case_id)
    return CaseRead(case_id, now, state, volume, saved, image=image)


def read_case_with_lesions(project: Project, case_id: str) -> CaseRead:
    """Read a case, and measure its lesions where a run has found some.

    Raises:
        AslsegError: When a file is damaged.
    """
    from aslseg.evaluation.lesion_review import read_review
    from aslseg.project.run_folder import run_named

    read = read_case(project, case_id)
    if read.volume is None or read.saved is None or read.saved.human:
        return read
    run = run_named(project.folder, read.saved.result.origin.run)
    return replace(read, lesions=read_review(read.project, run, case_id, read.volume))
