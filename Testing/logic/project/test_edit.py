"""Cases are renamed and removed, targets recoloured; no file of a person is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aslseg.data.images import read_labelmap, write_volume
from aslseg.data.volume import Labelmap
from aslseg.errors import ProjectError, StorageError
from aslseg.events import Monitor
from aslseg.project.case import CaseFiles
from aslseg.project.case_changes import CaseChanges, change_cases
from aslseg.project.create import add_cases
from aslseg.project.edit import remove_cases, rename_case, restyle_targets
from aslseg.project.given_masks import set_organ_masks
from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion, read_lesions
from aslseg.project.project import Project, open_project, write_project
from aslseg.project.remote_run import RemoteRun, write_remote_run
from aslseg.project.renew_image import renew_image
from aslseg.project.review import decisions, draw, reject, undo_last
from aslseg.project.run_folder import create_run
from aslseg.project.running import running
from support.tiny_project import a_patient, a_tiny_project, tiny_config


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_tiny_project(tmp_path)


def test_a_renamed_case_keeps_its_label_map_and_image(project: Project) -> None:
    before = project.case("c0")
    content = read_labelmap(project.label_path(before)).labels
    renamed = rename_case(project, "c0", "first")
    case = renamed.case("first")
    assert (case.image, case.patient, case.status) == (before.image, "first", before.status)
    assert case.label == Path("labels/first.nii.gz")
    assert (read_labelmap(renamed.label_path(case)).labels == content).all()
    assert not (project.folder / "labels" / "c0.nii.gz").exists()
    assert next(c.id for c in open_project(project.folder).cases) == "first"


def test_a_patient_that_has_other_volumes_keeps_its_name(project: Project) -> None:
    from aslseg.project.roles import assign

    project = assign(project, patients={"c3": "c2"})
    assert rename_case(project, "c2", "early").case("early").patient == "c2"


@pytest.mark.parametrize(
    ("name", "words"),
    [("C1", "has a case 'C1' already"), ("a/b", "cannot be the name"), ("", "cannot be the name")],
)
def test_a_name_that_cannot_be_changes_nothing(project: Project, name: str, words: str) -> None:
    with pytest.raises(ProjectError, match=words):
        rename_case(project, "c0", name)
    assert open_project(project.folder) == project


def test_the_label_map_of_another_case_is_not_replaced(project: Project) -> None:
    """A project that a person wrote may name a label map after no case."""
    case, other = project.case("c0"), project.folder / "labels" / "first.nii.gz"
    project.label_path(case).rename(other)
    moved = case.model_copy(update={"label": Path("labels/first.nii.gz")})
    write_project(project.with_case(moved))
    content = other.read_bytes()
    with pytest.raises(ProjectError, match="exists already"):
        rename_case(project, "c1", "first")
    assert other.read_bytes() == content


def test_a_name_that_is_given_up_can_be_taken(project: Project) -> None:
    contents = [project.label_path(project.case(name)).read_bytes() for name in ("c1", "c0")]
    updated, _ = change_cases(project, CaseChanges(names={"c1": "old", "c0": "c1"}))
    now = [updated.label_path(updated.case(name)).read_bytes() for name in ("old", "c1")]
    assert now == contents


def test_a_file_in_the_way_is_not_replaced(project: Project) -> None:
    other = project.folder / "labels" / "first.nii.gz"
    other.write_bytes(b"somebody's")
    with pytest.raises(ProjectError, match="exists already"):
        rename_case(project, "c0", "first")
    assert other.read_bytes() == b"somebody's"
    assert open_project(project.folder) == project
    assert project.label_path(project.case("c0")).exists()


@contextmanager
def broken_off(*, replaced: bool) -> Iterator[None]:
    """Break off what replaces project.json, before it does or right after."""
    replace = Path.replace

    def broken(path: Path, target: Path) -> Path:
        is_project = Path(target).name == "project.json"
        if replaced or not is_project:
            replace(path, target)
        if is_project:
            raise KeyboardInterrupt
        return Path(target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", broken)
        yield


@pytest.mark.parametrize("replaced", [False, True])
def test_a_renaming_that_is_broken_off_leaves_the_label_map_where_the_case_has_it(
    project: Project, *, replaced: bool
) -> None:
    drawn = project.load_labels(project.case("c0")).labels
    with broken_off(replaced=replaced), pytest.raises(KeyboardInterrupt):
        rename_case(project, "c0", "first")
    now = open_project(project.folder)
    name, other = ("first", "c0") if replaced else ("c0", "first")
    assert (now.load_labels(now.case(name)).labels == drawn).all()
    renamed = rename_case(now, name, other)
    assert (renamed.load_labels(renamed.case(other)).labels == drawn).all()
    assert not (project.folder / "labels" / f"{name}.nii.gz").exists()


def test_a_label_map_is_renamed_where_both_names_are_one_file(project: Project) -> None:
    """As on a disk that takes letters of both cases for the same."""
    old, new = (project.folder / "labels" / f"{name}.nii.gz" for name in ("c0", "C0"))
    content = old.read_bytes()
    with suppress(FileExistsError):  # it is such a disk
        os.link(old, new)
    rename_case(project, "c0", "C0")
    assert new.read_bytes() == content


def test_the_same_label_map_of_another_case_is_not_shared(project: Project) -> None:
    case, other = project.case("c0"), project.folder / "labels" / "first.nii.gz"
    shutil.copy(project.label_path(project.case("c1")), other)
    write_project(project.with_case(case.model_copy(update={"label": Path("labels/first.nii.gz")})))
    with pytest.raises(ProjectError, match="exists already"):
        rename_case(project, "c1", "first")


def test_a_case_that_a_run_knows_keeps_its_name(project: Project) -> None:
    run = create_run(project.folder, tiny_config())
    with pytest.raises(ProjectError, match=f"run {run.run_id} knows it"):
        rename_case(project, "c0", "first")
    run.write_status(state="done")
    assert rename_case(project, "c2", "new").case("new").id == "new"
    run.predictions(1, "c3").mkdir(parents=True)
    with pytest.raises(ProjectError, match="knows it by that"):
        rename_case(project, "c3", "other")


def test_a_case_with_a_decision_keeps_its_name(project: Project) -> None:
    project = reject(project, "c2")
    with pytest.raises(ProjectError, match="a decision of a person knows it"):
        rename_case(project, "c2", "other")


def test_a_removed_case_leaves_all_its_files(project: Project) -> None:
    case = project.case("c0")
    image, content = project.image_path(case), project.label_path(case).read_bytes()
    updated, (removal,) = remove_cases(project, ["c0"])
    assert "c0" not in {c.id for c in updated.cases}
    assert open_project(project.folder) == updated
    assert image.exists()
    assert removal.label is not None
    assert removal.label.read_bytes() == content
    assert not project.label_path(case).exists()


def test_a_removed_case_can_be_added_again_with_its_label_map(project: Project) -> None:
    image = project.image_path(project.case("c0"))
    updated, (removal,) = remove_cases(project, ["c0"])
    again = add_cases(updated, [CaseFiles("c0", image, removal.label)])
    assert again.case("c0").label == Path("labels/c0.nii.gz")


def test_another_image_does_not_get_the_name_that_a_run_has_results_under(
    project: Project, tmp_path: Path
) -> None:
    run = create_run(project.folder, tiny_config())
    run.write_status(state="done", images={c.id: c.image_sha256 for c in project.cases})
    image = project.image_path(project.case("c2"))
    updated, _ = remove_cases(project, ["c2"])
    other = tmp_path / "other.nii.gz"
    write_volume(a_patient(9)[0], other)
    for name in ("c2", "C2"):  # one folder on some disks
        with pytest.raises(ProjectError, match=f"{run.run_id}' has results of another image"):
            add_cases(updated, [CaseFiles(name, other)])
    updated = add_cases(updated, [CaseFiles("new", other)])
    with pytest.raises(ProjectError, match="has results of another image under the name c2"):
        rename_case(updated, "new", "c2")
    assert "c2" in {case.id for case in add_cases(updated, [CaseFiles("c2", image)]).cases}


def test_organ_masks_of_a_removed_case_are_kept_too(project: Project) -> None:
    labels = read_labelmap(project.label_path(project.case("c0")))
    mask = Labelmap((labels.labels > 0).astype("uint8"), labels.geometry)
    project = set_organ_masks(project, "liver", {"c2": mask})
    path = project.folder / project.case("c2").masks["liver"]
    content = path.read_bytes()
    remove_cases(project, ["c2"])
    assert not path.exists()
    assert [kept.read_bytes() for kept in (path.parent / "history").iterdir()] == [content]


def test_decisions_about_a_removed_case_hold_no_more(project: Project) -> None:
    project = reject(project, "c3")
    labels = read_labelmap(project.label_path(project.case("c0")))
    project = draw(project, "c2", labels)
    project, _ = remove_cases(project, ["c2"])
    assert [review.case_id for review in decisions(project)] == ["c3"]
    project, last = undo_last(project)
    assert (last.case_id, project.case("c3").status) == ("c3", "unlabelled")


def test_several_cases_are_removed_all_or_none(project: Project) -> None:
    with pytest.raises(ProjectError, match="no case 'nobody'"):
        remove_cases(project, ["c0", "nobody"])
    assert open_project(project.folder) == project
    assert project.label_path(project.case("c0")).exists()
    updated, _ = remove_cases(project, ["c0", "c2", "c0"])
    assert len(updated.cases) == len(project.cases) - 2


def decided_lesions(project: Project, case_id: str) -> list[int]:
    return [*read_lesions(project, case_id).decisions]


@pytest.fixture
def decided(project: Project) -> Project:
    """A project with a review of case c2 and a lesion that was added to it."""
    labels = a_patient(2)[1]
    drawn = draw(project, "c2", labels)
    put_lesion(drawn, "c2", LesionDecision("added", "tumour", None, boxed(labels.labels == 2)))
    return open_project(project.folder)


def test_a_refused_removal_ends_no_decision(decided: Project, tmp_path: Path) -> None:
    label = decided.label_path(decided.case("c0"))
    label.rename(tmp_path / "elsewhere.nii.gz")
    try:
        label.symlink_to(tmp_path / "elsewhere.nii.gz")
    except OSError:
        pytest.skip("this system makes no links for this user")
    reviews = (decided.folder / "reviews.jsonl").read_bytes()
    with pytest.raises(StorageError, match="lies outside"):
        remove_cases(decided, ["c2", "c0"])
    assert open_project(decided.folder) == decided
    assert decided_lesions(decided, "c2") == [1]
    assert [review.case_id for review in decisions(decided)] == ["c2"]
    assert (decided.folder / "reviews.jsonl").read_bytes() == reviews


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda project: remove_cases(project, ["c2", "c3"]), id="remove"),
        pytest.param(lambda project: renew_image(project, "c2", keep=False), id="renew"),
    ],
)
def test_decisions_hold_again_when_the_project_cannot_be_replaced(
    decided: Project, change: Callable[[Project], object]
) -> None:
    write_volume(a_patient(9)[0], decided.image_path(decided.case("c2")))
    reviews = (decided.folder / "reviews.jsonl").read_bytes()
    with broken_off(replaced=False), pytest.raises(KeyboardInterrupt):
        change(decided)
    assert open_project(decided.folder) == decided
    assert decided_lesions(decided, "c2") == [1]
    assert (decided.folder / "reviews.jsonl").read_bytes() == reviews
    change(decided)
    assert not decided.lesion_path("c2").exists()
    assert decisions(open_project(decided.folder)) == ()


def test_nothing_is_removed_while_a_run_is_being_worked_on(project: Project) -> None:
    run = create_run(project.folder, tiny_config())
    with running(run, Monitor()), pytest.raises(ProjectError, match="is being worked on"):
        remove_cases(project, ["c2"])
    assert len(remove_cases(project, ["c2"])[0].cases) == len(project.cases) - 1


def test_cases_stay_and_keep_their_names_while_another_computer_works(project: Project) -> None:
    folder = project.folder / "runs" / "a"
    folder.mkdir(parents=True)
    note = RemoteRun(host="gpu1", project="0" * 32, session="1" * 32)
    write_remote_run(folder, note)  # nothing of the run has come yet
    with pytest.raises(ProjectError, match="Run a of gpu1 is being worked on"):
        remove_cases(project, ["c2"])
    with pytest.raises(ProjectError, match="run a of gpu1 knows it by that"):
        rename_case(project, "c2", "other")
    write_remote_run(folder, note.model_copy(update={"is_open": False}))
    assert len(remove_cases(project, ["c2"])[0].cases) == len(project.cases) - 1


def test_targets_are_recoloured_and_nothing_else_changes(project: Project) -> None:
    restyled = restyle_targets(project, colors={"liver": "#AA00ff"}, terminologies={"tumour": "x"})
    liver, tumour = restyled.targets
    assert (liver.color, liver.terminology) == ("#aa00ff", None)
    assert (tumour.color, tumour.terminology) == (None, "x")
    assert restyled.cases == project.cases
    assert restyle_targets(restyled, colors={"liver": ""}).targets[0].color is None


@pytest.mark.parametrize(
    ("colors", "words"),
    [({"spleen": "#000000"}, "no target 'spleen'"), ({"liver": "red"}, "'red' is no colour")],
)
def test_what_is_no_target_or_colour_is_refused(
    project: Project, colors: dict[str, str], words: str
) -> None:
    with pytest.raises(ProjectError, match=words):
        restyle_targets(project, colors=colors)
    assert open_project(project.folder) == project
