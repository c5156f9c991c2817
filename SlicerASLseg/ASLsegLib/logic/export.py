"""One segmentation of the scene, measured and exported: lesion table, NIfTI, DICOM SEG."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib.logic.base import LogicBase, Pending, waiting
from ASLsegLib.scene.segmentations import volume_drawn_on
from ASLsegLib.scene.shown_labels import LeaveOut, leave_out_nothing, shown_labels
from ASLsegLib.scene.volumes import SceneError, hardened_copy, place_beside, volume_of

if TYPE_CHECKING:
    from aslseg.data.volume import Labelmap
    from aslseg.evaluation.measurements import LesionMeasurement


_INSTANCES = "DICOM.instanceUIDs"  # attribute of volumes that were loaded from DICOM


class ExportLogic(LogicBase):
    """The part of the logic that measures and exports."""

    def labelmap_of(
        self,
        segmentation: Any,
        volume: Any | None = None,
        *,
        may_leave_out: LeaveOut = leave_out_nothing,
    ) -> Labelmap:
        """Return a segmentation as a label map on the grid of its volume, where it is shown.

        Args:
            segmentation: Segmentation node with segments named like the targets.
            volume: Whose grid; the volume that the segmentation was made on when None.
            may_leave_out: Asked when something that is shown would not be in the label map.

        Raises:
            SceneError: When no segment has the name of a target, when the volume is not known, or
                when the segmentation lies elsewhere.
        """
        volume = volume or reference_volume(segmentation)
        return shown_labels(segmentation, volume, self.targets(), may_leave_out)

    @waiting
    def lesions(
        self,
        segmentation: Any,
        *,
        then: Any = None,
        may_leave_out: LeaveOut = leave_out_nothing,
    ) -> Pending[list[LesionMeasurement]]:
        """Measure every lesion of a segmentation.

        Args:
            segmentation: Segmentation node with segments named like the targets.
            then: Called with the lesions when they are there.
            may_leave_out: As in `labelmap_of`.
        """
        from aslseg.evaluation.measurements import measure_lesions

        labelmap = self.labelmap_of(segmentation, may_leave_out=may_leave_out)
        image = volume_of(reference_volume(segmentation))
        targets = self.targets()

        def show(found: list[LesionMeasurement]) -> list[LesionMeasurement]:
            if then is not None:
                then(found)
            return found

        work = lambda _: measure_lesions(labelmap, targets, image=image)  # noqa: E731
        return self._in_background("measuring lesions", work, show)

    def write_lesions(
        self, lesions: list[LesionMeasurement], path: Path | str, case: str = ""
    ) -> Path:
        """Write a lesion table as a CSV file.

        Args:
            lesions: Of one segmentation.
            path: Where to.
            case: Whose lesions they are, for the first column.

        Raises:
            StorageError: When it is a file of the open project, or cannot be written.
        """
        from aslseg.storage import write_text_atomic

        self._require_free(Path(path))
        write_text_atomic(Path(path), as_text(lesions, case, ","))
        return Path(path)

    @waiting
    def export_nifti(
        self,
        segmentation: Any,
        path: Path | str,
        *,
        may_leave_out: LeaveOut = leave_out_nothing,
    ) -> Pending[Path]:
        """Write a segmentation as a label map with the values of the targets.

        Args:
            segmentation: Segmentation node with segments named like the targets.
            path: Ends in .nii.gz, .nii, .nrrd or .mha.
            may_leave_out: As in `labelmap_of`.

        Raises:
            StorageError: When it is a file of the open project, or cannot be written.
        """
        from aslseg.data.images import write_labelmap

        place = Path(path)
        self._require_free(place)
        labelmap = self.labelmap_of(segmentation, may_leave_out=may_leave_out)
        return self._in_background(
            "writing NIfTI", lambda _: write_labelmap(labelmap, place), lambda _: place
        )

    def _require_free(self, path: Path) -> None:
        """Refuse to write over an image of the open project, or where it keeps its own files.

        Raises:
            StorageError: When one would be lost.
        """
        from aslseg.export.staging import require_free_file

        if self.project is not None:
            require_free_file(self.project, path)

    def export_dicom_seg(self, segmentation: Any, folder: Path | str) -> list[Path]:
        """Write a segmentation as a DICOM segmentation object, by Slicer's own exporter.

        Args:
            segmentation: Segmentation node of a volume that was loaded from DICOM.
            folder: Where the file goes.

        Returns:
            The written files.

        Raises:
            SceneError: When the volume is no DICOM volume, or the exporter is absent or fails.
        """
        volume = reference_volume(segmentation)
        if not volume.GetAttribute(_INSTANCES):
            msg = (
                f"{segmentation.GetName()} cannot become a DICOM object, for {volume.GetName()} "
                "was not loaded from DICOM; load the series with the DICOM module and segment that."
            )
            raise SceneError(msg)
        if segmentation.GetParentTransformNode() is not volume.GetParentTransformNode():
            msg = (
                f"{segmentation.GetName()} is under another transform than {volume.GetName()}; "
                "harden the transform (Data module) before the export."
            )
            raise SceneError(msg)
        place_beside(segmentation, volume)
        exporter = _dicom_exporter()
        before = set(Path(folder).glob("*"))
        exportables = exporter.examineForExport(_item_of(segmentation))
        if not exportables:
            msg = (
                f"The slices of {volume.GetName()} are not in the DICOM database any more; import "
                "the series again with the DICOM module."
            )
            raise SceneError(msg)
        for exportable in exportables:
            exportable.directory = str(folder)
        problem = exporter.export(exportables)
        if problem:
            msg = f"The DICOM export failed: {problem}"
            raise SceneError(msg)
        return sorted(set(Path(folder).glob("*")) - before)


def reference_volume(segmentation: Any) -> Any:
    """Return the volume that a segmentation was made on.

    Raises:
        SceneError: When it is not known.
    """
    volume = volume_drawn_on(segmentation)
    if volume is None:
        msg = (
            f"{segmentation.GetName()} does not say which volume it was made on; choose the volume "
            "as source in the Segment Editor."
        )
        raise SceneError(msg)
    return volume


def volume_of_label(segmentation: Any, volume: Any | None = None) -> Any:
    """Return the volume node that a segmentation was drawn on.

    Raises:
        SceneError: When it does not say so, or says something else than `volume`.
    """
    try:
        known = reference_volume(segmentation)
    except SceneError:
        if volume is None:
            raise
        return volume
    if volume not in (None, known, hardened_copy(known)):
        msg = (
            f"{segmentation.GetName()} was drawn on {known.GetName()}, not on "
            f"{volume.GetName()}; choose a segmentation of that volume."
        )
        raise SceneError(msg)
    return known


def as_text(lesions: Sequence[LesionMeasurement], case: str, separator: str = "\t") -> str:
    """Return the table of lesions with its head and the case in the first column."""
    from aslseg.export.tables import MEASUREMENT_COLUMNS, lesion_row

    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(("case", *MEASUREMENT_COLUMNS))
    writer.writerows((case, *lesion_row(lesion).values()) for lesion in lesions)
    return text.getvalue()


def _item_of(node: Any) -> Any:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    return hierarchy.GetItemByDataNode(node)


def _dicom_exporter() -> Any:
    try:
        import DICOMSegmentationPlugin
    except ModuleNotFoundError as error:
        msg = (
            "Slicer's exporter of DICOM segmentations is not there; install the extension "
            "QuantitativeReporting, or use Slicer 5.12 or newer."
        )
        raise SceneError(msg) from error
    return DICOMSegmentationPlugin.DICOMSegmentationPluginClass()
