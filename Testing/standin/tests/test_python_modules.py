"""slicer.packaging, SampleData and slicer.i18n do what Slicer's do, but nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slicer

from standin.python import packaging as recorded
from standin.python import sampledata

from .conftest import BlockScene

pytestmark = pytest.mark.usefixtures("scene")


@pytest.fixture(autouse=True)
def _nothing_recorded() -> Iterator[None]:
    recorded.installed_requests.clear()
    sources = {category: list(known) for category, known in sampledata._sources.items()}
    yield
    recorded.installed_requests.clear()
    sampledata._sources.clear()
    sampledata._sources.update(sources)


class TestPackaging:
    """What is missing, and what is asked before it is installed."""

    def test_requirements_are_objects_without_comments_and_options(self, tmp_path: Path) -> None:
        path = tmp_path / "requirements.txt"
        path.write_text("# for training\n--no-deps\npytest>=1 ; python_version > '3'\n\nabsent\n")
        found = slicer.packaging.load_requirements(path)
        assert [each.name for each in found] == ["pytest", "absent"]
        assert str(found[0].specifier) == ">=1"

    def test_versions_count(self) -> None:
        assert slicer.packaging.pip_check("pytest>=1")
        assert not slicer.packaging.pip_check("pytest<1")
        assert not slicer.packaging.pip_check(["pytest>=1", "no-such-package"])

    @pytest.mark.parametrize("asked_for", ["numpy absent>=2", ["numpy", "absent>=2"]])
    def test_a_text_or_a_list_is_installed_and_nothing_else(self, asked_for: Any) -> None:
        slicer.packaging.pip_install(asked_for)
        assert recorded.installed_requests == ["numpy", "absent>=2"]
        with pytest.raises(ValueError, match="string or list"):
            slicer.packaging.pip_install(("numpy",))

    def test_what_is_missing_alone_is_asked_about_and_installed(self, dialogs: Any) -> None:
        import qt

        slicer.packaging.pip_ensure(["pytest>=1"])  # all there: no question
        dialogs.answer("Probe needs packages: absent", qt.QMessageBox.Ok)
        slicer.packaging.pip_ensure(["pytest>=1", "absent"], requester="Probe")
        assert recorded.installed_requests == ["absent"]

    def test_who_declines_gets_nothing(self, dialogs: Any) -> None:
        import qt

        dialogs.answer("needs packages", qt.QMessageBox.Cancel)
        with pytest.raises(RuntimeError, match="declined"):
            slicer.packaging.pip_ensure(["absent"])
        assert recorded.installed_requests == []

    def test_nothing_is_ensured_while_testing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(slicer.app), "testingEnabled", lambda _: True)
        slicer.packaging.pip_ensure(["absent"])
        assert recorded.installed_requests == []


class TestSampleData:
    """Sources of sample data."""

    def test_a_source_loads_its_file_under_its_name(
        self, block: BlockScene, tmp_path: Path
    ) -> None:
        import SampleData

        slicer.util.exportNode(block.volume, tmp_path / "body.nrrd")
        for _ in range(2):  # the second time it is there already
            SampleData.SampleDataLogic.registerCustomSampleDataSource(
                category="Probe",
                sampleName="ProbeBody",
                uris=(tmp_path / "body.nrrd").as_uri(),
                fileNames="body.nrrd",
                nodeNames="The body",
            )
        assert len(SampleData.SampleDataLogic.sampleDataSourcesByCategory("Probe")) == 1
        assert SampleData.downloadSample("ProbeBody").GetName() == "The body"

    def test_fields_of_other_lengths_are_refused(self) -> None:
        import SampleData

        with pytest.raises(ValueError, match="same length"):
            SampleData.SampleDataLogic.registerCustomSampleDataSource(
                sampleName="Uneven", uris=["file:///a", "file:///b"], fileNames=["a"]
            )

    def test_nothing_comes_from_a_network(self) -> None:
        import SampleData

        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            sampleName="Far", uris="https://example.org/ct.nrrd", fileNames="ct.nrrd"
        )
        with pytest.raises(RuntimeError, match="downloads nothing"):
            SampleData.downloadSample("Far")

    def test_a_downloader_of_its_own_is_called_with_the_source(self, scene: Any) -> None:
        import SampleData

        made: list[Any] = []

        def make(source: Any) -> Any:
            made.append(source)
            return scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", source.sampleName)

        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            sampleName="Made", uris="made", fileNames="made", customDownloader=make
        )
        assert SampleData.downloadSample("Made").GetName() == "Made"
        assert [source.sampleName for source in made] == ["Made"]


def test_texts_stay_as_they_are_written() -> None:
    from slicer.i18n import getContext, tr, translate

    assert (tr("Apply"), translate("Probe", "Apply")) == ("Apply", "Apply")
    assert getContext("/modules/Probe.py") == "Probe"


def test_only_a_module_that_is_there_can_be_selected() -> None:
    slicer.util.selectModule("Volumes")
    assert slicer.util.selectedModule() == "Volumes"
    with pytest.raises(ValueError, match="NoSuchModule"):
        slicer.util.mainWindow().moduleSelector().selectModule("NoSuchModule")
    assert slicer.util.selectedModule() == "Volumes"
