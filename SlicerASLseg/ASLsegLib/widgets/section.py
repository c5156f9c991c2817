"""What all sections of the panel share: buttons that act, and show why they do not."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import qt
import slicer
from slicer.i18n import tr as _

from ASLsegLib import requirements
from ASLsegLib.engine.background import Signal
from ASLsegLib.logic.logic import Logic
from ASLsegLib.parameters import whole_path
from ASLsegLib.widgets.questions import PanelQuestions
from ASLsegLib.widgets.view_keys import press_delete, slice_view_in_use

if TYPE_CHECKING:
    from ASLsegLib.engine.client import PanelEvent

ROW_PX = 24
ENGINE_BUSY = _("Wait until the engine is free, or cancel.")
DELETE = "Del"
KEY_BUT_IN_VIEWS = _("Key: {key}; in slice views it deletes points.")
LEFT_TO_VIEWS = _(
    "{key} is left to the slice views, where it deletes points: click in the panel, and press it "
    "there."
)
MESSAGE_MS = 5000
"""How long a message stays in the status bar."""
_MOST_LETTERS = 28


class PanelContext(Protocol):
    """What a section knows of the panel; other sections are reached by its signals alone.

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

    logic: Logic
    widget: Any
    ui: Any
    parameters: Any
    questions: PanelQuestions
    case_chosen: Signal
    next_case_wanted: Signal
    prompt_wanted: Signal

    @property
    def volume(self) -> Any | None:
        """The volume to segment, or None."""

    def attempt(self, action: Callable[[], None], *, update: bool = True) -> None:
        """Do something for a person; show what goes wrong in words, then the state of things."""

    def update(self) -> None:
        """Let every section show the state of things."""

    def update_soon(self, of: str = "") -> None:
        """Update once when everything that happens just now has happened."""

    def choose_working_volume(self) -> Any:
        """Choose what is worked on in place of a volume under a transform, and return it."""

    def reopen_project(self) -> None:
        """Open the project that the scene was saved with, if it is still there."""

    def addObserver(self, obj: Any, event: Any, method: Callable[..., None]) -> None:
        """Observe an object of the scene until the panel is closed."""

    def removeObserver(self, obj: Any, event: Any, method: Callable[..., None]) -> None:
        """Observe an object of the scene no more."""


