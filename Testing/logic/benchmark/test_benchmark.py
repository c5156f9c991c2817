"""All methods get the same budget, see the same labels, and go on where they were stopped."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from aslseg.benchmark import experiments as benchmark_cells
from aslseg.benchmark.budget import allotted, planned_steps
from aslseg.benchmark.data import BenchmarkData, choose_data, project_showing
from aslseg.benchmark.entries import ENTRIES, entries_named
from aslseg.benchmark.experiments import BenchmarkSetup, Experiment, run_experiment
from aslseg.benchmark.figure import write_figure
from aslseg.benchmark.presets import BENCHMARKS
from aslseg.benchmark.runner import run_benchmark, run_parallel, seconds_left
from aslseg.benchmark.tables import Tables, dice_lines
from aslseg.cli.main import app
from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import CancelledError, ConfigError, ProjectError, RunError
from aslseg.events import Monitor, Progress
from aslseg.methods import METHODS
from aslseg.project.patients import with_patients
from aslseg.runs import start_run
from aslseg.targets import LIVER_TARGETS, Target
from aslseg.training.trainer import Trainer
from tiny_benchmark import BUDGET, HELD_OUT, a_preset, data_in
from tiny_project import write_patients
from whole_runs import contents, use_small_sam

SPECIALISTS = ("supervised", "mean_teacher")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkData:
    return data_in(tmp_path_factory.mktemp("patients"))


@pytest.fixture(scope="module")
def tables(data: BenchmarkData, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Two rows and the upper bound, with one and two labelled volumes and two seeds."""
    torch.set_num_threads(1)
    preset = a_preset(labelled=(1, 2), seeds=(0, 1))
    folder = tmp_path_factory.mktemp("benchmark")
    return run_benchmark(folder, data, preset, [*SPECIALISTS, "upper_bound"])


# --- Budget -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENTRIES)
def test_every_method_takes_exactly_the_steps_of_the_budget(
    name: str, data: BenchmarkData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_sam(monkeypatch)
    taken: Counter[str] = Counter()
    take = Trainer._step

    def counted(self: Trainer, *arguments: object) -> None:
        take(self, *arguments)  # type: ignore[arg-type]
        taken[self.schedule.name] += 1

    monkeypatch.setattr(Trainer, "_step", counted)
    setup, experiment = BenchmarkSetup(tmp_path, data, a_preset()), Experiment(0, 2, name)
    run_experiment(
        setup, replace(experiment, labelled=0) if ENTRIES[name].shows_all else experiment
    )
    assert sum(taken.values()) == BUDGET, taken
    assert taken["specialist-liver"] >= 1
    assert taken["specialist-tumour"] >= 1


@pytest.mark.parametrize("preset", BENCHMARKS)
@pytest.mark.parametrize("labelled", [1, 2, 4])
@pytest.mark.parametrize("name", ENTRIES)
def test_the_presets_divide_their_budget_without_rest(
    name: str, labelled: int, preset: str
) -> None:
    given = BENCHMARKS[preset]
    config = ENTRIES[name].settings(given.config, seed=0)
    divided = allotted(config, given.budget, LIVER_TARGETS, labelled)
    assert sum(planned_steps(divided, LIVER_TARGETS, labelled).values()) == given.budget


def test_parts_keep_their_proportions() -> None:
    config = ENTRIES["aslseg"].settings(a_preset().config, seed=0)
    # 12 + 12 steps, half as many in round 2, SAM 6, adaptation 2 x 12, as much for its folds,
    # and no out-of-fold models, for there is only one volume: 90 in all; 900 is ten times that.
    divided = allotted(config, 900, LIVER_TARGETS, 1)
    assert planned_steps(divided, LIVER_TARGETS, 1) == {
        "specialist liver": 180,
        "specialist tumour": 180,
        "sam": 60,
        "adaptation liver": 120,
        "adaptation liver, folds": 120,
        "adaptation tumour": 120,
        "adaptation tumour, folds": 120,
    }


def test_out_of_fold_models_are_paid_from_the_same_budget() -> None:
    config = ENTRIES["aslseg"].settings(a_preset().config, seed=0)
    # Two groups, each with half a schedule of two stages: 2 x (6 + 6) = 24 of 90 + 24 = 114.
    divided = allotted(config, 1140, LIVER_TARGETS, 2)
    assert planned_steps(divided, LIVER_TARGETS, 2)["out-of-fold models"] == 240


def test_one_stage_gets_the_whole_budget() -> None:
    kidney = (Target(name="kidney", value=1),)
    config = ENTRIES["supervised"].settings(a_preset().config, seed=0)
    divided = allotted(config, 50, kidney, 2)
    assert planned_steps(divided, kidney, 2) == {"specialist kidney": 50}


def test_a_budget_too_small_for_all_parts_is_refused() -> None:
    config = ENTRIES["aslseg"].settings(a_preset().config, seed=0)
    with pytest.raises(ConfigError, match="3 steps cannot be divided"):
        allotted(config, 3, LIVER_TARGETS, 2)


# --- Rows -------------------------------------------------------------------------------------


def test_rows_differ_in_what_makes_the_method_and_in_nothing_else() -> None:
    shared = a_preset().config
    plain = ENTRIES["supervised"].settings(shared, seed=0).model_dump()
    for entry in ENTRIES.values():
        values = entry.settings(shared, seed=0).model_dump()
        changed = {name for name in values if values[name] != plain[name]}
        own = {"organ", "lesion", "scsam"} if entry.name.endswith("_published") else {"semisam"}
        assert changed <= {"method", "paradigm", "rounds"} | own, entry.name


def test_every_row_has_a_method_and_a_baseline_of_the_registry() -> None:
    for entry in ENTRIES.values():
        assert entry.settings(RunConfig(), seed=3).method in METHODS
        assert entry.settings(RunConfig(), seed=3).seed == 3
        assert entry.baseline in {"", *ENTRIES}


def test_an_unknown_row_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="no row 'unet'; choose among supervised, "):
        entries_named(["unet"])


