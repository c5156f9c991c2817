"""A simulated person labels made-up patients in several ways; every act is counted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from economy import study as study_module
from economy.curves import Logged, summary, write_results
from economy.data import ThresholdSam, made_up, made_up_settings
from economy.desk import Desk, ReviewDesk
from economy.filling import NewFiller, RunFiller
from economy.growing import Grower
from economy.log import CaseState, CaseWork, Log
from economy.person import first_step, label_case, label_slices
from economy.prices import PRICES, Act, price_table, seconds_of
from economy.sight import (
    Quality,
    SliceCheck,
    Standard,
    check_slice,
    filled_between,
    outline_mm,
    quality_of,
    surface_dice,
)
from economy.study import RUN, WEIGHTS, Study
from economy.ways import WAYS, ways_of_finished_run
from economy_draws import lines, part_in_words, read
from economy_orders import ORDERS, Reviewed, measured, off_by
from economy_rounds import changed_of
from economy_rounds import lines as compared
from even_slices import even_slices

from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Labels, Volume
from aslseg.engine.filling import DrawnLesion
from aslseg.project.case import CaseFiles
from aslseg.project.case_reports import CaseReport
from aslseg.project.create import create_project
from aslseg.project.lesion_decisions import LesionDecision, boxed, read_lesions
from aslseg.project.project import Project, open_project
from aslseg.project.review_pace import CASE_ML
from aslseg.project.run_folder import RunFolder
from aslseg.storage import write_json_atomic
from aslseg.targets import LIVER_TARGETS, Target
from support.few_steps import learn_in_few_steps

STANDARD = Standard()
GRID = Geometry.axis_aligned((10, 40, 40), (4.0, 2.0, 2.0))


def test_an_act_costs_its_price_and_twice_as_much_when_prices_are_doubled() -> None:
    acts = [Act("key", 3), Act("draw", 50.0), Act("scroll", 10)]
    assert seconds_of(acts) == pytest.approx(3 * 0.2 + 50 * 0.1 + 10 * 0.5)
    assert seconds_of(acts, 2.0) == pytest.approx(2 * seconds_of(acts))
    assert seconds_of(acts, 2.0, "draw") == pytest.approx(seconds_of(acts) + 50 * 0.1)


def test_the_price_list_of_the_documents_is_the_one_that_is_used() -> None:
    document = Path(__file__).resolve().parents[2] / "Docs" / "studies" / "label-economy.md"
    assert price_table() in document.read_text(encoding="utf-8")


def test_the_outline_of_a_square_is_its_edges_times_a_quarter_of_pi() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    assert outline_mm(mask, (2.0, 1.0)) == pytest.approx(np.pi / 4 * (20 * 2.0 + 20 * 1.0))


def test_a_section_within_the_tolerance_takes_no_stroke_and_a_missing_one_its_outline() -> None:
    goal = np.zeros((40, 40), bool)
    goal[10:30, 10:30] = True
    moved, nothing = np.roll(goal, 1, axis=1), np.zeros_like(goal)
    near = check_slice(moved, goal, (2.0, 2.0), 3.0)
    assert (near.surface_dice, near.strokes, near.length_mm) == (1.0, 0, 0.0)
    drawn = check_slice(nothing, goal, (2.0, 2.0), 3.0)
    assert (drawn.surface_dice, drawn.strokes) == (0.0, 1)
    assert drawn.length_mm == pytest.approx(outline_mm(goal, (2.0, 2.0)))
    part = check_slice(np.roll(goal, 4, axis=1), goal, (2.0, 2.0), 3.0)
    assert 0 < part.length_mm < drawn.length_mm
    assert check_slice(nothing, nothing, (2.0, 2.0), 3.0).surface_dice == 1.0


def test_a_section_is_drawn_anew_where_that_is_cheaper_than_mending_it_in_pieces() -> None:
    """Two edges are 8 mm off: two strokes, or the whole outline in one."""

    def checked(edge: int) -> SliceCheck:
        goal, shown = np.zeros((2, 160, 160), bool)
        goal[20 : 20 + edge, 20 : 20 + edge] = True
        shown[20 : 20 + edge, 12 : 28 + edge] = True
        return check_slice(shown, goal, (1.0, 1.0), 3.0)

    small, large = checked(12), checked(100)
    whole_mm = np.pi / 4 * 4 * 12
    assert (small.strokes, small.length_mm) == (1, pytest.approx(whole_mm))
    assert small.seconds == pytest.approx(2.65 + whole_mm * 0.1)
    assert large.strokes == 2
    assert 0 < large.length_mm < np.pi / 4 * 4 * 100
    assert check_slice(np.ones((9, 9), bool), np.zeros((9, 9), bool), (1.0, 1.0), 3.0).acts == (
        Act("click"),
    )


def test_slices_between_equal_ones_are_filled_with_the_same() -> None:
    mask = np.zeros((7, 20, 20), bool)
    mask[[0, 3, 6], 5:12, 6:15] = True
    filled = filled_between(mask, [0, 3, 6])
    assert (filled == mask[0]).all()


def test_surface_dice_counts_both_surfaces_and_a_missing_one_as_wrong() -> None:
    mask = np.zeros((10, 20, 20), bool)
    mask[3:6, 5:12, 6:15] = True
    nothing = np.zeros_like(mask)
    assert surface_dice(mask, mask, (4.0, 2.0, 2.0), 0.0) == 1.0
    assert surface_dice(mask, nothing, (4.0, 2.0, 2.0), 3.0) == 0.0
    assert surface_dice(nothing, nothing, (4.0, 2.0, 2.0), 3.0) == 1.0


def liver_with(*tumours: tuple[int, int, int, int]) -> Labels:
    """Return a liver with tumours: first slice, row, column, and edge in pixels; 3 slices deep."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1:9, 4:36, 4:36] = 1
    for k, row, column, edge in tumours:
        labels[k : k + 3, row : row + edge, column : column + edge] = 2
    return labels


