"""The module `qt` behaves as PythonQt does, so that what works only in PySide6 fails here."""

from __future__ import annotations

import functools
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("scene")


@pytest.fixture
def qt() -> Any:
    import qt

    return qt


def test_a_property_is_an_attribute_and_its_setter_a_method(qt: Any) -> None:
    label = qt.QLabel("liver")
    assert label.text == "liver"
    label.text = "tumour"
    assert label.text == "tumour"
    label.setText("spleen")
    assert label.text == "spleen"


def test_a_getter_that_has_the_name_of_a_property_cannot_be_called(qt: Any) -> None:
    with pytest.raises(TypeError, match="not callable"):
        qt.QLabel("liver").text()


def test_a_getter_with_another_name_than_its_property_is_a_method(qt: Any) -> None:
    box = qt.QCheckBox("round")
    box.checked = True
    assert box.isChecked()
    assert box.isEnabled()


def test_the_name_is_the_object_name(qt: Any) -> None:
    button = qt.QPushButton()
    button.objectName = "startButton"
    assert button.name == "startButton"


@pytest.mark.parametrize("name", ["foo", "txt", "onClick"])
def test_no_attribute_is_made_on_a_qt_object(qt: Any, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        setattr(qt.QPushButton(), name, 1)


def test_a_python_subclass_has_attributes_of_its_own(qt: Any) -> None:
    class Filter(qt.QObject):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def eventFilter(self, watched: Any, event: Any) -> bool:
            self.seen += event.type() == qt.QEvent.Resize
            return False

    watched, watcher = qt.QWidget(), Filter()
    watched.installEventFilter(watcher)
    watched.resize(30, 40)
    watched.show()
    assert watcher.seen > 0


def test_dynamic_properties_can_be_read_and_written(qt: Any) -> None:
    widget = qt.QWidget()
    widget.setProperty("SlicerParameterName", "rounds")
    assert widget.SlicerParameterName == "rounds"
    widget.SlicerParameterName = "seed"
    assert widget.property("SlicerParameterName") == "seed"


def test_enums_are_flat_integers(qt: Any) -> None:
    assert qt.Qt.Checked == 2
    assert qt.QMessageBox.Yes | qt.QMessageBox.No == 0x4000 | 0x10000
    for path in ("Qt.AlignmentFlag", "Qt.CheckState", "QMessageBox.StandardButton"):
        with pytest.raises(AttributeError):
            functools.reduce(getattr, path.split("."), qt)


@pytest.mark.parametrize("name", ["Signal", "Slot", "Property", "QRegExp", "QTextCodec", "QtCore"])
def test_names_of_pyside_or_qt5_alone_are_absent(qt: Any, name: str) -> None:
    assert not hasattr(qt, name)


def test_constructors_take_no_keywords(qt: Any) -> None:
    with pytest.raises(TypeError, match="keywords"):
        qt.QLabel(text="liver")


def test_dialogs_have_exec_with_an_underscore_alone(qt: Any) -> None:
    dialog = qt.QDialog()
    assert hasattr(dialog, "exec_")
    for name in ("exec", "tr", "sender", "metaObject"):
        assert not hasattr(dialog, name)


class TestConnections:
    """What a slot gets."""

    def test_the_signature_says_how_many_arguments(self, qt: Any) -> None:
        button, got = qt.QPushButton(), []
        button.connect("clicked()", lambda *arguments: got.append(arguments))
        button.connect("clicked(bool)", lambda *arguments: got.append(arguments))
        button.click()
        assert sorted(got) == [(), (False,)]

    def test_surplus_arguments_are_cut(self, qt: Any) -> None:
        button, got = qt.QPushButton(), []
        button.clicked.connect(lambda: got.append("called"))
        button.click()
        assert got == ["called"]

    def test_an_argument_with_a_default_counts(self, qt: Any) -> None:
        button, got = qt.QPushButton(), []
        button.clicked.connect(lambda row=7: got.append(row))
        button.click()
        assert got == [False]

    def test_a_partial_gets_everything(self, qt: Any) -> None:
        button, got = qt.QPushButton(), []
        button.clicked.connect(functools.partial(lambda *arguments: got.append(arguments), 7))
        button.click()
        assert got == [(7, False)]

    def test_a_bound_method_is_cut_without_counting_self(self, qt: Any) -> None:
        class Panel:
            def on_click(self) -> None:
                self.clicked = True

        button, panel = qt.QPushButton(), Panel()
        button.connect("clicked(bool)", panel.on_click)
        button.click()
        assert panel.clicked

    def test_an_unknown_signal_is_refused(self, qt: Any) -> None:
        with pytest.raises(ValueError, match="no signal"):
            qt.QComboBox().connect("currentIndexChanged(QString)", print)

    def test_a_signal_has_no_emit_and_is_called_instead(self, qt: Any) -> None:
        box, got = qt.QComboBox(), []
        box.activated.connect(got.append)
        assert not hasattr(box.activated, "emit")
        box.activated(3)
        assert got == [3]

    def test_disconnect_ends_it(self, qt: Any) -> None:
        button, got = qt.QPushButton(), []
        button.clicked.connect(got.append)
        button.clicked.disconnect(got.append)
        button.click()
        assert got == []

    def test_a_slot_that_raises_is_reported_and_does_not_stop_the_others(
        self, qt: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import sys

        seen: list[BaseException] = []
        monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: seen.append(error))
        button, got = qt.QPushButton(), []
        button.clicked.connect(lambda: 1 / 0)
        button.clicked.connect(lambda: got.append(1))
        button.click()
        assert [type(error) for error in seen] == [ZeroDivisionError]
        assert got == [1]


def test_a_timer_has_the_static_single_shot_beside_the_property(qt: Any) -> None:
    from standin.harness import wait_until

    got: list[str] = []
    timer = qt.QTimer()
    timer.singleShot = True
    assert timer.isSingleShot()
    timer.connect("timeout()", lambda: got.append("timer"))
    timer.start(1)
    qt.QTimer.singleShot(1, lambda: got.append("single"))
    wait_until(lambda: len(got) == 2, 5)


def test_what_qt_hands_out_has_pythonqts_ways_too(qt: Any) -> None:
    edit = qt.QPlainTextEdit()
    edit.appendPlainText("line\n" * 200)
    bar = edit.verticalScrollBar()
    bar.setValue(bar.maximum)
    assert bar.value == bar.maximum > 0
    assert all(hasattr(child, "name") for child in edit.children() if hasattr(child, "visible"))


def test_settings_come_back_as_texts(qt: Any) -> None:
    import slicer

    qt.QSettings().setValue("Probe/consent", False)
    qt.QSettings().setValue("Probe/port", 7)
    assert qt.QSettings().value("Probe/consent") == "false"
    assert qt.QSettings().value("Probe/port") == "7"
    assert slicer.util.settingsValue("Probe/consent", True, converter=slicer.util.toBool) is False
    assert qt.QSettings().value("Probe/absent", 3) == 3


def test_an_input_dialog_gives_the_text_alone(qt: Any, dialogs: Any) -> None:
    dialogs.answer("Name of the project", "livers")
    assert qt.QInputDialog.getText(None, "New", "Name of the project") == "livers"


def test_a_cancelled_choice_of_an_item_gives_the_one_that_was_offered(
    qt: Any, dialogs: Any
) -> None:
    for answer, expected in (("kidney", "kidney"), ("", "liver")):
        dialogs.answer("Organ", answer)
        assert qt.QInputDialog.getItem(None, "Mask", "Organ", ["liver", "kidney"]) == expected
    dialogs.answer("Organ", "spleen")
    with pytest.raises(AssertionError, match="cannot be typed"):
        qt.QInputDialog.getItem(None, "Mask", "Organ", ["liver", "kidney"], 0, False)


def test_questions_of_slicer_util_are_answered_by_the_test(dialogs: Any) -> None:
    import qt
    import slicer

    dialogs.answer("Delete?", qt.QMessageBox.No)
    assert slicer.util.confirmYesNoDisplay("Delete?") is False
    slicer.util.errorDisplay("No such file")
    assert dialogs.take("no such file").kind == "critical"


def test_a_question_without_an_answer_raises(dialogs: Any) -> None:
    import slicer

    from standin.dialogs import UnexpectedDialogError

    with pytest.raises(UnexpectedDialogError, match="Delete"):
        slicer.util.confirmOkCancelDisplay("Delete?")


def test_process_output_is_bytes_of_a_byte_array(qt: Any) -> None:
    process, ended = qt.QProcess(), []
    process.connect(
        "finished(int,QProcess::ExitStatus)", lambda code, status: ended.append((code, status))
    )
    process.start("echo", ["liver"])
    assert process.waitForFinished(5000)
    assert process.readAllStandardOutput().data() == b"liver\n"
    assert ended == [(0, 0)]
    assert process.state() == qt.QProcess.NotRunning
