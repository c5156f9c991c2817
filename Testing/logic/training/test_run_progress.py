"""A run is planned over all its rounds, and followed without ever going backwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from aslseg.events import Event, Monitor, Progress, RunProgress
from aslseg.presets import read_preset
from aslseg.project.run_tables import read_scores
from aslseg.runs import start_run
from aslseg.steps import run_in_words
from aslseg.training.calibration import Speed
from aslseg.training.rounds import COMPARING, SEGMENTING
from aslseg.training.run_plan import PlannedStep, planned_steps, typical_speed
from aslseg.training.run_progress import RunFollower
from support.tiny_project import a_tiny_project, tiny_config

STEPS = [
    PlannedStep(1, "specialist-liver", "specialist-liver", 10, 1.0),
    PlannedStep(1, "sam", "sam", 10, 1.0),
    PlannedStep(2, "specialist-liver", "specialist-liver", 10, 1.0),
]


class Followed:
    """A run with a clock of its own."""

    def __init__(self, steps: list[PlannedStep]) -> None:
        self.now, self.seen = 0.0, list[RunProgress]()
        self.follower = RunFollower(steps, self._keep, lambda: self.now)

    def _keep(self, event: Event) -> None:
        if isinstance(event, RunProgress):
            self.seen.append(event)

    def run(self, number: int, task: str, of: int = 10, unit_s: float = 2.0) -> None:
        for step in range(of + 1):
            self.now += unit_s if step else 0.0
            self.follower(Progress(task, step, of, None, number))


def test_the_whole_run_is_followed_to_its_end_and_never_goes_back() -> None:
    run = Followed(STEPS)
    run.run(0, "Looking at intensities", 2)
    for number, task in ((1, "specialist-liver"), (1, "sam"), (2, "specialist-liver")):
        run.run(number, f"Preparing {task}", 3)
        run.run(number, task)
    shares = [each.share for each in run.seen]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert run.seen[-1].seconds_left == pytest.approx(0.0)
    assert {(each.rounds, each.steps) for each in run.seen} == {(2, 3)}
    assert [each.step for each in run.seen] == sorted(each.step for each in run.seen)
    assert run.seen[-1].round == 2


def test_the_time_left_is_that_of_all_steps_by_what_was_measured() -> None:
    run = Followed(STEPS)
    run.run(1, "specialist-liver", unit_s=2.0)  # twice as long as was planned
    assert run.seen[0].seconds_left is None
    assert run.seen[2].seconds_left is None  # two units are too few
    # sam is not measured: 10 x 1 s, twice as long as planned; then 10 x 2 s as in round 1
    assert run.seen[-1].seconds_left == pytest.approx(20.0 + 20.0)
    run.run(1, "sam", unit_s=5.0)
    assert run.seen[-1].seconds_left == pytest.approx(20.0)


def test_a_run_that_other_programs_starve_at_first_promises_no_hours() -> None:
    run = Followed([PlannedStep(1, "sam", "sam", 4000, 0.1)])  # 400 s are planned
    for unit in range(4001):
        run.now += 60.0 if 0 < unit <= 3 else 0.1
        run.follower(Progress("sam", unit, 4000, None, 1))
    told = [each.seconds_left for each in run.seen]
    assert told[:300] == [None] * 300  # of 30 s, three units took 180
    assert told[300] == pytest.approx(3700 * (180.0 + 29.7) / 300)
    assert None not in told[300:]


def test_one_slow_unit_of_a_kind_says_nothing_of_the_others() -> None:
    first, second = (PlannedStep(1, name, name, 100, 1.0) for name in ("specialist-liver", "sam"))
    run = Followed([first, second])
    run.run(1, "specialist-liver", 100, 1.0)
    for unit, unit_s in enumerate((0.0, 50.0, 1.0, 1.0)):
        run.now += unit_s
        run.follower(Progress("sam", unit, 100, None, 1))
    one, few = run.seen[-3].seconds_left, run.seen[-1].seconds_left
    assert one == pytest.approx(99 * 150 / 101)  # as planned, and a little slower
    assert few == pytest.approx(97 * 52 / 3)


def test_what_is_prepared_is_expected_to_take_as_long_as_planned() -> None:
    later = PlannedStep(1, "sam", "sam", 10, 1.0, before_s=6.0)
    run = Followed([STEPS[0], later])
    run.run(1, "specialist-liver", unit_s=2.0)  # twice as long as was planned
    assert run.seen[-1].seconds_left == pytest.approx(2 * (6.0 + 10.0))


def test_a_step_that_is_left_out_is_passed_over() -> None:
    run = Followed(STEPS)
    run.run(2, "specialist-liver")
    assert (run.seen[0].round, run.seen[0].step) == (2, 3)
    assert run.seen[0].share == pytest.approx(20 / 30)


def test_a_task_of_the_same_name_is_the_next_step_when_it_begins_anew() -> None:
    run = Followed([PlannedStep(1, "sam", "sam", 4, 1.0), PlannedStep(1, "sam", "sam", 4, 1.0)])
    run.run(1, "sam", 4)
    run.run(1, "sam", 4)
    assert run.seen[0].step == 1
    assert run.seen[6].step == 2
    assert run.seen[-1].share == pytest.approx(1.0)


def test_without_a_plan_events_pass_and_nothing_is_added() -> None:
    run = Followed([])
    run.run(1, "sam", 4)
    assert run.seen == []


@pytest.mark.parametrize("method", ["aslseg", "semisam", "scsam", "cpcsam", "specialist"])
def test_a_plan_has_a_training_for_each_target_and_round_and_segments_last(
    tmp_path: Path, method: str
) -> None:
    config = read_preset("quick").model_copy(update={"method": method, "rounds": 2})
    steps = planned_steps(config, a_tiny_project(tmp_path), typical_speed(config))
    for number in (1, 2):
        tasks = [step.task for step in steps if step.round == number]
        livers = ["specialist-liver", "specialist-liver-second-pass"]
        livers = livers[:1] if method in ("scsam", "cpcsam") else livers
        of_specialist = [t for t in tasks if t.startswith("specialist-")]
        assert of_specialist == [*livers, "specialist-tumour"]
        assert tasks[-1] == SEGMENTING
        assert (method == "aslseg") == ("sam" in tasks)
    assert all(step.units > 0 and step.unit_s > 0 for step in steps)
    assert [step.round for step in steps] == sorted(step.round for step in steps)


def test_a_sam_that_is_trained_on_every_patch_is_in_the_time_of_a_step(tmp_path: Path) -> None:
    project, quick = a_tiny_project(tmp_path), read_preset("quick")
    speed = Speed(training_s=2.0, embedding_s=0.4)

    def step_of(method: str) -> PlannedStep:
        config = quick.model_copy(update={"method": method})
        steps = planned_steps(config, project, speed)
        return next(step for step in steps if step.task == "specialist-liver")

    # 12 pictures of 128 pixels, of which a slice of 512 pixels has 16: three times its encoding.
    assert step_of("scsam").unit_s == pytest.approx(step_of("specialist").unit_s + 0.9)
    assert step_of("cpcsam").unit_s == pytest.approx(0.9)


def test_a_real_run_takes_the_steps_of_its_plan_in_their_order(tmp_path: Path) -> None:
    project, config = a_tiny_project(tmp_path), tiny_config(method="aslseg", rounds=2)
    seen: list[Event] = []
    start_run(project, config, Monitor(seen.append, interval_s=0.0))
    planned = [(step.round, step.task, step.units) for step in planned_steps(config, project)]
    begun = {(e.round, e.task, e.of): None for e in seen if isinstance(e, Progress) and e.step == 0}
    assert [step for step in begun if step in planned] == planned
    followed = [event for event in seen if isinstance(event, RunProgress)]
    shares = [event.share for event in followed]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert followed[-1].seconds_left == pytest.approx(0.0)


def test_a_run_is_told_in_words() -> None:
    progress = RunProgress(1, 2, 4, 14, 0.3, 4100.0)
    assert run_in_words(progress) == "Round 1 of 2, step 4 of 14, about 1 h 10 min left"
    assert run_in_words(RunProgress(1, 2, 1, 14, 0.0)) == "Round 1 of 2, step 1 of 14"
    assert run_in_words(RunProgress(1, 2, 1, 14, 0.0, 20.0)).endswith(", less than a minute left")


@pytest.mark.parametrize(("paradigm", "trainings"), [("mean_teacher", 2), ("supervised", 1)])
def test_a_supervised_specialist_is_its_own_baseline(
    tmp_path: Path, paradigm: str, trainings: int
) -> None:
    project = a_tiny_project(tmp_path)
    config = tiny_config(method="aslseg", rounds=1, baseline=True, paradigm=paradigm)
    seen: list[Event] = []
    run = start_run(project, config, Monitor(seen.append, interval_s=0.0))
    planned = [step for step in planned_steps(config, project) if step.task == "specialist-liver"]
    begun = [
        e for e in seen if isinstance(e, Progress) and e.step == 0 and e.task == "specialist-liver"
    ]
    assert (len(planned), len(begun)) == (trainings, trainings)
    compares = [step for step in planned_steps(config, project) if step.task == COMPARING]
    assert len(compares) == trainings - 1  # nothing is compared without SAM and the other one
    compared = {score.source for score in read_scores(run.round(1))} - {"specialist", "refined"}
    assert compared == ({"supervised"} if trainings == 2 else set())