def test_the_upper_bound_is_one_cell_per_seed(data: BenchmarkData, tmp_path: Path) -> None:
    setup = BenchmarkSetup(tmp_path, data, a_preset())
    experiments = setup.experiments(entries_named(["supervised", "upper_bound"]), (1, 2), (0, 1))
    names = [experiment.name for experiment in experiments]
    assert names == [
        "supervised-1-0", "upper_bound-all-0", "supervised-2-0",
        "supervised-1-1", "upper_bound-all-1", "supervised-2-1",
    ]  # fmt: skip


# --- Data -------------------------------------------------------------------------------------


def test_projects_name_the_shown_labels_and_no_other(data: BenchmarkData, tmp_path: Path) -> None:
    project = project_showing(data, tmp_path / "p", 1)
    assert [case.id for case in project.labelled] == ["c1"]
    assert [case.id for case in project.unlabelled] == ["c0", "c2", "c3"]
    assert [case.id for case in project.test] == list(HELD_OUT)
    text = (tmp_path / "p" / "project.json").read_text(encoding="utf-8")
    assert re.findall(r"labels/\w+", text) == ["labels/c1"]
    assert "truth" not in text
    assert [path.name for path in (tmp_path / "p" / "labels").iterdir()] == ["c1.nii.gz"]


def test_the_upper_bound_is_shown_all_training_labels(data: BenchmarkData, tmp_path: Path) -> None:
    project = project_showing(data, tmp_path / "p", None)
    assert {case.id for case in project.labelled} == {"c0", "c1", "c2", "c3"}
    assert all(case.label is None for case in project.test)


def test_cases_that_are_not_ordered_follow_those_that_are(data: BenchmarkData) -> None:
    assert data.training_labels == ("c1", "c0", "c2", "c3")


@pytest.mark.parametrize(
    ("held_out", "order", "sentence"),
    [
        ((), (), "No case is held out"),
        (("c9",), (), "There is no case 'c9'"),
        (("c6",), (), "Case 'c6' shall be scored but has no label map"),
        (("c1",), ("c1",), "named twice"),
    ],
)
def test_a_case_that_cannot_play_its_part_is_refused(
    held_out: tuple[str, ...], order: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ProjectError, match=sentence):
        choose_data(write_patients(tmp_path), held_out, order)


def test_more_labels_than_there_are_cannot_be_shown(data: BenchmarkData, tmp_path: Path) -> None:
    with pytest.raises(
        ProjectError, match="Only 4 patients have a label map to train on; 5 cannot"
    ):
        project_showing(data, tmp_path / "p", 5)


def test_labels_are_drawn_by_patient_and_a_patients_other_volumes_are_left_out(
    data: BenchmarkData, tmp_path: Path
) -> None:
    twins = replace(data, cases=tuple(with_patients(data.cases, {"c0": "c1"})))
    assert [twins.shown(1), twins.shown(2)] == [("c1",), ("c1", "c2")]
    assert twins.shown(None) == ("c1", "c0", "c2", "c3")
    two = project_showing(twins, tmp_path / "two", 2)
    assert [case.id for case in two.labelled] == ["c1", "c2"]
    assert [case.id for case in two.unlabelled] == ["c3"]  # c0 would be easy, and is left out
    everything = project_showing(twins, tmp_path / "all", None)
    assert len(everything.labelled) == 4
    assert twins.to_json()["patients"] == {"c0": "c1"}
    assert "patients" not in data.to_json()


