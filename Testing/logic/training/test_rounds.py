"""Whole runs on a tiny project: what they write, what they never touch, stopping and going on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from scipy import ndimage

from aslseg import run_names, runs
from aslseg.config import RunConfig, SamConfig
from aslseg.context import LabelledVolume, RunContext
from aslseg.data.images import read_labelmap, read_volume, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import (
    CancelledError,
    ConfigError,
    GeometryMismatchError,
    ProjectError,
    RunError,
    WeightsError,
)
from aslseg.events import Artifact, Event, Monitor, Notice, Progress
from aslseg.inference.loading import best_round, load_ensemble, segment_volume
from aslseg.methods import METHODS
from aslseg.project.case import CaseFiles
from aslseg.project.case_reports import case_reports
from aslseg.project.create import create_project, select_cases
from aslseg.project.edit import remove_cases
from aslseg.project.given_masks import set_organ_masks
from aslseg.project.label_origin import ai_label_problem
from aslseg.project.project import Project, open_project
from aslseg.project.roles import assign
from aslseg.project.run_folder import RunFolder, create_run
from aslseg.project.run_tables import (
    CROSS_VALIDATION_COLUMNS,
    METRIC_COLUMNS,
    RELIABILITY_COLUMNS,
    write_table,
)
from aslseg.project.windows import Intensities
from aslseg.runs import continue_run, resume_run, start_run
from aslseg.targets import LIVER_TARGETS, Target
from aslseg.training import rounds, sam_tuning
from aslseg.training.rounds import (
    Round,
    RoundOutcome,
    RunRound,
    read_case_reliability,
)
from aslseg.training.sam_tuning import sam_training_case
from aslseg.training.stage_cases import refuse_absent_targets
from aslseg.training.trainer import Schedule, Trainer
from support.run_contexts import a_run_context
from support.tiny_project import (
    ADAPTATION,
    GEOMETRY,
    LABELLED,
    SPECIALIST,
    TEST,
    UNLABELLED,
    VALIDATION,
    a_patient,
    a_tiny_project,
    tiny_config,
    write_patients,
)
from support.whole_runs import (
    at_step,
    contents,
    folders_made,
    prediction_in,
    results,
    rows_of,
    run_with_noise_as_hidden_labels,
    stop_at,
    stopped_and_resumed,
    use_small_sam,
    weights_in,
)

WITH_SAM = tiny_config(
    rounds=1,
    baseline=True,
    adaptation=ADAPTATION.model_copy(update={"versions": 1, "iterations": 4}),
    sam=SamConfig(model="vit_t", input_size=128, iterations=4, batch_size=2, versions=1),
)


@dataclass(frozen=True)
class Finished:
    """A run that nobody stopped, on a project of its own."""

    root: Path
    run: RunFolder
    labels_before: Mapping[str, bytes]
    made: tuple[Path, ...]

    @property
    def project(self) -> Project:
        return open_project(self.root / "project")


def run_in(root: Path, config: RunConfig) -> Finished:
    torch.set_num_threads(1)
    project = a_tiny_project(root)
    before = contents(project.folder / "labels")
    with folders_made() as made:
        run = start_run(project, config, run_id="a")
    return Finished(root, run, before, tuple(made))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_in(tmp_path_factory.mktemp("finished"), tiny_config())


@pytest.fixture(scope="module")
def finished_with_sam(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_small_sam(monkeypatch)
        return run_in(tmp_path_factory.mktemp("with_sam"), WITH_SAM)


# --- What a run leaves behind -----------------------------------------------------------------


def test_every_volume_gets_a_label_map_on_the_grid_of_its_image(finished: Finished) -> None:
    for case in finished.project.cases:
        labels = read_labelmap(finished.run.path / "labels" / f"{case.id}.nii.gz")
        assert labels.geometry.matches(GEOMETRY)
        assert labels.geometry.matches(finished.project.load_image(case).geometry)
        assert set(np.unique(labels.labels)) <= {0, 1, 2}
        assert (labels.labels == 1).any()


def test_human_labels_are_never_overwritten_and_are_the_results_of_their_cases(
    finished: Finished,
) -> None:
    assert contents(finished.project.folder / "labels") == finished.labels_before
    assert set(finished.labels_before) == {f"{name}.nii.gz" for name in (*LABELLED, *VALIDATION)}
    for name in (*LABELLED, *VALIDATION):
        human = finished.project.load_labels(finished.project.case(name))
        result = read_labelmap(finished.run.path / "labels" / f"{name}.nii.gz")
        np.testing.assert_array_equal(result.labels, human.labels)


def test_every_result_says_who_made_it(finished: Finished) -> None:
    origin = json.loads((finished.run.path / "labels" / "origin.json").read_text(encoding="utf-8"))
    best = finished.run.best_round
    assert {name: origin[name] for name in (*LABELLED, *VALIDATION)} == dict.fromkeys(
        (*LABELLED, *VALIDATION), "human"
    )
    assert {origin[name] for name in (*UNLABELLED, *TEST)} == {f"refined, round {best}"}
    labels = finished.run.path / "labels"
    assert ai_label_problem(labels / f"{LABELLED[0]}.nii.gz") == ""
    assert "is an AI label map" in ai_label_problem(labels / f"{UNLABELLED[0]}.nii.gz")


def test_a_run_folder_holds_the_files_of_the_design(finished: Finished) -> None:
    of_run = {path.name for path in finished.run.path.iterdir()}
    assert of_run >= {"config.json", "status.json", "events.jsonl", "labels", "lock"}
    assert finished.run.config == tiny_config()
    for number in (1, 2):
        folder = finished.run.round(number)
        tables = {"metrics.csv", "reliability.csv", "cross_validation.csv"}
        assert {path.name for path in folder.glob("*.csv")} == tables
        specialists = {path.name for path in folder.glob("specialist-*.safetensors")}
        assert {"specialist-liver.safetensors", "specialist-tumour.safetensors"} <= specialists
        for name in (*UNLABELLED, *VALIDATION, *TEST):
            written = {path.name for path in (folder / "predictions" / name).iterdir()}
            assert written - {"doubtful.nii.gz"} == {
                "specialist.nii.gz",
                "refined.nii.gz",
                "prompts.json",
                "prediction.json",
                "candidates.csv",
                "candidates.nii.gz",
            }
            assert ("doubtful.nii.gz" in written) == (name in UNLABELLED)
        weights = {path.name for path in folder.glob("*.safetensors")} - specialists
        assert weights == {
            "adaptation-liver.safetensors",
            "adaptation-tumour.safetensors",
            "candidates-tumour.safetensors",
        }
    assert not list(finished.run.path.rglob("*.training.safetensors"))
    assert not list(finished.run.path.rglob("*.npy"))


def test_labelled_cases_are_not_segmented_for_they_have_labels(finished: Finished) -> None:
    written = {path.name for path in (finished.run.round(1) / "predictions").iterdir()}
    assert written.isdisjoint(LABELLED)


@pytest.mark.parametrize("number", [1, 2])
def test_metrics_have_one_row_for_each_source_case_and_target(
    finished: Finished, number: int
) -> None:
    rows = rows_of(finished.run.round(number) / "metrics.csv")
    assert tuple(rows[0]) == METRIC_COLUMNS
    facts = [(r["round"], r["source"], r["split"], r["case"], r["target"]) for r in rows]
    assert facts == [
        (str(number), source, "validation", "c5", target)
        for source in ("specialist", "refined")
        for target in ("liver", "tumour")
    ]
    assert all(0.0 <= float(row["dice"]) <= 1.0 for row in rows)


def test_a_second_of_training_finds_the_liver_of_a_patient_never_seen(finished: Finished) -> None:
    rows = rows_of(finished.run.round(2) / "metrics.csv")
    liver = {row["source"]: float(row["dice"]) for row in rows if row["target"] == "liver"}
    assert min(liver.values()) > 0.8


@pytest.mark.parametrize(("number", "places"), [(1, 1), (2, 2)])
def test_pseudo_labels_are_the_refined_labels_of_the_accepted_cases_alone(
    finished: Finished, number: int, places: int
) -> None:
    folder = finished.run.round(number)
    rows = rows_of(folder / "reliability.csv")
    assert tuple(rows[0]) == RELIABILITY_COLUMNS
    assert {row["case"] for row in rows} == set(UNLABELLED)
    accepted = {row["case"] for row in rows if row["accepted"] == "True"}
    assert 0 < len(accepted) <= places  # 1/2 and 3/4 of three cases, rounded down
    files = {f"{case}{end}.nii.gz" for case in accepted for end in ("", "-doubtful")}
    assert {path.name for path in folder.glob("pseudo/*")} == files
    for row in rows:
        assert bool(row["accepted_targets"]) == (row["case"] in accepted)
    for name in accepted:
        pseudo = read_labelmap(folder / "pseudo" / f"{name}.nii.gz")
        refined = prediction_in(folder / "predictions" / name, "refined")
        np.testing.assert_array_equal(pseudo.labels, refined.labels)


def test_the_reliability_of_a_case_is_the_mean_of_its_targets(finished: Finished) -> None:
    for row in rows_of(finished.run.round(1) / "reliability.csv"):
        folder = finished.run.round(1) / "predictions" / row["case"]
        judged = read_case_reliability(folder)
        assert judged is not None
        assert judged.targets.keys() == {"liver", "tumour"}
        known = [one.score for one in judged.targets.values() if one.score is not None]
        assert float(row["score"]) == pytest.approx(sum(known) / len(known), abs=1e-4)


def test_status_and_events_tell_how_the_run_went(finished: Finished) -> None:
    noted = finished.run.noted
    assert {"state": "done", "rounds": 2, "sam": "none", "round": 2}.items() <= noted.items()
    assert noted["best_round"] in (1, 2)
    lines = (finished.run.path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert {event["event"] for event in events} >= {"progress", "metric", "artifact"}
    rounds = {event["round"] for event in events if event["event"] == "progress"}
    assert rounds - {0} == {1, 2}  # 0 is what comes before
    losses = [e for e in events if e.get("name") == "loss" and e["task"] == "specialist-liver"]
    assert [e["step"] for e in losses if e["round"] == 1] == [0, 10]


# --- Labels that are hidden stay hidden ---------------------------------------------------------


@pytest.mark.slow
def test_noise_in_place_of_the_hidden_labels_leaves_training_bit_identical(
    finished: Finished, tmp_path: Path
) -> None:
    run = run_with_noise_as_hidden_labels(tmp_path, tiny_config())
    assert results(run) == results(finished.run)


def test_one_voxel_of_a_label_to_learn_from_changes_training(
    finished: Finished, tmp_path: Path
) -> None:
    """Shows that the comparison above could have failed."""
    project = a_tiny_project(tmp_path)
    case = project.case("c0")
    labels = project.load_labels(case)
    changed = labels.labels.copy()
    changed[6, 19, 20] = 0
    project.save_label("c0", Labelmap(changed, labels.geometry))
    with pytest.raises(CancelledError):
        start_run(open_project(project.folder), tiny_config(), stop_at(in_tumour), run_id="a")
    of_liver = Path("round-01", "specialist-liver.safetensors")
    changed_weights = weights_in(project.folder / "runs" / "a" / of_liver)
    assert changed_weights != weights_in(finished.run.path / of_liver)


# --- Stopping and going on ----------------------------------------------------------------------


def in_tumour(event: Event) -> bool:
    return isinstance(event, Progress) and event.task == "specialist-tumour"


def after_the_first_case(event: Event) -> bool:
    return isinstance(event, Artifact) and event.kind == "predictions"


@pytest.mark.slow
def test_a_run_that_was_stopped_again_and_again_equals_one_that_was_not(
    finished: Finished, tmp_path: Path
) -> None:
    resumed = stopped_and_resumed(
        a_tiny_project(tmp_path),
        tiny_config(),
        at_step("specialist-tumour", 10),
        at_step("adaptation-liver", 10),
        after_the_first_case,
        at_step("specialist-liver", 0, 2),
    )
    assert resumed.run_id == "a"
    assert resumed.status.state == "done"
    assert results(resumed) == results(finished.run)
    assert resumed.status.best_round == finished.run.best_round


@pytest.mark.slow
def test_a_run_stopped_while_tuning_sam_goes_on_to_the_same_end(
    finished_with_sam: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_sam(monkeypatch)
    run = stopped_and_resumed(a_tiny_project(tmp_path), WITH_SAM, at_step("sam", 0))
    assert results(run) == results(finished_with_sam.run)


def test_resuming_a_finished_run_changes_nothing(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.root, tmp_path / "copy")
    project = open_project(tmp_path / "copy" / "project")
    before = {path: path.stat().st_mtime_ns for path in project.folder.rglob("*.safetensors")}
    assert results(resume_run(project, "a")) == results(finished.run)
    assert before == {p: p.stat().st_mtime_ns for p in project.folder.rglob("*.safetensors")}


def test_a_name_is_given_to_one_run_only(finished: Finished) -> None:
    with pytest.raises(RunError, match="already; resume it or give another name"):
        start_run(finished.project, tiny_config(), run_id="a")


@pytest.mark.parametrize("method", ["aslseg", "specialist"])
def test_later_rounds_are_shorter_and_slower_as_the_settings_say(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    seen: list[Schedule] = []
    run = Trainer.run

    def watched(self: Trainer, *arguments: object) -> None:
        seen.append(self.schedule)
        run(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "run", watched)
    config = tiny_config(method=method, later_share=0.25, later_learning_rate=0.1)
    start_run(a_tiny_project(tmp_path), config)
    found = [s for s in seen if s.name.startswith("specialist-")]
    assert [(s.name, s.steps, s.learning_rate) for s in found] == [
        ("specialist-liver", 12, 0.01),
        ("specialist-tumour", 12, 0.01),
        ("specialist-liver", 3, 0.001),
        ("specialist-tumour", 3, 0.001),
    ]
    others = {
        name: [s.steps for s in seen if s.name == name]
        for name in ("adaptation-tumour", "cross-fitted-1-tumour")
    }
    expected = {"adaptation-tumour": [12, 3], "cross-fitted-1-tumour": [6, 2]}
    assert others == (expected if method == "aslseg" else {name: [] for name in expected})


# --- Loading ------------------------------------------------------------------------------------


def test_a_loaded_ensemble_gives_the_labels_that_the_run_wrote(finished: Finished) -> None:
    ensemble = load_ensemble(finished.run)
    folder = finished.run.round(best_round(finished.run)) / "predictions"
    for name in (*UNLABELLED, *TEST):
        segmented = ensemble.segment(finished.project.load_image(finished.project.case(name)))
        for source in ("specialist", "refined"):
            written = prediction_in(folder / name, source)
            np.testing.assert_array_equal(getattr(segmented, source).labels, written.labels)
        assert segmented.sam is None
        result = read_labelmap(finished.run.path / "labels" / f"{name}.nii.gz")
        np.testing.assert_array_equal(segmented.refined.labels, result.labels)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["specialist-tumour", "adaptation-liver", "candidates-tumour"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(cut_off, "damaged or cut off", id="cut off"),
        pytest.param(flip_a_bit, "do not match their checksum", id="changed"),
        pytest.param(Path.unlink, "There is no weights file", id="missing"),
    ],
)
def test_damaged_weights_are_refused(
    finished: Finished, tmp_path: Path, name: str, damage: Callable[[Path], None], words: str
) -> None:
    shutil.copytree(finished.root, tmp_path / "copy")
    run = RunFolder(tmp_path / "copy" / "project" / "runs" / "a")
    damage(run.round(best_round(run)) / f"{name}.safetensors")
    before = contents(run.path)
    volume = read_volume(tmp_path / "copy" / "data" / "ct6.nii.gz")
    with pytest.raises(WeightsError, match=words) as raised:
        segment_volume(run, volume)
    assert f"{name}.safetensors" in str(raised.value)
    assert contents(run.path) == before


@pytest.mark.parametrize("part", ["organ", "adaptation"])
def test_weights_of_another_network_are_refused(
    finished: Finished, tmp_path: Path, part: str
) -> None:
    shutil.copytree(finished.root, tmp_path / "copy")
    run = RunFolder(tmp_path / "copy" / "project" / "runs" / "a")
    settings = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    sizes = settings[part].get("network", settings[part])
    sizes["channels"][-1] *= 2
    (run.path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="network of other sizes than the run's settings say"):
        load_ensemble(run)


def test_segmenting_a_volume_enters_no_file_of_training(finished: Finished) -> None:
    image = finished.project.load_image(finished.project.case(TEST[0]))
    entered: set[Path] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            entered.add(Path(frame.f_code.co_filename))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        load_ensemble(finished.run).segment(image)
    finally:
        sys.setprofile(before)
    names = {"/".join(path.parts[-2:]) for path in entered if "aslseg" in path.parts}
    assert {"inference/cascade.py", "inference/loading.py"} <= names
    assert not [name for name in names if name.startswith(("training/", "ssl/"))]


def test_a_run_without_a_finished_round_cannot_segment(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    run = create_run(project.folder, tiny_config(), "new")
    with pytest.raises(RunError, match="has no finished round yet; resume it"):
        load_ensemble(run)


# --- With SAM -----------------------------------------------------------------------------------


def test_each_folder_of_a_round_is_a_known_one(
    finished: Finished, finished_with_sam: Finished
) -> None:
    results_of = {run_names.PREDICTIONS, run_names.PSEUDO, "baseline"}
    for one, scratch in [(finished, {"rois", "samples"}), (finished_with_sam, {"sam-samples"})]:
        rounds_made = [path.relative_to(one.run.path) for path in one.made if "round-" in str(path)]
        made = {path.parts[1] for path in rounds_made if len(path.parts) > 1}
        assert scratch <= made <= {*results_of, *run_names.FOR_TRAINING}


def test_with_sam_every_prediction_is_written_and_measured(finished_with_sam: Finished) -> None:
    run = finished_with_sam.run
    assert run.status.sam == "vit_t"
    assert (run.round(1) / "sam.safetensors").exists()
    for name in (*UNLABELLED, *VALIDATION, *TEST):
        folder = run.round(1) / "predictions" / name
        sam = read_labelmap(folder / "sam.nii.gz")
        assert sam.geometry.matches(GEOMETRY)
        prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
        specialist = read_labelmap(folder / "specialist.nii.gz").labels
        prompted = {p["slice_index"] for p in prompts if p["target"] == "liver"}
        assert prompted >= set(np.flatnonzero((specialist == 1).sum((1, 2)) > 8).tolist())
    rows = rows_of(run.round(1) / "metrics.csv")
    stages = ("supervised", "specialist", "sam_untrained", "sam", "refined")
    assert [(r["source"], r["target"]) for r in rows] == [
        (stage, target) for stage in stages for target in ("liver", "tumour")
    ]


def test_with_sam_a_loaded_ensemble_gives_the_labels_that_the_run_wrote(
    finished_with_sam: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_sam(monkeypatch)
    run = finished_with_sam.run
    segmented = segment_volume(run, read_volume(finished_with_sam.root / "data" / "ct6.nii.gz"))
    assert segmented.prompts
    for source in ("specialist", "sam", "refined"):
        written = prediction_in(run.round(1) / "predictions" / "c6", source)
        np.testing.assert_array_equal(getattr(segmented, source).labels, written.labels)


def test_embeddings_are_made_once_and_may_be_deleted(
    finished_with_sam: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_sam(monkeypatch)
    shutil.copytree(finished_with_sam.root, tmp_path / "copy")
    project = open_project(tmp_path / "copy" / "project")
    shutil.rmtree(project.folder / "cache")
    run = RunFolder(project.folder / "runs" / "a")
    volume = read_volume(tmp_path / "copy" / "data" / "ct2.nii.gz")
    segmented = segment_volume(run, volume)
    written = prediction_in(run.round(1) / "predictions" / "c2", "sam")
    assert segmented.sam is not None
    np.testing.assert_array_equal(segmented.sam.labels, written.labels)


# --- Other targets, dimensions and paradigms ------------------------------------------------------

DEEP = (
    Target(name="spleen", value=3),
    *LIVER_TARGETS,
    Target(name="dead core", value=4, inside="tumour"),
)


def a_deep_project(folder: Path) -> Project:
    """Make a project with a spleen beside the liver and a core in each tumour."""
    files = []
    for number in range(4):
        volume, labelmap = a_patient(number)
        voxels, labels = volume.voxels.copy(), labelmap.labels.copy()
        labels[2:10, 33:39, 2:10] = 3
        voxels[2:10, 33:39, 2:10] += 60.0
        core = ndimage.binary_erosion(labels == 2)
        labels[core] = 4
        voxels[core] -= 60.0
        image, truth = folder / f"ct{number}.nii.gz", folder / f"truth{number}.nii.gz"
        write_volume(Volume(voxels, GEOMETRY), image)
        write_labelmap(Labelmap(labels, GEOMETRY), truth)
        files.append(CaseFiles(f"c{number}", image, truth))
    chosen = select_cases(files, labelled=["c0", "c1"], validation=["c3"])
    return create_project(folder / "project", chosen, DEEP)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paradigm", "dimensions"),
    [
        ("cross_pseudo", 3),
        pytest.param("uncertainty_aware", 2, marks=pytest.mark.nightly),
        pytest.param("supervised", 2, marks=pytest.mark.nightly),
    ],
)
def test_parents_of_parents_are_trained_by_every_paradigm(
    tmp_path: Path, paradigm: str, dimensions: int
) -> None:
    network = {"dimensions": dimensions, "channels": [4, 8, 8]}
    settings = {**SPECIALIST.model_dump(), "network": network, "patch_size": 16, "iterations": 4}
    values = tiny_config(rounds=1, adaptation=ADAPTATION).model_dump()
    config = RunConfig.model_validate(
        {**values, "organ": settings, "lesion": settings, "paradigm": paradigm}
    )
    run = start_run(a_deep_project(tmp_path), config)
    names = {path.name for path in run.round(1).glob("*.safetensors")}
    assert {
        "specialist-spleen-liver.safetensors",
        "specialist-tumour.safetensors",
        "specialist-dead_core.safetensors",
        "adaptation-dead_core.safetensors",
    } <= names
    rows = rows_of(run.round(1) / "metrics.csv")
    assert [row["target"] for row in rows[:4]] == ["spleen", "liver", "tumour", "dead core"]
    segmented = segment_volume(run, read_volume(tmp_path / "ct2.nii.gz"))
    written = read_labelmap(run.path / "labels" / "c2.nii.gz")
    np.testing.assert_array_equal(segmented.refined.labels, written.labels)


# --- Cases that show nothing ----------------------------------------------------------------------


def with_empty_labels(project: Project, names: tuple[str, ...]) -> Project:
    for name in names:
        project.save_label(name, Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY))
    return open_project(project.folder)


@pytest.mark.slow
def test_healthy_cases_to_learn_from_and_to_validate_on_are_no_trouble(tmp_path: Path) -> None:
    project = with_empty_labels(a_tiny_project(tmp_path), ("c1", "c5"))
    run = start_run(project, tiny_config(rounds=1))
    assert run.status.state == "done"
    assert len(rows_of(run.round(1) / "metrics.csv")) == 4


def test_sam_is_tuned_on_the_cases_that_show_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_sam(monkeypatch)
    project = with_empty_labels(a_tiny_project(tmp_path), ("c1",))
    case = project.case("c1")
    healthy = LabelledVolume("c1", project.load_image(case), project.load_labels(case))

    def asks(seed: int) -> bool:
        training_case = sam_training_case(healthy, project.targets, WITH_SAM.sam, seed)
        return any(training_case.samples.values())

    seed = next(seed for seed in range(20) if not asks(seed))  # where nothing is invented
    config = WITH_SAM.model_copy(update={"seed": seed})
    context = a_run_context(project, config)
    assert sam_tuning.tune_sam_predictor(context, context.folder.round(1)) is not None
    assert (context.folder.round(1) / "sam.safetensors").exists()


# --- When to stop -------------------------------------------------------------------------------


def a_method(validations: list[float]) -> RunRound:
    """Return a method whose rounds have given validations and label the first `number` voxels."""

    def run_round(context: RunContext, this: Round) -> RoundOutcome:
        labels = np.zeros(GEOMETRY.shape, np.uint8)
        labels.ravel()[: this.number] = 1
        for case in (*context.unlabelled, *context.held_out):
            path = this.folder / "predictions" / case.id / "refined.nii.gz"
            write_labelmap(Labelmap(labels, GEOMETRY), path)
        return RoundOutcome({}, {}, validations[this.number - 1])

    return run_round


NAN = float("nan")


@pytest.mark.parametrize(
    ("validations", "patience", "done", "best"),
    [
        pytest.param([0.6, 0.5, 0.9], 1, 2, 1, id="a worse round ends it"),
        pytest.param([0.6, 0.5, 0.9], 2, 3, 3, id="patience waits for a better one"),
        pytest.param([0.6, 0.6, 0.9], 1, 2, 1, id="an equal round is not better"),
        pytest.param([0.6, 0.7, 0.8], 1, 3, 3, id="better and better"),
        pytest.param([0.6, 0.7, 0.1], 1, 3, 2, id="the last one worse"),
        pytest.param([NAN, NAN, NAN], 1, 3, 3, id="nothing to validate on"),
    ],
)
def test_the_best_round_is_kept_and_patience_ends_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    validations: list[float],
    patience: int,
    done: int,
    best: int,
) -> None:
    monkeypatch.setitem(METHODS, "double", a_method(validations))
    received: list[Event] = []
    run = start_run(
        a_tiny_project(tmp_path),
        tiny_config(method="double", rounds=3, patience=patience),
        Monitor(received.append),
    )
    assert best_round(run) == best
    assert [run.round(n).exists() for n in (1, 2, 3)] == [n <= done for n in (1, 2, 3)]
    assert any("Stopped after round" in str(event) for event in received) == (done < 3)
    result = read_labelmap(run.path / "labels" / "c2.nii.gz")
    assert np.count_nonzero(result.labels) == best


def test_a_prediction_on_other_voxels_than_its_image_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = a_method([0.5])

    def run_round(context: RunContext, this: Round) -> RoundOutcome:
        outcome = inner(context, this)
        path = this.folder / "predictions" / "c2" / "refined.nii.gz"
        elsewhere = Geometry.axis_aligned(GEOMETRY.shape, (4.0, 2.0, 3.0))
        write_labelmap(Labelmap(np.ones(GEOMETRY.shape, np.uint8), elsewhere), path)
        return outcome

    monkeypatch.setitem(METHODS, "double", run_round)
    project = a_tiny_project(tmp_path)
    with pytest.raises(GeometryMismatchError, match=r"c2.refined\.nii\.gz lies on other voxels"):
        start_run(project, tiny_config(method="double", rounds=1), run_id="a")
    assert not (project.folder / "runs" / "a" / "labels" / "c2.nii.gz").exists()


def test_a_training_says_what_of_its_settings_its_targets_leave_no_use_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "double", a_method([0.5]))
    cases = select_cases(write_patients(tmp_path / "data"), labelled=LABELLED)
    truth = read_labelmap(tmp_path / "data" / "truth0.nii.gz")
    truth.labels[0, :4, :4] = 3
    write_labelmap(truth, tmp_path / "data" / "truth0.nii.gz")
    targets = (*LIVER_TARGETS, Target(name="spleen", value=3))
    organ = SPECIALIST.model_copy(update={"second_pass": True})
    received: list[Event] = []
    start_run(
        create_project(tmp_path / "project", cases, targets),
        tiny_config(method="double", rounds=1, organ=organ),
        Monitor(received.append),
    )
    said = [event.message for event in received if isinstance(event, Notice)]
    assert sum("liver and spleen are told apart by one network" in one for one in said) == 1


@pytest.mark.parametrize(
    ("validation", "best"), [(NAN, 1), (0.5, 3)], ids=["no case validates", "cases validate"]
)
def test_cross_validation_chooses_the_round_where_no_case_validates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: float, best: int
) -> None:
    held_out = {1: 0.8, 2: 0.7, 3: 0.6}
    rising = [validation + n / 10 for n in range(3)]
    inner = a_method(rising)

    def run_round(context: RunContext, this: Round) -> RoundOutcome:
        rows = [{"case": "c0", "target": "liver", "dice": held_out[this.number]}]
        write_table(this.folder / "cross_validation.csv", CROSS_VALIDATION_COLUMNS, rows)
        return inner(context, this)

    monkeypatch.setitem(METHODS, "double", run_round)
    config = tiny_config(method="double", rounds=3, patience=3)
    run = start_run(a_tiny_project(tmp_path), config)
    assert best_round(run) == best
    assert run.score_of(1) == (0.8 if best == 1 else 0.5)


def test_cases_unlike_the_labelled_ones_are_told_and_their_reason_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bright = [Intensities(name, "liver", 800.0, 900.0, 1000.0, (0.0, 1200.0)) for name in LABELLED]
    monkeypatch.setattr(
        rounds,
        "organ_intensities",
        lambda case_id, *_: [one for one in bright if one.case_id == case_id],
    )
    received: list[Event] = []
    run = start_run(a_tiny_project(tmp_path), tiny_config(rounds=1), Monitor(received.append))
    (told,) = (
        event.message
        for event in received
        if isinstance(event, Notice) and event.message.startswith("Unlike the labelled cases")
    )
    for name in (*UNLABELLED, *TEST):
        assert f"{name}: its liver is darker (median " in told
    assert f"{VALIDATION[0]}:" not in told  # a person has labelled it
    for row in rows_of(run.round(1) / "reliability.csv"):
        assert "its liver is darker" in row["reason"]
        assert row["notes"].startswith("its liver is darker")
    reports = case_reports(open_project(run.path.parents[1]), run)
    assert {one.case_id for one in reports if one.notes} == {*UNLABELLED}


@pytest.mark.parametrize(
    ("teaches", "validation", "best"),
    [("nothing", NAN, 1), ("a label", NAN, 2), ("a decision", NAN, 2), ("a label", 0.5, 1)],
)
def test_what_a_person_taught_is_not_given_up_for_cross_validation_among_other_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teaches: str, validation: float, best: int
) -> None:
    inner = a_method([validation, validation - 0.1])

    def run_round(context: RunContext, this: Round) -> RoundOutcome:
        rows = [
            {"case": case.id, "target": "liver", "dice": 0.9 - 0.1 * this.number}
            for case in context.labelled
        ]
        write_table(this.folder / "cross_validation.csv", CROSS_VALIDATION_COLUMNS, rows)
        return inner(context, this)

    monkeypatch.setitem(METHODS, "double", run_round)
    before = RoundOutcome({}, {}, validation)
    monkeypatch.setattr(runs, "restore_outcome", lambda *_: before)
    project = a_tiny_project(tmp_path)
    run = start_run(project, tiny_config(method="double", rounds=1), run_id="a")
    if teaches == "a label":
        project.save_label("c2", a_patient(2)[1])
    elif teaches == "a decision":
        monkeypatch.setattr(Project, "lesion_lines", lambda _: {"c2": 1})
    continue_run(open_project(project.folder), "a")
    assert best_round(run) == best


@pytest.mark.parametrize("change", ["nothing", "a corrected label", "another case", "no case"])
def test_rounds_that_were_checked_on_other_labels_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    validations = [0.9, NAN if change == "no case" else 0.6]
    monkeypatch.setitem(METHODS, "double", a_method(validations))
    monkeypatch.setattr(runs, "restore_outcome", lambda *_: RoundOutcome({}, {}, 0.9))
    project = a_tiny_project(tmp_path)
    start_run(project, tiny_config(method="double", rounds=1), run_id="a")
    if change == "a corrected label":
        project.save_label(VALIDATION[0], a_patient(3)[1])
    elif change == "another case":
        project = assign(project, splits={"c4": "validation"})
        project.save_label("c4", a_patient(4)[1])
    elif change == "no case":
        assign(project, splits={VALIDATION[0]: "test"})
    received: list[Event] = []
    run = continue_run(open_project(project.folder), "a", monitor=Monitor(received.append))
    told = [event for event in received if "cannot be compared" in str(event)]
    assert len(told) == (change != "nothing")
    assert best_round(run) == (1 if change == "nothing" else 2)


LEARNS = "'a' learns from case c0, which is no case to train on"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("removed", LEARNS),
        ("validates", LEARNS),
        ("unlabelled one removed", LEARNS.replace("c0", "c3")),
        ("unlabelled one validates", LEARNS.replace("c0", "c3")),
        ("mask taken away", "'a' began with the mask .*c2.* which is no case's any more"),
    ],
)
def test_a_run_does_not_go_on_without_what_it_learns_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    inner = a_method([0.5, 0.6, 0.7])

    def stopped(context: RunContext, this: Round) -> RoundOutcome:
        if this.number == 2:
            msg = "Stopped."
            raise CancelledError(msg)
        return inner(context, this)

    monkeypatch.setitem(METHODS, "double", stopped)
    monkeypatch.setattr(runs, "restore_outcome", lambda *_: RoundOutcome({}, {}, 0.5))
    mask = Labelmap((a_patient(2)[1].labels > 0).astype(np.uint8), GEOMETRY)
    project = set_organ_masks(a_tiny_project(tmp_path), "liver", {"c2": mask})
    with pytest.raises(CancelledError):
        start_run(project, tiny_config(method="double", rounds=2), run_id="a")
    case_id = "c3" if "unlabelled" in change else "c0"
    if "removed" in change:
        remove_cases(project, [case_id])
    elif "validates" in change:
        assign(project, splits={case_id: "validation"})
    else:
        set_organ_masks(project, "liver", {"c2": None})
    now = open_project(project.folder)
    with pytest.raises(RunError, match=said):
        resume_run(now, "a")
    monkeypatch.setitem(METHODS, "double", inner)
    if change != "validates":
        assert continue_run(now, "a").score_of(2) == 0.6
    else:
        with pytest.raises(RunError, match="'a' has learnt from case c0, which is to check on now"):
            continue_run(now, "a")


@pytest.mark.parametrize("change", ["replaced", "taken away"])
def test_masks_that_change_meanwhile_stay_those_that_the_run_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    inner, read = a_method([0.5, 0.6]), list[np.ndarray]()
    begun, later = (Labelmap((a_patient(n)[1].labels > 0) * np.uint8(1), GEOMETRY) for n in (2, 3))

    def changing(context: RunContext, this: Round) -> RoundOutcome:
        if this.number == 1:
            mask = later if change == "replaced" else None
            now = open_project(context.project.folder)
            set_organ_masks(now, "liver", {"c2": mask}, replaceable=["c2"])
        case = context.project.case("c2")
        read.append(context.project.load_image(case).given["liver"])
        return inner(context, this)

    monkeypatch.setitem(METHODS, "double", changing)
    project = set_organ_masks(a_tiny_project(tmp_path), "liver", {"c2": begun})
    run = start_run(project, tiny_config(method="double", rounds=2), run_id="a")
    assert run.status.state == "done"
    assert [np.array_equal(mask, begun.labels > 0) for mask in read] == [True, True]


def test_a_run_is_not_checked_on_what_it_has_labelled_and_learnt_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = a_method([0.5, 0.6, 0.7])

    def judging(context: RunContext, this: Round) -> RoundOutcome:
        accepted = f"c{min(2 + this.number, 4)}"  # no later round has learnt what round 2 accepted
        empty = dict.fromkeys(RELIABILITY_COLUMNS, "")
        rows = [{**empty, "round": this.number, "case": accepted, "score": 1, "accepted": True}]
        write_table(this.folder / run_names.RELIABILITY, RELIABILITY_COLUMNS, rows)
        return inner(context, this)

    monkeypatch.setitem(METHODS, "double", judging)
    monkeypatch.setattr(runs, "restore_outcome", lambda *_: RoundOutcome({}, {}, 0.5))
    project = a_tiny_project(tmp_path)
    start_run(project, tiny_config(method="double", rounds=2), run_id="a")
    for number in (3, 4):
        project.save_label(f"c{number}", a_patient(number)[1])
        project = assign(open_project(project.folder), splits={f"c{number}": "validation"})
    with pytest.raises(RunError, match="'a' has learnt from case c3, which is to check on now"):
        continue_run(project, "a")
    project = assign(project, splits={"c3": "train"})
    assert continue_run(project, "a").score_of(3) == 0.7


# --- What cannot start --------------------------------------------------------------------------


def test_an_unknown_method_starts_no_run(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    with pytest.raises(ConfigError, match="no method 'unheard of'; choose one of aslseg"):
        start_run(project, tiny_config(method="unheard of"))
    assert not (project.folder / "runs").exists()


def test_a_project_without_labels_starts_no_run(tmp_path: Path) -> None:
    unlabelled = [case for case in write_patients(tmp_path) if case.label is None]
    project = create_project(tmp_path / "project", unlabelled)
    with pytest.raises(ProjectError, match="no labelled case"):
        start_run(project, tiny_config())
    assert not (project.folder / "runs").exists()


def test_a_target_that_no_label_shows_fails_the_run_in_words(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    for name in LABELLED:
        labels = project.load_labels(project.case(name))
        project.save_label(name, Labelmap(np.minimum(labels.labels, 1), labels.geometry))
    with pytest.raises(ProjectError, match="No labelled case has any voxel of tumour"):
        start_run(open_project(project.folder), tiny_config(), run_id="a")
    status = RunFolder(project.folder / "runs" / "a").status
    assert status.state == "failed"
    assert "tumour" in status.message
    assert not list(project.folder.glob("runs/a/**/*.safetensors"))  # no organ was trained before


def test_a_target_that_no_label_shows_beside_others_is_told(tmp_path: Path) -> None:
    targets = (*LIVER_TARGETS, Target(name="cyst", value=3, inside="liver"))
    project = create_project(tmp_path / "project", write_patients(tmp_path), targets)
    told: list[Event] = []
    folder = create_run(project.folder, tiny_config(), "a")
    device = torch.device("cpu")
    context = RunContext(project, folder.config, folder, device, Monitor(told.append))
    refuse_absent_targets(context)
    (note,) = [event.message for event in told if isinstance(event, Notice)]
    assert note.startswith("No labelled case has any voxel of cyst: that there is none anywhere")


def test_there_is_nothing_to_resume_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="train first"):
        resume_run(a_tiny_project(tmp_path))
