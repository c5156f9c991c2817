"""The label maps of a project are written with their origin and what they measure."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aslseg.data.images import read_labelmap, read_volume, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import AslsegError, CancelledError, ImageError, ProjectError, StorageError
from aslseg.events import CancelToken, Event, Monitor, Progress
from aslseg.export.labels import labels_of
from aslseg.export.origin import FilesThereError, read_origin
from aslseg.export.project import ExportOptions, export_project
from aslseg.project.complete_slices import mark_slice_complete
from aslseg.project.create import create_project, select_cases
from aslseg.project.datasets import cases_from_folder, cases_from_nnunet, targets_from_dataset
from aslseg.project.edit import remove_cases, rename_case
from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion
from aslseg.project.project import Project, open_project
from aslseg.project.review import accept, correct, draw, reject
from aslseg.project.run_folder import RunFolder
from aslseg.storage import sha256_of, write_text_atomic
from aslseg.targets import Target
from support.synthetic_run import a_finished_run

GEOMETRY = Geometry.axis_aligned((3, 4, 5), (3.0, 1.5, 1.0))
NNUNET = ExportOptions(format="nnunet")
ALL = ExportOptions(labels="all")


def write_case(image: Path, label: Path | None = None, *, value: int = 1) -> None:
    seed = sum(image.as_posix().encode())
    voxels = np.random.default_rng(seed).integers(-100, 200, GEOMETRY.shape).astype(np.int16)
    write_volume(Volume(voxels, GEOMETRY), image)
    if label is not None:
        write_labelmap(block(value), label)


def block(value: int) -> Labelmap:
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[1, 1:3, 1:3] = value
    return Labelmap(labels, GEOMETRY)


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@pytest.fixture
def a_project(tmp_path: Path) -> Path:
    """Cases a and v with label maps, b without, t for the end with one; targets 1 and 5."""
    images = tmp_path / "images"
    for name, suffix in (("a", ".nii.gz"), ("b", ".nrrd"), ("t", ".nii.gz"), ("v", ".nii.gz")):
        label = images / f"{name}-label.nii.gz" if name != "b" else None
        write_case(images / f"{name}{suffix}", label, value=5 if name == "a" else 1)
    targets = (Target(name="liver", value=1), Target(name="tumour", value=5, inside="liver"))
    cases = select_cases(cases_from_folder(images), validation=["v"], test=["t"])
    create_project(tmp_path / "project", cases, targets)
    return tmp_path / "project"


def test_a_project_becomes_an_nnunet_data_set(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    folder = tmp_path / "nnUNet_raw" / "Dataset001_Liver"
    done = export_project(project, folder, NNUNET)
    assert done.label_maps == {"given": 3}
    assert done.notes == (
        "Without a label map of those asked for: b.",
        "Measured, but not written, for nnU-Net does not train on them: t.",
    )
    found = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert found == [
        "cases.csv",
        "dataset.json",
        "imagesTr/a_0000.nii.gz",
        "imagesTr/v_0000.nii.gz",
        "imagesTs/b_0000.nii.gz",
        "imagesTs/t_0000.nii.gz",
        "labelsTr/a.nii.gz",
        "labelsTr/v.nii.gz",
        "lesions.csv",
        "origin.json",
    ]
    assert json.loads((folder / "dataset.json").read_text(encoding="utf-8")) == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    labels = read_labelmap(folder / "labelsTr" / "a.nii.gz")
    assert set(np.unique(labels.labels)) == {0, 2}  # consecutive: 5 became 2
    for case in project.cases:
        image = next(folder.glob(f"images*/{case.id}_0000.nii.gz"))
        np.testing.assert_array_equal(read_volume(image).voxels, project.load_image(case).voxels)
        assert read_volume(image).geometry.matches(project.load_image(case).geometry)


@pytest.mark.parametrize("name", ["background", "ignore"])
def test_a_target_that_is_called_as_nnunet_calls_what_is_none_is_refused(
    tmp_path: Path, name: str
) -> None:
    write_case(tmp_path / "a.nii.gz", tmp_path / "a-label.nii.gz")
    targets = (Target(name=name, value=1),)
    project = create_project(tmp_path / "project", cases_from_folder(tmp_path), targets)
    with pytest.raises(ProjectError, match=f"nnU-Net keeps the name '{name}'"):
        export_project(project, tmp_path / "out", NNUNET)
    assert not (tmp_path / "out").exists()


def test_targets_that_differ_in_a_space_alone_have_columns_of_their_own(tmp_path: Path) -> None:
    write_case(tmp_path / "a.nii.gz", tmp_path / "a-label.nii.gz")
    targets = (Target(name="left kidney", value=1), Target(name="left_kidney", value=2))
    project = create_project(tmp_path / "project", cases_from_folder(tmp_path), targets)
    export_project(project, tmp_path / "out", ExportOptions(format="tables"))
    row = rows(tmp_path / "out" / "cases.csv")["a"]
    assert (row["left kidney_ml"], row["left_kidney_ml"]) == ("0.02", "0.00")
    assert (row["left kidney_lesions"], row["left_kidney_lesions"]) == ("1", "0")


def test_images_without_values_below_zero_are_no_ct_to_nnunet(tmp_path: Path) -> None:
    images = tmp_path / "mri"
    voxels = np.full(GEOMETRY.shape, 300, np.int16)
    write_volume(Volume(voxels, GEOMETRY), images / "a.nii.gz")
    write_labelmap(block(1), images / "a-label.nii.gz")
    targets = (Target(name="atrium", value=1),)
    project = create_project(tmp_path / "project", cases_from_folder(images), targets)
    done = export_project(project, tmp_path / "out", NNUNET)
    described = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert described["channel_names"] == {"0": "image"}
    assert done.notes == (
        "Images have no values below 0, so nnU-Net is not told that they are CT.",
    )


def test_the_predictions_of_a_run_are_listed_once(
    a_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_run(open_project(a_project), "b")
    folder = run.predictions(run.best_round, "b").parent
    listed: list[Path] = []

    def iterdir(path: Path, iterdir: Any = Path.iterdir) -> Iterator[Path]:
        listed.append(path)
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = labels_of(open_project(a_project), "all", [run])
    assert {one.case.id for one in found if one.made_by == "ai"} == {"b"}
    assert listed.count(folder) == 2  # the other time for the volumes of its lesions


def test_a_run_that_is_named_in_vain_is_told(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    a_finished_run(project.folder / "runs" / "a")
    done = export_project(project, tmp_path / "out", ExportOptions(run="a"))
    assert "Nothing of run 'a' is taken: predictions were not asked for." in done.notes


def test_a_label_map_that_is_replaced_while_exporting_is_the_one_of_before(
    tmp_path: Path, a_project: Path
) -> None:
    project = open_project(a_project)
    later = Labelmap(np.full(GEOMETRY.shape, 1, np.uint8), GEOMETRY)

    def draw_at_once(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 0:
            draw(project, "v", later)

    done = export_project(project, tmp_path / "out", monitor=Monitor(draw_at_once))
    assert done.label_maps == {"given": 3}
    assert (read_labelmap(tmp_path / "out" / "v.nii.gz").labels > 0).sum() == 4
    again = export_project(project, tmp_path / "out")
    assert again.label_maps == {"drawn": 1, "given": 2}
    assert (read_labelmap(tmp_path / "out" / "v.nii.gz").labels > 0).all()


def test_a_label_map_that_is_gone_is_told(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    project.label_path(project.case("a")).unlink()
    with pytest.raises(ImageError, match="does not exist"):
        export_project(project, tmp_path / "out", NNUNET)
    assert not (tmp_path / "out").exists()


def test_an_exported_data_set_comes_back_as_a_project(tmp_path: Path, a_project: Path) -> None:
    raw = export_project(open_project(a_project), tmp_path / "Dataset001_Liver", NNUNET).folder
    cases = cases_from_nnunet(raw)
    assert [(case.id, case.split, case.label is not None) for case in cases] == [
        ("a", "train", True),
        ("v", "train", True),
        ("b", "test", False),
        ("t", "test", False),
    ]
    project = create_project(tmp_path / "again", cases, targets_from_dataset(raw))
    assert len(project.labelled) == 2


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        pytest.param("image", ProjectError, "its content has changed", id="image damaged"),
        pytest.param("label", ImageError, "does not exist", id="label lost"),
        pytest.param("taken", FilesThereError, "is there already, and not as", id="file taken"),
        pytest.param("case", ProjectError, "no case 'z'", id="unknown case"),
    ],
)
def test_an_export_is_whole_or_absent(
    tmp_path: Path, a_project: Path, spoil: str, error: type[AslsegError], words: str
) -> None:
    project = open_project(a_project)
    if spoil == "image":
        path = project.image_path(project.case("b"))
        path.write_bytes(path.read_bytes()[:-30])
    if spoil == "label":
        project.label_path(project.case("v")).unlink()
    if spoil == "taken":
        write_text_atomic(tmp_path / "out" / "dataset.json", "mine")
    cases = ("a", "z") if spoil == "case" else None
    with pytest.raises(error, match=words):
        export_project(project, tmp_path / "out", ExportOptions(format="nnunet", cases=cases))
    left = [path.name for path in tmp_path.glob("out/*")] + [p.name for p in tmp_path.glob(".*")]
    assert left == (["dataset.json"] if spoil == "taken" else [])


def test_a_project_without_label_maps_has_nothing_to_export(tmp_path: Path) -> None:
    write_case(tmp_path / "i" / "a.nii.gz")
    project = create_project(tmp_path / "project", cases_from_folder(tmp_path / "i"))
    with pytest.raises(ProjectError, match="no label map to export"):
        export_project(project, tmp_path / "out")


def with_run(project: Project, *cases: str) -> RunFolder:
    """Write a run that predicted some cases: 4 voxels of tumour, 2 of them in doubt."""
    run = a_finished_run(project.folder / "runs" / "first", best_round=2)
    doubtful = np.zeros(GEOMETRY.shape, np.uint8)
    doubtful[1, 1, 1:3] = 5
    for case in cases:
        write_labelmap(block(5), run.predictions(2, case) / "refined.nii.gz")
        write_labelmap(Labelmap(doubtful, GEOMETRY), run.predictions(2, case) / "doubtful.nii.gz")
    return run


def test_label_maps_come_with_their_origin(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    run = with_run(project, "b", "t")
    project = correct(project, "v", block(1), run)
    done = export_project(project, tmp_path / "out", ALL)
    assert done.label_maps == {"given": 2, "corrected": 1, "ai": 1}
    origin = read_origin(tmp_path / "out")
    assert origin is not None
    by_person, by_ai = origin.cases["v"], origin.cases["b"]
    assert (by_person.made_by, by_person.run, by_person.round) == ("corrected", "first", 2)
    assert by_person.decided
    assert (by_ai.made_by, by_ai.run, by_ai.round, by_ai.decided) == ("ai", "first", 2, "")
    assert by_ai.image_sha256 == sha256_of(project.image_path(project.case("b")))
    assert by_ai.label_sha256 == sha256_of(run.predictions(2, "b") / "refined.nii.gz")
    assert by_ai.files == ("b.nii.gz",)
    assert set(origin.files) == {
        "a.nii.gz", "b.nii.gz", "t.nii.gz", "v.nii.gz", "cases.csv", "lesions.csv",
    }  # fmt: skip
    for name, digest in origin.files.items():
        assert sha256_of(tmp_path / "out" / name) == digest
    assert origin.runs["first"].method == "aslseg"
    assert origin.runs["first"].settings["rounds"] == run.config.rounds
    np.testing.assert_array_equal(
        read_labelmap(tmp_path / "out" / "b.nii.gz").labels, block(5).labels
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param("human", {"a": "given", "t": "given", "v": "given"}, id="human"),
        pytest.param(
            "accepted", {"a": "given", "b": "accepted", "t": "given", "v": "given"}, id="accepted"
        ),
        pytest.param(
            "all",
            {"a": "given", "b": "accepted", "c": "ai", "t": "given", "v": "given"},
            id="all",
        ),
    ],
)
def test_whose_label_maps_are_taken(tmp_path: Path, labels: str, expected: dict[str, str]) -> None:
    for name in "abctv":
        label = tmp_path / "images" / f"{name}-label.nii.gz" if name in "atv" else None
        write_case(tmp_path / "images" / f"{name}.nii.gz", label)
    targets = (Target(name="liver", value=1), Target(name="tumour", value=5, inside="liver"))
    cases = select_cases(cases_from_folder(tmp_path / "images"), validation=["v"], test=["t"])
    project = create_project(tmp_path / "project", cases, targets)
    project = accept(project, with_run(project, "b", "c"), "b")
    export_project(project, tmp_path / "out", ExportOptions(labels=labels))
    origin = read_origin(tmp_path / "out")
    assert origin is not None
    assert {name: case.made_by for name, case in origin.cases.items()} == expected


def test_a_prediction_is_exported_as_its_lesions_were_decided(
    tmp_path: Path, a_project: Path
) -> None:
    project = open_project(a_project)
    run = with_run(project, "b")
    refined = read_labelmap(run.predictions(run.best_round, "b") / "refined.nii.gz").labels
    gone = LesionDecision("deleted", "tumour", boxed(refined == 5), None)
    put_lesion(project, "b", gone)
    export_project(project, tmp_path / "out", ALL)
    labels = read_labelmap(tmp_path / "out" / "b.nii.gz").labels
    np.testing.assert_array_equal(labels, np.where(refined == 5, 1, refined))
    assert "b" not in rows(tmp_path / "out" / "lesions.csv")


def test_a_rejected_prediction_stays_here_and_is_told(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    project = reject(project, "b", with_run(project, "b"))
    done = export_project(project, tmp_path / "out", ALL)
    assert done.notes == ("Left out, for their predictions were rejected: b.",)
    assert not (tmp_path / "out" / "b.nii.gz").exists()


def test_all_without_a_run_says_so(tmp_path: Path, a_project: Path) -> None:
    done = export_project(open_project(a_project), tmp_path / "out", ALL)
    assert done.notes[0] == "No run has a finished round, so there are no predictions."


def test_doubtful_voxels_of_predictions_are_ignored_by_nnunet(
    tmp_path: Path, a_project: Path
) -> None:
    project = open_project(a_project)
    with_run(project, "b", "t")
    folder = tmp_path / "Dataset001_Liver"
    export_project(project, folder, ExportOptions(format="nnunet", labels="all"))
    labels = read_labelmap(folder / "labelsTr" / "b.nii.gz").labels
    assert labels[1, 1, 1:3].tolist() == [3, 3]
    assert labels[1, 2, 1:3].tolist() == [2, 2]
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {
        "background": 0, "liver": 1, "tumour": 2, "ignore": 3,
    }  # fmt: skip
    origin = read_origin(folder)
    assert origin is not None
    assert (origin.cases["b"].made_by, origin.cases["b"].ignored_voxels) == ("ai", 2)
    assert (origin.cases["a"].made_by, origin.cases["a"].ignored_voxels) == ("given", 0)


def test_of_unknown_targets_nothing_is_said(
    tmp_path: Path, a_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Project, "unknown_targets", lambda _, case: frozenset({"tumour"} if case.id == "v" else ())
    )
    project = open_project(a_project)
    export_project(project, tmp_path / "raw", NNUNET)
    labels = read_labelmap(tmp_path / "raw" / "labelsTr" / "v.nii.gz").labels
    assert (labels == 3).sum() == 4  # its liver may be tumour
    assert (labels[0] == 0).all()
    row = rows(tmp_path / "raw" / "cases.csv")["v"]
    assert (row["liver_ml"], row["tumour_ml"], row["tumour_lesions"]) == ("0.02", "", "")
    origin = read_origin(tmp_path / "raw")
    assert origin is not None
    assert origin.cases["v"].unknown_targets == ("tumour",)
    assert (origin.cases["v"].ignored_voxels, origin.cases["a"].ignored_voxels) == (4, 0)


def test_nnunet_validates_on_no_prediction(tmp_path: Path) -> None:
    for name in "av":
        write_case(tmp_path / "images" / f"{name}.nii.gz")
    write_labelmap(block(1), tmp_path / "images" / "a-label.nii.gz")
    cases = select_cases(cases_from_folder(tmp_path / "images"), validation=["v"])
    project = create_project(tmp_path / "project", cases)
    run = with_run(project)
    write_labelmap(block(2), run.predictions(2, "v") / "refined.nii.gz")
    folder = tmp_path / "Dataset001"
    done = export_project(project, folder, ExportOptions(format="nnunet", labels="all"))
    assert sorted(path.name for path in (folder / "labelsTr").iterdir()) == ["a.nii.gz"]
    assert (folder / "imagesTs" / "v_0000.nii.gz").exists()
    assert done.notes[-1].endswith("nnU-Net does not train on them: v.")


def test_cases_and_lesions_are_measured(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    export_project(project, tmp_path / "out", ExportOptions(format="tables"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cases.csv", "lesions.csv", "origin.json",
    ]  # fmt: skip
    cases = rows(tmp_path / "out" / "cases.csv")
    assert list(cases) == ["a", "b", "t", "v"]
    # 4 voxels of 3 x 1.5 x 1 mm, all of them tumour
    assert cases["a"]["liver_ml"] == cases["a"]["tumour_ml"] == "0.02"
    assert cases["a"]["tumour_percent_of_liver"] == "100.00"
    assert (cases["a"]["tumour_lesions"], cases["v"]["tumour_lesions"]) == ("1", "0")
    assert (cases["v"]["split"], cases["v"]["state"]) == ("validation", "labelled")
    assert (cases["b"]["made_by"], cases["b"]["liver_ml"]) == ("", "")
    (lesion,) = rows(tmp_path / "out" / "lesions.csv").values()
    voxels = project.load_image(project.case("a")).voxels[1, 1:3, 1:3]
    assert lesion["volume_ml"] == "0.018"
    assert lesion["mean_hu"] == f"{voxels.mean():.1f}"
    # centres at the corners of 1.5 x 1 mm; a voxel reaches as far in that direction
    assert lesion["axial_long_mm"] == f"{2 * np.hypot(1.5, 1):.1f}"
    assert (lesion["r_mm"], lesion["a_mm"], lesion["s_mm"]) == ("-1.5", "-2.2", "3.0")
    assert lesion["made_by"] == "given"


def test_a_persons_decision_stands_beside_its_lesion(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    labels = block(1).labels
    labels[0, 0, 0] = 5
    labels[2, 2:4, 3:5] = 5
    project = draw(project, "v", Labelmap(labels, GEOMETRY))
    lesion = boxed(labels == 5)
    small = np.zeros(GEOMETRY.shape, bool)
    small[0, 0, 0] = True
    assert lesion is not None
    put_lesion(project, "v", LesionDecision("edited", "tumour", lesion, lesion))
    put_lesion(project, "v", LesionDecision("added", "tumour", None, boxed(small)))
    put_lesion(project, "v", LesionDecision("deleted", "tumour", boxed(small), None))
    export_project(project, tmp_path / "out", ExportOptions(cases=("v", "a")))
    with (tmp_path / "out" / "lesions.csv").open(newline="", encoding="utf-8") as file:
        decided = [(row["case"], row["number"], row["decision"]) for row in csv.DictReader(file)]
    assert decided == [("a", "1", ""), ("v", "1", "edited"), ("v", "2", "added")]


def test_chosen_cases_are_added_to_an_earlier_export(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    export_project(project, tmp_path / "out", ExportOptions(cases=("a",)))
    export_project(project, tmp_path / "out", ExportOptions(cases=("v",)))
    origin = read_origin(tmp_path / "out")
    assert origin is not None
    assert sorted(origin.cases) == ["a", "v"]
    assert set(origin.files) == {"a.nii.gz", "v.nii.gz", "cases.csv", "lesions.csv"}
    assert sorted(rows(tmp_path / "out" / "cases.csv")) == ["a", "v"]
    assert list(rows(tmp_path / "out" / "lesions.csv")) == ["a"]


def test_cases_of_an_earlier_export_that_have_left_the_project_are_told(
    tmp_path: Path, a_project: Path
) -> None:
    project = open_project(a_project)
    assert export_project(project, tmp_path / "out").notes[1:] == ()
    rename_case(project, "a", "anna")
    remove_cases(project, ["v"])
    done = export_project(open_project(a_project), tmp_path / "out")
    assert done.notes[-1].endswith(
        "no case of the name now: a, v. If they were renamed or removed, export to a new folder."
    )
    assert {"a", "anna", "v"} <= rows(tmp_path / "out" / "cases.csv").keys()


def test_a_prediction_that_is_not_asked_for_any_more_is_removed(
    tmp_path: Path, a_project: Path
) -> None:
    project, out = open_project(a_project), tmp_path / "out"
    with_run(project, "b")
    export_project(project, out, ALL)
    assert (out / "b.nii.gz").exists()
    done = export_project(project, out, ExportOptions(labels="human"))
    assert not (out / "b.nii.gz").exists()
    origin = read_origin(out)
    assert origin is not None
    assert "b" not in origin.cases
    assert any("Removed" in note and "b.nii.gz" in note for note in done.notes)
    export_project(project, out, ALL)  # which was refused for the file that was left
    assert (out / "b.nii.gz").exists()


def test_a_prediction_that_was_rejected_since_is_removed(tmp_path: Path, a_project: Path) -> None:
    project, out = open_project(a_project), tmp_path / "out"
    run = with_run(project, "b")
    export_project(project, out, ALL)
    done = export_project(reject(project, "b", run), out, ALL)
    assert not (out / "b.nii.gz").exists()
    assert any("Removed" in note and "b.nii.gz" in note for note in done.notes)


def test_a_prediction_that_a_person_changed_since_stays_and_is_told(
    tmp_path: Path, a_project: Path
) -> None:
    project, out = open_project(a_project), tmp_path / "out"
    with_run(project, "b")
    export_project(project, out, ALL)
    write_labelmap(block(2), out / "b.nii.gz")
    mine = sha256_of(out / "b.nii.gz")
    done = export_project(project, out)
    assert sha256_of(out / "b.nii.gz") == mine
    assert any("Kept" in note and "b.nii.gz" in note for note in done.notes)
    assert not any("Removed" in note for note in done.notes)


def test_an_nnunet_data_set_is_replaced_as_a_whole(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    export_project(project, tmp_path / "out", NNUNET)
    write_text_atomic(tmp_path / "out" / "mine.txt", "mine")
    export_project(project, tmp_path / "out", ExportOptions(format="nnunet", cases=("a",)))
    assert not (tmp_path / "out" / "labelsTr" / "v.nii.gz").exists()
    assert not (tmp_path / "out" / "imagesTs" / "b_0000.nii.gz").exists()
    assert (tmp_path / "out" / "labelsTr" / "a.nii.gz").exists()
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_file_that_was_changed_since_is_not_written_over_unasked(
    tmp_path: Path, a_project: Path
) -> None:
    project = open_project(a_project)
    export_project(project, tmp_path / "out")
    export_project(project, tmp_path / "out")  # its own files may be replaced
    write_labelmap(block(2), tmp_path / "out" / "a.nii.gz")
    mine = sha256_of(tmp_path / "out" / "a.nii.gz")
    with pytest.raises(FilesThereError, match=r"a\.nii\.gz is there already"):
        export_project(project, tmp_path / "out")
    assert sha256_of(tmp_path / "out" / "a.nii.gz") == mine
    export_project(project, tmp_path / "out", ExportOptions(replace=True))
    assert sha256_of(tmp_path / "out" / "a.nii.gz") != mine


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("images", r"a\.nii\.gz is the image of case a, which is never replaced"),
        ("project", "is where the project keeps its own files"),
        ("project/labels", "is where the project keeps its own files"),
        ("project/runs/first/labels", "is where the project keeps its own files"),
    ],
)
def test_no_image_or_label_map_of_the_project_is_written_over(
    tmp_path: Path, a_project: Path, folder: str, reason: str, *, replace: bool
) -> None:
    kept = [path for path in tmp_path.rglob("*.*") if path.is_file()]
    before = [path.read_bytes() for path in kept]
    with pytest.raises(StorageError, match=reason):
        export_project(open_project(a_project), tmp_path / folder, ExportOptions(replace=replace))
    assert [path.read_bytes() for path in kept] == before


def test_an_image_under_another_name_is_not_written_over(tmp_path: Path, a_project: Path) -> None:
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    with pytest.raises(StorageError, match="is the image of case a"):
        export_project(open_project(a_project), tmp_path / "linked", ExportOptions(replace=True))


def test_a_link_leads_to_the_folder_that_is_written(tmp_path: Path, a_project: Path) -> None:
    (tmp_path / "disk" / "labels").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "labels")
    for options in (ExportOptions(cases=("a",)), ExportOptions()):
        export_project(open_project(a_project), tmp_path / "out", options)
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "labels" / "v.nii.gz").exists()
    assert not [path for path in tmp_path.rglob(".aslseg-*") if path.is_dir()]


def a_liver_project(folder: Path, case_id: str, targets: tuple[Target, ...]) -> Project:
    """One case of an image that no other folder has."""
    write_case(folder / f"{case_id}.nii.gz", folder / f"{case_id}-label.nii.gz")
    return create_project(folder / "project", cases_from_folder(folder), targets)


LIVER_1 = (Target(name="liver", value=1), Target(name="tumour", value=2, inside="liver"))


@pytest.mark.parametrize("name", ["a", "d"])
@pytest.mark.parametrize(
    "targets",
    [
        pytest.param(
            (Target(name="liver", value=2), Target(name="tumour", value=1, inside="liver")),
            id="values",
        ),
        pytest.param((Target(name="kidney", value=1),), id="names"),
        pytest.param((Target(name="liver", value=1), Target(name="tumour", value=2)), id="parents"),
    ],
)
@pytest.mark.parametrize("options", [ExportOptions(replace=True), ExportOptions(format="tables")])
def test_a_folder_gives_values_one_meaning(
    tmp_path: Path, name: str, targets: tuple[Target, ...], options: ExportOptions
) -> None:
    export_project(a_liver_project(tmp_path / "one", "a", LIVER_1), tmp_path / "out", options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    other = a_liver_project(tmp_path / "two", name, targets)
    with pytest.raises(StorageError, match=r"other targets \(liver=1, tumour=2:liver\); choose"):
        export_project(other, tmp_path / "out", options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_label_map_of_another_image_is_not_written_over_unasked(tmp_path: Path) -> None:
    first, second, third = (
        a_liver_project(tmp_path / folder, case_id, LIVER_1)
        for folder, case_id in (("one", "a"), ("two", "a"), ("three", "c"))
    )
    export_project(first, tmp_path / "out")
    export_project(third, tmp_path / "out")  # other patients of the same targets are added
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {"a.nii.gz", "c.nii.gz"} <= set(before)
    with pytest.raises(FilesThereError, match=r"other images under the same names: a\. Choose"):
        export_project(second, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    export_project(second, tmp_path / "out", ExportOptions(replace=True))
    origin = read_origin(tmp_path / "out")
    assert origin is not None
    digests = {name: case.image_sha256 for name, case in origin.cases.items()}
    kept = {"a": second.case("a").image_sha256, "c": third.case("c").image_sha256}
    assert digests == kept


def test_a_data_set_of_another_project_is_not_replaced_unasked(tmp_path: Path) -> None:
    first = a_liver_project(tmp_path / "one", "a", LIVER_1)
    second = a_liver_project(tmp_path / "two", "c", LIVER_1)
    export_project(first, tmp_path / "out", NNUNET)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with pytest.raises(FilesThereError, match=r"does not have, .* deleted: a\. Choose another"):
        export_project(second, tmp_path / "out", NNUNET)
    for path, content in before.items():
        assert path.read_bytes() == content
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == len(before)
    export_project(second, tmp_path / "out", ExportOptions(format="nnunet", replace=True))
    assert [path.name for path in (tmp_path / "out" / "labelsTr").iterdir()] == ["c.nii.gz"]


def test_a_data_set_of_cases_that_were_renamed_is_the_projects(tmp_path: Path) -> None:
    project = a_liver_project(tmp_path / "one", "a", LIVER_1)
    export_project(project, tmp_path / "out", NNUNET)
    export_project(rename_case(project, "a", "b"), tmp_path / "out", NNUNET)
    assert [path.name for path in (tmp_path / "out" / "labelsTr").iterdir()] == ["b.nii.gz"]


def test_another_format_needs_another_folder(tmp_path: Path, a_project: Path) -> None:
    project = open_project(a_project)
    export_project(project, tmp_path / "out")
    with pytest.raises(StorageError, match="exported as nifti; choose another folder for nnunet"):
        export_project(project, tmp_path / "out", NNUNET)


def test_a_cancelled_export_leaves_nothing(tmp_path: Path, a_project: Path) -> None:
    token = CancelToken()

    def cancel_after_one(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 1:
            token.cancel()

    monitor = Monitor(cancel_after_one, token, interval_s=0.0)
    with pytest.raises(CancelledError):
        export_project(open_project(a_project), tmp_path / "out", monitor=monitor)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".aslseg-*"))


def test_measurements_of_label_maps_with_incomplete_slices_are_told(
    tmp_path: Path, a_project: Path
) -> None:
    project = mark_slice_complete(open_project(a_project), "a", 1)
    options = ExportOptions("tables", cases=("a", "v"))
    done = export_project(project, tmp_path / "tables", options)
    assert done.notes == ("Measured though some slices are not complete: a.",)
    found = read_origin(tmp_path / "tables")
    assert found is not None
    assert {name: one.complete_slices for name, one in found.cases.items()} == {
        "a": (1,),
        "v": None,
    }
