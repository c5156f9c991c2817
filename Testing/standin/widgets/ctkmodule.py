"""The ctk widgets that a panel uses, with the properties, signals and slots of the real ones."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from standin.pythonqt.base import Property, StandinWidget, Widget
from standin.pythonqt.present import PythonQtObject, present
from standin.pythonqt.qtdialogs import QMessageBox, QSettings
from standin.pythonqt.signals import Signal

from .ctkfields import ctkDirectoryButton, ctkPathLineEdit, ctkSliderWidget

_Qt = QtCore.Qt
VISIBLE = "visibilityToParent"  # the property in which CTK remembers who hid a child
HEADER_HEIGHT = 24


class ctkCollapsibleButton(StandinWidget, present(QtWidgets.QAbstractButton)):  # type: ignore[misc]
    """A section with a title; a click on the title hides or shows what is in it."""

    contentsCollapsed = Signal("contentsCollapsed(bool)")
    flat = Property(False)
    contentsFrameShape = Property(0)
    contentsFrameShadow = Property(0)
    collapsedHeight = Property(0)

    def __init__(self, *arguments: Any) -> None:
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(*(argument for argument in arguments if not isinstance(argument, str)))
        self._forces = False
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, HEADER_HEIGHT, 0, 0)
        policy = QtWidgets.QSizePolicy.Preferred
        self.setSizePolicy(policy, policy)
        self.toggled.connect(self._fold)

    @property
    def collapsed(self) -> bool:
        return not self.checked

    @collapsed.setter
    def collapsed(self, value: bool) -> None:
        self.setChecked(not value)

    def _fold(self, shown: bool) -> None:
        self.setMaximumHeight(16777215 if shown else HEADER_HEIGHT)
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                self._show_child(child)
        self.contentsCollapsed(not shown)

    def _show_child(self, child: Any) -> None:
        """Show a child if the section is open and the child is not hidden by itself."""
        wanted = QtCore.QObject.property(child, VISIBLE)
        self._forces = True
        QtWidgets.QWidget.setVisible(child, self.isChecked() and wanted is not False)
        if wanted is not False:  # not as if somebody had shown or hidden it
            explicit = _Qt.WidgetAttribute.WA_WState_ExplicitShowHide
            QtWidgets.QWidget.setAttribute(child, explicit, False)
        self._forces = False

    def childEvent(self, event: Any) -> None:
        child = event.child()
        if event.type() == QtCore.QEvent.Type.ChildAdded and child.isWidgetType():
            child.installEventFilter(self)
            self._show_child(child)
        super().childEvent(event)

    def setVisible(self, visible: bool) -> None:
        self._forces = True  # children that come and go with the section are not meant
        super().setVisible(visible)
        self._forces = False

    def eventFilter(self, child: Any, event: Any) -> bool:
        kind = event.type()
        if not self._forces and kind == QtCore.QEvent.Type.ShowToParent:
            QtCore.QObject.setProperty(child, VISIBLE, True)
            self._show_child(child)
        elif not self._forces and kind == QtCore.QEvent.Type.HideToParent:
            QtCore.QObject.setProperty(child, VISIBLE, False)
        return False

    def take_over_properties(self) -> None:
        folded = QtCore.QObject.property(self, "collapsed")
        self.setChecked(True)
        super().take_over_properties()
        if folded:
            self._fold(False)

    def hitButton(self, position: Any) -> bool:
        return bool(position.y() < HEADER_HEIGHT)

    def paintEvent(self, event: Any) -> None:
        header = QtCore.QRect(0, 0, self.rect.width(), HEADER_HEIGHT - 2)
        corners = [(7, 8), (15, 8), (11, 14)] if self.checked else [(8, 6), (14, 10), (8, 14)]
        palette = QtWidgets.QWidget.palette(self)
        is_dark = palette.window().color().lightness() < 128
        text = palette.windowText().color()
        with QtGui.QPainter(self) as painter:
            painter.fillRect(header, QtGui.QColor(*((76, 80, 86) if is_dark else (212, 216, 222))))
            painter.setPen(text)
            painter.setBrush(text)
            painter.drawPolygon([QtCore.QPointF(*corner) for corner in corners])
            font = painter.font()
            font.setBold(True)
            painter.setFont(font)
            flag = _Qt.AlignmentFlag.AlignVCenter | _Qt.TextFlag.TextShowMnemonic
            painter.drawText(header.adjusted(22, 0, 0, 0), flag, self.text)


class ctkCollapsibleGroupBox(StandinWidget, present(QtWidgets.QGroupBox)):  # type: ignore[misc]
    """A group box that folds."""

    collapsedHeight = Property(0)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._fold)

    @property
    def collapsed(self) -> bool:
        return not self.checked

    @collapsed.setter
    def collapsed(self, value: bool) -> None:
        self.setChecked(not value)

    def _fold(self, shown: bool) -> None:
        self.setMaximumHeight(16777215 if shown else HEADER_HEIGHT)


class ctkComboBox(StandinWidget, present(QtWidgets.QComboBox)):  # type: ignore[misc]
    """A combo box with a text for when nothing is chosen."""

    defaultText = Property("", lambda self: self.setPlaceholderText(self.defaultText))
    forceDefault = Property(False)
    scrollWheelEffect = Property(2)


class ctkCheckBox(StandinWidget, present(QtWidgets.QCheckBox)):  # type: ignore[misc]
    """A check box."""


class ctkPushButton(StandinWidget, present(QtWidgets.QPushButton)):  # type: ignore[misc]
    """A push button."""


class ctkMenuButton(StandinWidget, present(QtWidgets.QPushButton)):  # type: ignore[misc]
    """A push button with a menu at its right side."""


class ctkSearchBox(StandinWidget, present(QtWidgets.QLineEdit)):  # type: ignore[misc]
    """A line edit to search with."""

    showSearchIcon = Property(False)


class ctkFittedTextBrowser(StandinWidget, present(QtWidgets.QTextBrowser)):  # type: ignore[misc]
    """A text browser that is as high as its text."""

    collapsed = Property(True)
    showDetailsText = Property("")
    hideDetailsText = Property("")

    def setCollapsibleText(self, text: str) -> None:
        self.setHtml(text)

    setCollapsibleHtml = setCollapsiblePlainText = setCollapsibleText


class ctkMessageBox(StandinWidget, QMessageBox):  # type: ignore[misc]
    """A message box that can be told not to come again."""

    dontShowAgain = Property(False)
    dontShowAgainVisible = Property(False)
    dontShowAgainSettingsKey = Property("")

    def exec_(self) -> Any:
        key = self.dontShowAgainSettingsKey
        remembered = QSettings().value(key) if key else None
        if remembered not in (None, "", "0"):
            return int(remembered)
        answer = super().exec_()
        if key and self.dontShowAgain:
            QSettings().setValue(key, int(answer))
        return answer


class ctkSettingsPanel(Widget):
    """A page of the application's settings."""

    def registerProperty(
        self, key: str, widget: Any, name: str, signal: str, label: str = "", options: int = 0
    ) -> None:
        stored = QSettings().value(key)
        if stored is not None:
            setattr(widget, name, stored)
        widget.connect(signal, lambda: QSettings().setValue(key, getattr(widget, name)))


VALUE_WIDGETS = (ctkDirectoryButton, ctkPathLineEdit, ctkSliderWidget)
CLASSES = {
    name: value
    for name, value in list(globals().items())
    if name.startswith("ctk") and isinstance(value, type) and issubclass(value, PythonQtObject)
}
