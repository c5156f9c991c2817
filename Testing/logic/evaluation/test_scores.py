"""Scoring label maps against the truth, by hand-computed numbers and by file name."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import write_labelmap
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import CancelledError, ConfigError, GeometryMismatchError, ImageError
from aslseg.evaluation.scores import evaluate_folder, mean_dice, score_rows
from aslseg.events import Event, Monitor, Notice, Progress
from aslseg.targets import LIVER_TARGETS, Target

GRID = Geometry.axis_aligned((3, 8, 8), (5.0, 2.0, 1.0))  # a voxel has 0.01 ml


def liver(columns: slice, tumour: slice | None = None) -> Labelmap:
    """Return a liver of 3 x 4 voxels per column; the tumour takes some columns of the middle."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[:, 2:6, columns] = 1
    if tumour is not None:
        labels[1, 3:5, tumour] = 2
    return Labelmap(labels, GRID)


TRUTH = liver(slice(2, 6), slice(3, 5))


def test_the_truth_scores_one_in_every_way() -> None:
    rows = score_rows(TRUTH, TRUTH, LIVER_TARGETS, {"case": "a"})
    assert [row["target"] for row in rows] == ["liver", "tumour"]
    for row in rows:
        assert (row["dice"], row["jaccard"], row["hd95_mm"], row["assd_mm"]) == (1, 1, 0, 0)
        assert (row["lesions_true"], row["lesions_found"], row["false_positives"]) == (1, 1, 0)
    assert rows[0]["volume_ml"] == pytest.approx(0.48)  # 3 x 4 x 4 voxels, the tumour with them
    assert rows[1]["volume_ml"] == pytest.approx(0.04)


def test_a_liver_moved_by_one_column_scores_three_quarters() -> None:
    row = score_rows(liver(slice(3, 7)), TRUTH, LIVER_TARGETS, {})[0]
    assert row["dice"] == 0.75
    assert row["jaccard"] == 0.6
    assert row["hd95_mm"] == 1.0


def test_a_tumour_called_liver_costs_the_tumour_and_not_the_liver() -> None:
    of_liver, of_tumour = score_rows(liver(slice(2, 6)), TRUTH, LIVER_TARGETS, {})
    assert of_liver["dice"] == 1.0
    assert (of_tumour["dice"], of_tumour["lesions_found"]) == (0.0, 0)
    assert math.isnan(of_tumour["hd95_mm"])


def test_an_invented_tumour_is_a_false_positive() -> None:
    row = score_rows(TRUTH, liver(slice(2, 6)), LIVER_TARGETS, {})[1]
    assert (row["lesions_true"], row["lesions_found"], row["false_positives"]) == (0, 0, 1)
    assert row["dice"] == 0.0


def test_facts_come_first_and_numbers_are_rounded() -> None:
    row = score_rows(liver(slice(2, 5)), TRUTH, LIVER_TARGETS, {"round": 1, "case": "a"})[0]
    assert list(row)[:3] == ["round", "case", "target"]
    assert row["dice"] == round(2 * 36 / (36 + 48), 4) == 0.8571


def test_label_maps_on_other_grids_are_not_scored() -> None:
    elsewhere = Labelmap(TRUTH.labels, Geometry.axis_aligned(GRID.shape))
    with pytest.raises(GeometryMismatchError):
        score_rows(elsewhere, TRUTH, LIVER_TARGETS, {})


def test_mean_dice_is_over_the_rows_that_match() -> None:
    rows = [
        {"source": "sam", "case": "a", "dice": 0.2},
        {"source": "refined", "case": "a", "dice": 0.4},
        {"source": "refined", "case": "b", "dice": "0.8"},
    ]
    assert mean_dice(rows, source="refined").value == pytest.approx(0.6)
    assert mean_dice(rows, source="refined", case="b").value == 0.8
    assert mean_dice(rows).value == pytest.approx(1.4 / 3)
    assert math.isnan(mean_dice(rows, source="specialist").value)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predicted, truth = tmp_path / "predicted", tmp_path / "truth"
    for name, labels in {"b": liver(slice(3, 7)), "a": TRUTH, "c": TRUTH}.items():
        write_labelmap(labels, predicted / f"{name}.nii.gz")
    write_labelmap(TRUTH, truth / "a.nii.gz")
    write_labelmap(TRUTH, truth / "b.nrrd")
    write_labelmap(TRUTH, truth / "d.nii.gz")
    return predicted, truth


def test_label_maps_of_one_name_are_scored_whatever_their_ending(
    folders: tuple[Path, Path],
) -> None:
    rows = evaluate_folder(*folders, LIVER_TARGETS)
    facts = [(row["case"], row["target"], row["dice"]) for row in rows]
    assert facts == [
        ("a", "liver", 1.0),
        ("a", "tumour", 1.0),
        ("b", "liver", 0.75),
        ("b", "tumour", 0.0),
    ]


def test_a_segmentation_of_slicer_keeps_its_name(tmp_path: Path) -> None:
    write_labelmap(TRUTH, tmp_path / "predicted" / "a.seg.nrrd")
    write_labelmap(TRUTH, tmp_path / "truth" / "a.nii")
    rows = evaluate_folder(tmp_path / "predicted", tmp_path / "truth", LIVER_TARGETS)
    assert {row["case"] for row in rows} == {"a"}


