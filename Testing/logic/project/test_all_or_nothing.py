"""A change of several files of a project holds wholly or not at all, whenever it is killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Labelmap
from aslseg.errors import ProjectError, StorageError
from aslseg.project.all_or_nothing import FILES, UNFINISHED, all_or_nothing, undo_unfinished
from aslseg.project.edit import remove_cases
from aslseg.project.given_masks import set_organ_masks
from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion, read_lesions
from aslseg.project.lock import changing
from aslseg.project.project import Project, open_project
from aslseg.project.renew_image import renew_image
from aslseg.project.review import decisions, draw
from aslseg.storage import write_json_atomic
from support.project_states import states_between
from support.tiny_project import a_patient, a_tiny_project


@pytest.fixture
def decided(tmp_path: Path) -> Project:
    """A project with a label map, a mask, a review and a lesion decision of case c2."""
    labels = a_patient(2)[1]
    drawn = draw(a_tiny_project(tmp_path), "c2", labels)
    mask = Labelmap((labels.labels > 0).astype("uint8"), labels.geometry)
    write_labelmap(mask, tmp_path / "mask.nii.gz")
    drawn = set_organ_masks(drawn, "liver", {"c2": tmp_path / "mask.nii.gz"})
    put_lesion(drawn, "c2", LesionDecision("added", "tumour", None, boxed(labels.labels == 2)))
    return open_project(drawn.folder)


def told(folder: Path, case_id: str = "c2") -> tuple[Any, ...]:
    """Return all that a project says of a case."""
    project = open_project(folder)
    case = next((one for one in project.cases if one.id == case_id), None)
    names = ["labels", "masks", "lesions"]
    files = [path for name in names for path in sorted((folder / name).rglob(f"{case_id}*"))]
    own = {path.relative_to(folder): path.read_bytes() for path in files if not _is_kept(path)}
    lesions = None if case is None else [*read_lesions(project, case_id).decisions]
    decided = [review.number for review in decisions(project) if review.case_id == case_id]
    return (None if case is None else case.model_dump(), own, lesions, decided)


def _is_kept(path: Path) -> bool:
    return path.parent.name == "history" or path.name.startswith(".")


def drawn_contents(folder: Path) -> set[bytes]:
    """Return what people drew and decided, in its place or in the history."""
    names = ["labels", "masks", "lesions"]
    return {p.read_bytes() for name in names for p in (folder / name).rglob("*") if p.is_file()}


def assert_whole_or_not_at_all(
    states: Sequence[Path], before: tuple[Any, ...], after: tuple[Any, ...], drawn: set[bytes]
) -> None:
    found = [told(state) for state in states]
    strange = [
        state.name for state, one in zip(states, found, strict=True) if one not in (before, after)
    ]
    assert strange == []
    assert [one == after for one in found] == sorted(one == after for one in found)
    assert (found[0], found[-1]) == (before, after)
    for state in states:
        assert drawn <= drawn_contents(state)
        with changing(state):
            pass
        assert not (state / UNFINISHED).exists()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda project: remove_cases(project, ["c2", "c3"]), id="remove"),
        pytest.param(lambda project: renew_image(project, "c2", keep=False), id="renew"),
    ],
)
def test_what_was_drawn_and_decided_goes_with_its_case_or_stays(
    decided: Project, change: Callable[[Project], object]
) -> None:
    write_volume(a_patient(9)[0], decided.image_path(decided.case("c2")))
    before, drawn = told(decided.folder), drawn_contents(decided.folder)
    states = states_between(decided.folder, lambda: change(decided))
    after = told(decided.folder)
    assert (after[1:], before[2]) == (({}, None if after[0] is None else [], []), [1])
    assert_whole_or_not_at_all(states, before, after, drawn)
    killed = next(state for state in states if told(state) == before)
    change(open_project(killed))
    assert told(killed) == after


def test_files_are_put_back_without_room_and_once_more(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    folder = project.folder
    label, made = folder / "labels" / "c0.nii.gz", folder / "reviews.jsonl"
    content = label.read_bytes()
    with changing(folder), pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117
        with all_or_nothing(folder, [Path("labels/c0.nii.gz"), Path("reviews.jsonl")]):
            label.unlink()
            made.write_text("{}\n", encoding="utf-8")
            raise KeyboardInterrupt
    assert label.read_bytes() == content
    assert not made.exists()
    assert not (folder / UNFINISHED).exists()
    undo_unfinished(folder)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"runs/a/config.json": True}, "is no file of a change"),
        ({"labels/../../images/c0.nii.gz": False}, "lies outside of"),
        ({"labels/c0.nii.gz": "yes"}, "is no file of a change"),
        ([], "holds no JSON object"),
    ],
)
def test_what_is_no_file_of_a_change_is_not_touched(
    tmp_path: Path, files: object, words: str
) -> None:
    project = a_tiny_project(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    write_json_atomic(project.folder / UNFINISHED / FILES, files)
    with pytest.raises((ProjectError, StorageError), match=words):
        open_project(project.folder)
    assert {path: path.read_bytes() for path in before} == before


def test_putting_back_that_is_killed_goes_on_with_the_next_opening(decided: Project) -> None:
    before = told(decided.folder)
    states = states_between(decided.folder, lambda: remove_cases(decided, ["c2"]))
    unfinished = [state for state in states if (state / UNFINISHED / FILES).exists()][-1]
    again = states_between(unfinished, lambda: open_project(unfinished))
    assert len(again) > 5
    assert [told(state) for state in again] == [before] * len(again)
