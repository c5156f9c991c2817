"""Projects planned, and their cases changed, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aslseg.data.images import write_volume
from aslseg.project.project import open_project
from support.command_line import aslseg
from support.small_images import write_image, write_label
from support.tiny_project import a_patient, a_tiny_project


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write_image(tmp_path / "ct" / f"{name}.nii.gz")
    for name in ("a", "b", "z"):
        write_label(tmp_path / "seg" / f"{name}.nii.gz", 1)
    return tmp_path


def test_a_dry_run_says_what_is_wrong_and_writes_nothing(source: Path) -> None:
    words = ("init", source / "p", source / "ct", "--labels", source / "seg", "--dry-run")
    result = aslseg(*words)
    assert result.exit_code == 1
    assert "3 cases of 3 patients, 2 with a label map" in result.output
    assert "z.nii.gz belongs to no image" in result.output
    right = aslseg(*words, "--drop-unpaired", "--validation", "b")
    assert right.exit_code == 0, right.output
    assert "Nothing is wrong" in right.output
    assert "Targets: liver=1, tumour=2:liver." in right.output
    assert not (source / "p").exists()


def test_what_a_dry_run_refuses_is_refused_without_it_too(source: Path) -> None:
    words = ("init", source / "p", source / "ct", "--labels", source / "seg")
    result = aslseg(*words)
    assert result.exit_code == 1
    assert "z.nii.gz belongs to no image" in result.output
    assert not (source / "p").exists()
    assert aslseg(*words, "--drop-unpaired", "--leave-out", "c").exit_code == 0
    assert [case.id for case in open_project(source / "p").cases] == ["a", "b"]


@pytest.mark.parametrize("how", [("--dry-run",), ()])
def test_a_label_map_among_the_volumes_is_left_out_and_told(
    source: Path, how: tuple[str, ...]
) -> None:
    write_label(source / "ct" / "c_seg.nii.gz", 1)
    words = ("init", source / "p", source / "ct", "--labels", source / "seg", "--drop-unpaired")
    result = aslseg(*words, *how)
    assert result.exit_code == 0, result.output
    assert "Left out, for it is named as a label map: c_seg.nii.gz" in result.stderr
    if not how:
        assert [case.id for case in open_project(source / "p").cases] == ["a", "b", "c"]


@pytest.mark.parametrize("how", [("--dry-run",), ()])
def test_an_empty_label_map_is_told_and_not_refused(source: Path, how: tuple[str, ...]) -> None:
    write_label(source / "seg" / "c.nii.gz")
    words = ("init", source / "p", source / "ct", "--labels", source / "seg", "--drop-unpaired")
    result = aslseg(*words, *how)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("The label map of c is empty") == 1
    assert "--labelled" in result.stderr
    left = aslseg(*words, *how, "--labelled", "a,b") if how else None
    assert left is None or "is empty" not in left.stderr


@pytest.mark.parametrize("how", [("--dry-run",), ()])
def test_an_organ_without_lesions_is_nothing_to_tell(source: Path, how: tuple[str, ...]) -> None:
    for name in ("a", "b"):
        write_label(source / "tumours" / f"{name}.nii.gz", *([2] if name == "a" else []))
        write_label(source / "livers, given" / f"{name}.nii.gz", 1, 1)
    words = ("init", source / "p", source / "ct", "--labels", source / "tumours")
    masks = (*words, "--leave-out", "c", "--masks", f"liver={source / 'livers, given'}", *how)
    target = ("--target", "liver=1", "--target", "tumour=2:liver")
    for given in ((*masks, *target), (words[0], source / "q", *words[2:], *target, *how)):
        result = aslseg(*given, "--labels-of", "tumour")
        assert result.exit_code == 0, result.output
        assert "empty" not in result.stderr


def test_what_comes_next_is_no_training_where_nothing_is_labelled(source: Path) -> None:
    words = ("init", source / "p", source / "ct")
    result = aslseg(*words)
    assert result.exit_code == 0, result.output
    assert "No volume is labelled yet" in result.output
    assert "aslseg train" not in result.output
    words = ("init", source / "q", source / "ct", "--labels", source / "seg", "--drop-unpaired")
    assert f"Next: aslseg train {source / 'q'}" in aslseg(*words).output


def test_options_that_would_be_ignored_are_misuse(source: Path) -> None:
    words = ("init", source / "p", source / "ct")
    result = aslseg(*words, "--compare")
    assert result.exit_code == 2
    assert "--dry-run" in result.stderr
    assert not (source / "p").exists()
    assert aslseg(*words).exit_code == 0
    assert aslseg("masks", source / "p", "liver", "--remove", "--replace").exit_code == 2
    assert aslseg("masks", source / "p", "liver", "--remove").exit_code == 0


def test_a_case_to_leave_out_has_to_be_there(source: Path) -> None:
    result = aslseg("init", source / "p", source / "ct", "--leave-out", "nobody")
    assert result.exit_code == 1
    assert "There is no case 'nobody'" in result.output


def test_values_that_nobody_named_are_asked_for(source: Path) -> None:
    write_label(source / "seg" / "c.nii.gz", 9)
    words = ("init", source / "p", source / "ct", "--labels", source / "seg", "--drop-unpaired")
    result = aslseg(*words)
    assert result.exit_code == 1
    assert "The target of value 9 has no name" in result.output
    assert aslseg(*words, "--target", "bone=9", "--target", "liver=1").exit_code == 0


def test_targets_get_colour_and_terminology_when_a_project_is_made_and_later(source: Path) -> None:
    entry = "list~SCT^10200004^Liver, whole~^^"
    words = ("init", source / "p", source / "ct", "--labels", source / "seg", "--drop-unpaired")
    words += ("--color", "liver=#102030", "--terminology", f"liver={entry}")
    result = aslseg(*words)
    assert result.exit_code == 0, result.output
    liver = open_project(source / "p").targets[0]
    assert (liver.color, liver.terminology) == ("#102030", entry)
    result = aslseg("cases", source / "p", "--terminology", "liver=list~^^")
    assert result.exit_code == 0, result.output
    assert open_project(source / "p").targets[0].terminology == "list~^^"
    result = aslseg(*words[:1], source / "q", *words[2:], "--color", "bone=#000000")
    assert result.exit_code == 1
    assert "There is no target 'bone'; choose among liver" in result.output


def test_cases_are_listed_renamed_removed_and_given_a_role(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    result = aslseg(
        "cases", project.folder, "--rename", "c2=anna", "--remove", "c0", "--role", "c3=test",
        "--patient", "c4=p9", "--color", "liver=#102030",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "c0 was removed" in result.output
    changed = open_project(project.folder)
    assert "c0" not in [case.id for case in changed.cases]
    assert changed.case("anna").patient == "anna"
    assert changed.case("c3").split == "test"
    assert changed.case("c4").patient == "p9"
    assert changed.targets[0].color == "#102030"


def test_slices_of_a_label_map_are_marked_as_complete_and_all_again(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)

    def marked(text: str) -> Any:
        result = aslseg("cases", project.folder, "--complete", text)
        return result, open_project(project.folder).case("c0").complete_slices

    result, slices = marked("c0=4,8-10")
    assert (result.exit_code, slices) == (0, (4, 8, 9, 10)), result.output
    assert "4 slices" in result.output
    assert "No slice of the label map counts" not in result.output
    result, slices = marked("c0=none")
    assert (result.exit_code, slices) == (0, ()), result.output
    assert "No slice of the label map counts: c0. Nothing is" in " ".join(result.output.split())
    assert marked("c0=all")[1] is None
    for text, words in (
        ("c0=12", "has no slice 12; it has 0 to 11"),
        ("c2=1", "has no label"),
        ("c0=four", "'four' are no slices"),
        ("c0=1-999999999", "are no slices"),
        ("c0=4,15-12", "the lower number first"),
        ("c0=4-", "are no slices"),
    ):
        result, slices = marked(text)
        assert result.exit_code != 0
        assert words in " ".join(result.output.split())
        assert slices is None


def test_cases_are_added_later(source: Path) -> None:
    aslseg("init", source / "p", source / "ct")
    write_image(source / "more" / "d.nii.gz")
    write_label(source / "more_seg" / "d.nii.gz", 1)
    words = ("cases", source / "p", "--add", source / "more", "--labels", source / "more_seg")
    assert aslseg(*words, "--dry-run").exit_code == 0
    assert len(open_project(source / "p").cases) == 3
    assert aslseg(*words).exit_code == 0
    assert open_project(source / "p").case("d").label is not None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--role", "c9=test"), "has no case 'c9'"),
        (("--role", "c2=test"), "has no case 'c2'"),  # it is called anna by then
        (("--patient", "anna=c1", "--role", "anna=test"), "c1"),
        (("--complete", "c1=99"), "has no slice 99"),
        (("--complete", "c1=four"), "'four' are no slices"),
        (("--color", "liver=red"), "'red' is no colour"),
        (("--color", "bone=#000000"), "There is no target 'bone'"),
        (("--rename", "c3=c1"), "has a case 'c1' already"),
        (("--rename", "c1=stray"), "exists already"),
        (("--remove", "c8"), "has no case 'c8'"),
    ],
)
def test_of_several_changes_all_are_made_or_none(
    tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    project = a_tiny_project(tmp_path)
    (project.folder / "labels" / "stray.nii.gz").write_bytes(b"somebody's")
    write_volume(a_patient(20)[0], tmp_path / "more" / "new.nii.gz")
    first = ("--add", tmp_path / "more", "--rename", "c2=anna", "--remove", "c0")
    before = {path: path.read_bytes() for path in written(project.folder)}
    result = aslseg("cases", project.folder, *first, *words)
    assert result.exit_code != 0
    assert reason in " ".join(result.output.split())
    assert {path: path.read_bytes() for path in written(project.folder)} == before
    result = aslseg("cases", project.folder, *first, "--rename", "c1=c2", "--role", "new=test")
    assert result.exit_code == 0, result.output
    names = [case.id for case in open_project(project.folder).cases]
    assert names == ["c2", "anna", "c3", "c4", "c5", "c6", "new"]


def written(folder: Path) -> list[Path]:
    """Return the files of a project but for its lock and what may be deleted at any time."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    return [path for path in files if "cache" not in path.parts]


def test_a_trial_changes_nothing_and_shows_nothing_but_what_would_be_added(
    tmp_path: Path,
) -> None:
    project = a_tiny_project(tmp_path)
    for words in ((), ("--add", tmp_path / "data")):
        result = aslseg("cases", project.folder, "--dry-run", *words, "--remove", "c0")
        assert result.exit_code == 2
        assert "shows what --add would add" in " ".join(result.output.split())
        assert open_project(project.folder) == project


def test_what_cannot_be_changed_is_one_sentence(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    result = aslseg("cases", project.folder, "--rename", "c2=c3")
    assert result.exit_code == 1
    assert "has a case 'c3' already" in result.output
    assert open_project(project.folder) == project


def test_labels_without_images_to_add_are_refused(source: Path) -> None:
    aslseg("init", source / "p", source / "ct")
    result = aslseg("cases", source / "p", "--labels", source / "seg")
    assert result.exit_code == 2
    assert "--add" in result.output