class Section:
    """A part of the panel.

    Attributes:
        shows: Of `engine`, `training`, `batch`, `lesions`, `slice` (the one that is seen) and
            `computer`, whose state `update` shows beside the scene and the project; it is called
            when that changes too.
        answers: Names of the facts with which the engine answers that `on_answer` wants.
        panel: The panel that holds the section.
        ui: All widgets by name.
        logic: Does the work.
        keys: Keys that press a button while the module is open, each with its button.
    """

    shows: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()

    def __init__(self, panel: PanelContext) -> None:
        self.panel = panel
        self.ui = panel.ui
        self.logic = panel.logic
        self._tips: dict[str, str] = {}
        self._need_engine: dict[str, tuple[Any, str]] = {}
        self._slots: list[Callable[..., None]] = []
        self._keys: list[Any] = []
        self.keys: list[tuple[str, Any]] = []
        self.connect_widgets()

    def connect_widgets(self) -> None:
        """Connect the section's widgets; called once."""

    def update(self) -> None:
        """Show the state of things; called whenever something may have changed."""

    def on_event(self, event: PanelEvent) -> None:
        """Handle an event of the engine or of work in the background."""

    def on_answer(self, facts: Any) -> None:
        """Handle what the engine has answered; see `answers`."""

    def on_training_event(self, event: PanelEvent) -> None:
        """Handle an event of a training."""

    def on_batch_event(self, event: PanelEvent) -> None:
        """Handle an event of an export, or of a folder that is segmented."""

    def on_log(self, line: str) -> None:
        """Handle a line of the engine's log."""

    def tick(self) -> None:
        """Go on with what waits; called again and again."""

    def enter(self) -> None:
        """Go on when the module is opened again."""

    def leave(self) -> None:
        """End what would go on in other modules; called when the module is left."""

    def let_keys_work(self, work: bool) -> None:
        """Let the keys of the section press its buttons, or leave them to another module."""
        for key in self._keys:
            key.setEnabled(work)

    def remove_keys(self) -> None:
        """Take the keys out of the window, which stays when the panel ends."""
        for key in self._keys:
            key.setEnabled(False)
            key.deleteLater()
        self._keys.clear()

    def forget_scene(self) -> None:
        """Forget nodes that go away with the scene."""

    def close(self) -> None:
        """Close what is no part of the panel's widget; called once, when the panel ends."""

    def on_click(self, button: Any, action: Callable[[], None]) -> None:
        """Let a button do something; what goes wrong is shown to the person."""

        def slot() -> None:
            self.panel.attempt(action)

        self._slots.append(slot)
        button.connect("clicked()", slot)

    def on_signal(self, widget: Any, signal: str, action: Callable[[], None]) -> None:
        """Let a signal do something; its arguments are not used."""

        def slot(*_: Any) -> None:
            self.panel.attempt(action)

        self._slots.append(slot)
        widget.connect(signal, slot)

    def on_key(self, key: str, button: Any) -> None:
        """Let a key press a button while the module is open, wherever in the window one works.

        The key Delete is left to slice views, where it deletes points.
        """
        self.keys.append((key, button))
        text = KEY_BUT_IN_VIEWS if key == DELETE else _("Key: {key}.")
        button.setToolTip(f"{button.toolTip} {text.format(key=key)}")
        shortcut = qt.QShortcut(qt.QKeySequence(key), slicer.util.mainWindow() or self.panel.widget)
        shortcut.setEnabled(False)

        def press() -> None:
            view = slice_view_in_use() if key == DELETE else None
            if view is not None:
                press_delete(view)
                slicer.util.showStatusMessage(LEFT_TO_VIEWS.format(key=key), MESSAGE_MS)
            elif button.enabled:
                button.click()

        self._slots.append(press)
        self._keys.append(shortcut)
        shortcut.connect("activated()", press)
        shortcut.connect("activatedAmbiguously()", press)

    def on_return(self, table: Any, action: Callable[[], None]) -> None:
        """Let the key Return do in a table what a double click does."""
        shortcut = qt.QShortcut(qt.QKeySequence("Return"), table)
        shortcut.setContext(qt.Qt.WidgetShortcut)
        self.on_signal(shortcut, "activated()", action)

    def gate(self, widget: Any, *problems: str, needs_engine: bool = False) -> None:
        """Enable a widget, or disable it and let its tooltip say why.

        Args:
            widget: Button or other control.
            problems: Sentences; the first that is not empty is the reason.
            needs_engine: Whether it has to wait while the engine is busy; `gate_again` looks.
        """
        reason = next((problem for problem in problems if problem), "")
        if needs_engine:
            self._need_engine[widget.objectName] = widget, reason
            reason = reason or (ENGINE_BUSY if self.logic.engine.is_busy else "")
        tip = self._tips.setdefault(widget.objectName, widget.toolTip)
        widget.setEnabled(not reason)
        widget.setToolTip(as_plain(reason or tip))

    def gate_again(self) -> None:
        """Enable or disable what needs the engine, which may be busy now or free again."""
        for widget, reason in list(self._need_engine.values()):
            self.gate(widget, reason, needs_engine=True)


class VolumeNote:
    """What a label says about a volume; nothing while another one is chosen, or once it is undone.

    Args:
        label: The label.
    """

    def __init__(self, label: Any) -> None:
        self._label = label
        self._volume_id = ""

    def show(self, text: str, about: Any | None, chosen: Any | None) -> None:
        """Say something.

        Args:
            text: What is said.
            about: Volume node that it is about; None for none.
            chosen: Volume node that is chosen in the panel; nothing is said about another one.
        """
        self._volume_id = "" if about is None else about.GetID()
        self._label.setText(text)
        self.keep_to(chosen)

    def keep_to(self, chosen: Any | None) -> None:
        """Say no more what is about another volume than the one that is chosen."""
        if self._volume_id and (chosen is None or chosen.GetID() != self._volume_id):
            self.forget(self._volume_id)

    def forget(self, volume_id: str) -> None:
        """Say no more what is about a volume, by its MRML id: something of it was undone."""
        if volume_id and volume_id == self._volume_id:
            self._volume_id = ""
            self._label.setText("")


def single_shot(slot: Callable[[], None]) -> Any:
    """Return a timer that calls a slot once each time that it is started."""
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.connect("timeout()", slot)
    return timer


def fill_combo(combo: Any, entries: list[tuple[str, str]], chosen: str) -> None:
    """Fill a combo box without its signals.

    Args:
        combo: The box.
        entries: Text and value of each.
        chosen: Value of the entry to show; the first when it is not among them.
    """
    was = combo.blockSignals(True)
    combo.clear()
    for text, value in entries:
        combo.addItem(text, value)
    values = [value for _, value in entries]
    combo.setCurrentIndex(values.index(chosen) if chosen in values else 0)
    combo.blockSignals(was)


