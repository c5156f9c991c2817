"""The ctk widgets that hold one value: a number, a file, a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtWidgets

from standin.pythonqt.base import InnerButton, InnerSlider, InnerSpinBox, Property, Widget, setter
from standin.pythonqt.present import present
from standin.pythonqt.qtdialogs import QSettings
from standin.pythonqt.signals import Signal

_Qt = QtCore.Qt
_MOST_PATHS = 5  # that ctkPathLineEdit offers


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
    settingKey = Property("", lambda self: self.retrieveHistory())
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
        self._combo.setInsertPolicy(QtWidgets.QComboBox.NoInsert)
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
        """Put the path first; other paths pass through the field meanwhile, as in ctk."""
        path = self.currentPath
        if not path:
            return
        QSettings().setValue(self._key(), [path, *(p for p in self._kept() if p != path)])
        if self._combo.findText(path) >= 0:
            self._combo.removeItem(self._combo.findText(path))
        while self._combo.count >= _MOST_PATHS:
            self._combo.removeItem(self._combo.count - 1)
        self._combo.insertItem(0, path)
        self._combo.setCurrentIndex(0)

    def retrieveHistory(self) -> None:
        """Offer the paths of before; without a path of its own the field shows the latest."""
        path = self.currentPath
        was = self.blockSignals(True)
        self._combo.clear()
        self._combo.addItems(self._kept()[:_MOST_PATHS])
        if path:
            self.currentPath = path
        self.blockSignals(was)
        if not path:
            self._combo.setCurrentIndex(0)

    def _key(self) -> str:
        return f"ctkPathLineEdit/{self.settingKey or self.objectName}"

    def _kept(self) -> list[str]:
        kept = QSettings().value(self._key()) or []
        return [kept] if isinstance(kept, str) else list(kept)


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
