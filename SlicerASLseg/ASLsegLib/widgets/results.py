"""One segmentation: its lesions measured, and the segmentation exported."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from aslseg.errors import AslsegError
from ASLsegLib.logic.export import as_text, reference_volume
from ASLsegLib.logic.project_data import good_case_id
from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.shown_labels import choose_segments
from ASLsegLib.widgets.section import Section, cannot_open, fill_table

HEAD = [_("Target"), _("No."), _("Volume (ml)"), _("Long (mm)"), _("Short (mm)"), _("Mean HU")]


class ResultsSection(Section):
    """What a person takes away."""

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._lesions: list[Any] = []
        self._measured: Any | None = None
        self._observed: Any | None = None
        self._segments: dict[str, list[str]] = {}
        ui = self.ui
        for button, action in (
            (ui.measureButton, self.measure),
            (ui.copyButton, self._copy),
            (ui.csvButton, self._save_csv),
            (ui.show3dButton, self._show_3d),
            (ui.exportNiftiButton, self._export_nifti),
            (ui.exportDicomButton, self._export_dicom),
        ):
            self.on_click(button, action)
        self.on_signal(ui.lesionsTable, "cellDoubleClicked(int,int)", self._jump)
        self.on_return(ui.lesionsTable, self._jump)

    def update(self) -> None:
        """Show what is possible; the table belongs to the segmentation that is chosen."""
        ui = self.ui
        if self._measured is not None and self._node is not self._measured:
            self.forget()
        can = cannot_open()
        node = "" if self._node else _("Choose a segmentation.")
        none = _("There is nothing to take away: no lesion was found.")
        table = "" if self._lesions else _("Measure first.") if self._measured is None else none
        for button in (ui.measureButton, ui.exportNiftiButton, ui.exportDicomButton):
            self.gate(button, can, node)
        self.gate(ui.show3dButton, node)
        ui.show3dButton.setChecked(bool(self._node and has_surface(self._node)))
        for button in (ui.copyButton, ui.csvButton):
            self.gate(button, can, table)

    def measure(self) -> None:
        """Measure every lesion; the table comes when it is done."""
        node = self._node
        self.logic.lesions.begin(
            node,
            then=lambda lesions: self._show(node, lesions),
            may_leave_out=self.panel.questions.may_leave_out,
        )
        self._watch(node)

    def forget(self) -> None:
        """Show no lesions: another segmentation is chosen, or this one has changed."""
        self._lesions, self._measured = [], None
        fill_table(self.ui.lesionsTable, HEAD, [])

    def forget_scene(self) -> None:
        """Forget nodes that go away with the scene."""
        self._watch(None)
        self.forget()

    @property
    def _node(self) -> Any:
        """The segmentation to measure and export; None when none is chosen."""
        return self.panel.parameters.resultSegmentation if self.panel.parameters else None

    def _show(self, node: Any, lesions: list[Any]) -> None:
        if node is not self._node or node.GetSegmentation() is not self._observed:
            return  # another one was chosen, or this one was changed meanwhile
        self._lesions, self._measured = lesions, node
        rows = [row_of(lesion) for lesion in lesions]
        fill_table(self.ui.lesionsTable, HEAD, rows or [[_("none found"), *[""] * (len(HEAD) - 1)]])
        self.update()

    @property
    def _case(self) -> str:
        """Whose lesions are shown: the case, or the volume when it is none."""
        try:
            volume = reference_volume(self._measured)
        except AslsegError:
            return ""
        return case_of(volume, self.logic.project) or str(volume.GetName())

    def _watch(self, node: Any | None) -> None:
        """Notice when the voxels of a segmentation, or what they are called, change from now on."""
        kinds = slicer.vtkSegmentation
        changes = [
            (event, self._changed)
            for event in (
                kinds.SourceRepresentationModified,
                kinds.SegmentAdded,
                kinds.SegmentRemoved,
            )
        ]
        changes.append((kinds.SegmentModified, self._segment_changed))
        if self._observed is not None:
            for event, method in changes:
                self.panel.removeObserver(self._observed, event, method)
        self._observed = None if node is None else node.GetSegmentation()
        if self._observed is not None:
            self._segments = self._segments_of_targets(node)
            for event, method in changes:
                self.panel.addObserver(self._observed, event, method)

    def _segments_of_targets(self, node: Any) -> dict[str, list[str]]:
        return choose_segments(node, self.logic.targets()).by_target

    def _segment_changed(self, _caller: Any, _event: Any) -> None:
        """Look whether a segment makes another target now; its colour is no matter."""
        node = self._measured or self._node
        if node is not None and self._segments_of_targets(node) != self._segments:
            self._changed(_caller, _event)

    def _changed(self, _caller: Any, _event: Any) -> None:
        self._watch(None)
        self.forget()
        self.panel.update_soon()

    def _jump(self) -> None:
        """Show the lesion whose row is chosen; nothing happens where none is."""
        row = self.ui.lesionsTable.currentRow()
        if not 0 <= row < len(self._lesions):
            return
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            node.JumpSliceByCentering(*self._lesions[row].centroid_ras)

    def _copy(self) -> None:
        qt.QApplication.clipboard().setText(as_text(self._lesions, self._case))

    def _save_csv(self) -> None:
        path = self._ask_for_file("lesions.csv", _("Tables (*.csv)"))
        if path:
            self.logic.write_lesions(self._lesions, path, self._case)

    def _show_3d(self) -> None:
        if self.ui.show3dButton.checked:
            self._node.CreateClosedSurfaceRepresentation()
        else:
            self._node.RemoveClosedSurfaceRepresentation()

    def _export_nifti(self) -> None:
        name = f"{good_case_id(self._node.GetName())}.nii.gz"
        path = self._ask_for_file(name, _("NIfTI (*.nii.gz)"))
        if path:
            self.logic.export_nifti.begin(
                self._node, path, may_leave_out=self.panel.questions.may_leave_out
            )

    def _export_dicom(self) -> None:
        chosen = self._ask_for_folder(_("Folder for the DICOM segmentation"))
        if chosen:
            self.logic.export_dicom_seg(self._node, chosen)

    def _ask_for_file(self, name: str, kinds: str) -> str:
        return str(qt.QFileDialog.getSaveFileName(self.panel.widget, _("Save"), name, kinds))

    def _ask_for_folder(self, title: str) -> str:
        return str(qt.QFileDialog.getExistingDirectory(self.panel.widget, title, ""))


def row_of(lesion: Any) -> list[str]:
    """Return a lesion as a row of the table; HU are unknown without an image."""
    return [
        lesion.target,
        str(lesion.number),
        f"{lesion.volume_ml:.2f}",
        f"{lesion.axial_long_mm:.1f}",
        f"{lesion.axial_short_mm:.1f}",
        "" if lesion.mean_hu is None else f"{lesion.mean_hu:.0f}",
    ]


def has_surface(segmentation: Any) -> bool:
    """Tell whether a segmentation is shown in 3-D views."""
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    return bool(segmentation.GetSegmentation().ContainsRepresentation(name))
