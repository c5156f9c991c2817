"""The overview says how each case stands, and measures each once for each state of its files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from aslseg.data.images import write_labelmap
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.project.case_facts import (
    THUMBNAIL_PX,
    CaseFacts,
    known_facts,
    measure_case,
    thumbnail,
    thumbnail_path,
)
from aslseg.project.case_reports import CaseReport
from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion
from aslseg.project.overview import (
    CaseOverview,
    case_overviews,
    overview_cells,
    overview_head,
    overview_matches,
    overview_order,
    thumbnail_of,
)
from aslseg.project.project import Project
from aslseg.targets import LIVER_TARGETS
from support.tiny_project import a_tiny_project

NAMES = ["liver", "tumour"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return a_tiny_project(tmp_path_factory.mktemp("overview"))


def a_volume(shape: tuple[int, int, int], spacing_ijk: tuple[float, float, float]) -> Volume:
    affine = np.diag([-spacing_ijk[0], -spacing_ijk[1], spacing_ijk[2], 1.0])
    return Volume(np.full(shape, 70, np.int16), Geometry(shape, affine))


def test_without_a_run_rows_say_what_is_labelled_and_nothing_is_read(project: Project) -> None:
    rows = case_overviews(project, None)
    assert [row.report.case_id for row in rows] == [case.id for case in project.cases]
    assert all(row.facts is None and row.turn == 0 for row in rows)
    cells = overview_cells(rows[0], NAMES)
    assert len(cells) == len(overview_head(NAMES))
    assert cells[2:] == [""] * (len(cells) - 2)


def test_a_labelled_case_is_measured_once_until_a_file_changes(project: Project) -> None:
    case = project.labelled[0]
    facts = measure_case(project, case, None)
    labels = project.load_labels(case)
    voxel_ml = labels.geometry.voxel_ml
    assert facts.labelled == ("liver", "tumour")
    assert facts.volumes_ml == pytest.approx(
        {
            "liver": (labels.labels > 0).sum() * voxel_ml,
            "tumour": (labels.labels == 2).sum() * voxel_ml,
        }
    )
    assert known_facts(project, case, None) == facts
    row = next(r for r in case_overviews(project, None) if r.report.case_id == case.id)
    assert row.facts == facts
    assert overview_cells(row, NAMES)[2] == "liver, tumour"
    assert thumbnail_of(project, row) == thumbnail_path(project, case.id)
    path = project.label_path(case)
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert known_facts(project, case, None) is None


def test_a_label_of_some_slices_says_of_how_many_and_gives_no_volume(project: Project) -> None:
    case = project.labelled[0]
    measure_case(project, case, None)
    for slices, words in (((4,), "1 slice"), ((4, 6, 8), "3 slices")):
        marked = case.model_copy(update={"complete_slices": slices})
        others = [marked if one.id == case.id else one for one in project.cases]
        sparse = project.model_copy(update={"cases": tuple(others)})
        facts = measure_case(sparse, marked, None)
        rows = case_overviews(sparse, None, facts_of=lambda *_, facts=facts: facts)
        row = next(r for r in rows if r.report.case_id == case.id)
        assert overview_cells(row, NAMES)[2:6] == [f"liver, tumour ({words})", "", "", ""]
    assert overview_cells(case_overviews(project, None)[0], NAMES)[4] != ""


def test_a_case_is_measured_anew_when_a_mask_that_is_given_for_it_changes(
    tmp_path: Path,
) -> None:
    project = a_tiny_project(tmp_path)
    place = Path("masks", "liver.nii.gz")
    case = project.labelled[0].model_copy(update={"masks": {"liver": place}})
    labels = project.load_labels(project.labelled[0])
    mask = Labelmap((labels.labels > 0).astype(np.uint8), labels.geometry)
    write_labelmap(mask, project.folder / place)
    assert measure_case(project, case, None) == known_facts(project, case, None)
    mask.labels[0, 0, :5] = 1
    write_labelmap(mask, project.folder / place)
    assert known_facts(project, case, None) is None


def test_a_target_that_nobody_looked_for_has_no_volume(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    case = project.labelled[0]
    labels = project.load_labels(case)
    drawn = Labelmap(np.minimum(labels.labels, 1), labels.geometry)
    project = project.save_label(case.id, drawn)
    assert set(measure_case(project, project.case(case.id), None).volumes_ml or ()) == set(NAMES)
    project = project.set_label_targets(case.id, ["liver"])
    assert known_facts(project, project.case(case.id), None) is None
    assert set(measure_case(project, project.case(case.id), None).volumes_ml or ()) == {"liver"}


def test_an_ai_label_counts_where_a_person_has_drawn_none(project: Project, tmp_path: Path) -> None:
    case = project.unlabelled[0]
    geometry = project.load_image(case).geometry
    labels = np.zeros(geometry.shape, np.uint8)
    labels[2, 3:7, 3:7] = 1
    labels[2, 4:6, 4:6] = 2
    folder = tmp_path / "round-01" / "predictions" / case.id
    write_labelmap(Labelmap(labels, geometry), folder / "refined.nii.gz")
    (folder / "prediction.json").write_text(
        '{"targets": {"liver": {"checkpoint_agreement": 0.9, "prediction_agreement": 0.7},'
        ' "tumour": {"checkpoint_agreement": null, "prediction_agreement": null}}}',
        encoding="utf-8",
    )
    facts = measure_case(project, case, folder)
    assert facts.labelled == ()
    assert facts.volumes_ml == pytest.approx(
        {"liver": 16 * geometry.voxel_ml, "tumour": 4 * geometry.voxel_ml}
    )
    assert (facts.found, facts.decided) == (1, 0)
    assert facts.reliability == pytest.approx({"liver": 0.8})
    assert known_facts(project, case, None) is None  # those of another round


def test_the_volumes_of_an_ai_label_are_those_that_it_is_exported_with(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    case = project.unlabelled[0]
    geometry = project.geometry(case)
    labels = np.zeros(geometry.shape, np.uint8)
    labels[2, 3:9, 3:9] = 1
    labels[2, 4:6, 4:6] = labels[2, 7, 7] = 2
    folder = project.folder / "runs" / "r" / "round-01" / "predictions" / case.id
    write_labelmap(Labelmap(labels, geometry), folder / "refined.nii.gz")
    mistake = np.zeros(geometry.shape, np.bool_)
    mistake[2, 7, 7] = True
    put_lesion(project, case.id, LesionDecision("deleted", "tumour", boxed(mistake), None, "r", 1))
    voxel_ml = geometry.voxel_ml
    facts = measure_case(project, case, folder)
    assert facts.volumes_ml == pytest.approx({"liver": 36 * voxel_ml, "tumour": 4 * voxel_ml})
    assert (facts.found, facts.decided) == (2, 1)
    (folder / "prediction.json").write_text('{"targets": ["liver"]}', encoding="utf-8")
    assert set(measure_case(project, case, folder).volumes_ml or ()) == {"liver"}


def test_a_damaged_file_of_facts_is_measured_again(project: Project) -> None:
    case = project.labelled[1]
    measure_case(project, case, None)
    thumbnail_path(project, case.id).with_suffix(".json").write_text("{}", encoding="utf-8")
    assert known_facts(project, case, None) is None


def test_the_picture_is_the_slice_with_most_of_the_lesion_true_to_scale() -> None:
    image = a_volume((5, 20, 40), (1.0, 2.0, 4.0))  # 40 mm x 40 mm in plane
    labels = np.zeros((5, 20, 40), np.uint8)
    labels[1] = 1
    labels[3, 8:12, 16:24] = 2
    picture = thumbnail(image, Labelmap(labels, image.geometry), LIVER_TARGETS)
    assert picture.shape == (THUMBNAIL_PX, THUMBNAIL_PX, 3)
    middle, corner = picture[THUMBNAIL_PX // 2, THUMBNAIL_PX // 2], picture[2, 2]
    assert middle[0] > corner[0] + 30  # tinted as a tumour
    assert corner[0] == corner[1] == corner[2] == 127  # 70 HU in the middle of the window


def test_a_picture_is_kept_as_a_file_that_others_read(project: Project) -> None:
    case = project.labelled[0]
    measure_case(project, case, None)
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(thumbnail_path(project, case.id))))
    assert read.shape == (THUMBNAIL_PX, THUMBNAIL_PX, 3)
    assert read.max() > 0


def a_row(case_id: str, state: str = "labelled", *, turn: int = 0, **facts: object) -> CaseOverview:
    known = CaseFacts("", **facts) if facts else None  # type: ignore[arg-type]
    return CaseOverview(CaseReport(case_id, "train", state), turn, None, known)  # type: ignore[arg-type]


def names_of(rows: list[CaseOverview]) -> list[str]:
    return [row.report.case_id for row in rows]


def test_rows_are_ordered_by_numbers_and_what_is_not_known_comes_last() -> None:
    rows = [
        a_row("case 10", volumes_ml={"liver": 900.0}, found=4, decided=1),
        a_row("case 9", volumes_ml={"liver": 1200.0}, found=20, decided=20),
        a_row("case 11", "accepted", turn=1),
        a_row("case 2", volumes_ml={"liver": 85.5}, found=3, decided=1, labelled=("liver",)),
    ]
    assert names_of(overview_order(rows, NAMES, 0)) == ["case 2", "case 9", "case 10", "case 11"]
    volumes = ["case 2", "case 10", "case 9", "case 11"]
    assert names_of(overview_order(rows, NAMES, 4)) == volumes
    downwards = ["case 9", "case 10", "case 2", "case 11"]
    assert names_of(overview_order(rows, NAMES, 4, descending=True)) == downwards
    decided = ["case 10", "case 2", "case 9", "case 11"]
    assert names_of(overview_order(rows, NAMES, 3)) == decided, "by share: 1/4, 1/3, all"
    assert names_of(overview_order(rows, NAMES, len(overview_head(NAMES)) - 1))[0] == "case 11"
    with pytest.raises(IndexError, match="range"):
        overview_order(rows, NAMES, len(overview_head(NAMES)))


def test_rows_are_found_by_a_part_of_name_state_or_labelled_targets_and_by_state() -> None:
    row = a_row("Case 7", "needs review", labelled=("liver",))
    assert overview_matches(row, "")
    assert overview_matches(row, " case 7 ")
    assert overview_matches(row, "AI LABEL")
    assert overview_matches(row, "liver", "needs review")
    assert not overview_matches(row, "tumour")
    assert not overview_matches(row, "", "accepted")
