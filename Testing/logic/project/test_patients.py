"""Cases belong to patients, and no patient is on two sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import SimpleITK as sitk  # noqa: N813

from aslseg.data.dicom import patient_id_of
from aslseg.data.images import read_volume, write_volume
from aslseg.errors import ProjectError
from aslseg.events import Event, Monitor, Notice
from aslseg.project.case import PROJECT_FILE, CaseFiles
from aslseg.project.create import add_cases, create_project, select_cases
from aslseg.project.patients import (
    hashed_patient,
    with_dicom_patients,
    with_patients,
)
from aslseg.project.project import Project, open_project
from aslseg.project.roles import assign, volumes_of_same_patient
from support.command_line import aslseg
from support.dicom_slices import write_slice
from support.tiny_project import a_patient, write_patients

ISSUER = "0010|0021"


def test_a_label_that_was_accepted_is_nothing_to_check_by(project: Project) -> None:
    project.save_label("c3", a_patient(3)[1], status="accepted")
    before = open_project(project.folder)
    for split in ("validation", "test"):
        with pytest.raises(ProjectError, match="c3 was accepted as a network made it"):
            assign(project, splits={"c3": split})
    assert open_project(project.folder) == before
    project.save_label("c3", a_patient(3)[1])
    assert assign(project, splits={"c3": "test"}).case("c3").split == "test"


@pytest.fixture
def files(tmp_path: Path) -> list[CaseFiles]:
    return write_patients(tmp_path / "data")


@pytest.fixture
def project(tmp_path: Path, files: list[CaseFiles]) -> Project:
    """c0 and c2 are of patient p; c0 is labelled, c2 is not, c5 is for validation."""
    chosen = select_cases(files, labelled=["c0", "c1"], validation=["c5"])
    return create_project(tmp_path / "project", with_patients(chosen, {"c0": "p", "c2": "p"}))


def test_patients_whose_names_differ_in_case_alone_are_named(
    tmp_path: Path, files: list[CaseFiles]
) -> None:
    told: list[Event] = []
    named = with_patients(files[:3], {"c0": "Jos\u00e9", "c1": "jose\u0301", "c2": "Jose"})
    chosen = select_cases(named, labelled=["c0"], validation=["c1"])
    project = create_project(tmp_path / "project", chosen, monitor=Monitor(told.append))
    notes = [one.message for one in told if isinstance(one, Notice)]
    words = "(of c0) and 'jose\u0301' (of c1) count as two"
    assert [words in note for note in notes if "count as two" in note] == [True]
    shown = aslseg("patients", project.folder)
    assert (shown.exit_code, "count as two" in shown.output) == (0, True)
    one = aslseg("patients", project.folder, "--patient", "c1=Jos\u00e9", "--split", "c1=train")
    assert (one.exit_code, "count as two" in one.output) == (0, False)


def a_series(folder: Path, number: int, patient_id: str, issuer: str = "") -> Path:
    """Write a patient of `tiny_project` as DICOM slices."""
    folder.mkdir(parents=True)
    image = sitk.GetImageFromArray(a_patient(number)[0].voxels.round().astype("int16"))
    image.SetSpacing((2.0, 2.0, 4.0))
    for k in range(image.GetSize()[2]):
        part = image[:, :, k]
        tags = {
            "0010|0020": patient_id, ISSUER: issuer, "0008|0060": "CT", "0020|000d": "1.2.3",
            "0020|000e": f"1.2.{number + 4}", "0008|0018": f"1.2.{number + 4}.{k + 1}",
            "0020|0032": f"0\\0\\{4 * k}", "0020|0037": "1\\0\\0\\0\\1\\0",
        }  # fmt: skip
        write_slice(folder / f"{k:03d}.dcm", part, tags)
    return folder


def warnings_of(project: Project, cases: list[CaseFiles]) -> list[str]:
    events: list[Event] = []
    add_cases(project, cases, Monitor(events.append))
    return [event.message for event in events if isinstance(event, Notice)]


def test_each_case_is_a_patient_of_its_own_unless_somebody_says_so(project: Project) -> None:
    patients = {case.id: case.patient for case in open_project(project.folder).cases}
    assert patients == {
        "c0": "p", "c1": "c1", "c2": "p", "c3": "c3", "c4": "c4", "c5": "c5", "c6": "c6",
    }  # fmt: skip


def test_cases_of_a_project_without_patients_are_of_their_own(project: Project) -> None:
    path = project.folder / PROJECT_FILE
    values = json.loads(path.read_text(encoding="utf-8"))
    for case in values["cases"]:
        del case["patient"]
    del values["patient_salt"]
    path.write_text(json.dumps(values), encoding="utf-8")
    assert [case.patient for case in open_project(project.folder).cases] == [
        f"c{number}" for number in range(7)
    ]


@pytest.mark.parametrize(
    ("validation", "test"), [(["c1"], []), ([], ["c1"]), (["c0"], ["c1"])], ids=str
)
def test_a_patient_on_two_sides_is_refused_before_anything_is_read(
    tmp_path: Path, files: list[CaseFiles], validation: list[str], test: list[str]
) -> None:
    for case in files:
        case.image.write_bytes(b"")  # whoever reads it fails with another message
    chosen = select_cases(files, validation=validation, test=test)
    cases = with_patients(chosen, {"c0": "p", "c1": "p"})
    with pytest.raises(ProjectError, match=r"c0 .* and c1 .* of one patient \('p'\).*--patient"):
        create_project(tmp_path / "new", cases)
    assert not (tmp_path / "new").exists()


def test_a_case_of_a_patient_who_is_judged_by_is_not_added_for_training(
    project: Project, tmp_path: Path
) -> None:
    volume = write_patients(tmp_path / "more")[6]
    before = (project.folder / PROJECT_FILE).read_bytes()
    with pytest.raises(ProjectError, match=r"c5 \(check on\) and new \(learn from\)"):
        add_cases(project, [replace(volume, id="new", patient="c5")])
    assert (project.folder / PROJECT_FILE).read_bytes() == before


def test_the_part_of_a_patient_is_changed_for_all_volumes_or_none(project: Project) -> None:
    with pytest.raises(ProjectError, match=r"c0 \(check on\) and c2 \(learn from\)"):
        assign(project, splits={"c0": "validation"})
    assert [case.id for case in open_project(project.folder).validation] == ["c5"]
    both = volumes_of_same_patient(project, "c2")
    assert both == ("c0", "c2")
    changed = assign(project, splits=dict.fromkeys(both, "validation"))
    assert [case.id for case in changed.validation] == ["c0", "c2", "c5"]
    assert open_project(project.folder) == changed


def test_whose_a_volume_is_can_be_said_later(project: Project) -> None:
    with pytest.raises(ProjectError, match=r"c1 \(learn from\) and c5 \(check on\)"):
        assign(project, patients={"c5": "c1"})
    with pytest.raises(ProjectError, match="has no case 'c9'"):
        assign(project, patients={"c9": "c1"})
    with pytest.raises(ProjectError, match="Case c3 contradicts itself at 'patient'"):
        assign(project, patients={"c3": "../c1"})
    assert open_project(project.folder).case("c5").patient == "c5"
    changed = assign(project, patients={"c2": "c2", "c3": "c1"})
    assert [changed.case(name).patient for name in ("c0", "c2", "c3")] == ["p", "c2", "c1"]
    assert open_project(project.folder) == changed
    both = assign(project, patients={"c5": "c1"}, splits={"c5": "train"})
    assert [case.id for case in both.validation] == []


def test_the_name_of_another_case_stands_for_its_patient(
    project: Project, files: list[CaseFiles]
) -> None:
    changed = assign(project, patients={"c1": "c2"})
    assert changed.case("c1").patient == "p"
    own = assign(project, patients={"c2": "c2", "c3": "c2", "c4": "c4"})
    assert [own.case(name).patient for name in ("c2", "c3", "c4")] == ["c2", "c2", "c4"]
    cases = with_patients(files, {"c0": "c5", "c5": "q"}, "c([0-9])")
    assert [case.patient for case in cases][::5] == ["q", "q"]


def test_a_project_file_with_a_patient_on_two_sides_is_refused(project: Project) -> None:
    path = project.folder / PROJECT_FILE
    path.write_text(
        path.read_text(encoding="utf-8").replace('"patient": "c5"', '"patient": "p"'),
        encoding="utf-8",
    )
    with pytest.raises(ProjectError, match=r"contradicts itself: c0 \(learn from\) and c5"):
        open_project(project.folder)


def test_an_unlabelled_volume_of_a_labelled_patient_is_flagged(
    project: Project, tmp_path: Path
) -> None:
    write_volume(a_patient(9)[0], tmp_path / "third.nii.gz")
    third = CaseFiles("third", tmp_path / "third.nii.gz", patient="p")
    notes = warnings_of(project, [third])
    assert [note for note in notes if "same patient" in note] == [
        f"{name} has no label and is of the same patient as c0, which has one: it is trained on, "
        "but how well it is segmented says little of other patients."
        for name in ("c2", "third")
    ]


def test_patients_are_named_by_a_table_a_pattern_or_one_by_one(
    tmp_path: Path, files: list[CaseFiles], caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,sex,patient\nc0,f,9\nc1,m,\nc2,f,9\n", encoding="utf-8")
    by_table = with_patients(files, {"c3": "9"}, str(table))
    assert [case.patient for case in by_table] == ["9", None, "9", "9", None, None, None]
    assert "patients.csv names no patient of c1, c4, c5, c6: each counts as" in caplog.text
    caplog.clear()
    by_pattern = with_patients(files, {"c3": "own"}, "([cC])")
    assert [case.patient for case in by_pattern] == ["c", "c", "c", "own", "c", "c", "c"]
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("c", "has no group"),
        ("(", "is no regular expression"),
        ("c([0-4])", "finds no patient in the name c5"),
        ("unknown.csv", "There is no case 'c17'; choose among c0"),
        ("short.csv", "column 'patient' is missing"),
        ("absent.csv", "absent.csv"),
        ("semicolons.csv", "parted by a comma"),
        ("twice.csv", "gives case c1 to two patients, p1 and p2"),
    ],
)
def test_a_source_of_patients_that_cannot_be_is_refused(
    tmp_path: Path, files: list[CaseFiles], source: str, message: str
) -> None:
    (tmp_path / "unknown.csv").write_text("case,patient\nc17,9\n", encoding="utf-8")
    (tmp_path / "short.csv").write_text("case\nc1\n", encoding="utf-8")
    (tmp_path / "semicolons.csv").write_text("case;patient\nc1;9\n", encoding="utf-8")
    table = "case,patient\nc1,p1\nc1, p1 \nc1,p2\n"
    (tmp_path / "twice.csv").write_text(table, encoding="utf-8")
    given = str(tmp_path / source) if source.endswith(".csv") else source
    with pytest.raises(ProjectError, match=message):
        with_patients(files, source=given)


def test_series_of_one_patient_id_are_of_one_patient_now_and_later(tmp_path: Path) -> None:
    ids = {"a": "HOSPITAL-77", "b": "HOSPITAL-77", "c": "HOSPITAL-78", "d": "ANONYMOUS"}
    cases = [
        CaseFiles(name, a_series(tmp_path / "dicom" / name, number, patient_id))
        for number, (name, patient_id) in enumerate(ids.items())
    ]
    project = create_project(tmp_path / "project", cases[:1])
    project = add_cases(project, cases[1:])
    a, b, c, d = (case.patient for case in open_project(project.folder).cases)
    assert a == b != c
    assert d == "d"
    assert a.startswith("dicom-")
    assert "HOSPITAL" not in (project.folder / PROJECT_FILE).read_text(encoding="utf-8")
    other = create_project(tmp_path / "other", cases[:1])
    assert other.cases[0].patient != a  # another salt
    assert [case.patient for case in with_dicom_patients(cases)] == ["a", "a", "c", None]


def test_the_name_of_a_series_stands_for_its_patient_id(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    folders = {
        name: a_series(tmp_path / "dicom" / name, number, "HOSPITAL-77" if name in "ab" else "78")
        for number, name in enumerate(names)
    }
    cases = with_patients([CaseFiles(name, folders[name]) for name in names[:3]], {"c": "b"})
    project = create_project(tmp_path / "project", cases)
    project = add_cases(project, [CaseFiles("d", folders["d"], patient="a")])
    assert len({case.patient for case in project.cases}) == 1
    assert project.cases[0].patient.startswith("dicom-")
    assert [case.patient for case in with_dicom_patients(cases)] == ["a", "a", "a"]
    on_two_sides = [cases[1], replace(cases[2], split="test")]
    with pytest.raises(ProjectError, match=r"b \(learn from\) and c \(test at the end\)"):
        create_project(tmp_path / "other", on_two_sides)


def test_a_word_of_a_person_overrules_the_patient_id(tmp_path: Path) -> None:
    folder = a_series(tmp_path / "a", 0, "HOSPITAL-77")
    project = create_project(tmp_path / "project", [CaseFiles("a", folder, patient="mine")])
    assert project.case("a").patient == "mine"
    assert project.patient_salt is None


def test_series_of_a_patient_on_two_sides_are_refused_without_the_id(tmp_path: Path) -> None:
    first = CaseFiles("a", a_series(tmp_path / "a", 0, "HOSPITAL-77"))
    second = CaseFiles("b", a_series(tmp_path / "b", 1, "HOSPITAL-77"), split="test")
    with pytest.raises(ProjectError, match=r"a \(learn from\) and b \(test at the end\)") as caught:
        create_project(tmp_path / "project", [first, second])
    assert "HOSPITAL" not in str(caught.value)
    assert not (tmp_path / "project").exists()


def test_the_issuer_tells_two_hospitals_apart(tmp_path: Path) -> None:
    first = patient_id_of(a_series(tmp_path / "a", 0, "1", issuer="north"))
    second = patient_id_of(a_series(tmp_path / "b", 1, "1", issuer="south"))
    assert first is not None
    assert second is not None
    assert first != second
    assert read_volume(tmp_path / "a").voxels.shape == (12, 40, 40)


def test_a_hashed_id_depends_on_id_and_salt_alone() -> None:
    one, other = "0" * 32, "1" * 32
    assert hashed_patient("77", one) == hashed_patient("77", one)
    assert len({hashed_patient(*pair) for pair in [("77", one), ("78", one), ("77", other)]}) == 3
