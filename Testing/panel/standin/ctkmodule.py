"""The ctk widgets that a panel uses, with the properties, signals and slots of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from .pythonqt import PythonQtObject, present
from .qtdialogs import QMessageBox, QSettings
from .signals import Signal
from .widgets import InnerButton, InnerSlider, InnerSpinBox, Property, StandinWidget, Widget, setter

_Qt = QtCore.Qt
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
        self._hidden: list[Any] = []
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
        children = [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]
        if shown:
            self.setMaximumHeight(16777215)
            for child in self._hidden:
                child.setVisible(True)
            self._hidden = []
        else:
            self._hidden = [child for child in children if not child.isHidden()]
            for child in self._hidden:
                child.setVisible(False)
            self.setMaximumHeight(HEADER_HEIGHT)
        self.contentsCollapsed(not shown)

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
        with QtGui.QPainter(self) as painter:
            painter.fillRect(header, QtGui.QColor(212, 216, 222))
            painter.setBrush(QtGui.QColor("black"))
            painter.drawPolygon([QtCore.QPointF(*corner) for corner in corners])
            font = painter.font()
            font.setBold(True)
            painter.setFont(font)
            flag = _Qt.AlignmentFlag.AlignVCenter
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


class _SliderSpinBox(Widget):
    """A slider and a spin box that show one number."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._slider = InnerSlider(_Qt.Horizontal, self)
        self._box = InnerSpinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider, 1)
        row.addWidget(self._box)
        self._slider.valueChanged.connect(lambda position: self._slid(position))
        self._box.valueChanged.connect(lambda value: setattr(self, "value", value))

    def _slid(self, position: int) -> None:
        self.value = self.minimum + position * self.singleStep

    def _update(self) -> None:
        blockers = QtCore.QSignalBlocker(self._slider), QtCore.QSignalBlocker(self._box)
        self._box.setDecimals(self.decimals)
        self._box.setRange(self.minimum, self.maximum)
        self._box.setSingleStep(self.singleStep)
        self._box.setPrefix(self.prefix)
        self._box.setSuffix(self.suffix)
        self._slider.setRange(0, round((self.maximum - self.minimum) / self.singleStep))
        self._box.setValue(self.value)
        self._slider.setValue(round((self.value - self.minimum) / self.singleStep))
        del blockers


class ctkSliderWidget(_SliderSpinBox):
    """A number between two bounds."""

    valueChanged = Signal("valueChanged(double)")
    valueIsChanging = Signal("valueIsChanging(double)")
    decimals = Property(2, _SliderSpinBox._update)
    minimum = Property(0.0, lambda self: self._bound())
    maximum = Property(99.0, lambda self: self._bound())
    singleStep = Property(1.0, _SliderSpinBox._update)
    pageStep = Property(10.0)
    prefix = Property("", _SliderSpinBox._update)
    suffix = Property("", _SliderSpinBox._update)
    tracking = Property(True)
    tickInterval = Property(0.0)
    spinBoxVisible = Property(True, lambda self: self._box.setVisible(self.spinBoxVisible))
    setDecimals, setSpinBoxVisible = setter("decimals"), setter("spinBoxVisible")

    @property
    def value(self) -> float:
        return float(self.__dict__.get("_number", 0.0))

    @value.setter
    def value(self, value: float) -> None:
        bounded = round(min(max(float(value), self.minimum), self.maximum), self.decimals)
        if bounded != self.value:
            self.__dict__["_number"] = bounded
            self._update()
            self.valueChanged(bounded)

    setValue = setter("value")

    def _bound(self) -> None:
        self._update()
        self.value = self.value

    def take_over_properties(self) -> None:
        """Take the bounds before the value, in whatever order the .ui file has them."""
        super().take_over_properties()
        value = QtCore.QObject.property(self, "value")
        if value is not None:
            self.value = value


class ctkPathLineEdit(Widget):
    """The path of a file or folder."""

    currentPathChanged = Signal("currentPathChanged(QString)")
    validInputChanged = Signal("validInputChanged(bool)")
    currentPath = Property("", lambda self: self._path_changed())
    filters = Property(None)
    nameFilters = Property(())
    label = Property("")
    settingKey = Property("")
    showBrowseButton = Property(True, lambda self: self._browse.setVisible(self.showBrowseButton))
    showHistoryButton = Property(True)
    minimumContentsLength = Property(0)
    setCurrentPath = setter("currentPath")
    # ctkPathLineEdit::Filter has the values of QDir::Filter.
    Dirs, Files, Drives, NoSymLinks = 0x001, 0x002, 0x004, 0x008
    Readable, Writable, Executable, Hidden = 0x010, 0x020, 0x040, 0x100
    System, AllDirs, NoDot, NoDotDot = 0x200, 0x400, 0x2000, 0x4000
    NoDotAndDotDot = NoDot | NoDotDot

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._combo = present(QtWidgets.QComboBox)()
        self._combo.setEditable(True)
        self._browse = InnerButton()
        self._browse.setText("…")
        row.addWidget(self._combo, 1)
        row.addWidget(self._browse)
        self._combo.editTextChanged.connect(lambda text: setattr(self, "currentPath", text))

    def comboBox(self) -> Any:
        return self._combo

    def _path_changed(self) -> None:
        self._combo.setEditText(self.currentPath)
        self.currentPathChanged(self.currentPath)
        self.validInputChanged(Path(self.currentPath).exists())

    def addCurrentPathToHistory(self) -> None:
        if self._combo.findText(self.currentPath) < 0:
            self._combo.insertItem(0, self.currentPath)
        if self.settingKey:
            history = [self._combo.itemText(row) for row in range(self._combo.count)]
            QSettings().setValue(self.settingKey, history)

    def retrieveHistory(self) -> None:
        history = QSettings().value(self.settingKey) or []
        self._combo.addItems([history] if isinstance(history, str) else list(history))


class ctkDirectoryButton(Widget):
    """A button that shows a folder."""

    directoryChanged = Signal("directoryChanged(QString)")
    directorySelected = Signal("directorySelected(QString)")
    caption = Property("")
    directory = Property("", lambda self: self._directory_changed())

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._button = InnerButton(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._button)

    def _directory_changed(self) -> None:
        self._button.setText(self.directory)
        self.directoryChanged(self.directory)


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


CLASSES = {
    name: value
    for name, value in list(globals().items())
    if name.startswith("ctk") and isinstance(value, type) and issubclass(value, PythonQtObject)
}
