"""A report stands alone, shows what the run folder holds, and says when SAM was absent."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from matplotlib.image import imread

from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.orientation import axial_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import RunError
from aslseg.evaluation.scores import Mean, mean_dice, mean_of
from aslseg.project.case import CaseFiles
from aslseg.project.complete_slices import set_complete_slices
from aslseg.project.create import create_project
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import CROSS_VALIDATION_COLUMNS, write_table
from aslseg.report import cases as report_cases
from aslseg.report.cases import rank_slices, slice_picture
from aslseg.report.curves import curve_drawings, single_values
from aslseg.report.data import Point, read_run, source_name
from aslseg.report.report import write_report
from aslseg.report.tables import mean_text
from aslseg.targets import LIVER_TARGETS
from support.synthetic_run import write_run

GEOMETRY = Geometry.axis_aligned((5, 40, 48), (4.0, 3.0, 3.0))
REFINED = {"round": 2, "source": "refined", "target": "liver"}


def a_truth() -> Labelmap:
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[1:4, 8:28, 10:30] = 1
    labels[2, 14:20, 16:22] = 2
    return Labelmap(labels, GEOMETRY)


@pytest.fixture
def a_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "one", {"v1": a_truth(), "v2": a_truth()})


@pytest.fixture
def a_project_folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A project of two validation cases and one labelled case to train on."""
    cases = []
    for case, split in (("v1", "validation"), ("v2", "validation"), ("t1", "train")):
        voxels = rng.normal(0, 20, GEOMETRY.shape).astype(np.int16) + 90 * a_truth().labels
        write_volume(Volume(voxels, GEOMETRY), tmp_path / f"{case}.nii.gz")
        write_labelmap(a_truth(), tmp_path / f"{case}_label.nii.gz")
        files = (tmp_path / f"{case}.nii.gz", tmp_path / f"{case}_label.nii.gz")
        cases.append(CaseFiles(case, *files, split=split))
    return create_project(tmp_path / "project", cases).folder


def report_of(project: Path, **settings: object) -> str:
    run = write_run(project / "runs" / "one", {"v1": a_truth(), "v2": a_truth()}, **settings)
    return write_report(run).read_text(encoding="utf-8")


def test_a_report_loads_nothing_from_elsewhere(a_project_folder: Path) -> None:
    text = report_of(a_project_folder)
    outside = re.sub(r'(src|href)="(data:[^"]*|#[^"]*)"', "", text)
    assert not re.search(r"(src|href)=|url\(|@import|<script|<link", outside)
    assert "default-src 'none'" in text


def test_a_report_has_a_row_for_each_source_and_round(a_project_folder: Path) -> None:
    text = report_of(a_project_folder)
    scores = text[text.index('id="scores"') : text.index('id="cases"')]
    headline = scores[scores.index("<table") : scores.index("</table>")]
    assert headline.count("<tr") == 1 + 5 + 4  # head, round 1, round 2 without the baseline
    assert headline.count("n bar best") == 2  # one for each target
    assert "Run without SAM" not in text


def test_predictions_are_not_drawn_on_another_image_than_theirs(a_project_folder: Path) -> None:
    run = write_run(a_project_folder / "runs" / "one", {"v1": a_truth(), "v2": a_truth()})
    said = "Its image has been replaced since this run saw it."
    assert said not in write_report(run).read_text(encoding="utf-8")
    RunFolder(run).write_status(images={"v1": "0" * 64})
    text = write_report(run).read_text(encoding="utf-8")
    assert text.count(said) == 1
    assert "Worst slice of v1" not in text
    assert "Worst slice of v2" in text


def test_no_slice_is_the_worst_that_nobody_has_labelled(a_project_folder: Path) -> None:
    project = set_complete_slices(open_project(a_project_folder), "v1", (1, 3))
    text = report_of(project.folder)
    assert set(re.findall(r"Worst slice of v1: number (\d)", text)) in ({"1"}, {"3"})
    assert "Worst slice of v2: number 2" in text


@pytest.mark.parametrize(("best", "said"), [({"best_round": 1}, True), ({}, False)])
def test_a_report_says_which_round_the_label_maps_are_of(
    a_project_folder: Path, best: dict[str, int], said: bool
) -> None:
    run = write_run(a_project_folder / "runs" / "one", {"v1": a_truth(), "v2": a_truth()})
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    (run / "status.json").write_text(json.dumps(status | best), encoding="utf-8")
    text = write_report(run).read_text(encoding="utf-8")
    assert ("The label maps are those of round 1, whose final labels scored best." in text) == said


