"""All methods see the same labels of the same draws, and go on where they were stopped."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from aslseg.benchmark import experiments as benchmark_cells
from aslseg.benchmark.data import BenchmarkData, project_showing
from aslseg.benchmark.draws import DrawsFile, drawn_data, one_draw, read_draws
from aslseg.benchmark.entries import ENTRIES, REFERENCE, entries_named
from aslseg.benchmark.experiments import (
    SHORTEST,
    BenchmarkSetup,
    Experiment,
    at_equal_time,
    finished,
    run_experiment,
    trained_experiment,
)
from aslseg.benchmark.figure import write_figure
from aslseg.benchmark.presets import BENCHMARKS
from aslseg.benchmark.runner import run_benchmark, run_parallel, seconds_left
from aslseg.benchmark.scoring import CasePrediction, with_lesion_rule
from aslseg.benchmark.tables import Tables, value_lines
from aslseg.cli.main import app
from aslseg.config import RunConfig
from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Labelmap
from aslseg.errors import CancelledError, ConfigError, ImageError, ProjectError, RunError
from aslseg.events import Monitor, Progress
from aslseg.methods import METHODS
from aslseg.overrides import with_overrides
from aslseg.project.case import CaseFiles
from aslseg.project.patients import with_patients
from aslseg.runs import start_run
from aslseg.storage import write_json_atomic
from aslseg.targets import LIVER_TARGETS
from support.command_line import aslseg
from support.tiny_benchmark import HELD_OUT, a_preset, an_experiment, data_in
from support.tiny_project import GEOMETRY, a_patient, write_patients
from support.whole_runs import contents, use_small_sam

SPECIALISTS = ("supervised", "mean_teacher")
ROWS = (*SPECIALISTS, "lesion_rule", "all_labels")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkData:
    return data_in(tmp_path_factory.mktemp("patients"))


@pytest.fixture(scope="module")
def tables(data: BenchmarkData, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Two rows, the rule and the row of all labels, with one and two labelled cases."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("benchmark")
    return run_benchmark(folder, data, a_preset(labelled=(1, 2)), ROWS)


# --- Rows -------------------------------------------------------------------------------------


def rows_with_runs() -> list[Any]:
    """Return all rows; those that train as another one with other numbers are left to the night.

    So are those of CPC-SAM and SC-SAM, whose whole runs `methods/` tests.
    """
    at_night = {
        "semisam_uncertainty_aware",
        "aslseg_mean_teacher",
        "scsam",
        "scsam_gated",
        "cpcsam",
    }
    at_night |= {name for name in ENTRIES if name.endswith("_published")}
    return [
        pytest.param(name, marks=pytest.mark.nightly) if name in at_night else name
        for name, entry in ENTRIES.items()
        if entry.kind != "external"
    ]


@pytest.mark.parametrize("name", rows_with_runs())
def test_every_row_trains_and_is_scored(
    name: str, data: BenchmarkData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_sam(monkeypatch)
    setup = BenchmarkSetup(tmp_path, data, a_preset())
    (experiment,) = setup.experiments(entries_named([name]))
    run_experiment(setup, experiment)
    result = finished(setup, [experiment])[experiment]
    found = [(row["case"], row["target"]) for row in result["rows"]]
    assert found == [(case, target.name) for case in HELD_OUT for target in LIVER_TARGETS]
    assert all(("lesions" in row) == (row["target"] == "tumour") for row in result["rows"])
    kept = sorted(path.name for path in setup.labels_folder(experiment).iterdir())
    assert kept == [f"{case}.nii.gz" for case in HELD_OUT]


def test_rows_differ_in_what_makes_the_method_and_in_nothing_else() -> None:
    shared = a_preset().config
    plain = ENTRIES["supervised"].settings(shared, seed=0).model_dump()
    for entry in ENTRIES.values():
        values = entry.settings(shared, seed=0).model_dump()
        changed = {name for name in values if values[name] != plain[name]}
        own = {"semisam", "scsam"} | (
            {"organ", "lesion"} if entry.name.endswith("_published") else set()
        )
        assert changed <= {"method", "paradigm", "rounds"} | own, entry.name


def test_every_row_has_a_method_and_a_baseline_of_the_registry() -> None:
    for entry in ENTRIES.values():
        assert entry.settings(RunConfig(), seed=3).method in METHODS
        assert entry.settings(RunConfig(), seed=3).seed == 3
        assert entry.baseline in {"", *ENTRIES}


@pytest.mark.parametrize("preset", BENCHMARKS)
def test_presets_name_rows_that_there_are(preset: str) -> None:
    assert set(BENCHMARKS[preset].entries) <= set(ENTRIES)
    assert REFERENCE in BENCHMARKS[preset].entries


@pytest.mark.parametrize("name", BENCHMARKS)
def test_settings_of_one_row_are_of_rows_that_there_are(name: str) -> None:
    preset = BENCHMARKS[name]
    for row, own in preset.changes.items():
        assert row in ENTRIES
        with_overrides(ENTRIES[row].settings(preset.config, 0), own)


def test_a_row_has_its_own_settings_and_no_other_row_has_them(
    data: BenchmarkData, tmp_path: Path
) -> None:
    preset = replace(a_preset(), changes={"mean_teacher": {"organ.consistency_weight": 0.3}})
    setup = BenchmarkSetup(tmp_path, data, preset)
    plain = preset.config.organ.consistency_weight
    weights = [
        setup.config(an_experiment(name))[0].organ.consistency_weight
        for name in ("mean_teacher", "unimatch")
    ]
    assert weights == [0.3, plain] != [0.3, 0.3]
    assert setup.to_json() != BenchmarkSetup(tmp_path, data, a_preset()).to_json()


def test_an_unknown_row_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="no row 'unet'; choose among supervised, "):
        entries_named(["unet"])


def test_rows_that_see_every_label_are_one_experiment(data: BenchmarkData, tmp_path: Path) -> None:
    setup = BenchmarkSetup(tmp_path, data, a_preset(labelled=(1, 2), seeds=(0, 1)))
    found = setup.experiments(entries_named(["supervised", "all_labels", "true_boxes"]))
    assert [experiment.name for experiment in found] == [
        "supervised-given-1-0", "true_boxes-all-all-0", "all_labels-all-all-0",
        "supervised-given-2-0", "supervised-given-1-1", "true_boxes-all-all-1",
        "all_labels-all-all-1", "supervised-given-2-1",
    ]  # fmt: skip


def test_equal_time_comes_last_and_without_rows_that_have_no_schedule(
    data: BenchmarkData, tmp_path: Path
) -> None:
    setup = BenchmarkSetup(tmp_path, data, a_preset(tables=("schedule", "time")))
    found = setup.experiments(entries_named(["supervised", "lesion_rule", REFERENCE, "all_labels"]))
    assert [experiment.name for experiment in found] == [
        "supervised-given-2-0", "lesion_rule-given-2-0", "aslseg-given-2-0",
        "all_labels-all-all-0", "supervised-given-2-0-time",
    ]  # fmt: skip


# --- Equal time -------------------------------------------------------------------------------


def test_a_schedule_is_lengthened_to_the_time_of_the_reference() -> None:
    config = a_preset().config  # 12 steps of each stage
    longer, factor = at_equal_time(config, seconds=4.0, reference_seconds=10.0)
    assert factor == 2.5
    assert (longer.organ.iterations, longer.lesion.iterations) == (30, 30)
    assert longer.sam == config.sam
    shorter, _ = at_equal_time(config, seconds=100.0, reference_seconds=10.0)
    assert shorter.organ.iterations == SHORTEST


def write_time(setup: BenchmarkSetup, entry: str, seconds: float, *, resumed: bool = False) -> None:
    facts = {"training_cpu_s": seconds, "resumed": resumed, "rows": []}
    write_json_atomic(setup.path(an_experiment(entry)), facts)


def test_the_time_of_a_row_is_that_of_its_own_experiment(
    data: BenchmarkData, tmp_path: Path
) -> None:
    setup = BenchmarkSetup(tmp_path, data, a_preset(tables=("schedule", "time")))
    experiment = replace(an_experiment("supervised"), table="time")
    with pytest.raises(RunError, match="supervised-given-2-0, which is missing; run row"):
        setup.config(experiment)
    write_time(setup, "supervised", 2.0)
    with pytest.raises(RunError, match="aslseg-given-2-0, which is missing"):
        setup.config(experiment)
    write_time(setup, REFERENCE, 6.0)
    config, factor = setup.config(experiment)
    assert (config.organ.iterations, factor) == (36, 3.0)
    write_time(setup, REFERENCE, 6.0, resumed=True)
    with pytest.raises(RunError, match=r"aslseg-given-2-0 is not known, it was resumed"):
        setup.config(experiment)


def test_both_tables_are_run_and_share_the_reference(
    data: BenchmarkData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_sam(monkeypatch)
    preset = a_preset(tables=("schedule", "time"))
    found = run_benchmark(tmp_path, data, preset, ["supervised", REFERENCE])
    assert found.tables == ["schedule", "time"]
    longer = found.results[replace(an_experiment("supervised"), table="time")]
    seconds = [found.training_s("schedule", name) for name in ("supervised", REFERENCE)]
    assert longer["factor"] == pytest.approx(seconds[1] / seconds[0], abs=1e-3)
    assert found.experiments("time", REFERENCE) == found.experiments("schedule", REFERENCE)
    page = (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    first, second = page.split("## Equal processor time")
    assert first.count("| ASLseg |") == second.count("| ASLseg |")
    assert (tmp_path / "cells" / "supervised-given-2-0-time.json").is_file()


# --- Draws and labels -------------------------------------------------------------------------


def test_projects_name_the_shown_labels_and_nothing_of_held_out_cases(
    data: BenchmarkData, tmp_path: Path
) -> None:
    project = project_showing(data, tmp_path / "p", "given", 1)
    assert [case.id for case in project.labelled] == ["c1"]
    assert [case.id for case in project.unlabelled] == ["c0", "c2", "c3"]
    assert {case.id for case in project.cases} == {"c0", "c1", "c2", "c3"}
    text = (tmp_path / "p" / "project.json").read_text(encoding="utf-8")
    assert re.findall(r"labels/\w+", text) == ["labels/c1"]
    assert "truth" not in text
    assert not re.search(r"\bc[45]\b", text)
    assert [path.name for path in (tmp_path / "p" / "labels").iterdir()] == ["c1.nii.gz"]


def test_hidden_labels_are_not_read_before_the_scoring(
    data: BenchmarkData, tables: Tables, tmp_path: Path
) -> None:
    """All label maps but the shown ones are gone while the experiment is trained and predicts."""
    own = data_in(tmp_path)
    setup = BenchmarkSetup(tmp_path / "b", own, tables.setup.preset)
    hidden = [c.label for c in own.cases if c.label and c.id not in ("c0", "c1")]
    assert len(hidden) == 4
    kept = {path: path.read_bytes() for path in hidden}
    for path in hidden:
        path.unlink()
    experiment = an_experiment("mean_teacher")
    trained = trained_experiment(setup, experiment, Monitor())
    predicted = {case: trained.predict(case).labels.labels for case in HELD_OUT}
    for path, content in kept.items():
        path.write_bytes(content)
    for case, labels in predicted.items():
        as_before = read_labelmap(tables.setup.labels_folder(experiment) / f"{case}.nii.gz")
        np.testing.assert_array_equal(labels, as_before.labels)


def test_the_row_of_all_labels_is_shown_all_training_labels(
    data: BenchmarkData, tmp_path: Path
) -> None:
    project = project_showing(data, tmp_path / "p", "all", 0)
    assert {case.id for case in project.labelled} == {"c0", "c1", "c2", "c3"}
    assert not project.unlabelled


def test_unlabelled_cases_are_as_many_as_wanted(data: BenchmarkData, tmp_path: Path) -> None:
    project = project_showing(data, tmp_path / "p", "given", 1, most_unlabelled=2)
    assert [case.id for case in project.unlabelled] == ["c0", "c2"]
    assert [case.id for case in project.labelled] == ["c1"]


def test_cases_that_are_not_ordered_follow_those_that_are(data: BenchmarkData) -> None:
    assert data.draws == {"given": ("c1", "c0", "c2", "c3")}


def test_patients_are_labelled_by_one_volume_and_the_others_are_left_out(tmp_path: Path) -> None:
    cases = with_patients(write_patients(tmp_path), {"c1": "p", "c0": "p"})
    data = one_draw(cases, HELD_OUT, ("c1", "c0", "c2"))
    assert data.shown("given", 2) == ("c1", "c2")
    assert [case.id for case in data.used("given", 2)] == ["c1", "c2", "c3", "c6"]
    assert [case.id for case in data.used("given", 1)] == ["c1", "c2", "c3", "c6"]


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
        one_draw(write_patients(tmp_path), held_out, order)


@pytest.mark.parametrize("case_id", ["c4", "c0"])
def test_an_ai_label_map_that_nobody_looked_at_is_neither_truth_nor_learnt(
    tmp_path: Path, case_id: str
) -> None:
    cases = write_patients(tmp_path / "data")[:6]
    folder = tmp_path / "runs" / "first" / "labels"
    label = folder / f"{case_id}.nii.gz"
    write_labelmap(read_labelmap(tmp_path / "data" / "truth0.nii.gz"), label)
    write_json_atomic(folder / "origin.json", {case_id: "refined, round 1"})
    given = [replace(case, label=label) if case.id == case_id else case for case in cases]
    with pytest.raises(ImageError, match=f"{case_id}.nii.gz is an AI label map"):
        one_draw(given, HELD_OUT)


def test_a_patient_who_is_scored_is_not_trained_on(tmp_path: Path) -> None:
    cases = with_patients(write_patients(tmp_path), {"c1": "p", "c4": "p"})
    with pytest.raises(ProjectError, match="volumes of one patient"):
        one_draw(cases, HELD_OUT, ("c0",))


def test_more_labels_than_there_are_cannot_be_shown(data: BenchmarkData, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"Only 4 patients of draw 'given' .* 5 cannot"):
        project_showing(data, tmp_path / "p", "given", 5)


@pytest.fixture
def cases(tmp_path: Path) -> list[CaseFiles]:
    return write_patients(tmp_path / "patients")


def a_file(**changes: Any) -> DrawsFile:
    values = {
        "patients": {"p": ("c0", "c2")},
        "test": HELD_OUT,
        "training": ("c3", "c0", "c1", "c2"),
        "draws": {"A": ("c0", "c1"), "B": ("c1", "c3")},
        **changes,
    }
    return DrawsFile.model_validate(values)


def test_a_file_gives_parts_patients_and_draws(cases: list[CaseFiles]) -> None:
    data = drawn_data(cases, a_file())
    assert [case.id for case in data.training] == ["c3", "c0", "c1", "c2"]
    assert data.held_out == HELD_OUT  # c6 is not named and left out
    assert data.shown("B", 1) == ("c1",)
    assert [case.id for case in data.used("A", 1)] == ["c0", "c3", "c1"]  # c2 is a twin of c0
    assert [case.id for case in data.used("B", 1)] == ["c1", "c3", "c0", "c2"]
    assert list(drawn_data(cases, a_file(), chosen=["B"]).draws) == ["B"]


@pytest.mark.parametrize(
    ("changes", "chosen", "sentence"),
    [
        ({}, ["C"], "There is no draw 'C'; choose among A, B"),
        ({"test": ("c9",)}, [], "name 'c9', and there is no such case"),
        ({"draws": {"A": ("c4",)}}, [], "labels 'c4', which is not for training"),
        ({"draws": {"A": ("c1", "c1")}}, [], "repeats a case"),
        ({"patients": {"p": ("c0", "c4")}}, [], "volumes of one patient"),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused(
    changes: dict[str, Any], chosen: list[str], sentence: str, cases: list[CaseFiles]
) -> None:
    with pytest.raises(ProjectError, match=sentence):
        drawn_data(cases, a_file(**changes), chosen=chosen)


def test_a_damaged_file_of_draws_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "draws.json"
    write_json_atomic(path, {"test": ["c4"], "training": ["c0"]})
    with pytest.raises(ProjectError, match="'draws' cannot be used"):
        read_draws(path)


@pytest.mark.parametrize(
    ("name", "test", "training", "draws"), [("lits", 7, 15, 6), ("hippocampus", 30, 100, 10)]
)
def test_the_registered_draws_are_as_registered(
    name: str, test: int, training: int, draws: int
) -> None:
    file = read_draws(ROOT / "Docs" / "results" / f"draws-{name}.json")
    assert (len(file.test), len(file.training), len(file.draws)) == (test, training, draws)
    assert not set(file.test) & set(file.training)
    assert all(set(order) <= set(file.training) for order in file.draws.values())


# --- Running ----------------------------------------------------------------------------------


def test_experiments_are_scored_against_the_label_maps_that_were_given(
    tables: Tables, data: BenchmarkData
) -> None:
    rows = tables.rows("schedule", "supervised", "liver", 2)
    assert [row["case"] for row in rows] == list(HELD_OUT)
    assert all(0.3 < row["dice"] <= 1 for row in rows)
    folder = tables.setup.labels_folder(an_experiment("supervised"))
    found = read_labelmap(folder / "c4.nii.gz").labels > 0
    truth = data.truth("c4").labels > 0
    overlap = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert rows[0]["dice"] == pytest.approx(overlap, abs=1e-4)


def test_the_rule_drops_lesions_by_peak_and_volume() -> None:
    labels, probability = np.ones(GEOMETRY.shape, np.uint8), np.zeros(GEOMETRY.shape, np.float32)
    parts = {"kept": (2, 0.95, 4), "low": (12, 0.85, 4), "small": (22, 0.95, 2)}
    for row, peak, edge in parts.values():  # 64 voxels of 0.016 ml are 1.02 ml, 8 are 0.128 ml
        block = np.s_[2 : 2 + edge, row : row + edge, 5 : 5 + edge]
        labels[block], probability[block] = 2, 0.6
        probability[2, row, 5] = peak
    whole = {"liver": np.ones(GEOMETRY.shape, np.float32), "tumour": probability}
    given = CasePrediction(Labelmap(labels, GEOMETRY), whole)
    found = with_lesion_rule(given, LIVER_TARGETS)
    rows = np.argwhere(found.labels.labels == 2)[:, 1]
    assert (rows.min(), rows.max()) == (2, 5)
    assert (found.labels.labels > 0).all()  # what is dropped is liver
    np.testing.assert_array_equal(found.probabilities["tumour"] > 0, found.labels.labels == 2)


def test_label_maps_of_another_program_are_a_row(
    tables: Tables, data: BenchmarkData, tmp_path: Path
) -> None:
    setup = BenchmarkSetup(tmp_path, data, a_preset())
    experiment = an_experiment("nnunet")
    for case in HELD_OUT:
        write_labelmap(data.truth(case), tmp_path / f"external/nnunet/given-2/{case}.nii.gz")
    run_experiment(setup, experiment)
    rows = finished(setup, [experiment])[experiment]["rows"]
    assert {row["dice"] for row in rows} == {1.0}
    assert all(set(row["lesions"]["found_with"]) == {1.0} for row in rows if "lesions" in row)


def test_the_same_experiment_gives_the_same_scores_when_it_is_run_again(
    tables: Tables, data: BenchmarkData, tmp_path: Path
) -> None:
    experiment = an_experiment("mean_teacher")
    run_experiment(BenchmarkSetup(tmp_path, data, tables.setup.preset), experiment)
    again = json.loads((tmp_path / "cells" / f"{experiment.name}.json").read_text(encoding="utf-8"))
    assert again["rows"] == tables.results[experiment]["rows"]


def test_finished_experiments_are_not_run_again(
    tables: Tables, data: BenchmarkData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a finished experiment was run again")

    monkeypatch.setattr(benchmark_cells, "start_run", refuse)
    monkeypatch.setattr(benchmark_cells, "resume_run", refuse)
    rows = [*SPECIALISTS, "lesion_rule", "all_labels"]
    again = run_benchmark(tables.setup.folder, data, tables.setup.preset, rows)
    assert again.results == tables.results


def test_a_stopped_benchmark_goes_on_inside_of_the_experiment(
    data: BenchmarkData, tables: Tables, tmp_path: Path
) -> None:
    monitor = Monitor()

    def stop(event: object) -> None:
        if isinstance(event, Progress) and (event.task, event.step) == ("specialist-tumour", 10):
            monitor.token.cancel()

    monitor.listener = stop
    monitor.interval_s = 0.0
    preset = replace(tables.setup.preset, labelled=(2,))
    with pytest.raises(CancelledError):
        run_benchmark(tmp_path, data, preset, ["supervised"], monitor)
    assert not (tmp_path / "cells").exists()
    run = tmp_path / "projects/given-2/runs/supervised-0"
    organ = run / "round-01/specialist-liver.safetensors"
    made = organ.stat().st_mtime_ns
    again = run_benchmark(tmp_path, data, preset, ["supervised"])
    experiment = an_experiment("supervised")
    assert organ.stat().st_mtime_ns == made
    assert again.results[experiment]["rows"] == tables.results[experiment]["rows"]
    assert again.results[experiment]["resumed"]
    # The time of its first start is not known.
    assert value_lines(again, "schedule", "liver", "dice")[1][-1] == "-"
    assert not tables.results[experiment]["resumed"]
    assert value_lines(tables, "schedule", "liver", "dice")[1][-1].endswith(" s")


def test_a_folder_holds_experiments_of_one_kind_only(tables: Tables, data: BenchmarkData) -> None:
    folder = tables.setup.folder
    before = contents(folder)
    other = replace(tables.setup.preset, unlabelled=2)
    with pytest.raises(RunError, match=r"benchmark\.json is of other cases or settings; choose a"):
        run_benchmark(folder, data, other, ["supervised"])
    assert contents(folder) == before


def test_a_draw_of_a_finished_experiment_keeps_its_order(
    tables: Tables, data: BenchmarkData
) -> None:
    folder, preset = tables.setup.folder, tables.setup.preset
    before = contents(folder)
    turned = replace(data, draws={"given": tuple(reversed(data.draws["given"]))})
    with pytest.raises(RunError, match=r"another order of cases under the name of draw 'given'"):
        run_benchmark(folder, turned, preset, ["supervised"])
    assert contents(folder) == before


def test_label_maps_of_a_finished_experiment_stay_the_same(
    tables: Tables, data: BenchmarkData, tmp_path: Path
) -> None:
    folder, preset = tables.setup.folder, tables.setup.preset
    before = contents(folder)
    corrected = tmp_path / "truth.nii.gz"
    write_labelmap(Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY), corrected)
    for name in (HELD_OUT[0], data.draws["given"][0]):
        cases = tuple(
            replace(case, label=corrected) if case.id == name else case for case in data.cases
        )
        with pytest.raises(RunError, match="is of other label maps than those that the cases have"):
            run_benchmark(folder, replace(data, cases=cases), preset, ["supervised"])
    assert contents(folder) == before


def test_images_of_a_finished_experiment_stay_the_same(
    tables: Tables, data: BenchmarkData, tmp_path: Path
) -> None:
    folder, preset = tables.setup.folder, tables.setup.preset
    before = contents(folder)
    for case in data.cases:
        shutil.copyfile(case.image, tmp_path / case.image.name)
    moved = [replace(case, image=tmp_path / case.image.name) for case in data.cases]
    assert run_benchmark(folder, replace(data, cases=tuple(moved)), preset, ROWS).results
    assert contents(folder).keys() == before.keys(), "the same content in another place"
    for name in (HELD_OUT[0], data.draws["given"][0]):
        image = next(case.image for case in moved if case.id == name)
        write_volume(a_patient(21)[0], image)
        with pytest.raises(RunError, match=f"another image of case {name} than there is now"):
            run_benchmark(folder, replace(data, cases=tuple(moved)), preset, ROWS)
        shutil.copyfile(next(case.image for case in data.cases if case.id == name), image)
    run_benchmark(folder, data, preset, ROWS)
    assert contents(folder) == before


def test_a_folder_of_an_earlier_version_notes_its_draws_and_label_maps(
    tables: Tables, data: BenchmarkData
) -> None:
    path = tables.setup.folder / "benchmark.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    bare = {name: facts[name] for name in facts if name not in ("draws", "label_maps", "images")}
    write_json_atomic(path, bare)
    run_benchmark(tables.setup.folder, data, tables.setup.preset, ROWS)
    assert json.loads(path.read_text(encoding="utf-8")) == facts


def test_an_experiment_that_fails_does_not_keep_others_from_being_run(
    data: BenchmarkData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(project: object, config: RunConfig, *rest: object, **named: object) -> object:
        if config.paradigm == "supervised":
            msg = "The loss is not a number."
            raise RunError(msg)
        return start_run(project, config, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark_cells, "start_run", sometimes)
    with pytest.raises(RunError, match=r"1 experiments failed .* supervised-given-2-0: The loss"):
        run_benchmark(tmp_path, data, a_preset(), SPECIALISTS)
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["mean_teacher-given-2-0.json"]
    assert "Mean teacher" in (tmp_path / "benchmark.md").read_text(encoding="utf-8")


def test_processes_of_their_own_give_the_same_scores_and_obey_the_stop(
    tables: Tables, data: BenchmarkData, tmp_path: Path
) -> None:
    setup = BenchmarkSetup(tmp_path, data, tables.setup.preset)
    experiments = [an_experiment("supervised"), an_experiment("supervised", seed=1)]
    setup.project(experiments[0])
    monitor = Monitor()
    ended: Iterator[object] = run_parallel(setup, experiments, 2, monitor)
    experiment, error = next(ended)  # type: ignore[misc]
    assert error is None
    rows = json.loads(setup.path(experiment).read_text(encoding="utf-8"))["rows"]
    if experiment in tables.results:
        assert rows == tables.results[experiment]["rows"]
    monitor.token.cancel()
    with pytest.raises(CancelledError):
        list(ended)


def test_time_left_counts_on_the_times_of_the_same_row() -> None:
    def one(entry: str, labelled: int, seed: int = 0) -> Experiment:
        return an_experiment(entry, labelled, seed)

    done = {
        one("supervised", 1): {"seconds": 10.0},
        one("supervised", 2): {"seconds": 20.0},
        one("scsam", 1): {"seconds": 90.0},
    }
    left = [one("supervised", 1, 1), one("scsam", 1, 1), one("aslseg", 1, 1)]
    assert seconds_left(done, left) == 15 + 90 + 40


# --- What is written --------------------------------------------------------------------------


def test_the_table_of_cases_has_a_row_for_each_experiment_case_and_target(tables: Tables) -> None:
    lines = (tables.setup.folder / "cases.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + (3 * 2 + 1) * 2 * 2
    assert lines[0].startswith("table,method,draw,labelled,seed,case,patient,target,dice")


def test_the_table_of_lesions_has_each_true_lesion_and_each_false_candidate(
    tables: Tables,
) -> None:
    text = (tables.setup.folder / "lesions.csv").read_text(encoding="utf-8")
    kinds = [line.split(",")[8] for line in text.splitlines()[1:]]
    rows = [row for result in tables.results.values() for row in result["rows"]]
    lesions = [row["lesions"] for row in rows if "lesions" in row]
    assert kinds.count("true") == sum(len(found["true_ml"]) for found in lesions) == 7 * 2
    assert kinds.count("false") == sum(len(found["false_with"]) for found in lesions)


def test_the_summary_has_each_endpoint_with_its_gain(tables: Tables) -> None:
    text = (tables.setup.folder / "summary.csv").read_text(encoding="utf-8")
    lines = text.splitlines()[1:]
    # Of three rows twice and one once: one endpoint of the liver, six of the tumour.
    assert len(lines) == 7 * (1 + 6)
    gains = [line for line in lines if ",mean_teacher," in line and ",dice," in line]
    assert all(",supervised," in line for line in gains if line.split(",")[1] == "mean_teacher")


def test_the_page_shows_each_row_once_per_target_with_its_gain(tables: Tables) -> None:
    page = (tables.setup.folder / "benchmark.md").read_text(encoding="utf-8")
    assert page.count("### liver: Dice") == page.count("### tumour: lesion F1") == 1
    assert page.count("| All labels |") == 2 + 1  # and once among the secondary endpoints
    assert len(re.findall(r"\| Mean teacher \| Supervised \| (1|2) \|", page)) == 4


def test_the_figure_has_a_panel_for_each_target_and_a_line_for_each_method(
    tables: Tables, tmp_path: Path
) -> None:
    text = write_figure(tables, tmp_path / "benchmark.svg").read_text(encoding="utf-8")
    for word in ("liver", "tumour", "Mean teacher", "Supervised", "All labels"):
        assert f"<!-- {word} -->" in text
    assert write_figure(tables, tmp_path / "benchmark.png").stat().st_size > 10_000


def write_ct(folder: Path) -> list[str]:
    """Write images and label maps, and return the words that begin the command."""
    for case in write_patients(folder / "ct"):
        if case.label is not None:
            truth = read_labelmap(case.label)
            case.label.unlink()
            name = case.image.name.removeprefix("ct")
            write_labelmap(Labelmap(truth.labels, truth.geometry), folder / "seg" / f"ct{name}")
    words = ["benchmark", folder / "out", folder / "ct", "--labels", folder / "seg"]
    return [str(word) for word in words]


def test_the_command_runs_a_benchmark_and_shows_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BENCHMARKS, "small", a_preset())
    file = {"test": ["ct4", "ct5"], "training": ["ct0", "ct1", "ct2"]}
    write_json_atomic(tmp_path / "draws.json", {**file, "draws": {"A": ["ct2", "ct1"]}})
    words = [*write_ct(tmp_path), "--draws", str(tmp_path / "draws.json"), "--draw", "A"]
    words += ["--method", "supervised", "--seed", "7", "--labelled", "1"]
    result = aslseg(*words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "cells" / "supervised-A-1-7.json").is_file()
    assert (tmp_path / "out" / "benchmark.png").is_file()
    assert f"Tables: {tmp_path / 'out' / 'benchmark.md'}" in result.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--draws", "draws.json", "--held-out", "ct4"], "leave --held-out and --order out"),
        (["--draw", "A"], "name that with --draws"),
        (["--held-out", "ct4", "--table", "steps"], "There is no table 'steps'"),
        (["--held-out", "ct4", "--labelled", "one"], "takes whole numbers"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, [*write_ct(tmp_path), *words], env={"COLUMNS": "300"})
    assert result.exit_code != 0
    assert sentence in result.output


def test_rows_that_a_preset_leaves_out_can_be_named(data: BenchmarkData, tmp_path: Path) -> None:
    preset = a_preset(entries=("supervised",))
    found = run_benchmark(tmp_path / "own", data, preset).entries("schedule")
    assert [entry.name for entry in found] == ["supervised"]
    named = run_benchmark(tmp_path / "named", data, preset, ["mean_teacher"])
    assert [entry.name for entry in named.entries("schedule")] == ["mean_teacher"]
