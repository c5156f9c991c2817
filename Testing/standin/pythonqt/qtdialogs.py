"""The modal dialogs and the settings of the stand-in `qt`."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from standin.dialogs import dialogs

from .present import offer, present

_Box = QtWidgets.QMessageBox
_KINDS = {1: "information", 2: "warning", 3: "critical"}


def _show_or_ask(kind: str, title: str, text: str, buttons: int, dialog: Any = None) -> Any:
    if int(buttons) in (int(_Box.NoButton), int(_Box.Ok)):
        dialogs.show(kind, title, text)
        return _Box.Ok
    return dialogs.ask(kind, title, text, dialog)


class QDialog(present(QtWidgets.QDialog)):  # type: ignore[misc]
    """A dialog whose event loop is the test's answer."""

    def exec_(self) -> Any:
        return dialogs.ask("dialog", self.windowTitle, type(self).__name__, self)


class QMessageBox(present(_Box)):  # type: ignore[misc]
    """A message box that is recorded, and answered by the test when it asks."""

    def exec_(self) -> Any:
        kind = _KINDS.get(int(self.icon), "question")
        text = "\n".join(filter(None, (self.text, self.informativeText, self.detailedText)))
        buttons = int(self.standardButtons)
        if not buttons and len(self.buttons()) > 1:
            buttons = int(_Box.Yes)
        return _show_or_ask(kind, self.windowTitle.strip(), text, buttons, self)

    @staticmethod
    def question(
        parent: Any, title: str, text: str, buttons: int = _Box.Yes | _Box.No, default: int = 0
    ) -> Any:
        return _show_or_ask("question", title, text, buttons)

    @staticmethod
    def information(
        parent: Any, title: str, text: str, buttons: int = _Box.Ok, default: int = 0
    ) -> Any:
        return _show_or_ask("information", title, text, buttons)

    @staticmethod
    def warning(
        parent: Any, title: str, text: str, buttons: int = _Box.Ok, default: int = 0
    ) -> Any:
        return _show_or_ask("warning", title, text, buttons)

    @staticmethod
    def critical(
        parent: Any, title: str, text: str, buttons: int = _Box.Ok, default: int = 0
    ) -> Any:
        return _show_or_ask("critical", title, text, buttons)


class QInputDialog(present(QtWidgets.QInputDialog)):  # type: ignore[misc]
    """PythonQt returns the value alone: of a cancelled dialog no text, or the first item shown."""

    @staticmethod
    def getText(parent: Any, title: str, label: str, echo: int = 0, text: str = "") -> str:
        return str(dialogs.ask("input", title, label) or "")

    @staticmethod
    def getInt(parent: Any, title: str, label: str, value: int = 0, *limits: int) -> int:
        return int(dialogs.ask("input", title, label))

    @staticmethod
    def getDouble(parent: Any, title: str, label: str, value: float = 0, *limits: float) -> float:
        return float(dialogs.ask("input", title, label))

    @staticmethod
    def getItem(
        parent: Any, title: str, label: str, items: Any, current: int = 0, editable: bool = True
    ) -> str:
        answer = str(dialogs.ask("input", title, label) or items[current])
        if not editable and answer not in items:
            raise AssertionError(f"'{answer}' cannot be typed; there are {items}")
        return answer


class QFileDialog(present(QtWidgets.QFileDialog)):  # type: ignore[misc]
    """PythonQt returns the path alone, an empty one when the dialog was cancelled."""

    @staticmethod
    def getExistingDirectory(
        parent: Any = None, caption: str = "", folder: str = "", *_: Any
    ) -> str:
        return str(dialogs.ask("folder", caption, folder) or "")

    @staticmethod
    def getOpenFileName(parent: Any = None, caption: str = "", folder: str = "", *_: Any) -> str:
        return str(dialogs.ask("open file", caption, folder) or "")

    @staticmethod
    def getOpenFileNames(
        parent: Any = None, caption: str = "", folder: str = "", *_: Any
    ) -> tuple[str, ...]:
        return tuple(str(path) for path in dialogs.ask("open files", caption, folder) or ())

    @staticmethod
    def getSaveFileName(parent: Any = None, caption: str = "", folder: str = "", *_: Any) -> str:
        return str(dialogs.ask("save file", caption, folder) or "")


class QColorDialog(present(QtWidgets.QColorDialog)):  # type: ignore[misc]
    """The colour that the test has chosen; one that is not valid when the dialog was cancelled."""

    @staticmethod
    def getColor(initial: Any = None, parent: Any = None, title: str = "", *_: Any) -> Any:
        chosen = dialogs.ask("colour", title, initial.name() if initial is not None else "")
        return QtGui.QColor(chosen) if chosen else QtGui.QColor()


class QMenu(present(QtWidgets.QMenu)):  # type: ignore[misc]
    """A menu of which the test names the entry."""

    def exec_(self, *position: Any) -> Any:
        texts = [action.text for action in self.actions()]
        chosen = dialogs.ask("menu", self.title, ", ".join(texts), self)
        action = next((action for action in self.actions() if action.text == chosen), None)
        if action is not None:
            action.trigger()
        return action


class QDesktopServices(QtGui.QDesktopServices):
    """Addresses are recorded, not opened."""

    @staticmethod
    def openUrl(url: Any) -> bool:
        dialogs.opened_urls.append(url.toString())
        return True


class QSettings(present(QtCore.QSettings)):  # type: ignore[misc]
    """Settings as they are after a restart: what was a bool or a number comes back as a text."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setAtomicSyncRequired(False)

    def value(self, key: str, default: Any = None) -> Any:
        found = super().value(key, default)
        if found is default and not self.contains(key):
            return default
        if isinstance(found, bool):
            return "true" if found else "false"
        return str(found) if isinstance(found, int | float) else found


class QTimer(present(QtCore.QTimer)):  # type: ignore[misc]
    """A timer whose static `singleShot` stands beside the property of that name."""


class _SingleShot:
    """On the class the static method, on an object the property."""

    def __get__(self, instance: Any, owner: type) -> Any:
        return single_shot if instance is None else instance.isSingleShot()

    def __set__(self, instance: Any, value: bool) -> None:
        instance.setSingleShot(bool(value))


_waiting: set[Any] = set()


def single_shot(milliseconds: int, slot: Any) -> None:
    """Call `slot` once, after so many milliseconds of the event loop."""
    timer = QTimer()
    timer.setSingleShot(True)
    _waiting.add(timer)
    timer.timeout.connect(lambda: _waiting.discard(timer))
    timer.timeout.connect(slot)
    timer.start(milliseconds)


QTimer.singleShot = _SingleShot()
REPLACED = [QDialog, QMessageBox, QInputDialog, QFileDialog, QColorDialog, QMenu, QSettings, QTimer]
for _replacement in REPLACED:
    offer(_replacement)
