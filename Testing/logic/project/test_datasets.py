"""Data sets of others come in and go out."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import ProjectError
from aslseg.events import Event, Monitor, Notice
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.datasets import (
    cases_from_folder,
    cases_from_msd,
    cases_from_nnunet,
    find_cases,
    is_nnunet,
    targets_from_dataset,
)
from aslseg.targets import LIVER_TARGETS

GEOMETRY = Geometry.axis_aligned((3, 4, 5), (3.0, 1.5, 1.0))


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def write_case(image: Path, label: Path | None = None, *, value: int = 1) -> None:
    seed = sum(image.as_posix().encode())
    voxels = np.random.default_rng(seed).integers(-100, 200, GEOMETRY.shape).astype(np.int16)
    write_volume(Volume(voxels, GEOMETRY), image)
    if label is not None:
        labels = np.zeros(GEOMETRY.shape, np.uint8)
        labels[1, 1:3, 1:3] = value
        write_labelmap(Labelmap(labels, GEOMETRY), label)


def names(cases: list[CaseFiles]) -> list[tuple[str, str, str | None]]:
    return [(case.id, case.image.name, case.label and case.label.name) for case in cases]


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        pytest.param(["a.nii.gz"], ["a.nii.gz"], [("a", "a.nii.gz", "a.nii.gz")], id="same name"),
        pytest.param(
            ["jose\u0301.nii", "x.nii"],
            ["Jos\u00e9.nii"],
            [("jose-0c06649e", "jose\u0301.nii", "Jos\u00e9.nii"), ("x", "x.nii", None)],
            id="accents written in two ways",
        ),
        pytest.param(
            ["b.nii.gz", "a.nrrd"],
            ["a.mha"],
            [("a", "a.nrrd", "a.mha"), ("b", "b.nii.gz", None)],
            id="other format, no label",
        ),
        pytest.param(
            ["a_0000.nii.gz", "b_0000.nii.gz"],
            ["b.nii.gz", "a.nii.gz"],
            [("a", "a_0000.nii.gz", "a.nii.gz"), ("b", "b_0000.nii.gz", "b.nii.gz")],
            id="nnU-Net",
        ),
        pytest.param(
            ["volume-10.nii", "volume-9.nii"],
            ["segmentation-10.nii", "segmentation-9.nii"],
            [
                ("volume-9", "volume-9.nii", "segmentation-9.nii"),
                ("volume-10", "volume-10.nii", "segmentation-10.nii"),
            ],
            id="LiTS, in the order of numbers",
        ),
        pytest.param(
            ["x_image.nrrd", "y_image.nrrd"],
            ["x_label.nrrd", "y.seg.nrrd"],
            [("x", "x_image.nrrd", "x_label.nrrd"), ("y", "y_image.nrrd", "y.seg.nrrd")],
            id="image and label",
        ),
        pytest.param(
            ["CT_1.nii", "CT_2.nii"],
            ["mask_1.nii"],
            [("CT_1", "CT_1.nii", "mask_1.nii"), ("CT_2", "CT_2.nii", None)],
            id="CT and mask",
        ),
        pytest.param(["ct.nii"], ["liver_gt.nii"], [("ct", "ct.nii", "liver_gt.nii")], id="only"),
        pytest.param(["a b (1).nii"], ["c.nii"], [("a_b_1_", "a b (1).nii", "c.nii")], id="id"),
    ],
)
def test_files_are_paired_by_their_names(
    tmp_path: Path, images: list[str], labels: list[str], expected: list[Any]
) -> None:
    touch(tmp_path / "i", *images, "notes.txt", "._a.nii.gz")
    touch(tmp_path / "l", *labels)
    assert names(cases_from_folder(tmp_path / "i", tmp_path / "l")) == expected


def test_one_folder_may_hold_images_and_label_maps(tmp_path: Path) -> None:
    touch(tmp_path, "volume-0.nii", "segmentation-0.nii", "volume-1.nii", "p_ct.nii", "p_seg.nii")
    assert names(cases_from_folder(tmp_path)) == [
        ("p", "p_ct.nii", "p_seg.nii"),
        ("volume-0", "volume-0.nii", "segmentation-0.nii"),
        ("volume-1", "volume-1.nii", None),
    ]


def test_each_folder_in_a_folder_may_be_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "p1/ct.nii", "p1/label.nii", "p2/image.nrrd", "p3/readme.md")
    dicom = touch(tmp_path, "p4/1.dcm") / "p4" / "1.dcm"
    dicom.write_bytes(b"\0" * 128 + b"DICM")
    assert names(cases_from_folder(tmp_path)) == [
        ("p1", "ct.nii", "label.nii"),
        ("p2", "image.nrrd", None),
        ("p4", "p4", None),
    ]


def dicom(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")


def test_the_image_of_a_case_may_be_a_folder_of_slices_beside_its_label(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "p4/seg.nii.gz")
    dicom(tmp_path / "p4" / "CT")
    assert names(cases_from_folder(tmp_path)) == [("a", "a.nii", None), ("p4", "CT", "seg.nii.gz")]


def passed_over(source: Path, labels: Path | None = None) -> list[str]:
    told: list[str] = []

    def listen(event: Event) -> None:
        assert isinstance(event, Notice)
        told.append(event.message)

    find_cases(source, labels, monitor=Monitor(listen))
    return told


def test_a_folder_with_images_too_deep_inside_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = touch(tmp_path / "ct", "a.nii", "b.nii", "p9/ct.nii", "notes/x/readme.md")
    dicom(source / "p3" / "DICOM" / "IM")
    (told,) = passed_over(source)
    assert f"passed over: {source / 'p3' / 'DICOM'}. Give each of them itself" in told
    with caplog.at_level(logging.WARNING):
        assert [case.id for case in cases_from_folder(source)] == ["a", "b", "p9"]
    assert told in caplog.text


def test_with_labels_apart_folders_of_image_files_are_named(tmp_path: Path) -> None:
    source = touch(tmp_path / "ct", "a.nii", "p9/ct.nii", "seg/a.nii", "p8/only_label.nii")
    (told,) = passed_over(source, source / "seg")
    assert f"passed over: {source / 'p9'}. Give" in told


def test_a_folder_whose_images_all_lie_too_deep_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "ct/p9/1/ct.nii", "l/a.nii")
    for labels in (None, tmp_path / "l"):
        with pytest.raises(ProjectError, match=r"ct holds no image\. .* passed over: .*1\. Give"):
            find_cases(tmp_path / "ct", labels)


def test_what_a_project_among_its_images_keeps_is_not_passed_over(tmp_path: Path) -> None:
    write_case(tmp_path / "a_ct.nii.gz", tmp_path / "a_seg.nii.gz")
    create_project(tmp_path, cases_from_folder(tmp_path))
    create_project(tmp_path / "other", cases_from_folder(tmp_path))
    assert (tmp_path / "other" / "labels" / "a.nii.gz").exists()
    assert passed_over(tmp_path) == passed_over(tmp_path, tmp_path / "labels") == []


def test_a_folder_of_slices_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path / "scan 1", "1.dcm")
    (tmp_path / "scan 1" / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    assert names(cases_from_folder(tmp_path / "scan 1")) == [("scan_1", "scan 1", None)]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        pytest.param([], ["a.nii"], "holds no image; give the folder", id="no image"),
        pytest.param(["a.nii", "b.nii"], ["c.nii", "d.nii"], "belongs to no image", id="strangers"),
        pytest.param(["a.nii", "b.nii"], ["a_gt.nii", "a_seg.nii"], "both fit a.nii", id="two"),
        pytest.param(["a_ct.nii", "a_mr.nii"], ["a.nii"], "fits several images", id="shared"),
        pytest.param(["a_0000.nii", "a_0001.nii"], [], "another channel", id="channels"),
    ],
)
def test_names_that_do_not_tell_are_refused(
    tmp_path: Path, images: list[str], labels: list[str], words: str
) -> None:
    for folder, files in (("i", images), ("l", labels)):
        (tmp_path / folder).mkdir()
        touch(tmp_path / folder, *files)
    with pytest.raises(ProjectError, match=words):
        cases_from_folder(tmp_path / "i", tmp_path / "l")


def test_a_label_map_among_the_images_is_no_volume(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "i/a.nii", "i/b.nii", "i/b_seg.nii", "l/a.nii")
    with caplog.at_level(logging.WARNING):
        found = cases_from_folder(tmp_path / "i", tmp_path / "l")
    assert names(found) == [("a", "a.nii", "a.nii"), ("b", "b.nii", None)]
    assert "Left out, for it is named as a label map: b_seg.nii" in caplog.text


def test_a_folder_of_nothing_but_label_maps_has_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "i/a_seg.nii", "i/b_seg.nii", "l/a.nii")
    with pytest.raises(ProjectError, match=r"no image .*as label maps: a_seg\.nii, b_seg\.nii"):
        cases_from_folder(tmp_path / "i", tmp_path / "l")


def test_a_label_map_of_an_image_that_is_not_there_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "i/a.nii", "l/a.nii", "l/b.nii")
    with caplog.at_level(logging.WARNING):
        assert len(cases_from_folder(tmp_path / "i", tmp_path / "l")) == 1
    assert "b.nii belongs to no image" in caplog.text


def test_several_images_in_a_folder_of_a_case_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="holds several images"):
        cases_from_folder(touch(tmp_path, "imagesTr/a.nii", "imagesTr/b.nii"))


def test_images_are_not_taken_for_their_own_label_maps(tmp_path: Path) -> None:
    folder = touch(tmp_path, "a.nii", "a_seg.nii", "b.nii")
    for labels in (folder, folder / ".." / folder.name):
        with pytest.raises(ProjectError, match="is the folder of the images, each of which would"):
            cases_from_folder(folder, labels)


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="nowhere is no folder"):
        cases_from_folder(tmp_path / "nowhere")


def test_what_a_project_among_its_images_keeps_is_no_case(tmp_path: Path) -> None:
    write_case(tmp_path / "a_ct.nii.gz", tmp_path / "a_seg.nii.gz")
    project = create_project(tmp_path, cases_from_folder(tmp_path))
    assert (project.folder / "labels" / "a.nii.gz").exists()
    assert [case.id for case in cases_from_folder(tmp_path)] == ["a"]


def test_a_folder_called_labels_without_a_project_is_a_case_like_others(tmp_path: Path) -> None:
    write_case(tmp_path / "labels" / "x.nii.gz")
    assert [case.id for case in cases_from_folder(tmp_path)] == ["labels"]


def a_decathlon(folder: Path, **changes: Any) -> Path:
    write_case(folder / "imagesTr" / "liver_1.nii.gz", folder / "labelsTr" / "liver_1.nii.gz")
    write_case(folder / "imagesTs" / "liver_2.nii.gz")
    values = {
        "name": "Liver",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}],
        "test": ["./imagesTs/liver_2.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(values | changes))
    return folder


def test_a_decathlon_task_becomes_a_project(tmp_path: Path) -> None:
    task = a_decathlon(tmp_path / "Task03_Liver")
    cases = cases_from_msd(task / "dataset.json")
    assert cases == cases_from_msd(task)
    assert [(case.id, case.split) for case in cases] == [("liver_1", "train"), ("liver_2", "test")]
    project = create_project(tmp_path / "project", cases, targets_from_dataset(task))
    assert [len(group) for group in (project.labelled, project.unlabelled, project.test)] == [
        1,
        0,
        1,
    ]
    assert [(target.name, target.value) for target in project.targets] == [
        ("liver", 1),
        ("cancer", 2),
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"training": []}, "lists no 'training' cases", id="none"),
        pytest.param({"training": "all"}, "lists no 'training' cases", id="text"),
        pytest.param({"training": [{"label": "a"}]}, "names no image", id="no image"),
        pytest.param({"training": [7]}, "names no image", id="number"),
        pytest.param({"test": ["imagesTs/liver_9.nii.gz"]}, "liver_9.*does not exist", id="lost"),
        pytest.param({"test": 5}, "lists no 'test' cases", id="number of tests"),
        pytest.param({"test": ["../../x.nii.gz"]}, "lies outside of its folder", id="outside"),
        pytest.param({"modality": {"0": "T1", "1": "T2"}}, "2 channels per case", id="channels"),
    ],
)
def test_a_decathlon_task_that_is_not_whole_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ProjectError, match=words):
        cases_from_msd(a_decathlon(tmp_path, **changes))


@pytest.mark.parametrize("changes", [{"modality": None, "test": None}, {"modality": "CT"}])
def test_a_decathlon_task_that_leaves_out_what_is_not_needed_is_read(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    cases = cases_from_msd(a_decathlon(tmp_path, **changes))
    assert [case.id for case in cases if case.split == "train"] == ["liver_1"]


def test_a_missing_or_damaged_dataset_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"dataset\.json cannot be read"):
        cases_from_msd(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ProjectError, match="is damaged, it is no JSON"):
        cases_from_nnunet(tmp_path)


def nnunet_with_ignored(folder: Path, **dataset: Any) -> Path:
    """Write an nnU-Net data set of two cases; in `b`, some voxels were looked at by nobody."""
    for name, value in (("a", 1), ("b", 3)):
        write_case(
            folder / "imagesTr" / f"{name}_0000.nii.gz", folder / "labelsTr" / f"{name}.nii.gz",
            value=value,
        )  # fmt: skip
    labels = {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}
    values = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", **dataset}
    (folder / "dataset.json").write_text(json.dumps(values))
    return folder


def test_slices_with_voxels_that_nobody_looked_at_are_not_complete(tmp_path: Path) -> None:
    cases = cases_from_nnunet(nnunet_with_ignored(tmp_path / "raw"))
    targets = targets_from_dataset(tmp_path / "raw")
    made = create_project(tmp_path / "p", cases, targets)
    assert made.case("a").complete_slices is None
    looked_at = read_labelmap(tmp_path / "raw" / "labelsTr" / "b.nii.gz").labels != 3
    complete = np.flatnonzero(looked_at.all(axis=(1, 2)))
    assert made.case("b").complete_slices == tuple(complete.tolist())
    assert 0 < len(complete) < len(looked_at)


def test_an_nnunet_data_set_that_lists_its_files_is_read(tmp_path: Path) -> None:
    listed = {"x": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    raw = nnunet_with_ignored(tmp_path / "raw", dataset=listed)
    assert is_nnunet(raw)
    assert names(cases_from_nnunet(raw)) == [("x", "a_0000.nii.gz", "a.nii.gz")]
    for entry in ({"images": []}, {"images": ["a"], "label": ""}, "a"):
        nnunet_with_ignored(tmp_path / "raw", dataset={"x": entry})
        with pytest.raises(ProjectError, match="'x', which needs one image and one label"):
            cases_from_nnunet(raw)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param({"0": "background", "1": "liver"}, [("liver", 1, None)], id="Decathlon"),
        pytest.param(
            {"background": 0, "liver": 1, "tumour": 2, "ignore": 3},
            [("liver", 1, None), ("tumour", 2, None)],
            id="nnU-Net",
        ),
        pytest.param(
            {"background": 0, "liver": [1, 2, 3], "tumour": [2, 3], "core": [3]},
            [("liver", 1, None), ("tumour", 2, "liver"), ("core", 3, "tumour")],
            id="regions of nnU-Net",
        ),
    ],
)
def test_targets_are_read_from_a_dataset_file(
    tmp_path: Path, labels: dict[str, Any], expected: list[Any]
) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    found = targets_from_dataset(tmp_path / "dataset.json")
    assert [(target.name, target.value, target.inside) for target in found] == expected


@pytest.mark.parametrize(
    "labels",
    [["liver"], {"liver": "x"}, {"liver": [1, 2]}, {"liver": 300}, {"liver": None}],
)
def test_labels_that_are_no_targets_are_told(tmp_path: Path, labels: Any) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(ProjectError, match="name the targets yourself"):
        targets_from_dataset(tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param({"channel_names": {"0": "T1", "1": "T2"}}, "2 channels", id="channels"),
        pytest.param({"file_ending": ".png"}, "files end in '.png'", id="pictures"),
        pytest.param({"file_ending": ".nii.gz"}, "holds no image that ends in", id="empty"),
    ],
)
def test_an_nnunet_data_set_that_cannot_be_used_is_told(
    tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    with pytest.raises(ProjectError, match=words):
        cases_from_nnunet(tmp_path)


def test_an_nnunet_image_without_label_map_is_told(tmp_path: Path) -> None:
    write_case(tmp_path / "imagesTr" / "a_0000.nii.gz")
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(ProjectError, match=r"labelsTr.a\.nii\.gz does not exist"):
        cases_from_nnunet(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("imagesTr/a_0001.nii.gz", "is of another channel, though"),
        ("imagesTs/c_0001.nii.gz", "is of another channel, though"),
        ("imagesTr/c.nii.gz", r"does not end in _0000\.nii\.gz, though"),
        ("imagesTs/c_0000.nrrd", r"does not end in _0000\.nii\.gz, though"),
    ],
)
def test_no_image_of_an_nnunet_data_set_is_passed_over(
    tmp_path: Path, name: str, words: str
) -> None:
    raw = nnunet_with_ignored(tmp_path / "raw")
    touch(raw, "imagesTr/notes.txt", "imagesTr/._a_0001.nii.gz")
    assert len(find_cases(raw).cases) == 2
    touch(raw, name)
    with pytest.raises(ProjectError, match=f"{Path(name).name} {words}"):
        find_cases(raw)


@pytest.mark.shared
def test_the_real_folders_are_paired(shared_folder: Path) -> None:
    data = shared_folder / "data"
    lits = cases_from_folder(data / "lits")
    assert len(lits) == 22
    assert all(case.label is not None for case in lits)
    assert lits[0].id == "volume-0"
    assert len(cases_from_folder(data / "hippocampus" / "images", data / "hippocampus" / "labels"))
    assert all(case.label is not None for case in cases_from_folder(data / "left_atrium"))


@pytest.mark.shared
def test_real_cases_become_a_project(shared_folder: Path, tmp_path: Path) -> None:
    cases = [case for case in cases_from_folder(shared_folder / "data" / "lits") if "-4" in case.id]
    chosen = select_cases(cases[:3], labelled=["volume-4"])
    project = create_project(tmp_path / "project", chosen, LIVER_TARGETS)
    assert [case.id for case in project.labelled] == ["volume-4"]
    assert set(np.unique(project.load_labels(project.labelled[0]).labels)) == {0, 1, 2}
