"""Segments of a `.seg.nrrd` file go to the targets of their names, whatever numbers they have."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import read_segments, write_labelmap
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import ImageError
from aslseg.evaluation.scores import evaluate_folder
from aslseg.project.labels import load_labels
from aslseg.targets import LIVER_TARGETS, Target

SHAPE = (4, 6, 8)
GEOMETRY = Geometry.axis_aligned(SHAPE)
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[1:3, 1:5, 1:7] = 1
TRUTH[2, 2:4, 3:5] = 2
MASS = "Segmentation category and type~SCT^4147007^Mass~SCT^4147007^{}~^^~Anatomic codes~^^~^^"


def write(path: Path, values: dict[int, int], segments: Sequence[tuple[object, ...]]) -> Path:
    """Write the truth with other values, and segments of a name, a value and a terminology."""
    lines = [
        "NRRD0004", "type: unsigned char", "dimension: 3", "space: left-posterior-superior",
        "sizes: 8 6 4", "space directions: (1,0,0) (0,1,0) (0,0,1)", "encoding: gzip",
        "space origin: (0,0,0)",
    ]  # fmt: skip
    for number, (name, value, *kind) in enumerate(segments):
        lines += [f"Segment{number}_Name:={name}", f"Segment{number}_LabelValue:={value}"]
        if kind:
            lines += [f"Segment{number}_Tags:=A:b|TerminologyEntry:{MASS.format(*kind)}|C:d|"]
    table = np.zeros(256, np.uint8)
    for old, new in values.items():
        table[old] = new
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + gzip.compress(table[TRUTH].tobytes()))
    return path


RIGHT = [
    pytest.param({1: 1, 2: 2}, [("liver", 1), ("tumour", 2)], id="in order"),
    pytest.param({1: 2, 2: 1}, [("tumour", 1), ("liver", 2)], id="swapped"),
    pytest.param({1: 1, 2: 3}, [("liver", 1), ("tumour", 3)], id="drawn again"),
    pytest.param({1: 7, 2: 9}, [("Liver", 7), ("TUMOR", 9)], id="other spelling"),
    pytest.param({1: 7, 2: 9}, [("liver", 7), ("tumor_2", 9)], id="with a counter"),
    pytest.param({1: 1, 2: 2}, [("liver", 1), ("tumour", 2), ("spleen", 3)], id="an empty other"),
    pytest.param({1: 4, 2: 5}, [("Segment_1", 4, "Liver"), ("x", 5, "Tumor")], id="terminology"),
    pytest.param({1: 4, 2: 5}, [("liver", 4, "Tissue"), ("tumour", 5, "Mass")], id="other kinds"),
]


@pytest.mark.parametrize(("values", "segments"), RIGHT)
def test_names_count_and_numbers_do_not(
    tmp_path: Path, values: dict[int, int], segments: list[tuple[object, ...]]
) -> None:
    path = write(tmp_path / "a.seg.nrrd", values, segments)
    np.testing.assert_array_equal(load_labels(path, GEOMETRY, LIVER_TARGETS).labels, TRUTH)


def test_several_segments_make_one_target(tmp_path: Path) -> None:
    path = write(tmp_path / "a.seg.nrrd", {1: 4, 2: 5}, [("tumour 1", 4), ("tumour 2", 5)])
    labels = load_labels(path, GEOMETRY, LIVER_TARGETS).labels
    np.testing.assert_array_equal(labels, 2 * (TRUTH > 0))


WRONG = [
    pytest.param(
        {1: 1, 2: 2}, [("Segment_1", 1), ("Segment_2", 2)],
        r"segment 'Segment_1', which is no target \('liver', 'tumour'\); name it as its target",
        id="names that say nothing",
    ),
    pytest.param(
        {1: 1, 2: 2}, [("liver", 1), ("spleen", 2)], "the segment 'spleen', which is no target",
        id="another organ",
    ),
    pytest.param(
        {1: 1, 2: 2}, [("liver", 1, "Tumour"), ("tumour", 2)],
        r"'liver' \(terminology 'Tumour'\) may be liver and tumour; rename it",
        id="name against terminology",
    ),
    pytest.param(
        {1: 1, 2: 2}, [("liver", 1)], "the value 2, which none of its segments has",
        id="voxels without a segment",
    ),
    pytest.param(
        {1: 1, 2: 2}, [("liver", 1), ("tumour", 1)], "two segments of one value", id="one value",
    ),
    pytest.param(
        {1: 1, 2: 2}, [("liver", "one")], "does not say which value its segment 'liver' has",
        id="no value",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "segments", "words"), WRONG)
def test_what_cannot_be_told_is_refused(
    tmp_path: Path, values: dict[int, int], segments: list[tuple[object, ...]], words: str
) -> None:
    path = write(tmp_path / "a.seg.nrrd", values, segments)
    with pytest.raises(ImageError, match=rf"a\.seg\.nrrd.*{words}"):
        load_labels(path, GEOMETRY, LIVER_TARGETS)


def test_two_targets_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.seg.nrrd", {1: 1}, [("kidney 1", 1)])
    targets = (Target(name="kidney_1", value=1), Target(name="kidney-1", value=2))
    with pytest.raises(ImageError, match="may be kidney-1 and kidney_1"):
        load_labels(path, GEOMETRY, targets)


def test_files_that_name_nothing_go_by_their_numbers(tmp_path: Path) -> None:
    write_labelmap(Labelmap(TRUTH, GEOMETRY), tmp_path / "a.nrrd")
    labelmap, segments = read_segments(tmp_path / "a.nrrd")
    assert segments == ()
    np.testing.assert_array_equal(labelmap.labels, TRUTH)
    np.testing.assert_array_equal(
        load_labels(tmp_path / "a.nrrd", GEOMETRY, LIVER_TARGETS).labels, TRUTH
    )


def test_scoring_goes_by_names_and_leaves_other_segments(tmp_path: Path) -> None:
    for folder, values, segments in (
        ("found", {1: 1, 2: 2}, [("liver", 1), ("tumour", 2)]),
        ("true", {1: 5, 2: 1}, [("tumour", 1), ("liver", 5)]),
        ("other", {1: 5, 2: 1}, [("spleen", 1), ("liver", 5)]),
    ):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.seg.nrrd", values, segments)
    rows = evaluate_folder(tmp_path / "found", tmp_path / "true", LIVER_TARGETS)
    assert [row["dice"] for row in rows] == [1.0, 1.0]
    rows = evaluate_folder(tmp_path / "other", tmp_path / "true", LIVER_TARGETS)
    assert 0.9 < rows[0]["dice"] < 1.0
    assert rows[1]["dice"] == 0.0