RIGHT, FALSE, MISSED, BAD = (2, 6, 6, 6), (2, 6, 24, 5), (5, 24, 24, 8), (2, 24, 6, 7)
SMALL = (6, 8, 28, 2)


def test_a_lesion_that_is_missing_or_false_is_below_the_standard_and_a_small_one_is_not() -> None:
    truth = liver_with(RIGHT, MISSED, SMALL)

    def state(*tumours: tuple[int, int, int, int]) -> Quality:
        return quality_of(liver_with(*tumours), truth, LIVER_TARGETS, GRID, STANDARD)

    assert state(RIGHT, MISSED).meets(STANDARD)
    assert state(RIGHT, MISSED, SMALL).meets(STANDARD)
    assert (state(RIGHT).lesions, state(RIGHT).found) == (2, 1)
    assert not state(RIGHT).meets(STANDARD)
    assert state(RIGHT, MISSED, FALSE).false == 1
    assert not state(RIGHT, MISSED, FALSE).meets(STANDARD)


def a_reviewed_project(folder: Path) -> tuple[Project, RunFolder, Labels]:
    """Make a case of which a run found a right, a false and a bad lesion, and missed one."""
    truth, shifted = liver_with(RIGHT, MISSED, BAD), (BAD[0], BAD[1] + 4, BAD[2] + 2, BAD[3])
    image = np.choose(truth, (-60.0, 100.0, 10.0)).astype(np.float32)
    write_volume(Volume(image, GRID), folder / "a.nii.gz")
    project = create_project(folder / "project", [CaseFiles("a", folder / "a.nii.gz")])
    run = RunFolder(project.folder / "runs" / "r")
    write_json_atomic(run.path / "config.json", RunConfig().model_dump(mode="json"))
    run.write_status(state="done", best_round=1, rounds=1, method="aslseg")
    refined = Labelmap(liver_with(RIGHT, FALSE, shifted), GRID)
    for source in ("refined", "specialist"):
        write_labelmap(refined, run.predictions(1, "a") / f"{source}.nii.gz")
    return project, run, truth


def amounts(acts: list[Act]) -> dict[str, float]:
    return {name: sum(act.amount for act in acts if act.name == name) for name in PRICES}


