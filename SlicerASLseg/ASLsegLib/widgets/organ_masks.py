"""What is there already: organ masks, labels of another model, and complete slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.slice_views import current_slice
from ASLsegLib.widgets.questions import choose_organ
from ASLsegLib.widgets.section import Section, cannot_open, no_organ
from ASLsegLib.widgets.seen import require_seen

if TYPE_CHECKING:
    from aslseg.project.case import Case


def _counting(case: Case) -> str:
    """Say how much of a case's label map is learnt from."""
    if case.complete_slices is None:
        text = _("The whole label of {case} counts; the rest is background.")
    elif not case.complete_slices:
        text = _(
            "No slice of the label of {case} counts: nothing is learnt from it. Mark a slice, or "
            "let the whole label count."
        )
    elif len(case.complete_slices) == 1:
        text = _("1 slice of the label of {case} counts; of the others nothing is learnt.")
    else:
        text = _("{count} slices of the label of {case} count; of the others nothing is learnt.")
    return text.format(case=case.id, count=len(case.complete_slices or ()))


class OrganMaskSection(Section):
    """Buttons for the chosen segmentation's organ, a folder of masks, and the slice on view."""

    shows = ("slice",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._slice: int | None = None
        self.on_click(self.ui.saveOrganMaskButton, self._save)
        self.on_click(self.ui.addOrganMasksButton, self._add)
        self.on_click(self.ui.externalLabelsButton, self._add_labels)
        self.on_click(self.ui.completeSliceButton, self._mark_slice)
        self.on_click(self.ui.wholeLabelButton, self._mark_all)

    def update(self) -> None:
        """Show which actions are possible."""
        can = cannot_open()
        closed = "" if self.logic.project else _("Open or make a project first.")
        busy = _("Files are being read; wait.") if self.logic.background.is_busy else ""
        node = None if self.panel.parameters is None else self.panel.parameters.labelSegmentation
        chosen = "" if node is not None else _("Choose a segmentation.")
        organs = no_organ(self.logic)
        self.gate(self.ui.saveOrganMaskButton, can, closed, organs, chosen, busy)
        self.gate(self.ui.addOrganMasksButton, can, closed, organs, busy)
        self.gate(self.ui.organSegmentationSelector, closed, organs)
        self.gate(self.ui.externalLabelsButton, can, closed, busy)
        unlabelled = self._no_label()
        self.gate(self.ui.completeSliceButton, can, closed, unlabelled, busy)
        self._slice = self._seen_slice()
        complete = self._is_complete()
        text = _("Slice is not complete") if complete else _("Slice is complete")
        self.ui.completeSliceButton.setText(text)
        case = None if unlabelled else self.logic.opened().case(self._case_id)
        is_whole = case is not None and case.complete_slices is None
        whole = _("The whole label counts already.") if is_whole else ""
        self.gate(self.ui.wholeLabelButton, can, closed, unlabelled, whole, busy)
        counting = "" if case is None else _counting(case)
        self.ui.completeSlicesLabel.setText(counting)
        self.ui.completeSlicesLabel.setVisible(bool(counting))

    def _seen_slice(self) -> int | None:
        volume = self.panel.volume
        return (
            None if volume is None else current_slice(volume, self.logic.case_node(self._case_id))
        )

    def _is_complete(self) -> bool:
        """Whether the slice that is seen is marked as complete."""
        if not self._case_id:
            return False
        return self._slice in (self.logic.opened().case(self._case_id).complete_slices or ())

    @property
    def _case_id(self) -> str:
        """The case whose volume is chosen; empty without one."""
        volume = self.panel.volume
        return "" if volume is None else case_of(volume, self.logic.project)

    def _no_label(self) -> str:
        """Return why no slice can be marked; empty when one can."""
        if not self._case_id:
            return _("Load a case first.")
        case = self.logic.opened().case(self._case_id)
        return "" if case.label else _("Save a label of the case first.")

    def _mark_slice(self) -> None:
        self._slice = k = self._seen_slice()
        if k is not None:
            self.logic.mark_slice_complete(
                self._case_id,
                k,
                complete=not self._is_complete(),
                segmentation=self.panel.parameters.labelSegmentation,
            )

    def _mark_all(self) -> None:
        segmentation = self.panel.parameters.labelSegmentation
        self.logic.mark_all_complete(self._case_id, segmentation=segmentation)

    def _save(self) -> None:
        organ = choose_organ(self.logic.organs(), self.panel.widget)
        if organ:
            node = self.panel.parameters.labelSegmentation
            require_seen(self.panel, node, organ, is_saved=True)
            self.logic.save_organ_mask.begin(
                node, organ, may_replace=self.panel.questions.may_replace_organ_masks
            )

    def _add(self) -> None:
        organ = choose_organ(self.logic.organs(), self.panel.widget)
        folder = organ and qt.QFileDialog.getExistingDirectory(
            self.panel.widget,
            _("Folder with masks of {organ}").format(organ=organ),
            str(self.logic.opened().folder),
        )
        if folder:
            self.logic.add_organ_masks.begin(
                organ, folder, may_replace=self.panel.questions.may_replace_organ_masks
            )

    def _add_labels(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(
            self.panel.widget,
            _("Folder with label maps of another model"),
            str(self.logic.opened().folder),
        )
        if not folder:
            return
        title, text = _("Labels of another model"), _("Name of the model:")
        origin = str(qt.QInputDialog.getText(self.panel.widget, title, text)).strip()
        if origin:
            self.logic.add_external_labels.begin(origin, folder)
