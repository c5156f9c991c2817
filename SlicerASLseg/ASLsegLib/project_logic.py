"""Projects and their cases, for the panel and for scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib import projects
from ASLsegLib.files import own_file
from ASLsegLib.saved import SavedVoices, read_saved, show_saved
from ASLsegLib.scene import SceneError, add_volume, volume_of, working_volume

if TYPE_CHECKING:
    from aslseg.project import Project
    from ASLsegLib.signals import Signal

CASE = "ASLseg.Case"
"""Attribute of a volume node: the case that it is."""
CT_WINDOW_HU = (-100.0, 240.0)
"""Grey values of a case that is loaded: an abdominal window."""


class Projecting:
    """The part of the logic that opens and fills projects."""

    project: Project | None
    project_changed: Signal
    _in_background: Callable[..., Any]

    def open_project(self, folder: Path | str) -> Project:
        """Open the project in a folder.

        Raises:
            ProjectError: When there is none, or it contradicts itself.
        """
        from aslseg.project import open_project

        return self.use(open_project(Path(folder)))

    def close_project(self) -> None:
        """Forget the project; nothing on disk changes."""
        self.project = None
        self.project_changed.emit()

    def create_phantom_project(
        self, folder: Path | str, *, cases: int = 12, labelled: int = 2, wait: bool = True
    ) -> Project | None:
        """Make and open a project of made-up patients, and one of them is for validation.

        Args:
            folder: New or empty.
            cases: How many volumes.
            labelled: How many of them have a label map.
            wait: Return the project; else None at once.
        """
        return self._in_background(
            "making phantoms",
            lambda m: projects.make_phantom_project(Path(folder), cases, labelled, m),
            self.use,
            wait,
        )

    def add_volume(
        self,
        volume: Any,
        case_id: str | None = None,
        *,
        folder: Path | str | None = None,
        wait: bool = True,
    ) -> Project | None:
        """Add a volume of the scene to the project, or make one with it.

        A volume that was read from a file and is unchanged is named by that file; any other is
        written to the project.

        Args:
            volume: Volume node.
            case_id: Name of the case; made from the node's name when None.
            folder: Of a new project; the open one's when None.
            wait: Return the project; else None at once.

        Raises:
            SceneError: When no project is open and no folder is given.
        """
        volume = working_volume(volume)
        place, name = self._place(folder), case_id or projects.good_case_id(volume.GetName())
        image = own_file(volume) or volume_of(volume)
        volume.SetAttribute(CASE, name)
        return self._in_background(
            "adding a volume",
            lambda m: projects.add_volume(place, name, image, m),
            self.use,
            wait,
        )

    def add_folder(
        self, images: Path | str, *, folder: Path | str | None = None, wait: bool = True
    ) -> Project | None:
        """Add all images of a folder to the project, or make one with them.

        Args:
            images: Holds NIfTI, NRRD or MetaImage files, or folders of DICOM slices; label maps
                beside them come along.
            folder: Of a new project; the open one's when None.
            wait: Return the project; else None at once.
        """
        place = self._place(folder)
        return self._in_background(
            "adding a folder",
            lambda m: projects.add_folder(place, Path(images), m),
            self.use,
            wait,
        )

    def load_case(
        self, case_id: str, *, then: Callable[[Any], None] | None = None, wait: bool = True
    ) -> Any | None:
        """Load a case with its label map and with what the latest run said about it.

        What is in the scene already stays as it is.

        Args:
            case_id: Name of the case.
            then: Called with the volume node when everything is there.
            wait: Return the volume node; else None at once.
        """
        project, known = self._opened(), self.case_node(case_id)
        case = project.case(case_id)

        def read(_: Any) -> tuple[Any, SavedVoices | None]:
            volume = project.load_image(case) if known is None else None
            return volume, read_saved(project, case_id)

        def show(found: tuple[Any, SavedVoices | None]) -> Any:
            volume, saved = found
            node = known if known is not None else _add_case(volume, case_id)
            if saved is not None:
                show_saved(node, saved)
            if then is not None:
                then(node)
            return node

        return self._in_background("loading a case", read, show, wait)

    def case_node(self, case_id: str) -> Any | None:
        """Return the volume node of a case if it is in the scene."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return next((node for node in nodes if node.GetAttribute(CASE) == case_id), None)

    def runs(self) -> list[projects.RunRow]:
        """Return the runs of the open project, latest first."""
        return [] if self.project is None else projects.list_runs(self.project)

    def usable_run(self, run_id: str | None = None) -> str | None:
        """Return the run that would segment: the given or latest one with a finished round."""
        usable = [run.run_id for run in self.runs() if run.is_usable]
        if run_id:
            return run_id if run_id in usable else None
        return usable[0] if usable else None

    def refresh(self) -> None:
        """Read the project again, for the engine or another program may have changed it."""
        if self.project is not None:
            self.open_project(self.project.folder)

    def use(self, project: Project) -> Project:
        """Make a project, or a changed value of it, the open one."""
        self.project = project
        self.project_changed.emit()
        return project

    def _place(self, folder: Path | str | None) -> Path:
        if folder is not None:
            return Path(folder)
        return self._opened().folder

    def _opened(self) -> Project:
        if self.project is None:
            msg = "No project is open; open one, or make one with the first volume."
            raise SceneError(msg)
        return self.project


def _add_case(volume: Any, case_id: str) -> Any:
    node = add_volume(volume, case_id)
    node.SetAttribute(CASE, case_id)
    if volume.voxels.min() < 0:  # HU, and not the grey values of an MRI
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevelMinMax(*CT_WINDOW_HU)
    return node
