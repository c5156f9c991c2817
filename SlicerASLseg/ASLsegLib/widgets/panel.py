"""The panel: holds the sections together, polls the work, and watches the scene."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from aslseg.errors import AslsegError, CancelledError
from ASLsegLib import requirements
from ASLsegLib.engine.background import Signal
from ASLsegLib.logic.questions import Questions
from ASLsegLib.parameters import Connected, project_folder
from ASLsegLib.paths import PROJECT_FILE, resource
from ASLsegLib.scene.hidden_segments import show_hidden
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.segmentations import volume_drawn_on
from ASLsegLib.scene.shown_labels import target_segments
from ASLsegLib.scene.shown_volume import show_volume, why_not_in_views
from ASLsegLib.scene.volumes import SceneError, is_scalar, working_volume
from ASLsegLib.widgets.advanced import AdvancedSection
from ASLsegLib.widgets.batch import FILES_THERE, BatchSection
from ASLsegLib.widgets.case_edits import CaseEditsSection
from ASLsegLib.widgets.choices import name_choices
from ASLsegLib.widgets.dashboard import DashboardSection
from ASLsegLib.widgets.growth import GrowthSection
from ASLsegLib.widgets.label_filling import LabelFillingSection
from ASLsegLib.widgets.lesions import LesionsSection
from ASLsegLib.widgets.models import ModelsSection
from ASLsegLib.widgets.new_project import NewProjectDialog
from ASLsegLib.widgets.next_step import NextStepSection
from ASLsegLib.widgets.organ_masks import OrganMaskSection
from ASLsegLib.widgets.project import ProjectSection
from ASLsegLib.widgets.prompts import PromptsSection
from ASLsegLib.widgets.results import ResultsSection
from ASLsegLib.widgets.review import ReviewSection
from ASLsegLib.widgets.section import Section, as_plain, single_shot
from ASLsegLib.widgets.segment import SegmentSection
from ASLsegLib.widgets.selectors import NodeSelectors
from ASLsegLib.widgets.slice_filling import SliceFillingSection
from ASLsegLib.widgets.status import StatusSection
from ASLsegLib.widgets.training import TrainingSection
from ASLsegLib.widgets.undo import UndoSection

if TYPE_CHECKING:
    from ASLsegLib.engine.client import PanelEvent

logger = logging.getLogger(__name__)

POLL_MS = 30
_LONGEST_REASON = 200
SECTIONS = (
    NextStepSection, StatusSection, UndoSection, ProjectSection, LabelFillingSection,
    OrganMaskSection, CaseEditsSection, NewProjectDialog, DashboardSection, ModelsSection,
    TrainingSection, ReviewSection, SliceFillingSection, LesionsSection, SegmentSection,
    GrowthSection, PromptsSection, ResultsSection, BatchSection, AdvancedSection,
)  # fmt: skip


class Panel(VTKObservationMixin):
    """What a person sees of the module.

    Attributes:
        logic: Does the work.
        widget: The widget that holds everything.
        ui: All its widgets by name.
        parameters: What is remembered with the scene; None while the scene is being closed.
        case_chosen: Emits the name of a case to be loaded and shown.
        next_case_wanted: Emits when the case that is shown has nothing more to decide.
        prompt_wanted: Emits the target of a lesion that a person wants to place a prompt on; an
            empty name when none any more.
    """

    def __init__(self, logic: Any) -> None:
        super().__init__()
        self.logic = logic
        self.widget = slicer.util.loadUI(str(resource("UI", "ASLseg.ui")))
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.parameters: Any = None
        self.case_chosen, self.next_case_wanted, self.prompt_wanted = Signal(), Signal(), Signal()
        self._observed: Any = None
        self._connected: Any = None
        self._updating = self._shows_busy = False
        self._shown_errors: set[str] = set()
        self._messages: list[str] = []
        self._messages_timer = single_shot(self._show_messages)
        self._selectors = NodeSelectors(self.ui, lambda: self.parameters)  # before who asks them
        self.sections: list[Section] = [make(self) for make in SECTIONS]
        self.ui.keysLabel.setText(_list_of_keys(self.sections))
        self._due: set[Section] = set()
        self._soon_timer = single_shot(lambda: self._update(self._due))
        self._listen()
        self._timer = single_shot(self._tick)
        self._timer.start(POLL_MS)
        self._folder_left, self._other_folder = "", Path()
        self._project_timer = single_shot(lambda: self._catch(self._offer_project))
        # Nodes come in crowds: looked at once, when all are there.
        self._nodes_timer = single_shot(lambda: self._catch(self._nodes_changed))
        self._use_parameters()

    @property
    def volume(self) -> Any | None:
        """The volume to segment, or None; never one that the selector does not offer."""
        node = None if self.parameters is None else self.parameters.inputVolume
        return node if node is not None and is_scalar(node) else None

    @property
    def missing(self) -> str:
        """What has to be installed first, in words; empty when everything is there."""
        absent = requirements.missing()
        if not absent:
            return ""
        return _("Install what is missing first (above): {names}.").format(names=", ".join(absent))

    @property
    def questions(self) -> Questions:
        """The questions before something is saved."""
        return Questions(
            self.may_leave_out,
            self.may_overwrite,
            self.may_count_whole,
            self.may_lack,
            self.may_contradict,
            self.may_omit,
        )

    def attempt(self, action: Callable[[], None], *, update: bool = True) -> None:
        """Do something for a person; show what goes wrong in words, and then the state of things.

        Args:
            action: What to do.
            update: Whether the action may change more than what tells of its change.
        """
        self._shown_errors.clear()
        if update:
            self._catch(self._notice_changes)
        self._catch(action)
        if update:
            self.update()

    def show_error(self, message: str) -> None:
        """Show an error that a person has to know of, as soon as what is under way has returned."""
        self._messages.append(message)
        self._messages_timer.start(0)

    def may_replace(self, names: Sequence[str]) -> bool:
        """Ask whether segments that a person has changed may be replaced; no keeps both."""
        question = _(
            "You edited {names} by hand or by prompts. Replace them by the new result?\n\n"
            "'No' keeps yours and puts the new result beside them."
        )
        return not slicer.app.testingEnabled() and self._confirm(
            question.format(names=", ".join(names))
        )

    def choose_working_volume(self) -> Any:
        """Choose what is worked on in place of a volume under a transform, and return it.

        That is its hardened copy; any other volume is worked on itself.

        Raises:
            SceneError: When the transform is not linear.
        """
        volume = self.volume
        worked_on = working_volume(volume)
        if worked_on is not volume:
            self.parameters.inputVolume = worked_on
            slicer.util.setSliceViewerLayers(background=worked_on)
        return worked_on

    def no_sam(self) -> str:
        """Return why nothing can answer prompts; empty when a trained run or a SAM can."""
        works_alone = self.logic.usable_run(self.parameters.run) is None
        if works_alone and self.parameters.samModel == "none":
            return _("Choose a SAM under Train: without a trained run SAM works alone.")
        return ""

    def no_organ(self) -> str:
        """Return why there are no organs that masks could be given of; empty when there are."""
        closed = self.logic.project is None
        return "" if closed or self.logic.organs() else _("No target contains another one.")

    def choose_organ(self) -> str:
        """Return the organ that masks are of; asked for where several contain other targets.

        Empty when none was chosen.
        """
        organs = self.logic.organs()
        if len(organs) == 1:
            return str(organs[0])
        title, text = _("Organ masks"), _("Which organ are the masks of?")
        items = ["", *organs]  # a cancelled dialog gives the item that it began with
        return str(qt.QInputDialog.getItem(self.widget, title, text, items, 0, False))

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

    def require_seen(self, node: Any, target: str = "", *, is_saved: bool = False) -> None:
        """Show what of a segmentation is hidden; what is accepted or saved has to be seen first.

        So has the volume that it was drawn on, as the background of a slice view.

        Args:
            node: Its segmentation node.
            target: The target that is meant; all when empty.
            is_saved: Whether it is saved as it is, and not accepted.

        Raises:
            SceneError: When something was hidden: a person looks at it, and presses again then.
        """
        volume = volume_drawn_on(node)
        why = "" if volume is None or not is_scalar(volume) else why_not_in_views(volume)
        if why:
            show_volume(volume)
        hidden = show_hidden(node, target_segments(node, self.logic.targets(), target))
        if hidden:
            source = source_of(node)
            if source:
                getattr(self.ui, f"show{source.title()}Box").checked = True
            accepted = _(
                "{name} was hidden ({hidden}), so nothing was accepted. It is shown now: look at "
                "it, and press again."
            )
            saved = _(
                "{name} was hidden ({hidden}), so nothing was saved. It is shown now: look at it, "
                "and press again."
            )
            text = saved if is_saved else accepted
            why = why or text.format(name=node.GetName(), hidden=", ".join(hidden))
        if why:
            raise SceneError(why)

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

    def update(self) -> None:
        """Let every section show the state of things."""
        self._update(self.sections)

    def update_soon(self, of: str = "") -> None:
        """Update once when everything that happens just now has happened.

        Args:
            of: Only the sections that show this (see `Section.shows`); all when empty.
        """
        if self._updating:
            return
        self._due |= {section for section in self.sections if not of or of in section.shows}
        self._soon_timer.start(0)

    def _update(self, sections: Iterable[Section]) -> None:
        if self._updating or self.parameters is None:
            return
        self._soon_timer.stop()
        due, self._due = {*sections, *self._due}, set()
        self._updating, self._shows_busy = True, self.logic.background.is_busy
        try:
            for section in self.sections:
                if section in due:
                    self._catch(section.update, once=True)
                section.gate_again()
        finally:
            self._updating = False

    def enter(self) -> None:
        """Show what the scene remembers, and whether packages have come or gone meanwhile."""
        requirements.look_again()
        self._catch(self._notice_changes)
        self._use_parameters()
        for section in self.sections:
            section.enter()
            section.let_keys_work(True)

    def exit(self) -> None:
        """Let the scene's parameters alone and place nothing more; work goes on."""
        for section in self.sections:
            section.leave()
            section.let_keys_work(False)
        self._leave_parameters()

    def close(self) -> None:
        """End all work, placing too, and listen no more."""
        self.exit()
        for timer in (
            self._timer,
            self._nodes_timer,
            self._soon_timer,
            self._messages_timer,
            self._project_timer,
        ):
            timer.stop()
        for section in self.sections:
            section.remove_keys()
            section.close()
        self.removeObservers()
        self.logic.close()

    def _notice_changes(self) -> None:
        """Say which cases another program has taken out of the project."""
        for case_id in self.logic.notice_changes():
            text = _("Case {case} was removed or renamed by another program: it is listed no more.")
            self.show_error(text.format(case=case_id))

    def _listen(self) -> None:
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._scene_closes)
        self.addObserver(scene, scene.EndCloseEvent, self._scene_closed)
        self.addObserver(scene, scene.StartImportEvent, self._scene_comes)
        self.addObserver(scene, scene.EndImportEvent, self._scene_came)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._node_goes)
        self.addObserver(scene, scene.NodeAddedEvent, self._node_comes)
        for client, what, on_event in (
            (self.logic.engine, "engine", self._on_event),
            (self.logic.trainer, "training", self._on_training_event),
            (self.logic.batch, "batch", self._on_batch_event),
        ):
            client.changed.connect(lambda _, what=what: self.update_soon(what))
            client.event.connect(on_event)
            client.log.connect(self._log)
        self.logic.background.event.connect(self._on_event)
        self.logic.project_changed.connect(self.update)
        self.logic.failed.connect(self._background_failed)

    def _catch(self, action: Callable[[], Any], *, once: bool = False) -> None:
        """Do something; whatever goes wrong is shown as a sentence, and its traceback logged.

        Args:
            action: What to do.
            once: Show the same error only once until a person does something.
        """
        try:
            action()
        except CancelledError:  # a person said no
            return
        except Exception as error:  # the panel's edge: nothing may end in Slicer's console alone
            key = f"{type(error).__name__}: {error}"
            if once and key in self._shown_errors:
                return
            self._shown_errors.add(key)
            self.show_error(_in_a_sentence(error))

    def _confirm(self, question: str) -> bool:
        return bool(slicer.util.confirmYesNoDisplay(as_plain(question), windowTitle=_("ASLseg")))

    def _show_messages(self) -> None:
        while self._messages:
            slicer.util.errorDisplay(as_plain(self._messages.pop(0)), windowTitle=_("ASLseg"))

    def _tick(self) -> None:
        # Started anew before anything else: a question that opens below would hold up the next tick
        # until it is answered, for Qt does not call the slot of a repeating timer within itself.
        self._timer.start(POLL_MS)
        self._catch(self.logic.poll, once=True)
        for section in self.sections:
            self._catch(section.tick, once=True)
        if self.logic.background.is_busy != self._shows_busy:  # it has no event of its own
            self.update()

    def _on_event(self, event: PanelEvent) -> None:
        answer = type(event.facts).__name__ if event.event == "done" else ""
        for section in self.sections:
            section.on_event(event)
            if event.event == "done" and answer in section.answers:
                section.on_answer(event.facts)
        self._show_failure(event)

    def _on_training_event(self, event: PanelEvent) -> None:
        for section in self.sections:
            section.on_training_event(event)
        self._show_failure(event)

    def _on_batch_event(self, event: PanelEvent) -> None:
        for section in self.sections:
            section.on_batch_event(event)
        if not (event.event == "failed" and event.kind == FILES_THERE):  # that was asked about
            self._show_failure(event)

    def _log(self, line: str) -> None:
        for section in self.sections:
            section.on_log(line)

    def _show_failure(self, event: PanelEvent) -> None:
        if event.event == "failed":
            self.show_error(event.in_words)

    def _background_failed(self, error: Exception) -> None:
        self.show_error(_in_a_sentence(error))
        self.update_soon()

    # The scene.

    def _use_parameters(self) -> None:
        self._leave_parameters()
        self.parameters = self.logic.getParameterNode()
        self._connected = Connected(self.parameters, self.widget)
        name_choices(self.ui)
        self._observed = self.parameters.parameterNode  # the mixin would keep the wrapper for ever
        self.addObserver(self._observed, vtk.vtkCommand.ModifiedEvent, self._parameters_changed)
        if self.volume is None:
            self.parameters.inputVolume = _first_volume()
        if self.logic.project is not None and project_folder(self.parameters) is None:
            self.parameters.projectFolder = str(self.logic.project.folder)  # still open
        self.reopen_project()
        self.update()

    def _leave_parameters(self) -> None:
        if self.parameters is None:
            return
        self._folder_left = self.parameters.projectFolder
        self._connected.close()
        self.removeObserver(self._observed, vtk.vtkCommand.ModifiedEvent, self._parameters_changed)
        self.parameters = self._connected = None

    def reopen_project(self) -> None:
        """Open the project that the scene was saved with, if it is still there."""
        folder = project_folder(self.parameters)
        is_there = folder is not None and (folder / PROJECT_FILE).is_file()
        if is_there and self.logic.project is None and requirements.can_open_projects():
            self.attempt(lambda: self.logic.open_project(folder))

    def _parameters_changed(self, _caller: Any = None, _event: Any = None) -> None:
        self.update_soon()

    def _scene_closes(self, _caller: Any, _event: Any) -> None:
        """Stop what would end in nodes that go away; a training goes on."""
        self._leave_parameters()
        self.logic.forget_scene()
        self.logic.engine.close()
        for section in self.sections:
            section.forget_scene()

    def _scene_comes(self, _caller: Any, _event: Any) -> None:
        """Show no value of a scene before it was looked at whether it can be used."""
        self._leave_parameters()

    def _scene_closed(self, _caller: Any, _event: Any) -> None:
        self._use_parameters()

    def _scene_came(self, _caller: Any, _event: Any) -> None:
        """Let the project that is open stay the one that is shown, whatever the scene was saved in.

        Of another one that the scene names a person is asked, once the scene is there.
        """
        before = self._folder_left
        self._use_parameters()
        folder, project = project_folder(self.parameters), self.logic.project
        if project is None or folder is None or self.parameters.projectFolder == before:
            return
        if folder.resolve() == project.folder.resolve():
            return
        self.parameters.projectFolder = str(project.folder)
        self._other_folder = folder
        self._project_timer.start(0)

    def _offer_project(self) -> None:
        """Ask whether the project that the scene was saved with shall be opened."""
        project, folder = self.logic.project, self._other_folder
        if project is None or project.folder == folder:
            return
        if not (folder / PROJECT_FILE).is_file():
            text = _(
                "The scene was saved with the project {folder}, which is not there; {open} stays "
                "open. Bring the other one back and open it to go on with its cases."
            )
            self.show_error(text.format(folder=folder, open=project.folder))
            return
        question = _(
            "The scene was saved with the project {folder}, and {open} is open. Open {folder}?\n\n"
            "'No' keeps {open} open; volumes of the other project are no cases of it."
        )
        if self._confirm(question.format(folder=folder, open=project.folder)):
            self.attempt(lambda: self.logic.open_project(folder))

    def _node_comes(self, _caller: Any, _event: Any) -> None:
        self._nodes_timer.start(0)

    @vtk.calldata_type(vtk.VTK_OBJECT)  # type: ignore[untyped-decorator]
    def _node_goes(self, _caller: Any, _event: Any, node: Any) -> None:
        self._selectors.forget(node)
        self._nodes_timer.start(0)

    def _nodes_changed(self) -> None:
        """Stop working for a volume that was removed, and show what is in the scene now."""
        node, engine = self.logic.working_on, self.logic.engine
        if node is not None and not slicer.mrmlScene.IsNodePresent(node):
            self.logic.working_on = None
            if engine.is_busy:
                engine.cancel()
        self.logic.forget_removed_volumes()
        if self.parameters is not None and self.volume is None:
            self.parameters.inputVolume = _first_volume()
        self.update()


def _list_of_keys(sections: Iterable[Section]) -> str:
    keys = [(key, button.text) for section in sections for key, button in section.keys]
    words = [f"{key} {text.replace('&', '').rstrip(chr(0x2026))}" for key, text in keys]
    return _("Keys: {keys}").format(keys="; ".join(words))


def _first_volume() -> Any | None:
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    usable = [node for node in nodes if is_scalar(node) and node.GetImageData()]
    return next((node for node in usable if not node.GetAttribute("ASLseg.Overlay")), None)


def _in_a_sentence(error: BaseException) -> str:
    """Return what went wrong; the traceback of what nobody foresaw goes to the log."""
    if isinstance(error, AslsegError):
        return str(error)
    logger.error("The panel met something that was not foreseen", exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]
    text = _("Something went wrong that was not foreseen ({reason}). The log says more: {path}")
    return text.format(reason=reason, path=_log_path())


def _log_path() -> str:
    """Return where the log of the application is."""
    model: Any = getattr(slicer.app, "errorLogModel", None)
    path = "" if model is None else str(getattr(model(), "filePath", "") or "")
    return path or _("Help > Report a bug")