@pytest.mark.parametrize("grows", [True, False])
def test_a_person_decides_about_each_lesion_by_keys_and_adds_the_missed_one(
    tmp_path: Path, grows: bool
) -> None:
    project, run, truth = a_reviewed_project(tmp_path)
    grower = Grower(ThresholdSam(), tmp_path / "grown") if grows else None
    desk = ReviewDesk(project, "a", run, grower=grower)
    seen = desk.seen(truth)
    acts = label_case(desk, seen, STANDARD)
    decided = read_lesions(project, "a").decisions.values()
    assert sorted(one.what for one in decided) == ["accepted", "added", "deleted", "edited"]
    assert quality_of(desk.shown, seen, LIVER_TARGETS, desk.geometry, STANDARD).meets(STANDARD)
    saved = read_labelmap(project.folder / "labels" / "a.nii.gz")
    assert (saved.labels == desk.stored(desk.shown)).all()
    done = amounts(acts)
    assert (done["open"], done["save"], done["scroll"]) == (1, 1, 8)
    assert done["box"] == done["wait"] == (1 if grows else 0)
    assert done["look"] == (5 if grows else 4)
    assert done["key"] == 1 + 1 + 2 + 2  # accept, delete, edit, add


def test_lesions_that_touch_are_told_apart_though_each_of_them_is_within_the_tolerance(
    tmp_path: Path,
) -> None:
    project, _, _ = a_reviewed_project(tmp_path)
    truth = liver_with((2, 6, 6, 8), (2, 6, 15, 8))
    joined = truth.copy()
    joined[2:5, 6:14, 14] = 2
    desk = Desk(project, "a", Labelmap(joined, GRID))
    before = quality_of(joined, truth, LIVER_TARGETS, desk.geometry, STANDARD)
    assert before.lesion_surface_dice > STANDARD.least_surface_dice
    assert not before.meets(STANDARD)
    desk.save = lambda: desk.shown  # type: ignore[method-assign]
    acts = label_case(desk, desk.seen(truth), STANDARD)
    assert (desk.shown == desk.seen(truth)).all()
    assert amounts(acts)["stroke"] == 3


@pytest.mark.parametrize(
    ("columns", "rows", "deleted"),
    [((15, 23), (6, 14), 0), ((21, 36), (4, 32), 1)],
    ids=["the rest", "much beside"],
)
def test_pieces_of_a_lesion_are_kept_together_as_long_as_that_saves_drawing(
    tmp_path: Path,
    columns: tuple[int, int],
    rows: tuple[int, int],
    deleted: int,
) -> None:
    project, _, _ = a_reviewed_project(tmp_path)
    truth, shown = liver_with(), liver_with()
    truth[2:5, 6:14, 6:23] = 2
    shown[2:5, 6:14, 6 : columns[0] - 1] = 2  # a pixel between is within the tolerance
    shown[2:5, slice(*rows), slice(*columns)] = 2
    desk = Desk(project, "a", Labelmap(shown, GRID))
    desk.save = lambda: desk.shown  # type: ignore[method-assign]
    done = amounts(label_case(desk, desk.seen(truth), STANDARD))
    assert (done["look"], done["click"], done["draw"]) == (2, deleted, 0)


def test_what_grows_from_a_box_saves_drawing_and_is_kept(tmp_path: Path) -> None:
    project, _, truth = a_reviewed_project(tmp_path)

    def drawn(grower: Grower | None) -> float:
        desk = Desk(project, "a", None, grower)
        desk.save = lambda: desk.shown  # type: ignore[method-assign]
        return amounts(label_case(desk, desk.seen(truth), STANDARD))["draw"]

    class Refuses:
        def predict_logits(self, *_: object) -> None:
            pytest.fail("SAM was asked again")

    by_hand = drawn(None)
    grown = drawn(Grower(ThresholdSam(), tmp_path / "grown"))
    assert 0 < grown < by_hand
    again = drawn(Grower(Refuses(), tmp_path / "grown"))  # type: ignore[arg-type]
    assert again == grown


def test_a_wrong_shape_that_saves_no_drawing_is_deleted(tmp_path: Path) -> None:
    project, run, truth = a_reviewed_project(tmp_path)
    everything = np.where(truth > 0, 2, 0).astype(np.uint8)
    write_labelmap(Labelmap(everything, GRID), run.predictions(1, "a") / "refined.nii.gz")
    desk = ReviewDesk(project, "a", run)
    label_case(desk, desk.seen(truth), STANDARD)
    whats = sorted(one.what for one in read_lesions(project, "a").decisions.values())
    assert whats == ["added", "added", "added", "deleted"]


