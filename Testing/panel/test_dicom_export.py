"""What Slicer's exporter of DICOM segmentations needs is there, checked by a double of it.

The double asks for what DICOMSegmentationPlugin of Slicer and QuantitativeReporting asks for.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from harness import write_labels

from aslseg.data.volume import Geometry, Volume
from aslseg.targets import LIVER_TARGETS

SHAPE = (4, 10, 12)


class Exporter:
    """Plays the exporter: looks at everything that it reads, and writes a file."""

    known = True
    seen: dict[str, Any] = {}  # noqa: RUF012

    def examineForExport(self, item: int) -> list[Any]:
        return [types.SimpleNamespace(item=item, directory="")] if self.known else []

    def export(self, exportables: list[Any]) -> str:
        (one,) = exportables
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        node = hierarchy.GetItemDataNode(one.item)
        volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        if not volume.GetAttribute("DICOM.instanceUIDs"):
            return "no instances"
        study = hierarchy.GetItemParent(one.item)
        segmentation = node.GetSegmentation()
        tags = ["DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName", "TerminologyEntry"]
        type(self).seen = {
            "study": study == hierarchy.GetItemParent(hierarchy.GetItemByDataNode(volume)),
            "level": hierarchy.GetItemLevel(study),
            "tags": {
                name: [text_of(segmentation.GetSegment(name), tag) for tag in tags]
                for name in segmentation.GetSegmentIDs()
            },
        }
        (Path(one.directory) / "segmentation.dcm").touch()
        return ""


def text_of(segment: Any, tag: str) -> str:
    value = vtk.reference("")
    return str(value) if segment.GetTag(tag, value) else ""


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> type[Exporter]:
    module = types.ModuleType("DICOMSegmentationPlugin")
    module.DICOMSegmentationPluginClass = Exporter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "DICOMSegmentationPlugin", module)
    monkeypatch.setattr(Exporter, "known", True)
    return Exporter


@pytest.fixture
def logic(open_module: Callable[..., Any]) -> Any:
    return open_module().logic


@pytest.fixture
def ct(logic: Any) -> Any:
    """A volume as the DICOM module loads it: under a study, with the identifiers of its slices."""
    from ASLsegLib.scene.volumes import add_volume

    volume = Volume(np.zeros(SHAPE, np.int16), Geometry(SHAPE, np.diag([-2.0, -2.0, 4.0, 1.0])))
    node = add_volume(volume, "ct")
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4 1.2.5 1.2.6")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.CreateItem(study, node)
    return node


@pytest.fixture
def refined(ct: Any) -> Any:
    from ASLsegLib.scene.provenance import Provenance

    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:8, 2:9], labels[1, 4:6, 4:6] = 1, 2
    return write_labels(ct, labels, LIVER_TARGETS, Provenance("refined", "aslseg", "run-1", 2))


def test_the_exporter_finds_geometry_study_terminology_and_who_segmented(
    logic: Any, refined: Any, exporter: type[Exporter], tmp_path: Path
) -> None:
    assert logic.export_dicom_seg(refined, tmp_path) == [tmp_path / "segmentation.dcm"]
    assert exporter.seen["study"]
    assert exporter.seen["level"] == "Study"
    tags = exporter.seen["tags"]
    assert tags["liver"][:2] == tags["tumour"][:2] == ["AUTOMATIC", "ASLseg aslseg"]
    assert "SCT^10200004^Liver" in tags["liver"][2]
    assert "SCT^" in tags["tumour"][2]
    assert tags["liver"][2] != tags["tumour"][2]


def test_what_a_person_accepted_is_semiautomatic(
    logic: Any, refined: Any, exporter: type[Exporter], tmp_path: Path
) -> None:
    from ASLsegLib.scene.segmentations import accept_prediction, reopen_prediction

    accept_prediction(refined)
    logic.export_dicom_seg(refined, tmp_path)
    assert exporter.seen["tags"]["liver"][0] == "SEMIAUTOMATIC"
    reopen_prediction(refined)
    logic.export_dicom_seg(refined, tmp_path)
    assert exporter.seen["tags"]["liver"][0] == "AUTOMATIC"


def test_a_label_map_that_no_method_made_is_manual(
    logic: Any, ct: Any, exporter: type[Exporter], tmp_path: Path
) -> None:
    from ASLsegLib.scene.provenance import Provenance

    labels = np.ones(SHAPE, np.uint8)
    node = write_labels(ct, labels, LIVER_TARGETS, Provenance("refined", human=True))
    logic.export_dicom_seg(node, tmp_path)
    assert exporter.seen["tags"]["liver"][:2] == ["MANUAL", "ASLseg"]


def test_a_volume_that_is_no_dicom_is_refused_with_a_remedy(
    logic: Any, ct: Any, refined: Any, exporter: type[Exporter], tmp_path: Path
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    ct.RemoveAttribute("DICOM.instanceUIDs")
    with pytest.raises(SceneError, match="ct was not loaded from DICOM; load the series"):
        logic.export_dicom_seg(refined, tmp_path)


def test_a_series_that_left_the_database_is_refused_with_a_remedy(
    logic: Any,
    refined: Any,
    exporter: type[Exporter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    monkeypatch.setattr(exporter, "known", False)
    with pytest.raises(SceneError, match="import the series again"):
        logic.export_dicom_seg(refined, tmp_path)


def test_what_the_exporter_complains_about_is_said(
    logic: Any,
    refined: Any,
    exporter: type[Exporter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    monkeypatch.setattr(exporter, "export", lambda *_: "No non empty segments found.")
    with pytest.raises(SceneError, match="The DICOM export failed: No non empty segments"):
        logic.export_dicom_seg(refined, tmp_path)


def test_without_the_exporter_the_extension_to_install_is_named(
    logic: Any, refined: Any, tmp_path: Path
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    with pytest.raises(SceneError, match="install the extension QuantitativeReporting"):
        logic.export_dicom_seg(refined, tmp_path)
