"""What a person is asked in the panel, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ASLsegLib.logic.questions import Questions


class PanelQuestions:
    """Asks a person; every answer but yes is no, and leaves things as they are.

    Args:
        confirm: Shows a question, and returns whether the answer is yes.
    """

    def __init__(self, confirm: Callable[[str], bool]) -> None:
        self._confirm = confirm

    @property
    def before_saving(self) -> Questions:
        """What is asked before a label map is saved."""
        return Questions(
            self.may_leave_out,
            self.may_overwrite,
            self.may_count_whole,
            self.may_lack,
            self.may_contradict,
            self.may_omit,
        )

    def may_replace(self, names: Sequence[str]) -> bool:
        """Ask whether segments that a person has changed may be replaced; no keeps both."""
        question = _(
            "You edited {names} by hand or by prompts. Replace them by the new result?\n\n"
            "'No' keeps yours and puts the new result beside them."
        )
        return not slicer.app.testingEnabled() and self._confirm(
            question.format(names=", ".join(names))
        )

    def may_replace_organ_masks(self, organ: str, case_ids: Sequence[str]) -> bool:
        """Ask whether the organ masks of cases may be replaced; no keeps theirs."""
        question = _(
            "There is a mask of {organ} already of {names}. Replace it by the new one?\n\n"
            "'No' keeps it. What is replaced stays in the history beside it."
        )
        return self._confirm(question.format(organ=organ, names=", ".join(case_ids)))

    def may_replace_files(self, reason: str) -> bool:
        """Ask whether files that were not written here may be replaced."""
        return self._confirm(_("{reason}\n\nReplace what is there?").format(reason=reason))

    def may_miss(self, case_ids: Sequence[str]) -> bool:
        """Ask whether what was drawn in cases and is not saved may be missing."""
        question = _(
            "What you drew or prompted in {names} is not saved, so it would be missing. Go on "
            "without it?\n\n'No' starts nothing: accept it, or save it as a label, first."
        )
        return self._confirm(question.format(names=", ".join(case_ids)))

    def may_move_back(self, name: str, case_id: str, moved_mm: float) -> bool:
        """Ask whether the volume of a case may be moved to where its image lies."""
        question = _(
            "{name} was moved in the scene: it lies up to {mm:.1f} mm from where the image of case "
            "{case} does, so nothing that is drawn on it can be saved. Move it back? What was "
            "drawn is kept, and labels that were moved with it are moved back with it.\n\n'No' "
            "leaves it as a volume that is no case, with what was drawn on it, and loads the case "
            "anew."
        )
        return self._confirm(question.format(name=name, case=case_id, mm=moved_mm))

    def may_leave_out(self, name: str, left_out: Sequence[str]) -> bool:
        """Ask whether a label map may lack something that a segmentation shows."""
        question = _(
            "Not everything in {name} can be in the label map:\n{left_out}\n\nGo on without it? "
            "What is left out counts as what lies around it."
        )
        return self._confirm(question.format(name=name, left_out="\n".join(left_out)))

    def may_overwrite(self, case_id: str, changed_meanwhile: bool) -> bool:
        """Ask whether the label map of a case may be replaced."""
        found = _("Case {case} has a label already.")
        if changed_meanwhile:
            found = _("The label of case {case} was changed since you loaded the case.")
        question = _("Replace it by what is shown? 'Undo' brings the old one back.")
        return self._confirm(f"{found} {question}".format(case=case_id))

    def may_count_whole(self, case_id: str) -> bool:
        """Ask whether all of a label counts that is accepted, though no slice of it does."""
        question = _(
            "No slice of the label of case {case} counts. Is it complete now, so that all that is "
            "shown counts, and the rest as background?\n\n'No' saves nothing: draw on, or mark "
            "slices as complete."
        )
        return self._confirm(question.format(case=case_id))

    def may_lack(self, name: str, targets: Sequence[str]) -> bool:
        """Ask whether a final label may be saved without segments that were removed by hand."""
        question = _(
            "{name} has no segment of {targets} any more. Save a label without any {targets}?\n\n"
            "'No' saves nothing: draw {targets} anew, or remove {name} from the scene and load the "
            "case again."
        )
        return self._confirm(question.format(name=name, targets=", ".join(targets)))

    def may_contradict(self, case_id: str, lesions: str) -> bool:
        """Ask whether a final label may be saved that shows lesions otherwise than decided."""
        question = _(
            "The final label of {case} shows {lesions} otherwise than decided about: you drew over "
            "them, or somebody decided elsewhere. Save what is shown?\n\n'No' saves nothing: load "
            "the case again to have them shown as decided."
        )
        return self._confirm(question.format(case=case_id, lesions=lesions))

    def may_show_as_decided(self, case_id: str, lesions: str) -> bool:
        """Ask whether a final label shall show lesions as they were decided about."""
        question = _(
            "The final label of {case} shows {lesions} otherwise than decided about: you drew over "
            "them, or somebody decided elsewhere. Show them as decided?\n\n'No' leaves what is "
            "shown. The rest that you drew stays, and 'Undo' brings this back."
        )
        return self._confirm(question.format(case=case_id, lesions=lesions))

    def may_omit(self, name: str, targets: Sequence[str], labelled: Sequence[str]) -> bool:
        """Ask whether a label may be saved without targets that were not drawn."""
        asked = _("{name} has no segment of {targets}. Save a label without any {targets}?")
        gone = _("{labelled} of the label that the case has would be gone.") if labelled else ""
        remedy = _(
            "'No' saves nothing: draw {targets}. If the label is to say nothing of that, save it, "
            "and choose so under 'Labelled targets…'."
        )
        question = f"{asked} {gone}".strip() + f"\n\n{remedy}"
        words = {"targets": ", ".join(targets), "labelled": ", ".join(labelled)}
        return self._confirm(question.format(name=name, **words))

    def may_change_patient(self, case_ids: Sequence[str], split: str) -> bool:
        """Ask whether all volumes of a patient shall be for something else; no changes none."""
        question = _(
            "{names} are of one patient, so all of them have to be used alike: use them to {split}?"
        )
        return self._confirm(question.format(names=", ".join(case_ids), split=split))

    def may_remove_case(self, case_id: str) -> bool:
        """Ask whether a case shall be taken out of the project."""
        question = _(
            "Take {case} out of the project? Its image stays where it is, and its label map is "
            "kept in labels/history."
        )
        return self._confirm(question.format(case=case_id))

    def may_open(self, other: Path, opened: Path) -> bool:
        """Ask whether the project of a scene shall be opened in place of the open one."""
        question = _(
            "The scene was saved with the project {folder}, and {open} is open. Open {folder}?\n\n"
            "'No' keeps {open} open; volumes of the other project are no cases of it."
        )
        return self._confirm(question.format(folder=other, open=opened))


def choose_organ(organs: Sequence[str], widget: Any) -> str:
    """Return the organ that masks are of; asked for where several contain other targets.

    Args:
        organs: Their names.
        widget: That the question belongs to.

    Returns:
        Its name; empty when none was chosen.
    """
    if len(organs) == 1:
        return organs[0]
    title, text = _("Organ masks"), _("Which organ are the masks of?")
    items = ["", *organs]  # a cancelled dialog gives the item that it began with
    return str(qt.QInputDialog.getItem(widget, title, text, items, 0, False))