def test_an_organ_is_drawn_in_some_slices_and_less_from_what_is_shown(tmp_path: Path) -> None:
    project, _, truth = a_reviewed_project(tmp_path)

    def drawn_mm(shown: Labels) -> float:
        desk = Desk(project, "a", Labelmap(shown, GRID))
        desk.save = lambda: desk.shown  # type: ignore[method-assign]
        goal = np.where(desk.seen(truth) > 0, 1, 0).astype(np.uint8)
        return amounts(label_case(desk, goal, STANDARD))["draw"]

    liver = np.where(truth > 0, 1, 0).astype(np.uint8)
    nothing, half = np.zeros_like(liver), liver.copy()
    half[:, :, 20:] = 0
    section_mm = outline_mm(liver[1] > 0, (2.0, 2.0))
    assert drawn_mm(nothing) == pytest.approx(3 * section_mm)  # of eight: 1, 5 and the last
    assert 0 < drawn_mm(half) < drawn_mm(nothing)
    assert drawn_mm(liver) == 0


def test_slices_are_first_repaired_some_millimetres_apart_and_in_three_at_least() -> None:
    spacings_mm = (1.0, 1.6, 2.0, 5.0, 10.0, 20.0)
    assert [first_step(mm, 16.0, 100) for mm in spacings_mm] == [16, 8, 8, 2, 1, 1]
    assert [first_step(mm, 32.0, 100) for mm in spacings_mm] == [32, 16, 16, 4, 2, 1]
    assert [first_step(1.0, 32.0, count) for count in (3, 4, 7, 8, 16, 64)] == [1, 2, 2, 4, 8, 32]


def test_an_organ_that_changes_is_repaired_in_more_slices_until_it_meets_the_standard(
    tmp_path: Path,
) -> None:
    project, _, truth = a_reviewed_project(tmp_path)
    goal = np.where(truth > 0, 1, 0).astype(np.uint8)
    goal[3] = 0
    goal[3, 2:12, 2:12] = 1  # what lies between says nothing of it
    desk = Desk(project, "a", Labelmap(np.zeros_like(goal), GRID))
    desk.save = lambda: desk.shown  # type: ignore[method-assign]
    acts = amounts(label_case(desk, desk.seen(goal), STANDARD))
    assert acts["stroke"] > 3
    assert quality_of(desk.shown, desk.seen(goal), project.targets, GRID, STANDARD).meets(STANDARD)


def test_an_organ_is_filled_by_its_image_where_that_is_offered(tmp_path: Path) -> None:
    project, _, truth = a_reviewed_project(tmp_path)
    goal = np.where(truth > 0, 1, 0).astype(np.uint8)
    asked: list[list[int]] = []

    class Knowing(RunFiller):
        def fill(self, volume: Volume, labels: Labelmap, slices: Sequence[int]) -> Labelmap:
            asked.append(list(slices))
            return Labelmap(goal, GRID)

    filler = Knowing(lambda: pytest.fail("nothing is loaded"), "", tmp_path)
    desk = Desk(project, "a", Labelmap(np.zeros_like(goal), GRID), filler=filler)
    desk.save = lambda: desk.shown  # type: ignore[method-assign]
    acts = amounts(label_case(desk, desk.seen(goal), STANDARD))
    assert asked == [[1, 5, 8]]
    assert acts["fill"] == 1
    np.testing.assert_array_equal(desk.shown, desk.seen(goal))


def test_a_large_lesion_is_filled_by_its_image_where_shape_is_not_enough(tmp_path: Path) -> None:
    project, _, truth = a_reviewed_project(tmp_path)
    goal = truth.copy()
    goal[goal == 2] = 1
    goal[1:9, 6:16, 6:16] = 2
    goal[[2, 4, 6], 6:16, 6:16] = 1
    goal[[2, 4, 6], 16:26, 6:16] = 2  # what lies between says nothing of it
    asked: list[list[int]] = []

    class Knowing(NewFiller):
        def fill_lesion(
            self,
            volume: Volume,
            targets: Sequence[Target],
            drawn: DrawnLesion,
            slices: Sequence[int],
        ) -> Labelmap:
            asked.append(list(slices))
            assert drawn.target == "tumour"
            return Labelmap(goal, GRID)

    shown = np.where(goal > 0, 1, 0).astype(np.uint8)
    desk = Desk(project, "a", Labelmap(shown, GRID), filler=Knowing(project.targets, tmp_path))
    desk.save = lambda: desk.shown  # type: ignore[method-assign]
    acts = amounts(label_case(desk, desk.seen(goal), STANDARD))
    assert acts["fill anew"] == len(asked) > 0
    np.testing.assert_array_equal(desk.shown, desk.seen(goal))