def test_a_report_says_that_rounds_were_checked_on_other_labels(a_project_folder: Path) -> None:
    run = write_run(a_project_folder / "runs" / "one", {"v1": a_truth(), "v2": a_truth()})
    RunFolder(run).write_status(best_round=2)
    for digest, said in (("a", False), ("b", True)):
        RunFolder(run).finish(1, 0.9, "a")
        RunFolder(run).finish(2, 0.8, digest)
        text = write_report(run).read_text(encoding="utf-8")
        assert ("scored best of those that were checked on the same label maps." in text) == said


@pytest.mark.parametrize("trained", [1, 2])
def test_a_report_says_which_stage_is_of_an_earlier_round(
    a_project_folder: Path, trained: int
) -> None:
    run = write_run(a_project_folder / "runs" / "one", {"v1": a_truth(), "v2": a_truth()})
    RunFolder(run).write_status(best_round=2)
    for number in (1, 2):
        (run / f"round-{number:02d}" / "metrics.csv").unlink()  # no case validates
        rows = [
            {"case": "t1", "target": "liver", "dice": 0.9, "round": number},
            {"case": "t1", "target": "tumour", "dice": 0.5, "round": min(trained, number)},
        ]
        table = run / f"round-{number:02d}" / "cross_validation.csv"
        write_table(table, CROSS_VALIDATION_COLUMNS, rows)
    stage = "; its networks for tumour are those of round 1" if trained == 1 else ""
    said = f"The label maps are those of round 2, which cross-validation found best{stage}."
    assert said in write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("best", "taught", "said"),
    [
        (2, [2], "round 2, which learnt from labels or decisions of a person that were newer."),
        (3, [3], "round 3, which learnt from labels or decisions of a person that were newer."),
        (3, [], "round 3, the latest one."),
    ],
)
def test_a_round_that_nothing_was_measured_for_is_not_called_the_best(
    a_project_folder: Path, best: int, taught: list[int], said: str
) -> None:
    run = write_run(a_project_folder / "runs" / "one", {"v1": a_truth()})
    RunFolder(run).write_status(best_round=best, taught_rounds=taught)
    for number in (1, 2):
        folder = run / f"round-{number:02d}"
        (folder / "metrics.csv").unlink()
        rows = [{"case": "t1", "target": "liver", "dice": 0.9, "round": number}]
        write_table(folder / "cross_validation.csv", CROSS_VALIDATION_COLUMNS, rows)
    text = write_report(run).read_text(encoding="utf-8")
    assert f"The label maps are those of {said}" in text
    assert "scored best" not in text


def test_each_validation_case_has_its_worst_and_its_best_slice(a_project_folder: Path) -> None:
    text = report_of(a_project_folder)
    for case in ("v1", "v2"):
        assert f"Worst slice of {case}: number 2. Dice of Final label in this slice: liver" in text
        assert f"Best slice of {case}: number 1." in text
    section = text[text.index('id="cases"') : text.index('id="unlabelled"')]
    assert section.count("data:image/png;base64,") == 4


def test_the_overview_has_a_row_and_a_picture_of_each_case(a_project_folder: Path) -> None:
    text = report_of(a_project_folder)
    section = text[text.index('id="overview"') : text.index('id="scores"')]
    cases = open_project(a_project_folder).cases
    assert section.count("<tr") == 1 + len(cases)
    assert section.count("data:image/png;base64,") == len(cases)
    assert all(f">{case.id}<" in section for case in cases)
    assert "liver (ml)" in section


def with_unlabelled(folder: Path, names: Sequence[str], rng: np.random.Generator) -> str:
    """Report of a project without validation cases, of which some volumes were predicted."""
    cases = []
    for case in ("t1", *names):
        write_volume(Volume(rng.normal(0, 20, GEOMETRY.shape), GEOMETRY), folder / f"{case}.nii.gz")
        write_labelmap(a_truth(), folder / "t1_label.nii.gz")
        label = folder / "t1_label.nii.gz" if case == "t1" else None
        cases.append(CaseFiles(case, folder / f"{case}.nii.gz", label))
    project = create_project(folder / "project", cases).folder
    run = write_run(project / "runs" / "one", dict.fromkeys(names, a_truth()))
    return write_report(run).read_text(encoding="utf-8")