def fill_table(table: Any, head: list[str], rows: list[list[str]]) -> None:
    """Fill a table with text; the row whose first cell is the chosen one's stays chosen."""
    chosen = cell(table)
    was = table.blockSignals(True)
    table.setColumnCount(len(head))
    table.setHorizontalHeaderLabels(head)
    table.setRowCount(len(rows))
    for number, values in enumerate(rows):
        for column, value in enumerate(values):
            show_cell(table, number, column, value)  # whole, also where the column is too narrow
    table.setWordWrap(False)  # else a text too long is cut at a word, and may leave nothing
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(ROW_PX)
    head_row = table.horizontalHeader()
    head_row.setHighlightSections(False)  # bold heads would not fit
    head_row.setSectionResizeMode(qt.QHeaderView.Interactive)
    table.resizeColumnsToContents()
    head_row.setSectionResizeMode(len(head) - 1, qt.QHeaderView.Stretch)  # gets what is left
    choose_row(table, [values[0] for values in rows], chosen)
    table.blockSignals(was)


def show_cell(table: Any, row: int, column: int, text: str, tip: str = "") -> Any:
    """Let a cell show a text, which its tooltip repeats without `tip`; return its item.

    What is shown already is left alone: a table may have a thousand rows.
    """
    item, tip = table.item(row, column), as_plain(tip or text)
    if item is None:
        item = qt.QTableWidgetItem(text)
        table.setItem(row, column, item)
    elif item.text() == text and item.toolTip() == tip:
        return item
    item.setText(text)
    item.setToolTip(tip)
    return item


def choose_row(table: Any, names: list[str], name: str) -> None:
    """Choose the row of a name; none when it is not there, or there twice."""
    table.clearSelection()
    table.setCurrentCell(-1, -1)
    if names.count(name) == 1:
        table.selectRow(names.index(name))


def cell(table: Any) -> str:
    """Return the text of the first column in the chosen row; empty when no row is chosen."""
    item = table.item(table.currentRow(), 0) if table.currentRow() >= 0 else None
    return "" if item is None else item.text()


def not_installed() -> str:
    """Return in words what has to be installed first; empty when everything is there."""
    absent = requirements.missing()
    if not absent:
        return ""
    return _("Install what is missing first (above): {names}.").format(names=", ".join(absent))


def cannot_open() -> str:
    """Return in words why projects cannot be opened; empty when they can."""
    return "" if requirements.can_open_projects() else not_installed()


def no_sam(logic: Logic, parameters: Any) -> str:
    """Return why nothing can answer prompts; empty when a trained run or a SAM can.

    Args:
        logic: Knows the runs.
        parameters: What is remembered with the scene: the chosen run, and the chosen SAM.
    """
    works_alone = logic.usable_run(parameters.run) is None
    if works_alone and parameters.samModel == "none":
        return _("Choose a SAM under Train: without a trained run SAM works alone.")
    return ""


def no_organ(logic: Logic) -> str:
    """Return why there are no organs that masks could be given of; empty when there are."""
    closed = logic.project is None
    return "" if closed or logic.organs() else _("No target contains another one.")


def no_whole_path(text: str, missing: str) -> str:
    """Return why a typed folder cannot be used; empty when it can.

    Args:
        text: What was typed.
        missing: What is said where nothing was.
    """
    typed = text.strip()
    if typed in ("", "."):
        return missing
    if whole_path(typed) is not None:
        return ""
    reason = _("Give the whole path of the folder: '{path}' does not say where it begins.")
    return reason.format(path=typed)


def shortened(name: str, most: int = _MOST_LETTERS) -> str:
    """Return a name that fits on a button; '&' would be taken for the mark of a key."""
    short = name if len(name) <= most else f"{name[: most - 1]}\u2026"
    return short.replace("&", "&&")


def as_plain(text: str) -> str:
    """Return a text so that tool tips and dialogs show every letter; Qt takes some for HTML."""
    if "<" not in text and "&" not in text:
        return text
    return f"<span>{html.escape(text, quote=False)}</span>".replace("\n", "<br>")


def open_in_segment_editor(segmentation: Any, volume: Any, segment_id: str | None = None) -> None:
    """Open the Segment Editor with a segmentation and its volume, and with a segment if named."""
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
    if segment_id is not None:
        editor.setCurrentSegmentID(segment_id)