def test_a_patient_who_is_trained_on_and_scored_is_refused(tmp_path: Path) -> None:
    cases = with_patients(write_patients(tmp_path), {"c5": "c1"})
    with pytest.raises(ProjectError, match=r"c1 \(training\) and c5 \(test\)"):
        choose_data(cases, ("c4", "c5"), ("c1",))


# --- Running ----------------------------------------------------------------------------------


def test_cells_are_scored_against_the_label_maps_that_were_given(
    tables: Tables, data: BenchmarkData
) -> None:
    scores = tables.scores("supervised", "liver", 2)
    assert [(score["seed"], score["case"]) for score in scores] == [
        (seed, case) for seed in (0, 1) for case in HELD_OUT
    ]
    assert all(0.3 < score["dice"] <= 1 for score in scores)
    run = tables.setup.folder / "projects" / "labelled-2" / "runs" / "supervised-0"
    found = read_labelmap(run / "labels" / "c4.nii.gz").labels > 0
    truth = data.truth("c4").labels > 0
    overlap = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert scores[0]["dice"] == pytest.approx(overlap, abs=1e-4)


def test_runs_of_a_benchmark_segment_no_unlabelled_case_at_the_end(tables: Tables) -> None:
    run = tables.setup.folder / "projects" / "labelled-2" / "runs" / "supervised-0"
    assert {path.name for path in (run / "round-01" / "predictions").iterdir()} == set(HELD_OUT)


def test_the_same_cell_gives_the_same_scores_when_it_is_run_again(
    tables: Tables, data: BenchmarkData, tmp_path: Path
) -> None:
    experiment = Experiment(1, 2, "mean_teacher")
    run_experiment(BenchmarkSetup(tmp_path, data, tables.setup.preset), experiment)
    again = json.loads((tmp_path / "cells" / f"{experiment.name}.json").read_text(encoding="utf-8"))
    assert again["rows"] == tables.results[experiment]["rows"]