def test_a_truth_on_a_finer_grid_is_brought_to_that_of_the_prediction(tmp_path: Path) -> None:
    write_labelmap(TRUTH, tmp_path / "predicted" / "a.nii.gz")
    affine = GRID.ijk_to_ras @ np.diag([0.5, 1.0, 1.0, 1.0])
    affine[:3, 3] += GRID.ijk_to_ras[:3, 0] * -0.25  # two voxels where there was one
    finer = Labelmap(np.repeat(TRUTH.labels, 2, axis=2), Geometry((3, 8, 16), affine))
    write_labelmap(finer, tmp_path / "truth" / "a.nii.gz")
    rows = evaluate_folder(tmp_path / "predicted", tmp_path / "truth", LIVER_TARGETS)
    assert [row["dice"] for row in rows] == [1.0, 1.0]


def told(received: list[Event]) -> list[str]:
    return [event.message for event in received if isinstance(event, Notice)]


def test_label_maps_that_are_in_one_folder_alone_are_told(folders: tuple[Path, Path]) -> None:
    received: list[Event] = []
    evaluate_folder(*folders, LIVER_TARGETS, Monitor(received.append))
    assert told(received) == [
        "Not scored, for there is no truth of these names: c.",
        "Not scored, for there is no prediction of these names: d.",
    ]


def test_two_label_maps_of_one_name_in_a_folder_are_refused(folders: tuple[Path, Path]) -> None:
    write_labelmap(liver(slice(3, 7)), folders[0] / "a.nrrd")
    with pytest.raises(ImageError, match=r"a\.nii\.gz and a\.nrrd have one name"):
        evaluate_folder(*folders, LIVER_TARGETS)


def test_a_target_that_is_in_no_label_map_is_told_for_its_scores_say_nothing(
    folders: tuple[Path, Path],
) -> None:
    received: list[Event] = []
    targets = [Target(name="kidney", value=7), Target(name="liver", value=1)]
    rows = evaluate_folder(*folders, targets, Monitor(received.append))
    assert rows[0]["dice"] == 1.0  # of two empty masks
    assert told(received)[2:-1] == [
        "No label map of either folder has a voxel of kidney (value 7); values are 1, 2. Its "
        "scores say nothing; name targets by their values (--target NAME=VALUE)."
    ]


def test_a_value_that_no_target_has_is_told_for_it_scores_as_background(tmp_path: Path) -> None:
    labels = np.where(TRUTH.labels == 2, np.uint8(3), TRUTH.labels)
    write_labelmap(Labelmap(labels, GRID), tmp_path / "predicted" / "a.nii.gz")
    write_labelmap(TRUTH, tmp_path / "truth" / "a.nii.gz")
    received: list[Event] = []
    evaluate_folder(
        tmp_path / "predicted", tmp_path / "truth", LIVER_TARGETS, Monitor(received.append)
    )
    assert told(received) == [
        "Scored as background, for no target has these values: 3. If they mean something that is "
        "scored, name it (--target NAME=VALUE or NAME=VALUE:INSIDE)."
    ]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Target(name="liver", value=2), "Two targets have the name liver"),
        (Target(name="kidney", value=1), "Two targets have the value 1"),
    ],
)
def test_two_targets_of_one_name_or_value_are_refused(
    folders: tuple[Path, Path], other: Target, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate_folder(*folders, [Target(name="liver", value=1), other])


def test_progress_is_told_and_stopping_obeyed(folders: tuple[Path, Path]) -> None:
    received: list[Event] = []
    monitor = Monitor(received.append)
    evaluate_folder(*folders, LIVER_TARGETS, monitor)
    progress = [event for event in received if isinstance(event, Progress)]
    assert (progress[-1].step, progress[-1].of) == (2, 2)
    monitor.token.cancel()
    with pytest.raises(CancelledError):
        evaluate_folder(*folders, LIVER_TARGETS, monitor)


def test_hidden_files_are_no_label_maps(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        (folder / "._a.nii.gz").write_bytes(b"\0\5\x16\7")
    assert {row["case"] for row in evaluate_folder(*folders, LIVER_TARGETS)} == {"a", "b"}


def test_a_folder_without_label_maps_is_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty holds no label map"):
        evaluate_folder(tmp_path / "empty", folders[1], LIVER_TARGETS)
    with pytest.raises(ImageError, match="absent holds no label map"):
        evaluate_folder(folders[0], tmp_path / "absent", LIVER_TARGETS)


def test_folders_without_a_common_name_are_refused(tmp_path: Path) -> None:
    write_labelmap(TRUTH, tmp_path / "predicted" / "a.nii.gz")
    write_labelmap(TRUTH, tmp_path / "truth" / "b.nii.gz")
    with pytest.raises(ImageError, match="must be named alike"):
        evaluate_folder(tmp_path / "predicted", tmp_path / "truth", LIVER_TARGETS)


def test_a_truth_that_reaches_beyond_the_prediction_is_scored_in_whole(tmp_path: Path) -> None:
    part = Labelmap(
        TRUTH.labels[:, :, 3:], Geometry((3, 8, 5), GRID.ijk_to_ras @ _moved_by_columns(3))
    )
    write_labelmap(part, tmp_path / "part" / "a.nii.gz")
    write_labelmap(TRUTH, tmp_path / "whole" / "a.nii.gz")
    for folders in (("part", "whole"), ("whole", "part")):
        rows = evaluate_folder(*(tmp_path / name for name in folders), LIVER_TARGETS)
        assert [row["dice"] for row in rows] == [round(2 * 36 / (36 + 48), 4), 1.0], folders


def _moved_by_columns(columns: int) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 3] = columns
    return affine
