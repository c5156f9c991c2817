"""Projects and their cases, for the panel and for scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib.logic import project_data as projects
from ASLsegLib.logic.base import LogicBase, Pending, waiting
from ASLsegLib.logic.project_state import ProjectState
from ASLsegLib.logic.read_ahead import (
    CaseRead,
    ReadAhead,
    read_case,
    read_case_with_lesions,
    state_of,
)
from ASLsegLib.logic.saved_predictions import show_saved_predictions
from ASLsegLib.paths import PROJECT_FILE
from ASLsegLib.scene.case_nodes import (
    find_case,
    forget_case,
    is_intact,
    is_of_project,
    known_as,
    mark_case,
    name_case,
    note_label,
    note_project,
    require_free,
)
from ASLsegLib.scene.case_removal import remove_if_saved
from ASLsegLib.scene.moved_cases import move_back, moved_by_mm
from ASLsegLib.scene.segmentations import find_prediction, is_as_written, predictions_about
from ASLsegLib.scene.volumes import SceneError, add_volume, own_file, volume_of, working_volume

if TYPE_CHECKING:
    from aslseg.project.project import Project
    from aslseg.project.review_order import ReviewOrder
    from aslseg.project.run_list import RunSummary

MayMoveBack = Callable[[str, str, float], bool]
"""Asked with the name of a volume that was moved, its case, and how far in mm: move it back?"""
CT_WINDOW_HU = (-100.0, 240.0)
"""Grey values of a case that is loaded: an abdominal window."""


def load_anew(_name: str, _case_id: str, _moved_mm: float) -> bool:
    """Leave a volume that was moved where it is, and load its case anew."""
    return False


class ProjectLogic(LogicBase):
    """The part of the logic that opens and fills projects."""

    def __init__(self) -> None:
        super().__init__()
        self._state: ProjectState | None = None
        self._review_order: ReviewOrder = "least"
        self._verified: set[tuple[str, str]] = set()
        self._scene_number = 0
        self._ahead = ReadAhead()
        self._last_read: CaseRead | None = None
        self._file_seen: tuple[Path, int, int] | None = None

    def open_project(self, folder: Path | str) -> Project:
        """Open the project in a folder.

        The open one stays open by the path that it has, also where another path names its folder:
        what can be undone is known by it.

        Raises:
            ProjectError: When there is none, or it contradicts itself.
        """
        from aslseg.project.project import open_project

        place = Path(folder)
        if self.project is not None and _is_same_folder(self.project.folder, place):
            place = self.project.folder
        return self.use(open_project(place))

    @waiting
    def create_phantom_project(
        self, folder: Path | str, *, cases: int = 12, labelled: int = 2
    ) -> Pending[Project]:
        """Make and open a project of made-up patients, and one of them is for validation.

        Args:
            folder: New or empty.
            cases: How many volumes.
            labelled: How many of them have a label map.
        """
        return self._in_background(
            "making phantoms",
            lambda m: projects.make_phantom_project(Path(folder), cases, labelled, m),
            self.use,
        )

    @waiting
    def add_volume(
        self,
        volume: Any,
        case_id: str | None = None,
        *,
        folder: Path | str | None = None,
        patient: str | None = None,
    ) -> Pending[Project]:
        """Add a volume of the scene to the project, or make one with it.

        A volume that was read from a file and is unchanged is named by that file; any other is
        written to the project.

        Args:
            volume: Volume node.
            case_id: Name of the case; made from the node's name when None.
            folder: Of a new project; the open one's when None.
            patient: Whose volume it is; None takes the PatientID of DICOM slices, else the case.

        Raises:
            SceneError: When no project is open and no folder is given, or when the volume is a case
                of another project.
        """
        place, name = self._place(folder), case_id or projects.good_case_id(volume.GetName())
        volume = working_volume(volume)
        require_free(volume, place)
        image = own_file(volume) or volume_of(volume)

        def show(project: Project) -> Project:
            if slicer.mrmlScene.IsNodePresent(volume):
                self._mark(volume, project, name, is_known=not isinstance(image, Path))
            return self.use(project)

        return self._in_background(
            "adding a volume",
            lambda m: projects.add_volume(place, name, image, m, patient),
            show,
        )

    def set_split(self, case_id: str, split: str, *, whole_patient: bool = False) -> Project:
        """Set what a case is for: "train", "validation" or "test".

        Args:
            case_id: Name of the case.
            split: What it is for from now on.
            whole_patient: Whether all volumes of its patient change, which have to be on one side.

        Raises:
            ProjectError: When its patient would have volumes in two splits.
        """
        from aslseg.project.roles import assign

        cases = self.same_patient(case_id) if whole_patient else (case_id,)
        return self.updated(assign(self.opened(), splits=dict.fromkeys(cases, split)))

    def set_patient(self, case_id: str, patient: str) -> Project:
        """Set whose volume a case is; the name of another case stands for its patient.

        Raises:
            ProjectError: When that patient would have volumes in two splits.
        """
        from aslseg.project.roles import assign

        return self.updated(assign(self.opened(), patients={case_id: patient}))

    def rename_case(self, case_id: str, name: str) -> Project:
        """Give a case another name, as long as no run and no decision knows it.

        Raises:
            ProjectError: When the name cannot be, or the case is known by its name.
        """
        from aslseg.project.edit import rename_case

        node = self.case_node(case_id)
        project = rename_case(self.opened(), case_id, name)
        if node is not None:
            name_case(node, project, name)
        self.history.forget_case(case_id)
        return self.updated(project)

    def remove_cases(self, *case_ids: str) -> Project:
        """Take cases out of the project; images stay, label maps go to its history.

        Raises:
            ProjectError: When there is no such case, or a run is being worked on.
        """
        from aslseg.project.edit import remove_cases

        nodes = {case_id: self.case_node(case_id) for case_id in case_ids}
        project, _ = remove_cases(self.opened(), case_ids)
        self._forget_cases(nodes)
        return self.updated(project)

    def same_patient(self, case_id: str) -> tuple[str, ...]:
        """Return the names of all cases of a case's patient, that case among them."""
        from aslseg.project.roles import volumes_of_same_patient

        return volumes_of_same_patient(self.opened(), case_id)

    @waiting
    def load_case(
        self,
        case_id: str,
        *,
        then: Callable[[Any], None] | None = None,
        may_move_back: MayMoveBack = load_anew,
    ) -> Pending[Any]:
        """Load a case with its label map and the predictions of the latest run.

        What a person drew or prompted in the scene stays as it is; the rest is renewed.

        Args:
            case_id: Name of the case.
            then: Called with the volume node when everything is there.
            may_move_back: Asked where the case's volume was moved in the scene; after a no it stays
                there as a volume that is no case, and the case is loaded anew.
        """
        opened = self.opened()
        known = self._known_node(case_id, may_move_back)
        scene = self._scene_number

        def read(_: Any) -> CaseRead:
            ahead = self._ahead.take(case_id)
            now = None if ahead is None or known is not None else _as_on_disk(ahead, opened)
            return now or read_case(opened, case_id, with_volume=known is None)

        def show(loaded: CaseRead) -> Any:
            if scene != self._scene_number:
                return None  # the scene was closed meanwhile
            node = self._show_case(loaded, known, case_id)
            self._last_read = replace(loaded, volume=None, saved=None, image=None)
            if then is not None:
                then(node)
            return node

        return self._in_background("loading a case", read, show)

    def _known_node(self, case_id: str, may_move_back: MayMoveBack) -> Any | None:
        """Return the volume node of a case, where its image lies; None when it has to be read.

        One that is not the case's image any more stays in the scene as what it has become.
        """
        project, node = self.opened(), self.case_node(case_id)
        if node is None:
            return None
        if is_intact(node):
            moved_mm = moved_by_mm(node, project, case_id)
            if not moved_mm:
                return node
            if may_move_back(str(node.GetName()), case_id, moved_mm):
                move_back(node, project, case_id)
                return node
        forget_case(node)
        return None

    def release_case(self, case_id: str) -> bool:
        """Take a case out of the scene, unless it shows something of a person that is not saved.

        A segmentation of a person's own needs the volume that it was drawn on, which stays then;
        so do predictions of a case that has neither a label map nor a saved prediction.

        Returns:
            Whether it is gone; what was saved of it is shown when it is loaded again.
        """
        volume = self.case_node(case_id)
        if volume is None or (predictions_about(volume) and not self._comes_back(case_id)):
            return False
        is_gone = remove_if_saved(volume)
        self.changes.forget_removed_volumes()
        return is_gone

    def _comes_back(self, case_id: str) -> bool:
        """Tell whether a case is shown with a label map or a prediction when it is loaded."""
        reports = [] if self.state is None else self.state.reports
        report = next((one for one in reports if one.case_id == case_id), None)
        is_labelled = self.opened().case(case_id).label is not None
        return is_labelled or (report is not None and report.refined is not None)

    def read_ahead(self, case_id: str) -> None:
        """Read a case in a thread, for it will be loaded next; nothing is shown.

        Args:
            case_id: Its name; one that is in the scene is not read.
        """
        opened = self.opened()
        if self.case_node(case_id) is None:
            self._ahead.begin(case_id, lambda: read_case_with_lesions(opened, case_id))

    def lesions_read(self, case_id: str) -> CaseRead | None:
        """Return what was read ahead of the case that was loaded last; None of another one."""
        last = self._last_read
        return last if last is not None and last.case_id == case_id and last.lesions else None

    def case_node(self, case_id: str) -> Any | None:
        """Return the volume node of a case if it is in the scene."""
        return find_case(self.project, case_id)

    def refined_node(self, case_id: str) -> Any | None:
        """Return the segmentation node of the final label of a case in the scene, or None."""
        volume = self.case_node(case_id)
        return None if volume is None else find_prediction(volume, "refined")

    def forget_scene(self) -> None:
        """Show nothing any more of what is being loaded: the scene is closed."""
        self._scene_number += 1
        self._ahead.forget()
        self.changes.forget_scene()

    @property
    def state(self) -> ProjectState | None:
        """What is known about the open project, None without one; read once per change."""
        if self.project is None:
            return None
        if self._state is None or self._state.project is not self.project:
            self._state = ProjectState(self.project, order=self._review_order)
        return self._state

    def forget_state(self) -> None:
        """Read what is known about the project again at its next use: it may have changed."""
        self._state = None

    def runs(self) -> list[RunSummary]:
        """Return the runs of the open project, latest first."""
        return [] if self.state is None else self.state.runs

    def trainings(self) -> list[RunSummary]:
        """Return the runs that were trained, latest first: all but labels of another model."""
        return [run for run in self.runs() if not run.is_external]

    def run_names(self) -> dict[str, str]:
        """Return what the runs that can segment are called for a person, by id, latest first."""
        return {} if self.state is None else self.state.run_names

    def usable_run(self, run_id: str | None = None) -> str | None:
        """Return the run that would segment: the given or latest one with a finished round."""
        usable = list(self.run_names())
        if run_id:
            return run_id if run_id in usable else None
        return usable[0] if usable else None

    def refresh(self) -> None:
        """Read the project again, for the engine or another program may have changed it."""
        if self.project is not None:
            self.open_project(self.project.folder)

    def notice_changes(self) -> list[str]:
        """Read the open project again where its file is another one than at the last call.

        Returns:
            Names of cases that it has no more, for another program has removed or renamed them.

        Raises:
            ProjectError: When the file contradicts itself by now; what was read before stays.
        """
        before = self.project
        if before is None:
            return []
        from aslseg.project.project import open_project

        now = _file_state(before.folder / PROJECT_FILE)
        if now in (None, self._file_seen):
            return []
        self._file_seen = now
        project = open_project(before.folder)
        if project == before:
            return []
        left = {case.id for case in project.cases}
        gone = [case.id for case in before.cases if case.id not in left]
        self._forget_cases({case_id: self.case_node(case_id) for case_id in gone})
        self.use(project)
        return gone

    def use(self, project: Project) -> Project:
        """Make a project, or a changed value of it, the open one."""
        self.project = project
        self.forget_state()
        self.project_changed.emit()
        return project

    def updated(self, project: Project) -> Project:
        """Take notice of a project that was changed, unless another one is open by now."""
        if self.is_open(project):
            self._state = ProjectState(project, self._state, self._review_order)
            self.project = project
            self.project_changed.emit()
        return project

    def _forget_cases(self, nodes: Mapping[str, Any | None]) -> None:
        """Know volume nodes as no cases any more, and take back nothing of these cases."""
        for case_id, node in nodes.items():
            if node is not None:
                forget_case(node)
            self.history.forget_case(case_id)

    def _mark(self, node: Any, project: Project, case_id: str, *, is_known: bool = True) -> None:
        """Note that a volume node is a case, unless it is one of another project.

        Args:
            node: Volume node.
            project: The project.
            case_id: Name of the case.
            is_known: Whether its voxels are those of the image. Of a file that the scene was given
                before they may be others by now: they are compared before a label is saved.
        """
        if not is_of_project(node, project):
            return
        mark_case(node, project, case_id)
        if is_known:
            self._verified.add(known_as(node))

    def _show_case(self, loaded: CaseRead, known: Any | None, case_id: str) -> Any:
        project = loaded.project
        if not self.is_open(project):
            msg = f"Case {case_id} is not shown: {project.folder} is not the open project any more."
            raise SceneError(msg)
        if loaded.volume is not None:
            node = _add_case(loaded.volume, loaded.image, case_id)
            self._mark(node, project, case_id)
        elif known is not None and slicer.mrmlScene.IsNodePresent(known):
            node = known
            note_project(node, project)  # it may have been moved
        else:
            msg = f"The volume of case {case_id} was removed from the scene; load the case again."
            raise SceneError(msg)
        if (
            loaded.saved is not None
            and self._may_replace_predictions(node)
            and show_saved_predictions(node, loaded.saved)
        ):
            self.history.forget_volume(node.GetID())  # it would change voxels that were replaced
        refined = find_prediction(node, "refined")
        if refined is None or is_as_written(refined, node):  # else a person's, not the label
            note_label(node, "" if loaded.saved is None else loaded.saved.label)
        if project != self.project:
            self.use(project)
        return node

    def _may_replace_predictions(self, _volume: Any) -> bool:
        """Tell whether predictions about a volume may be replaced by those that are saved."""
        return True

    def _place(self, folder: Path | str | None) -> Path:
        """Return where a volume is added: the folder that is given, or the open project's.

        Raises:
            ProjectError: When the open project is not in its folder any more.
        """
        from aslseg.project.project import open_project

        return Path(folder) if folder is not None else open_project(self.opened().folder).folder


def _is_same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # there is no such folder (any more)
        return False


def _file_state(path: Path) -> tuple[Path, int, int] | None:
    """Return what tells a file from one that was written since; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_mtime_ns, found.st_size


def _as_on_disk(read: CaseRead, project: Project) -> CaseRead | None:
    """Return a case that was read, in its project as that is now; None where the case changed."""
    from aslseg.project.image_digests import check_images
    from aslseg.project.project import open_project

    now = open_project(project.folder)
    if now.folder != read.project.folder or state_of(now, read.case_id) != read.state:
        return None
    check_images(now.folder, [now.case(read.case_id)])
    return replace(read, project=now)


def _add_case(volume: Any, image: Any, case_id: str) -> Any:
    window = CT_WINDOW_HU if volume.is_ct else None
    return add_volume(volume, case_id, image=image, window=window)