def test_what_a_new_network_would_not_fill_is_left_to_shape(tmp_path: Path) -> None:
    project, _, truth = a_reviewed_project(tmp_path)
    filler = NewFiller(project.targets, tmp_path / "kept")
    filler.fills_lesions = True
    desk = Desk(project, "a", filler=filler)
    desk.shown = desk.seen(truth).copy()
    target = project.targets[1]
    lesion = desk.shown == target.value
    assert desk.fill_lesion(target, lesion, [2, 4]) is None
    assert not list((tmp_path / "kept").glob("*"))
    assert Desk(project, "a").fill_lesion(target, lesion, [2, 4]) is None


@pytest.mark.slow
def test_a_first_organ_is_drawn_closer_where_a_new_network_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_in_few_steps(monkeypatch)
    project, _, truth = a_reviewed_project(tmp_path)
    goal = np.where(truth > 0, 1, 0).astype(np.uint8)
    filler = NewFiller(project.targets, tmp_path / "kept")
    desk = Desk(project, "a", Labelmap(np.zeros_like(goal), GRID), filler=filler)
    desk.save = lambda: desk.shown  # type: ignore[method-assign]
    acts = amounts(label_case(desk, desk.seen(goal), STANDARD))
    assert acts["fill anew"] >= 1
    assert acts["fill"] == 0
    assert quality_of(desk.shown, desk.seen(goal), project.targets, GRID, STANDARD).meets(STANDARD)
    assert len(list((tmp_path / "kept").iterdir())) == acts["fill anew"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(1, [7], id="middle"),
        pytest.param(3, [5, 7, 9], id="evenly"),
        pytest.param(20, [3, 4, 5, 6, 7, 8, 9, 10, 11], id="no more than there are"),
    ],
)
def test_slices_are_chosen_evenly_among_those_that_show_something(
    count: int, expected: list[int]
) -> None:
    filled = np.zeros(20, bool)
    filled[3:12] = True
    assert even_slices(filled, count) == expected


def test_sparse_labels_are_five_complete_slices(tmp_path: Path) -> None:
    project, _, truth = a_reviewed_project(tmp_path)
    desk = Desk(project, "a")
    acts = label_slices(desk, desk.seen(truth), STANDARD, 5)
    slices = open_project(project.folder).case("a").complete_slices
    assert slices is not None
    assert len(slices) == 5
    labels = read_labelmap(project.folder / "labels" / "a.nii.gz").labels
    drawn = desk.seen(labels)
    assert (drawn[list(slices)] == desk.seen(truth)[list(slices)]).all()
    assert np.delete(drawn, slices, axis=0).max() == 0
    assert amounts(acts)["click"] == 5


def a_quality(value: float) -> Quality:
    return Quality(1, 1, 0, value, value)


def a_log(folder: Path, minutes: tuple[float, ...], title: str) -> Logged:
    """Return a log of cases that took so many minutes of scrolling, of which the last is bad."""
    log = Log(folder)
    log.note_states(CaseState(1, f"c{n}", False, False, a_quality(0.5)) for n in range(3))
    for n, one in enumerate(minutes):
        meets = n + 1 < len(minutes)
        log.note_states([CaseState(n + 1, f"c{n}", True, meets, a_quality(1.0))])
        log.note_work(CaseWork(n + 1, f"c{n}", (Act("scroll", one * 120), Act("key", 0.0))))
    return Logged(title, title, log)