def test_unlabelled_volumes_are_shown_the_most_doubtful_first(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    text = with_unlabelled(tmp_path, ["case_05", "case_07"], rng)
    assert "No volume is kept to check on, so no round can be scored." in text
    section = text[text.index('id="unlabelled"') : text.index('id="curves"')]
    first = section.index("case_05: reliability 0.36, AI label not used")
    assert first < section.index("case_07: reliability 0.90, AI label used")
    assert section.count("data:image/png;base64,") == 2
    assert "Truth" not in section
    assert re.search(
        r"case_05: slice \d\. Dice of specialist and final label .*: liver 0\.", section
    )


def test_of_many_unlabelled_volumes_the_ends_are_shown(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_cases, "MOST_DOUBTFUL", 1)
    monkeypatch.setattr(report_cases, "MOST_RELIABLE", 0)
    text = with_unlabelled(tmp_path, ["case_05", "case_07"], rng)
    assert "1 of 2 volumes after round 2" in text
    assert "case_05: reliability" in text
    assert "case_07: reliability" not in text


def test_every_table_of_a_run_without_sam_says_so(a_project_folder: Path) -> None:
    text = report_of(a_project_folder, sam="none")
    captions = re.findall(r"<caption>(.*?)</caption>", text)
    assert len(captions) > 5
    assert all("Run without SAM." in text for text in captions if "Versions" not in text)
    assert "Final label (without SAM)" in text
    assert "SAM, tuned" not in text


def test_names_of_cases_cannot_inject_markup(a_project_folder: Path) -> None:
    text = report_of(a_project_folder)
    assert "Case &lt;b&gt; has no tumour." in text
    assert "<b>" not in text


def test_titles_and_cells_are_escaped(a_project_folder: Path) -> None:
    run = write_run(a_project_folder / "runs" / "a & b", {"v1": a_truth()})
    (run / "config.json").write_text('{"<i>": "</td>", "sam": {"model": "vit_t"}}')
    text = write_report(run).read_text(encoding="utf-8")
    assert "<title>ASLseg: a &amp; b</title>" in text
    assert "&lt;i&gt;" in text
    assert "&lt;/td&gt;" in text


def test_a_run_that_has_just_begun_has_a_report(a_project_folder: Path) -> None:
    text = report_of(a_project_folder, rounds=0, state="running")
    assert "interrupted" in text
    with FileLock(a_project_folder / "runs" / "one" / "lock"):
        text = write_report(a_project_folder / "runs" / "one").read_text(encoding="utf-8")
    assert "still running" in text
    assert "No prediction has been scored" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)


class TestRunRecord:
    def test_scores_are_read_with_undefined_distances(self, a_run: Path) -> None:
        run = read_run(a_run)
        first = run.scores[0]
        assert (first.round, first.source, first.case, first.target) == (
            1,
            "supervised",
            "v1",
            "liver",
        )
        assert first.dice == pytest.approx(0.81)
        assert math.isnan(run.scores[1].hd95_mm)
        assert len(run.scores) == (5 + 4) * 2 * 2

    def test_sources_come_in_the_order_of_events(self, a_run: Path) -> None:
        sources = read_run(a_run).sources
        assert sources[:2] == ((1, "supervised"), (1, "specialist"))
        assert sources[-1] == (2, "refined")

    def test_mean_dice_is_over_the_cases_of_the_split(self, a_run: Path) -> None:
        scores = read_run(a_run).scores
        mean = mean_dice(scores, **REFINED, split="validation")
        assert mean.value == pytest.approx((0.95 + 0.97) / 2)
        assert mean.count == 2
        assert mean_dice(scores, **REFINED, split="test").count == 0

    def test_a_last_line_that_was_cut_is_left_out(self, a_run: Path) -> None:
        assert len(read_run(a_run).curves) == 2 * 2 * (500 + 10)

    def test_a_status_without_sam_counts_more_than_the_wish_for_it(self, a_run: Path) -> None:
        assert read_run(a_run).has_sam
        (a_run / "status.json").write_text('{"sam": "none"}')
        assert not read_run(a_run).has_sam

    @pytest.mark.parametrize("name", ["status.json", "round-01/metrics.csv"])
    def test_a_damaged_file_is_named(self, a_run: Path, name: str) -> None:
        (a_run / name).write_text("round,source\n1,")
        with pytest.raises(RunError, match=f"{Path(name).name} is damaged"):
            read_run(a_run)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], "–", id="none"),  # noqa: RUF001
        pytest.param([0.5, math.nan], "0.500", id="one"),
        pytest.param([0.4, 0.6], "0.500 ± 0.14", id="two"),
    ],
)
def test_a_mean_says_what_it_can(values: list[float], expected: str) -> None:
    assert mean_text(mean_of(values)) == expected


def test_the_spread_is_that_of_a_sample() -> None:
    assert mean_of([1.0, 2.0, 3.0]) == Mean(2.0, 1.0, 3)


def test_only_the_refined_label_is_marked_as_without_sam() -> None:
    assert source_name("refined", has_sam=True) == "Final label"
    assert source_name("refined", has_sam=False) == "Final label (without SAM)"
    assert source_name("specialist", has_sam=False) == "Specialist"


