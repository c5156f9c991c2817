"""What a run has written of a case lies on its image, or is refused by all who read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import GeometryMismatchError
from aslseg.evaluation.lesion_review import read_review
from aslseg.project.candidate_table import write_candidates
from aslseg.project.case_facts import measure_case
from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion
from aslseg.project.lesion_labels import finish_case, partial_label
from aslseg.project.predictions import read_predictions
from aslseg.project.project import Project
from aslseg.project.review import accept
from aslseg.project.run_folder import RunFolder
from support.synthetic_run import a_finished_run
from support.tiny_project import GEOMETRY, a_tiny_project

Reader = Callable[[Project, RunFolder], object]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_tiny_project(tmp_path)


@pytest.fixture
def run(project: Project) -> RunFolder:
    """A run that found a lesion in case c2, which a person accepted."""
    folder = a_finished_run(project.folder / "runs" / "a")
    labels = np.ones(GEOMETRY.shape, np.uint8)
    labels[2:4, 2:4, 2:4] = 2
    for source in ("specialist", "refined"):
        path = folder.predictions(1, "c2") / f"{source}.nii.gz"
        write_labelmap(Labelmap(labels, GEOMETRY), path)
    write_candidates(folder.predictions(1, "c2"), [], Labelmap(labels, GEOMETRY), ())
    lesion = boxed(labels == 2)
    decision = LesionDecision("accepted", "tumour", lesion, lesion, "a", 1)
    put_lesion(project, "c2", decision)
    return folder


def read_all(project: Project, run: RunFolder) -> object:
    return read_predictions(run.predictions(1, "c2"), project.geometry(project.case("c2")))


def review(project: Project, run: RunFolder) -> object:
    return read_review(project, run, "c2", project.load_image(project.case("c2")))


def accept_it(project: Project, run: RunFolder) -> object:
    return accept(project, run, "c2")


def finish(project: Project, run: RunFolder) -> object:
    return finish_case(project, run, "c2")


def learn(project: Project, run: RunFolder) -> object:
    from aslseg.project.lesion_decisions import read_lesions

    return partial_label(project, read_lesions(project, "c2"), {"tumour"}, margin_mm=4.0)


def measure(project: Project, run: RunFolder) -> object:
    return measure_case(project, project.case("c2"), run.predictions(1, "c2"))


def moved() -> Geometry:
    """The image's size, a centimetre beside it."""
    affine = GEOMETRY.ijk_to_ras.copy()
    affine[0, 3] += 10.0
    return Geometry(GEOMETRY.shape, affine)


def mirrored() -> Geometry:
    """The image's place, with its columns the other way round."""
    affine = GEOMETRY.ijk_to_ras.copy()
    affine[:3, 3] += (GEOMETRY.shape[2] - 1) * affine[:3, 0]
    affine[:3, 0] *= -1
    return Geometry(GEOMETRY.shape, affine)


READERS = [
    (read_all, "refined"),
    (read_all, "specialist"),
    (review, "refined"),
    (review, "specialist"),
    (review, "candidates"),
    (accept_it, "refined"),
    (finish, "refined"),
    (finish, "candidates"),
    (learn, "refined"),
    (measure, "refined"),
]


@pytest.mark.parametrize("elsewhere", [moved, mirrored])
@pytest.mark.parametrize(("read", "name"), READERS)
def test_a_file_of_a_run_that_lies_elsewhere_is_refused(
    project: Project, run: RunFolder, read: Reader, name: str, elsewhere: Callable[[], Geometry]
) -> None:
    path = run.predictions(1, "c2") / f"{name}.nii.gz"
    write_labelmap(Labelmap(read_labelmap(path).labels, elsewhere()), path)
    with pytest.raises(GeometryMismatchError, match=f"{name}.nii.gz lies on other voxels than"):
        read(project, run)
    assert project.case("c2").label is None


@pytest.mark.parametrize("read", [read for read, name in READERS if name == "refined"])
def test_files_of_a_run_are_read(project: Project, run: RunFolder, read: Reader) -> None:
    assert read(project, run)


def test_a_case_is_accepted_as_its_lesions_were_decided(project: Project, run: RunFolder) -> None:
    """The lesion of the run was taken out, and another one added, before all of it is accepted."""
    refined = read_labelmap(run.predictions(1, "c2") / "refined.nii.gz").labels
    lesion, added = boxed(refined == 2), np.zeros(refined.shape, np.bool_)
    added[8, 10:12, 10:12] = True
    put_lesion(project, "c2", LesionDecision("deleted", "tumour", lesion, None), lesion=1)
    put_lesion(project, "c2", LesionDecision("added", "tumour", None, boxed(added)))
    accepted = accept(project, run, "c2")
    labels = accepted.load_labels(accepted.case("c2")).labels
    np.testing.assert_array_equal(labels == 2, added)
    np.testing.assert_array_equal(labels > 0, refined > 0)
