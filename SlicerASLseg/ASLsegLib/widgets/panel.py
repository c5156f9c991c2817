"""The panel: holds the sections together, polls the work, and watches the scene."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from aslseg.errors import AslsegError, CancelledError
from ASLsegLib import requirements
from ASLsegLib.engine.background import Signal
from ASLsegLib.parameters import Connected, project_folder
from ASLsegLib.paths import PROJECT_FILE, resource
from ASLsegLib.scene.volumes import is_scalar, working_volume
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
from ASLsegLib.widgets.questions import PanelQuestions
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
        questions: Asks a person.
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
        self.questions = PanelQuestions(_confirm)
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
        if self.questions.may_open(folder, project.folder):
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


def _confirm(question: str) -> bool:
    return bool(slicer.util.confirmYesNoDisplay(as_plain(question), windowTitle=_("ASLseg")))


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