class TestRanking:
    def test_the_missed_slice_is_the_worst(self) -> None:
        truth = a_truth()
        labels = truth.labels.copy()
        labels[3] = 0
        worst, best = rank_slices(Labelmap(labels, GEOMETRY), truth, LIVER_TARGETS)
        assert (worst.index, worst.dice) == (3, {"liver": 0.0})
        # Slices 1 and 2 are perfect; 2 has both targets.
        assert (best.index, best.dice) == (2, {"liver": 1.0, "tumour": 1.0})

    def test_a_sliver_does_not_count(self) -> None:
        truth = a_truth()
        labels = truth.labels.copy()
        labels[0, 0, 0] = 1  # 1 voxel against sections of 400
        worst, _ = rank_slices(Labelmap(labels, GEOMETRY), truth, LIVER_TARGETS)
        assert worst.mean == 1.0

    def test_what_nobody_labelled_has_no_rank(self) -> None:
        truth = a_truth()
        labels = truth.labels.copy()
        labels[3] = 0
        labels[2, 20:24, 22:26] = 2
        left_out = np.zeros(GEOMETRY.shape, np.bool_)
        left_out[3] = True
        predicted = Labelmap(labels, GEOMETRY)
        worst, _ = rank_slices(predicted, truth, LIVER_TARGETS, left_out=left_out)
        assert worst.index == 2
        worst, _ = rank_slices(predicted, truth, LIVER_TARGETS, left_out=left_out, scored={"liver"})
        assert worst.dice == {"liver": 1.0}

    def test_nothing_in_both_has_no_rank(self) -> None:
        empty = Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY)
        assert rank_slices(empty, empty, LIVER_TARGETS) is None


def picture(image: Volume, predictions: dict[str, Labelmap]) -> np.ndarray:
    address = slice_picture(image, predictions, 2, LIVER_TARGETS)
    return imread(BytesIO(base64.b64decode(address.partition(",")[2])), format="png")[..., :3]


def test_outlines_have_the_colours_of_their_sources() -> None:
    image = Volume(np.zeros(GEOMETRY.shape, np.int16), GEOMETRY)
    drawn = picture(image, {"truth": a_truth()})
    yellow = np.abs(drawn - np.array([0xF0, 0xE4, 0x42]) / 255).max(axis=-1) < 0.05
    assert yellow[:, yellow.shape[1] // 2 :].any()
    assert not yellow[:, : yellow.shape[1] // 2].any()  # the left half stays bare


def test_a_mirrored_volume_is_shown_upright() -> None:
    voxels = np.full(GEOMETRY.shape, -100, np.int16)
    voxels[2, 2:10, 2:10] = 250
    turned = Geometry(GEOMETRY.shape, GEOMETRY.ijk_to_ras @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    mirrored = Volume(voxels[:, ::-1, ::-1].copy(), turned)
    np.testing.assert_allclose(
        picture(axial_volume(mirrored), _empty(GEOMETRY)),
        picture(Volume(voxels, GEOMETRY), _empty(GEOMETRY)),
    )


def _empty(geometry: Geometry) -> dict[str, Labelmap]:
    return {"truth": Labelmap(np.zeros(geometry.shape, np.uint8), geometry)}


class TestCurves:
    def test_each_metric_has_one_drawing(self) -> None:
        points = [Point("loss", "liver", 1, step, 1.0 / step) for step in range(1, 2000)]
        points += [Point("dice", "liver", 1, step, 0.1 * step) for step in (1, 2)]
        drawings = curve_drawings(points)
        assert list(drawings) == ["loss", "dice"]
        assert all(svg.startswith("<svg") for svg in drawings.values())
        assert len(drawings["loss"]) < 60_000  # thinned

    def test_what_each_round_measures_once_is_drawn_over_rounds(self) -> None:
        points = [Point("dice", "refined", number, number, 0.5) for number in (1, 2)]
        svg = curve_drawings(points)["dice"]
        assert ">round<" in svg
        assert ">Final label<" in svg
        assert single_values(points) == []

    def test_a_single_value_is_listed_and_not_drawn(self) -> None:
        points = [Point("share", "sam", 1, 0, 0.5), Point("share", "sam", 1, 1, math.nan)]
        assert curve_drawings(points) == {}
        assert single_values(points) == [("share", "SAM, tuned, round 1", 0.5)]

    def test_a_resumed_step_is_drawn_once(self) -> None:
        once = curve_drawings([Point("loss", "a", 1, 1, 0.5), Point("loss", "a", 1, 2, 0.25)])
        again = [
            Point("loss", "a", 1, step, value) for step, value in ((1, 0.5), (2, 9.0), (2, 0.25))
        ]
        assert curve_drawings(again) == once