def test_finished_cells_are_not_run_again(
    tables: Tables, data: BenchmarkData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a finished experiment was run again")

    monkeypatch.setattr(benchmark_cells, "start_run", refuse)
    monkeypatch.setattr(benchmark_cells, "resume_run", refuse)
    rows = [*SPECIALISTS, "upper_bound"]
    again = run_benchmark(tables.setup.folder, data, tables.setup.preset, rows)
    assert again.results == tables.results


def test_a_stopped_benchmark_goes_on_inside_of_the_cell(
    data: BenchmarkData, tables: Tables, tmp_path: Path
) -> None:
    monitor = Monitor()

    def stop(event: object) -> None:
        if isinstance(event, Progress) and (event.task, event.step) == ("specialist-tumour", 17):
            monitor.token.cancel()

    monitor.listener = stop
    preset = replace(tables.setup.preset, labelled=(2,), seeds=(0,))
    with pytest.raises(CancelledError):
        run_benchmark(tmp_path, data, preset, ["supervised"], monitor)
    assert not (tmp_path / "cells").exists()
    organ = tmp_path / "projects/labelled-2/runs/supervised-0/round-01/specialist-liver.safetensors"
    made = organ.stat().st_mtime_ns
    again = run_benchmark(tmp_path, data, preset, ["supervised"])
    experiment = Experiment(0, 2, "supervised")
    assert organ.stat().st_mtime_ns == made
    assert again.results[experiment]["rows"] == tables.results[experiment]["rows"]
    assert again.results[experiment]["resumed"]
    assert dice_lines(again, "tumour")[1][-1] == "-"  # the time of its first leg is not known
    assert not tables.results[experiment]["resumed"]
    assert dice_lines(tables, "tumour")[1][-1].endswith(" s")


def test_a_folder_holds_cells_of_one_kind_only(tables: Tables, data: BenchmarkData) -> None:
    other = replace(tables.setup.preset, budget=BUDGET + 2)
    with pytest.raises(RunError, match=r"benchmark\.json is of other cases, settings or budget"):
        run_benchmark(tables.setup.folder, data, other, ["supervised"])


def test_a_refused_folder_is_left_as_it_was(tables: Tables, data: BenchmarkData) -> None:
    folder = tables.setup.folder
    before = contents(folder)
    coarser = replace(tables.setup.preset, spacing_mm=(5.0, 2.0, 2.0))
    with pytest.raises(RunError, match="choose a new folder"):
        run_benchmark(folder, data, coarser, ["supervised"])
    assert contents(folder) == before


def test_a_cell_that_fails_does_not_keep_others_from_being_run(
    data: BenchmarkData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(project: object, config: RunConfig, *rest: object, **named: object) -> object:
        if config.paradigm == "supervised":
            msg = "The loss is not a number."
            raise RunError(msg)
        return start_run(project, config, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark_cells, "start_run", sometimes)
    with pytest.raises(RunError, match=r"1 experiments failed .* supervised-2-0: The loss"):
        run_benchmark(tmp_path, data, a_preset(), SPECIALISTS)
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["mean_teacher-2-0.json"]
    assert "Mean teacher" in (tmp_path / "benchmark.md").read_text(encoding="utf-8")


def test_processes_of_their_own_give_the_same_cells_and_obey_the_stop(
    tables: Tables, data: BenchmarkData, tmp_path: Path
) -> None:
    setup = BenchmarkSetup(tmp_path, data, tables.setup.preset)
    experiments = [Experiment(seed, 2, "supervised") for seed in (0, 1)]
    setup.project(experiments[0])
    monitor = Monitor()
    ended: Iterator[object] = run_parallel(setup, experiments, 2, monitor)
    experiment, error = next(ended)  # type: ignore[misc]
    assert error is None
    rows = json.loads(setup.path(experiment).read_text(encoding="utf-8"))["rows"]
    assert rows == tables.results[experiment]["rows"]
    monitor.token.cancel()
    with pytest.raises(CancelledError):
        list(ended)


def test_time_left_counts_on_the_times_of_the_same_row() -> None:
    done = {
        Experiment(0, 1, "supervised"): {"seconds": 10.0},
        Experiment(0, 2, "supervised"): {"seconds": 20.0},
        Experiment(0, 1, "scsam"): {"seconds": 90.0},
    }
    left = [Experiment(1, 1, "supervised"), Experiment(1, 1, "scsam"), Experiment(1, 1, "aslseg")]
    assert seconds_left(done, left) == 15 + 90 + 40


# --- What is written --------------------------------------------------------------------------


def test_the_table_of_scores_has_a_row_for_each_cell_case_and_target(tables: Tables) -> None:
    lines = (tables.setup.folder / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 * 2 * (2 * 2 * 2 + 2)
    assert lines[0].startswith("method,labelled,seed,case,target,dice")


def test_the_page_shows_each_row_once_per_target_with_its_gain(tables: Tables) -> None:
    page = (tables.setup.folder / "benchmark.md").read_text(encoding="utf-8")
    assert page.count("| Upper bound (4 labelled) |") == 2
    assert len(re.findall(r"\| Mean teacher \| Supervised \| (1|2|all columns) \|", page)) == 6
    assert f"took {BUDGET} training steps" in page
    assert "with 2 volumes it cannot be below 0.5" in page


def test_the_figure_has_a_panel_for_each_target_and_a_line_for_each_method(
    tables: Tables, tmp_path: Path
) -> None:
    text = write_figure(tables, tmp_path / "benchmark.svg").read_text(encoding="utf-8")
    for word in ("liver", "tumour", "Mean teacher", "Supervised", "Upper bound (4 labelled)"):
        assert f"<!-- {word} -->" in text
    assert write_figure(tables, tmp_path / "benchmark.png").stat().st_size > 10_000


def test_the_command_runs_a_benchmark_and_shows_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BENCHMARKS, "small", a_preset())
    for case in write_patients(tmp_path / "ct"):
        if case.label is not None:
            truth = read_labelmap(case.label)
            case.label.unlink()
            name = case.image.name.removeprefix("ct")
            write_labelmap(Labelmap(truth.labels, truth.geometry), tmp_path / "seg" / f"ct{name}")
    words = ["benchmark", tmp_path / "out", tmp_path / "ct", "--labels", tmp_path / "seg"]
    words += ["--held-out", "ct4,ct5", "--method", "supervised", "--seed", "7"]
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "cells" / "supervised-2-7.json").is_file()
    assert (tmp_path / "out" / "benchmark.png").is_file()
    assert f"Tables: {tmp_path / 'out' / 'benchmark.md'}" in result.output


def test_rows_that_a_preset_leaves_out_can_be_named(data: BenchmarkData, tmp_path: Path) -> None:
    preset = a_preset(entries=("supervised",))
    assert [entry.name for entry in run_benchmark(tmp_path / "own", data, preset).entries] == [
        "supervised"
    ]
    tables = run_benchmark(tmp_path / "named", data, preset, ["mean_teacher"])
    assert [entry.name for entry in tables.entries] == ["mean_teacher"]
