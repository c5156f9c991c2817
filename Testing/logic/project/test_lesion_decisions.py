"""Decisions of a person about lesions: kept, read again, taken back, and put into a label map."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.masks import BoundingBox
from aslseg.errors import ProjectError
from aslseg.project.lesion_decisions import (
    BoxedMask,
    CaseLesions,
    LesionDecision,
    boxed,
    put_lesion,
    putting_lesions,
    read_lesions,
)
from aslseg.project.project import Project
from aslseg.targets import LIVER_TARGETS
from support.lesion_blocks import accepted, block, deleted
from support.tiny_project import GEOMETRY, a_tiny_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_tiny_project(tmp_path)


def test_a_mask_is_kept_in_its_box() -> None:
    whole = np.zeros((4, 5, 6), np.bool_)
    whole[1, 2:4, 3] = True
    found = boxed(whole[1:], (1, 0, 0))
    assert found is not None
    assert (found.box.start, found.box.stop, found.voxels) == ((1, 2, 3), (2, 4, 4), 2)
    again = np.zeros_like(whole)
    found.write(again, 1)
    np.testing.assert_array_equal(again, whole)
    assert boxed(np.zeros((2, 2, 2), np.bool_)) is None


def test_a_mask_is_seen_within_another_box() -> None:
    mask = block(2, 2, 2)
    np.testing.assert_array_equal(
        mask.within(BoundingBox((3, 0, 0), (5, 3, 4))),
        [[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]], [[0] * 4] * 3],
    )
    assert not mask.within(BoundingBox((0, 0, 0), (2, 2, 2))).any()


def test_a_lesion_that_could_not_be_read_again_is_refused(project: Project) -> None:
    put_lesion(project, "c2", deleted(block(5, 5, 5)))
    box = BoundingBox((0, 0, 0), (160, 160, 160))
    noise = BoxedMask(box, np.random.default_rng(0).random(box.shape) > 0.5)
    with pytest.raises(ProjectError, match="too long to be kept; divide it, or smooth it"):
        put_lesion(project, "c2", accepted(noise))
    assert read_lesions(project, "c2").latest == 1


def test_decisions_are_read_as_they_were_made(project: Project) -> None:
    ragged = BoxedMask(BoundingBox((1, 2, 3), (2, 4, 6)), np.array([[[1, 0, 1], [1, 1, 1]]]) > 0)
    edit = LesionDecision("edited", "tumour", block(1, 1, 1), ragged, "run", 2, 7)
    first, _ = put_lesion(project, "c2", edit)
    second, _ = put_lesion(project, "c2", deleted(block(5, 5, 5)))
    found = read_lesions(project, "c2")
    assert (first, second, found.latest) == (1, 2, 2)
    read = found.decisions[1]
    assert read.final is not None
    assert read.found is not None
    assert (read.what, read.run, read.round, read.candidate) == ("edited", "run", 2, 7)
    assert read.final.box == ragged.box
    np.testing.assert_array_equal(read.final.mask, ragged.mask)
    assert read.found.voxels == 8
    assert found.decisions[2].final is None
    assert read_lesions(project, "c3").decisions == {}


def test_the_last_line_of_a_lesion_counts_and_all_lines_stay(project: Project) -> None:
    number, _ = put_lesion(project, "c2", accepted(block(1, 1, 1)))
    put_lesion(project, "c2", deleted(block(1, 1, 1)), lesion=number)
    assert read_lesions(project, "c2").decisions[number].what == "deleted"
    _, left = put_lesion(project, "c2", None, lesion=number)
    assert left.decisions == {}
    path = project.folder / "lesions" / "c2.jsonl"
    words = [json.loads(line)["what"] for line in path.read_text().splitlines()]
    assert words == ["accepted", "deleted", "undecided"]


def test_decisions_can_be_read_as_they_were(project: Project) -> None:
    put_lesion(project, "c2", accepted(block(1, 1, 1)))
    put_lesion(project, "c2", deleted(block(1, 1, 1)), lesion=1)
    assert read_lesions(project, "c2", 1).decisions[1].what == "accepted"
    assert read_lesions(project, "c2", 0).decisions == {}
    assert project.lesion_lines() == {"c2": 2}


def test_decisions_that_are_read_as_they_were_do_not_count_a_later_line(project: Project) -> None:
    for k in (2, 4, 6):
        put_lesion(project, "c2", deleted(block(k, 2, 2)))
    assert read_lesions(project, "c2", 2).latest == 2
    with pytest.raises(ProjectError, match="elsewhere meanwhile"):
        put_lesion(project, "c2", None, lesion=1, seen=read_lesions(project, "c2", 2).latest)


@pytest.mark.parametrize("instead", [b"", b"\n"])
def test_no_lesion_takes_the_number_of_another_where_a_line_was_damaged(
    project: Project, instead: bytes
) -> None:
    """The line was removed, or emptied."""
    for k in (1, 3, 5, 7):
        put_lesion(project, "c2", deleted(block(k, 2, 2)))
    before = read_lesions(project, "c2").decisions
    path = project.lesion_path("c2")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + instead + b"".join(lines[2:]))
    number, lesions = put_lesion(project, "c2", deleted(block(8, 5, 5)))
    assert number == 5
    assert lesions.decisions.keys() == {1, 3, 4, 5}
    assert lesions.decisions[4].found.equals(before[4].found)


def test_another_programs_decision_is_not_overwritten(project: Project) -> None:
    seen = read_lesions(project, "c2").latest
    put_lesion(project, "c2", accepted(block(1, 1, 1)))
    with pytest.raises(ProjectError, match="elsewhere meanwhile"):
        put_lesion(project, "c2", deleted(block(1, 1, 1)), seen=seen)
    assert read_lesions(project, "c2").decisions[1].what == "accepted"


def test_what_a_crash_cut_off_is_no_decision(project: Project) -> None:
    put_lesion(project, "c2", accepted(block(1, 1, 1)))
    path = project.folder / "lesions" / "c2.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    assert list(read_lesions(project, "c2").decisions) == [1]
    put_lesion(project, "c2", accepted(block(5, 5, 5)))
    assert list(read_lesions(project, "c2").decisions) == [1, 2]


def decide_three(project: Project) -> list[bytes]:
    """Decide about three lesions by one command; return the lines of the file."""
    changes = [(None, accepted(block(k, 1, 1))) for k in (1, 4, 7)]
    with putting_lesions(project, "c2", changes):
        pass
    return (project.folder / "lesions" / "c2.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("written", [1, 2])
def test_of_a_command_that_was_killed_no_decision_counts(project: Project, written: int) -> None:
    put_lesion(project, "c2", deleted(block(9, 9, 9)))
    lines = decide_three(project)
    path = project.folder / "lesions" / "c2.jsonl"
    path.write_bytes(b"".join(lines[: 1 + written]) + lines[2 + written - 1][:40])
    found = read_lesions(project, "c2")
    assert (list(found.decisions), found.latest, project.lesion_lines()) == ([1], 1, {"c2": 1})
    number, found = put_lesion(project, "c2", accepted(block(5, 5, 5)))
    assert (number, list(found.decisions)) == (2, [1, 2])
    assert len(path.read_bytes().splitlines()) == 2
    decide_three(project)
    assert list(read_lesions(project, "c2").decisions) == [1, 2, 3, 4, 5]


def test_a_line_that_is_missing_within_a_command_is_damage(project: Project) -> None:
    first, _, last = decide_three(project)
    (project.folder / "lesions" / "c2.jsonl").write_bytes(first + last)
    with pytest.raises(ProjectError, match=r"c2\.jsonl is damaged in line 2 .*are missing"):
        read_lesions(project, "c2")


def test_decisions_of_earlier_versions_are_read(project: Project) -> None:
    lines = [json.loads(line) for line in decide_three(project)]
    assert [line.pop("more", 0) for line in lines] == [2, 1, 0]
    path = project.folder / "lesions" / "c2.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert list(read_lesions(project, "c2").decisions) == [1, 2, 3]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"what": "accepted"', '"what": "liked"'), ('"bits": "', '"bits": "AA'), ("[2, 2, 2]", "[2]")],
)
def test_a_damaged_file_is_refused(project: Project, old: str, new: str) -> None:
    put_lesion(project, "c2", accepted(block(1, 1, 1)))
    path = project.folder / "lesions" / "c2.jsonl"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ProjectError, match=r"c2\.jsonl is damaged in line 1"):
        read_lesions(project, "c2")


def test_an_organ_has_no_lesions(project: Project) -> None:
    decision = LesionDecision("added", "liver", None, block(1, 1, 1))
    with pytest.raises(ProjectError, match="'liver' is no target inside another one"):
        put_lesion(project, "c2", decision)


@pytest.mark.parametrize("what", ["deleted", "added"])
def test_a_decision_cannot_contradict_itself(what: str) -> None:
    with pytest.raises(ValueError, match=what):
        LesionDecision(what, "tumour", block(1, 1, 1), block(1, 1, 1))  # type: ignore[arg-type]


def test_decisions_are_put_into_a_label_map() -> None:
    labels = np.ones(GEOMETRY.shape, np.uint8)
    labels[0] = 0
    for mask in (block(2, 2, 2), block(2, 10, 10)):
        mask.write(labels, 2)
    edit = LesionDecision("edited", "tumour", block(2, 10, 10), block(2, 10, 11))
    add = LesionDecision("added", "tumour", None, block(0, 0, 0))
    lesions = CaseLesions("c2", {1: deleted(block(2, 2, 2)), 2: edit, 3: add})
    final = lesions.apply(labels, LIVER_TARGETS)
    expected = np.ones(GEOMETRY.shape, np.uint8)
    expected[0] = 0
    expected[2:4, 10:12, 11:13] = 2
    expected[0:2, 0:2, 0:2] = 2
    np.testing.assert_array_equal(final, expected)
    assert (labels == 2).sum() == 16  # what it began with stays as it was


def test_a_deleted_candidate_takes_nothing_of_an_accepted_one() -> None:
    labels = np.ones(GEOMETRY.shape, np.uint8)
    lesions = CaseLesions("c2", {1: accepted(block(2, 2, 2)), 2: deleted(block(2, 3, 3))})
    final = lesions.apply(labels, LIVER_TARGETS)
    assert (final[2:4, 2:4, 2:4] == 2).all()
    assert (final == 2).sum() == 8


def test_a_lesion_outside_of_the_image_is_refused() -> None:
    lesions = CaseLesions("c2", {1: accepted(block(11, 0, 0))})
    with pytest.raises(ProjectError, match="outside of its image"):
        lesions.apply(np.ones(GEOMETRY.shape, np.uint8), LIVER_TARGETS)
