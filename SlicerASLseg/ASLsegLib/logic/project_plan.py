"""Plans of projects in the panel and in scripts: found and read beside the application, written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ASLsegLib.logic import dicom_cases, scene_cases
from ASLsegLib.logic.base import Otherwise, Pending, waiting
from ASLsegLib.logic.project import ProjectLogic
from ASLsegLib.logic.project_data import IMAGES, refuse_taken_file
from ASLsegLib.scene.segmentations import restyle
from ASLsegLib.scene.shown_labels import shown_labels
from ASLsegLib.scene.volumes import volume_of, working_volume, write_raw

if TYPE_CHECKING:
    from aslseg.data.volume import Labelmap, Volume
    from aslseg.events import Monitor
    from aslseg.project.plan import Plan
    from aslseg.project.project import Project
    from ASLsegLib.logic.dicom_cases import DicomSeries


@dataclass
class _FromScene:
    """What a plan takes from the scene, by the path that names its node.

    Attributes:
        volumes: With the node's own voxels.
        labels: As the segmentations are shown.
    """

    volumes: dict[Path, Volume] = field(default_factory=dict)
    labels: dict[Path, Labelmap] = field(default_factory=dict)


class PlanLogic(ProjectLogic):
    """The part of the logic that plans projects before they are made."""

    def plan_project(
        self, folder: Path | str, source: Path | str, labels: Path | str | None = None
    ) -> Plan:
        """Find the cases of a folder or data set and read their files; nothing is written.

        Args:
            folder: Of the new project.
            source: Folder of volumes, `dataset.json` of the Decathlon or of nnU-Net, or its folder.
            labels: Folder of label maps, where it is not that of the volumes.

        Raises:
            ProjectError: When the source holds no case, or is damaged.
        """
        from aslseg.project.plan import Plan

        return self._extended(Plan(Path(folder)), source, labels)

    def plan_additions(self, source: Path | str, labels: Path | str | None = None) -> Plan:
        """Find the cases of a folder or data set that the open project does not have.

        Raises:
            SceneError: When no project is open.
            ProjectError: When the source holds no case, or is damaged.
        """
        from aslseg.project.plan import empty_additions

        return self._extended(empty_additions(self.opened()), source, labels)

    def extend_plan(
        self,
        plan: Plan,
        source: Path | str,
        labels: Path | str | None,
        then: Callable[[Plan], None],
        otherwise: Otherwise,
    ) -> None:
        """Add what a source holds to a plan, beside the application.

        Args:
            plan: Where to.
            source: As in `plan_project`.
            labels: As in `plan_project`.
            then: Called with the longer plan.
            otherwise: Called with what went wrong.
        """
        from aslseg.project.datasets import find_cases
        from aslseg.project.plan import with_facts, with_found

        place = None if labels is None else Path(labels)

        def work(monitor: Monitor) -> Plan:
            with_targets = not plan.targets
            found = find_cases(Path(source), place, with_targets=with_targets, monitor=monitor)
            return with_facts(with_found(plan, found), monitor)

        self.background.start("finding cases", work, then, otherwise)

    def dicom_series(self) -> list[DicomSeries]:
        """List the series of images in Slicer's DICOM database.

        Raises:
            SceneError: When there is no database, or no image in it.
        """
        return dicom_cases.list_series()

    def plan_dicom(self, folder: Path | str, uids: Sequence[str]) -> Plan:
        """Plan a project of series of Slicer's DICOM database; nothing is written.

        Args:
            folder: Of the new project.
            uids: Of the series, see `dicom_series`. Those of one PatientID are of one patient.

        Raises:
            SceneError: When a series is not there, or has no folder of its own.
            ImageError: When a file is damaged.
        """
        from aslseg.project.plan import Plan

        return self._begun(
            lambda *ends: self.extend_by_dicom(Plan(Path(folder)), uids, *ends)
        ).result()

    def extend_by_dicom(
        self, plan: Plan, uids: Sequence[str], then: Callable[[Plan], None], otherwise: Otherwise
    ) -> None:
        """Add series of Slicer's DICOM database to a plan, read beside the application.

        Args:
            plan: Where to.
            uids: As in `plan_dicom`.
            then: Called with the longer plan.
            otherwise: Called with what went wrong.

        Raises:
            SceneError: When a series is not there.
        """
        from aslseg.project.plan import with_facts

        places = dicom_cases.places_of(uids)

        def work(monitor: Monitor) -> Plan:
            return with_facts(dicom_cases.with_series(plan, places), monitor)

        self.background.start("reading DICOM series", work, then, otherwise)

    def with_scene(self, plan: Plan, volumes: Sequence[Any] | None = None) -> Plan:
        """Add volumes of the scene to a plan, each with the segmentation that was drawn on it.

        Args:
            plan: Where to.
            volumes: Volume nodes; all that can be cases when None.

        Raises:
            SceneError: When there is none, or one cannot be used.
        """
        return scene_cases.with_scene(plan, volumes)

    def read_plan(self, plan: Plan, then: Callable[[Plan], None], otherwise: Otherwise) -> None:
        """Read what is not known yet of the files of a plan, beside the application."""
        from aslseg.project.plan import with_facts

        self.background.start("reading files", lambda m: with_facts(plan, m), then, otherwise)

    def with_masks(self, plan: Plan, organ: str, source: Path | str) -> Plan:
        """Give cases of a plan the masks of an organ that a folder holds.

        Args:
            plan: The plan.
            organ: Name of a target that contains others.
            source: Folder of masks named like the volumes, or TotalSegmentator's output.

        Raises:
            ProjectError: When the folder holds none, or names do not tell which.
        """
        from aslseg.project.plan import with_masks

        return with_masks(plan, organ, Path(source))

    def compare_plan(
        self, plan: Plan, then: Callable[[list[str]], None], otherwise: Otherwise
    ) -> None:
        """Look which volumes of a plan look like one patient, beside the application.

        Args:
            plan: The plan.
            then: Called with a sentence for each pair.
            otherwise: Called with what went wrong.
        """
        from aslseg.project.plan_bodies import look_alike

        self.background.start("comparing volumes", lambda m: look_alike(plan, m), then, otherwise)

    @waiting
    def write_plan(
        self,
        plan: Plan,
        *,
        preset: str | None = None,
        then: Callable[[Project], None] | None = None,
        otherwise: Otherwise | None = None,
    ) -> Pending[Project]:
        """Make and open the project of a plan, or add its cases to the open one.

        Volumes that no file holds are written to the project; segmentations become label maps.

        Args:
            plan: What shall be.
            preset: Name of the settings that a new project is made for.
            then: Called with the project.
            otherwise: Called with what went wrong; without it `failed` emits that.

        Raises:
            ProjectError: When something is wrong with the plan; nothing is written then.
        """
        from aslseg.project.plan import refuse_problems

        refuse_problems(plan)

        def show(project: Project) -> Project:
            self._mark_volumes(plan, project)
            if plan.project is not None and project.targets != plan.project.targets:
                restyle(project)
            self.use(project)
            if then is not None:
                then(project)
            return project

        return self._begun(
            lambda done, failed: self._take_from_scene(
                plan, preset, lambda project: done(show(project)), failed
            ),
            otherwise,
        )

    def _extended(self, plan: Plan, source: Path | str, labels: Path | str | None) -> Plan:
        return self._begun(lambda *ends: self.extend_plan(plan, source, labels, *ends)).result()

    def _take_from_scene(
        self,
        plan: Plan,
        preset: str | None,
        then: Callable[[Project], None],
        otherwise: Otherwise,
    ) -> None:
        """Read one segmentation at a time, so that the application goes on; then write all."""
        from aslseg.project.target_table import targets_of

        taken, targets = _FromScene(), targets_of(plan.targets)
        waiting = [case for case in plan.cases if _is_of_scene(case.image, case.label)]

        def step(_: Any) -> None:
            try:
                if waiting:
                    _take(waiting.pop(0), targets, taken)
            except Exception as error:  # handed on as those of the thread are
                otherwise(error)
                return
            if waiting:
                self.background.start("reading segmentations", lambda _: None, step, otherwise)
            else:
                name = "making a project" if plan.project is None else "adding cases"
                self.background.start(
                    name, lambda m: _write(plan, taken, preset, m), then, otherwise
                )

        step(None)

    def _mark_volumes(self, plan: Plan, project: Project) -> None:
        """Note which volumes of the scene are cases of the project by now."""
        for case in plan.cases:
            node = scene_cases.volume_node_of(case)
            if node is not None:
                is_known = scene_cases.is_of_scene(case.image)  # else its file was loaded before
                self._mark(working_volume(node), project, case.id, is_known=is_known)


def _is_of_scene(*paths: Path | None) -> bool:
    return any(path is not None and scene_cases.is_of_scene(path) for path in paths)


def _take(case: Any, targets: Sequence[Any], taken: _FromScene) -> None:
    volume = scene_cases.volume_node_of(case)
    if _is_of_scene(case.image):
        taken.volumes[case.image] = volume_of(working_volume(volume))
    if _is_of_scene(case.label):
        taken.labels[case.label] = shown_labels(scene_cases.node_of(case.label), volume, targets)


def _write(plan: Plan, taken: _FromScene, preset: str | None, monitor: Monitor) -> Project:
    """Write what comes from the scene, then the project; if that fails, nothing of it stays."""
    from aslseg.project.plan import write_plan
    from aslseg.storage import temporary_beside

    is_new, drawn = not plan.folder.exists(), temporary_beside(plan.folder / "drawn")
    written: list[Path] = []
    try:
        files = _files_of(plan, taken, drawn, written)
        cases = tuple(
            replace(
                case,
                image=files.get(case.image, case.image),
                label=files.get(case.label, case.label),
            )
            for case in plan.cases
        )
        made = write_plan(replace(plan, cases=cases, facts={}), preset=preset, monitor=monitor)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        shutil.rmtree(drawn, ignore_errors=True)
        for folder in (plan.folder / IMAGES, *((plan.folder,) if is_new else ())):
            with suppress(OSError):
                folder.rmdir()  # only an empty one goes
        raise
    shutil.rmtree(drawn, ignore_errors=True)
    return made


def _files_of(
    plan: Plan, taken: _FromScene, drawn: Path, written: list[Path]
) -> dict[Path | None, Path]:
    """Write volumes to the project and label maps to `drawn`; return the files by their nodes."""
    from aslseg.data.images import write_labelmap

    files: dict[Path | None, Path] = {}
    for case in plan.cases:
        if case.image in taken.volumes:
            refuse_taken_file(plan.folder / IMAGES, case.id)
            path = plan.folder / IMAGES / f"{case.id}.nrrd"
            write_raw(taken.volumes[case.image], path, new=True)
            files[case.image] = path
            written.append(path)
        if case.label in taken.labels:
            drawn.mkdir(parents=True, exist_ok=True)
            files[case.label] = drawn / f"{case.id}.nii.gz"
            write_labelmap(taken.labels[case.label], files[case.label])
    return files