def test_curves_and_tables_say_what_was_logged(tmp_path: Path) -> None:
    way = a_log(tmp_path / "a", (3.0, 2.0, 1.0), "once")
    moments = list(way.moments())
    assert [one.minutes for one in moments] == pytest.approx([0, 0, 0, 0, 3, 5, 6])
    assert [one.ready for one in moments] == pytest.approx([0, 0, 0, 0, 1 / 3, 2 / 3, 2 / 3])
    assert [one.surface_dice for one in moments] == pytest.approx(
        [0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1]
    )
    assert way.minutes(2.0, "scroll") == pytest.approx(12)
    assert way.minutes(2.0, "key") == pytest.approx(6)
    other = a_log(tmp_path / "b", (1.5, 1.0, 0.5), "tool")
    write_results([way, other], tmp_path)
    rounds = (tmp_path / "rounds.csv").read_text(encoding="utf-8").splitlines()
    assert rounds[1:4] == ["once,1,1,3.00", "once,2,1,2.00", "once,3,1,1.00"]
    cases = (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()
    assert cases[:2] + cases[-1:] == ["way,round,case,minutes", "once,1,c0,3.00", "tool,3,c2,0.50"]
    assert "0.50 (0.50 to 0.50)" in summary([way, other])
    assert (tmp_path / "label-economy.png").stat().st_size > 10_000


def test_draws_are_put_together_with_their_interval_and_range(tmp_path: Path) -> None:
    minutes = {
        "B": {"hand": (6.0, 4.0), "once": (3.0, 1.0)},
        "C": {"hand": (5.0, 5.0), "once": (6.0, 3.0), "tool": (1.0, 1.0)},
    }
    for draw, ways in minutes.items():
        place = tmp_path / draw
        done = [a_log(place / "ways" / name, times, name) for name, times in ways.items()]
        write_results(done, place)
    draws = [read(tmp_path / draw) for draw in minutes]
    assert list(lines(draws)) == [
        "| all by hand | 10 (10 to 10) | 5.0 (5.0 to 5.0) | 5.0 (5.0 to 5.0) "
        "| 1.00 [1.00, 1.00] (1.00 to 1.00) | 1.54 [1.22, 2.25] (1.11 to 2.50) |",
        "| trained once, corrected in random order | 6 (4 to 9) | 3.2 (2.0 to 4.5) "
        "| 3.2 (2.0 to 4.5) | 0.65 [0.44, 0.82] (0.40 to 0.90) "
        "| 1.00 [1.00, 1.00] (1.00 to 1.00) |",
    ]


def test_volumes_of_a_patient_are_resampled_together(tmp_path: Path) -> None:
    minutes = {
        "once": {"lits-7": 1.0, "lits-9": 3.0, "lits-14": 2.0, "lits-15": 4.0},
        "hand": {"lits-7": 3.0, "lits-9": 1.0, "lits-14": 4.0, "lits-15": 2.0},
    }
    ways = []
    for name, cases in minutes.items():
        log = Log(tmp_path / name)
        for case, one in cases.items():
            log.note_work(CaseWork(1, case, (Act("scroll", one * 120),)))
        ways.append(log.work())
    assert part_in_words(ways[:1], ways[1:]) == "1.00 [1.00, 1.00] (1.00 to 1.00)"


def test_rounds_are_compared_case_by_case_and_target_by_target() -> None:
    def work(*minutes: tuple[float, float]) -> list[CaseWork]:
        drawn = []
        for n, (liver, tumour) in enumerate(minutes):
            acts = Act("scroll", liver * 120, "liver"), Act("scroll", tumour * 120, "tumour")
            drawn.append(CaseWork(1, f"c{n}", acts))
        return drawn

    first, second = work((5, 1), (4, 1), (3, 0)), work((4, 1), (2, 4), (3, 0))
    assert list(compared("B", first, second)) == [
        "| B | liver | 12.0 | 9.0 | 2 of 3 | 1.0 |",
        "| B | tumour | 2.0 | 5.0 | 0 of 3 | 0.0 |",
        "| B | all | 14.0 | 14.0 | 1 of 3 | 0.0 |",
    ]


def test_lesions_that_were_changed_are_counted_among_those_that_were_offered() -> None:
    mask = boxed(np.ones((2, 2, 2), bool))
    decisions = [
        LesionDecision("accepted", "tumour", mask, mask),
        LesionDecision("edited", "tumour", mask, mask),
        LesionDecision("deleted", "tumour", mask, None),
        LesionDecision("added", "tumour", None, mask),
    ]
    assert changed_of(decisions) == (2, 3)
    assert changed_of(decisions[3:]) == (0, 0)


def reviewed(case: str, minutes: float, lesion_ml: float, organ: float = 0.0) -> Reviewed:
    report = CaseReport(case, "train", "needs review", score=0.5, lesion_ml=lesion_ml)
    return Reviewed(report, minutes, 0.5, 1.0, lesions=lesion_ml, organ=(organ, 0.0, 0.0))


def test_an_order_is_measured_by_when_parts_are_done_and_by_what_the_data_set_is_worth() -> None:
    long, short = reviewed("long", 30.0, 9.0), reviewed("short", 10.0, 1.0)
    first = measured([short, long], done=[1.0, 1.0])
    assert (first.half, first.three_quarters) == (10.0, 40.0)
    assert first.worth == pytest.approx((10 * 0.75 + 30 * 0.875) / 40)
    assert measured([long, short], done=[1.0, 1.0]).worth == pytest.approx(
        (30 * 0.75 + 10 * 0.875) / 40
    )


def test_orders_differ_in_which_case_comes_first() -> None:
    cases = [
        reviewed("a", 30.0, 2.0, 1.0),
        reviewed("b", 9.0, 7.0, 1.1),
        reviewed("c", 5.0, 4.0, 9.0),
    ]
    found = {
        name: "".join(one.report.case_id for one in order(cases)) for name, order in ORDERS.items()
    }
    assert found["least lesion volume first"] == found["fewest lesions first"] == "acb"
    assert found["most lesion volume first"] == found["most lesions first"] == "bca"
    assert found["shortest first, which nobody knows"] == "cba"
    assert found["most unlike those before"] == "cab"


def test_time_that_is_left_is_off_by_the_volume_that_is_not_known() -> None:
    """Each case takes a minute for each ml, so that it is known exactly by its volume."""
    volumes = (0.0, 0.0, 0.0, CASE_ML, CASE_ML)
    cases = [reviewed(str(n), CASE_ML + ml, ml) for n, ml in enumerate(volumes)]
    assert off_by(cases, by_volume=True) == pytest.approx(1.0)
    assert off_by(cases, by_volume=False) == pytest.approx(2.0)


@pytest.fixture(scope="module")
def a_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("economy")
    data = made_up(folder / "data", cases=4, labelled=2)
    return Study(data, folder, made_up_settings(), ThresholdSam(), batch=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hand", "once", "tool", "tool-sparse"])
def test_each_way_labels_all_cases_to_the_standard(a_study: Study, name: str) -> None:
    log = a_study.follow(name, WAYS[name])
    final = {one.case: one for one in log.states() if one.final}
    assert set(final) == set(a_study.data.images)
    assert all(one.meets for one in final.values())
    rounds = {one.round for one in log.work()}
    trained_twice = {0, 1, 2} if WAYS[name].trains_on else {0, 1}
    assert rounds == ({1} if name == "hand" else trained_twice)
    project = open_project(log.folder / "project")
    assert all(case.label is not None and case.complete_slices is None for case in project.cases)
    times = [path.stat().st_mtime_ns for path in sorted(log.folder.rglob("*"))]
    a_study.follow(name, WAYS[name])  # everything is there
    assert times == [path.stat().st_mtime_ns for path in sorted(log.folder.rglob("*"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["once", "round-1-need", "round-1-given"])
def test_a_finished_run_is_reviewed_without_its_networks(
    a_study: Study, tmp_path: Path, name: str
) -> None:
    trained = a_study.follow("tool-once", WAYS["tool-once"]).folder / "project" / "runs" / RUN
    bare = RunFolder(tmp_path / "bare")
    shutil.copytree(trained, bare.path, ignore=shutil.ignore_patterns(*WEIGHTS))
    assert not list(bare.path.rglob("*.safetensors"))
    shutil.copytree(bare.round(1), bare.round(2))
    bare.write_status(rounds=2, best_round=2)
    study = replace(a_study, work=tmp_path / "work", finished=bare)
    log = study.follow(name, ways_of_finished_run(1)[name])
    assert {one.round for one in log.work()} == {0, 1}
    final = {one.case: one for one in log.states() if one.final}
    assert set(final) == set(study.data.images)
    assert all(one.meets for one in final.values())
    drawn = [act for work in log.work() for act in work.acts if act.about == "liver"]
    assert bool(drawn) is (name != "round-1-given")


def test_a_way_that_was_broken_off_goes_on_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made_up(tmp_path / "data", cases=3, labelled=1)
    whole = Study(data, tmp_path / "whole", made_up_settings(), None).follow("hand", WAYS["hand"])
    broken = Study(data, tmp_path / "broken", made_up_settings(), None)
    seen: list[str] = []

    def stop_at_second(desk: Desk, *rest: object) -> list[Act]:
        seen.append(desk.case_id)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return label_case(desk, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(study_module, "label_case", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        broken.follow("hand", WAYS["hand"])
    monkeypatch.undo()
    log = broken.follow("hand", replace(WAYS["hand"]))
    assert log.work() == whole.work()
    assert log.states() == whole.states()
