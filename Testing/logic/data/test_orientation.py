"""However a body is stored, networks see it alike, and predictions return to its own voxels."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from aslseg.config import SamConfig
from aslseg.data.geometry import fit_labels, ijk_to_ras
from aslseg.data.images import read_labelmap, read_volume, write_labelmap, write_volume
from aslseg.data.orientation import (
    Turn,
    axial_labelmap,
    axial_to_slices,
    axial_volume,
    axis_names,
    to_axial,
    to_slices,
)
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import ConfigError, RunError
from aslseg.evaluation.scores import evaluate_folder
from aslseg.events import Event, Monitor, Notice
from aslseg.inference.cascade import Specialist
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.interactive.session import Session, SessionModels
from aslseg.inference.loading import load_ensemble
from aslseg.inference.refinement import Refiner
from aslseg.networks.adaptation import FusionWeights, build_adaptation
from aslseg.preprocessing.roi import build_roi, from_volume, to_volume
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts, prompts_from_mask, turned_prompts
from aslseg.report.cases import Picture, validation_pictures
from aslseg.report.data import read_run
from aslseg.runs import resume_run, start_run
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.targets import LIVER_TARGETS, cascade_stages
from support.sam_doubles import a_small_sam
from support.synthetic_run import write_run
from support.tiny_project import SPECIALIST, a_patient, tiny_config, write_patients
from support.whole_runs import weights_in

STORAGES = [
    Turn(axes, mirrored)
    for axes in permutations((0, 1, 2))
    for mirrored in product((False, True), repeat=3)
]
SAGITTAL, CORONAL = Turn((2, 0, 1), (True, True, False)), Turn((1, 0, 2), (False, True, True))
GRID = Geometry.axis_aligned((3, 4, 5), (5.0, 2.0, 1.0))
CONFIG = tiny_config(sam=SamConfig(model="vit_t", input_size=128, tuning="none"))


def numbered(geometry: Geometry = GRID) -> Volume:
    return Volume(np.arange(np.prod(geometry.shape)).reshape(geometry.shape), geometry)


def rotated(vector: tuple[float, float, float], geometry: Geometry = GRID) -> Geometry:
    affine = geometry.ijk_to_ras.copy()
    affine[:3, :3] = Rotation.from_rotvec(vector).as_matrix() @ affine[:3, :3]
    return Geometry(geometry.shape, affine)


# --- The turn itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
def test_each_way_of_storing_a_body_is_brought_to_the_same_grid(storage: Turn) -> None:
    stored = storage.volume(numbered())
    axial = axial_volume(stored)
    np.testing.assert_array_equal(axial.voxels, numbered().voxels)
    assert axial.geometry.matches(GRID)
    assert axial.geometry.spacing_mm == GRID.spacing_mm
    back = to_axial(stored.geometry).inverse.array(axial.voxels)
    np.testing.assert_array_equal(back, stored.voxels)


def test_there_are_48_ways_and_one_of_them_is_axial_already() -> None:
    names = [axis_names(storage.geometry(GRID)) for storage in STORAGES]
    assert len(set(names)) == 48
    assert names[0] == "LPS"
    volume = numbered()
    assert axial_volume(volume) is volume
    assert axis_names(Geometry((2, 2, 2), np.diag([1.0, 1.0, 1.0, 1.0]))) == "RAS"


@given(st.tuples(*[st.floats(-3.0, 3.0)] * 3), st.sampled_from(STORAGES))
def test_a_round_trip_changes_no_voxel_and_moves_none(
    vector: tuple[float, float, float], storage: Turn
) -> None:
    stored = storage.volume(numbered(rotated(vector)))
    turn = to_axial(stored.geometry)
    axial = turn.volume(stored)
    np.testing.assert_array_equal(turn.inverse.array(axial.voxels), stored.voxels)
    assert turn.inverse.geometry(axial.geometry).matches(stored.geometry)
    places = {int(v): p for v, p in zip(stored.voxels.ravel(), world_of(stored), strict=True)}
    for value, place in zip(axial.voxels.ravel(), world_of(axial), strict=True):
        np.testing.assert_allclose(place, places[int(value)], atol=1e-6)


def world_of(volume: Volume) -> np.ndarray:
    return ijk_to_ras(np.argwhere(np.ones(volume.voxels.shape))[:, ::-1], volume.geometry)


@given(st.tuples(*[st.floats(-3.0, 3.0)] * 3))
def test_an_oblique_volume_takes_the_nearest_axes(vector: tuple[float, float, float]) -> None:
    """No other choice of axes agrees more with left, posterior and superior."""
    axial = to_axial(rotated(vector)).geometry(rotated(vector)).ijk_to_ras[:3, :3]
    cosines = axial / np.linalg.norm(axial, axis=0) * [[-1.0], [-1.0], [1.0]]
    assert (np.diag(cosines) >= 0).all()
    rows = np.arange(3)
    others = [np.abs(cosines[rows, list(axes)]).sum() for axes in permutations(range(3))]
    assert np.trace(cosines) >= max(others) - 2e-3


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("error", [-1e-5, 0.0, 1e-5])
def test_rounding_in_a_header_does_not_decide_between_two_equal_choices(
    axis: int, error: float
) -> None:
    vector = [0.0, 0.0, 0.0]
    vector[axis] = np.pi / 4
    exact = to_axial(rotated((vector[0], vector[1], vector[2])))
    vector[axis] += error
    assert to_axial(rotated((vector[0], vector[1], vector[2]))) == exact


def test_turns_follow_each_other() -> None:
    for first, second in product(STORAGES[::5], STORAGES[::7]):
        both = second.array(first.array(numbered().voxels))
        np.testing.assert_array_equal(first.then(second).array(numbered().voxels), both)


def test_slices_of_an_axial_file_keep_its_numbers_and_pixels() -> None:
    for mirrored in product((False, True), repeat=3):
        assert to_slices(Turn((0, 1, 2), mirrored).geometry(GRID)).is_identity
        assert to_slices(Turn((0, 2, 1), mirrored).geometry(GRID)).is_identity
    assert to_slices(SAGITTAL.geometry(GRID)) == Turn((1, 0, 2))


# --- Prompts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
def test_prompts_stay_on_their_voxels(storage: Turn) -> None:
    geometry = storage.geometry(Geometry.axis_aligned((6, 20, 24)))
    mask = np.zeros((6, 20, 24), bool)
    mask[2:4, 3:9, 5:16], mask[4, 12:14, 1:3] = True, True
    out = axial_to_slices(geometry)
    prompts = prompts_from_mask(mask, target="liver")
    turned = turned_prompts(prompts, out, mask.shape)
    for before, after in zip(prompts, turned, strict=True):
        assert before.box is not None
        assert before.mask_logits is not None
        assert after.box is not None
        drawn = np.zeros(mask.shape, bool)
        left, top, right, bottom = (int(edge) for edge in before.box.xyxy)
        drawn[before.slice_index, top:bottom, left:right] = True
        expected = out.array(drawn)
        left, top, right, bottom = (int(edge) for edge in after.box.xyxy)
        assert expected[after.slice_index, top:bottom, left:right].all()
        assert expected.sum() == (bottom - top) * (right - left)
        x, y = before.points[0].xy
        drawn = np.zeros(mask.shape, bool)
        drawn[before.slice_index, int(y), int(x)] = True
        x, y = after.points[0].xy
        assert out.array(drawn)[after.slice_index, int(y), int(x)]
        assert (x % 1, y % 1) == (0.5, 0.5)
    again = turned_prompts(turned, out.inverse, out.shape(mask.shape))
    assert [p.to_json() for p in again] == [p.to_json() for p in prompts]
    np.testing.assert_array_equal(again[0].mask_logits, prompts[0].mask_logits)


def test_prompts_cannot_leave_their_slice() -> None:
    prompt = SlicePrompts(0, "liver", points=(PointPrompt((1.5, 1.5)),))
    with pytest.raises(ValueError, match="out of its plane"):
        turned_prompts([prompt], SAGITTAL, (3, 4, 5))


# --- What networks see --------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_gives_the_same_roi_and_the_way_back(storage: Turn) -> None:
    volume, labels = a_patient(1)
    liver = labels.labels > 0
    stage = cascade_stages(LIVER_TARGETS)[1]

    def roi_of(turn: Turn) -> object:
        return build_roi(
            turn.volume(volume),
            stage,
            SPECIALIST,
            parent=turn.array(liver),
            labels=turn.labelmap(labels),
            targets=LIVER_TARGETS,
        )

    first, roi = roi_of(Turn()), roi_of(storage)
    for name in ("image", "parent", "labels"):
        np.testing.assert_array_equal(getattr(roi, name), getattr(first, name))
    values = np.random.default_rng(0).random(volume.voxels.shape).astype(np.float32)
    np.testing.assert_array_equal(
        from_volume(storage.array(values), roi), from_volume(values, first)
    )
    native = to_volume(first.image[None], first)[0]
    np.testing.assert_array_equal(to_volume(roi.image[None], roi)[0], storage.array(native))


class Lopsided(nn.Module):
    """Finds what is brighter (or darker) than a threshold, moved down, right and by a slice."""

    def __init__(self, factor: float, threshold: float) -> None:
        super().__init__()
        self.factor, self.threshold = factor, threshold

    def forward(self, inputs: Tensor) -> Tensor:
        seen = 0.7 * inputs[:, 1] + 0.3 * inputs[:, 2]
        logits = self.factor * torch.roll(seen, (2, 3), (-2, -1)) - self.threshold
        return torch.stack([torch.zeros_like(logits), logits], 1)


def an_ensemble(cache: Path) -> Ensemble:
    networks = {"liver": Lopsided(4.0, -1.2), "tumour": Lopsided(-4.0, 7.0)}
    device = torch.device("cpu")
    specialist = Specialist(networks, LIVER_TARGETS, CONFIG, device)
    sam_predictor = VolumeSamPredictor(a_small_sam("tiny", 128).eval(), CONFIG.sam, cache)
    merging = {}
    torch.manual_seed(0)
    for stage in cascade_stages(LIVER_TARGETS):
        for target in stage.targets:
            merging[target.name] = build_adaptation(stage, CONFIG).eval()
            merging[target.name].set_fusion_weights(FusionWeights(0.1, 0.5))
    refiner = Refiner(merging, LIVER_TARGETS, CONFIG)
    return Ensemble(specialist, sam_predictor, refiner, LIVER_TARGETS, CONFIG)


def test_all_48_storages_of_one_body_get_the_same_labels(tmp_path: Path) -> None:
    ensemble = an_ensemble(tmp_path)
    volume, truth = a_patient(0)
    expected = ensemble.segment(volume)
    assert expected.sam is not None
    for labels in (expected.specialist, expected.refined):
        assert (labels.labels == 1).sum() > 1000
        assert (labels.labels == 2).sum() > 50
    assert (expected.specialist.labels != truth.labels).any()
    for storage in STORAGES[1:]:
        stored = storage.volume(volume)
        found = ensemble.segment(stored)
        for source in ("specialist", "sam", "refined"):
            labels = getattr(found, source)
            assert labels.geometry is stored.geometry
            np.testing.assert_array_equal(
                labels.labels, storage.array(getattr(expected, source).labels), err_msg=str(storage)
            )
        for name, values in expected.probabilities.items():
            np.testing.assert_array_equal(found.probabilities[name], storage.array(values))
        back = axial_to_slices(stored.geometry).inverse
        shape = to_slices(stored.geometry).shape(stored.geometry.shape)
        again = turned_prompts(found.prompts, back, shape)
        assert [p.to_json() for p in again] == [p.to_json() for p in expected.prompts]
    for storage in STORAGES[3::9]:
        alone = ensemble.specialist.segment(storage.volume(volume))
        np.testing.assert_array_equal(alone.labels, storage.array(expected.specialist.labels))


def test_embeddings_are_those_of_axial_slices_and_are_shared(tmp_path: Path) -> None:
    ensemble = an_ensemble(tmp_path)
    volume, _ = a_patient(0)
    for storage in (Turn(), *STORAGES[5::9]):
        ensemble.segment(storage.volume(volume))
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    sam_predictor = ensemble.sam_predictor
    assert isinstance(sam_predictor, VolumeSamPredictor)
    sam_predictor.embeddings(
        SAGITTAL.volume(volume), [3]
    )  # as a version before would have stored it
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


# --- Prompts of a person ------------------------------------------------------------------------


def own_prompts(storage: Turn, volume: Volume) -> list[SlicePrompts]:
    """A box and a click on axial slice 6, as a person gives them on a stored volume."""
    given = [
        SlicePrompts(6, "tumour", box=BoxPrompt((18.0, 24.0, 23.0, 29.0))),
        SlicePrompts(
            5, "liver", points=(PointPrompt((20.5, 22.5)), PointPrompt((3.5, 2.5), positive=False))
        ),
    ]
    out = axial_to_slices(storage.geometry(volume.geometry))
    return turned_prompts(given, out, volume.geometry.shape)


@pytest.mark.parametrize("storage", [SAGITTAL, CORONAL, *STORAGES[3::11]])
def test_a_session_on_any_storage_predicts_as_on_the_axial_one(
    storage: Turn, tmp_path: Path
) -> None:
    volume, _ = a_patient(0)
    ensemble = an_ensemble(tmp_path)
    predictions = SessionModels(LIVER_TARGETS, ensemble, ensemble.sam_predictor)
    axial, stored = Session(volume, predictions), Session(storage.volume(volume), predictions)
    out = axial_to_slices(storage.geometry(volume.geometry))
    shape = volume.geometry.shape
    assert [p.to_json() for p in turned_prompts(axial.proposed, out, shape)] == [
        p.to_json() for p in stored.proposed
    ]
    k = out.index(6, shape[0])
    expected = axial.refine(own_prompts(Turn(), volume), 6, edited_slices=[4])
    found = stored.refine(own_prompts(storage, volume), k, edited_slices=[out.index(4, shape[0])])
    assert found.slice_index == k
    for source in ("sam", "refined"):
        thin, wanted = getattr(found, source), getattr(expected, source)
        np.testing.assert_array_equal(thin.labels, out.array(wanted.labels))
        assert axial_labelmap(thin).geometry.matches(wanted.geometry)
    np.testing.assert_array_equal(found.disagreement, out.array(expected.disagreement))

    expected = axial.refine(own_prompts(Turn(), volume), edited_slices=[4])
    found = stored.refine(own_prompts(storage, volume), edited_slices=[out.index(4, shape[0])])
    for source in ("specialist", "sam", "refined"):
        labels = getattr(found, source)
        np.testing.assert_array_equal(
            labels.labels, storage.array(getattr(expected, source).labels)
        )
        assert labels.geometry.matches(storage.geometry(volume.geometry))
    np.testing.assert_array_equal(found.disagreement, storage.array(expected.disagreement))
    assert len(found.prompts) == len(expected.prompts)


def test_a_slice_that_is_not_there_is_refused_by_its_own_number(tmp_path: Path) -> None:
    volume, _ = a_patient(0)
    mirrored = Turn((0, 1, 2), (True, False, False)).volume(volume)
    ensemble = an_ensemble(tmp_path)
    session = Session(mirrored, SessionModels(LIVER_TARGETS, ensemble, ensemble.sam_predictor))
    with pytest.raises(ConfigError, match="There is no slice 12; the volume has 0 to 11"):
        session.refine([], 12)


def test_pictures_of_a_report_are_axial_and_name_the_slices_of_the_file(tmp_path: Path) -> None:
    shown: list[list[Picture]] = []
    for name, storage in (("a", Turn()), ("b", SAGITTAL)):
        volume, truth = a_patient(0)
        folder = tmp_path / name
        write_volume(storage.volume(volume), folder / "ct.nii.gz")
        write_labelmap(storage.labelmap(truth), folder / "label.nii.gz")
        cases = [
            CaseFiles("t1", folder / "ct.nii.gz", folder / "label.nii.gz"),
        ]
        volume, truth = a_patient(1)
        write_volume(storage.volume(volume), folder / "v.nii.gz")
        write_labelmap(storage.labelmap(truth), folder / "v_label.nii.gz")
        found = truth.labels.copy()
        found[4, :20] = 0
        cases.append(
            CaseFiles("v1", folder / "v.nii.gz", folder / "v_label.nii.gz", split="validation")
        )
        project = create_project(folder / "project", cases)
        run = write_run(project.folder / "runs" / "one", {"v1": truth}, rounds=1)
        for source in ("specialist", "sam", "refined"):
            stored = storage.labelmap(Labelmap(found, truth.geometry))
            write_labelmap(stored, run / "round-01" / "predictions" / "v1" / f"{source}.nii.gz")
        part = validation_pictures(read_run(run), project)
        shown.append([picture for case in part.cases for picture in case.pictures])
    assert "Worst slice of v1: number 4." in shown[0][0].caption
    assert "Worst slice of v1: number 7." in shown[1][0].caption  # the file counts from superior
    pictures = [[picture.address for picture in found] for found in shown]
    assert len(pictures[0]) == 2
    assert pictures[0] == pictures[1]


# --- Label maps and scores ----------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
def test_a_label_map_with_other_axes_than_its_image_is_carried_over_exactly(storage: Turn) -> None:
    _, labels = a_patient(0)
    stored = storage.labelmap(labels)
    there = fit_labels(labels, stored.geometry, same_size="header")
    np.testing.assert_array_equal(there.labels, stored.labels)
    back = fit_labels(stored, labels.geometry, same_size="header")
    np.testing.assert_array_equal(back.labels, labels.labels)


def test_scores_do_not_depend_on_how_label_maps_are_stored(tmp_path: Path) -> None:
    (_, truth), (_, other) = a_patient(0), a_patient(1)
    rows = []
    for number, storage in enumerate((Turn(), SAGITTAL, CORONAL)):
        folder = tmp_path / str(number)
        write_labelmap(storage.labelmap(other), folder / "found" / "a.nii.gz")
        write_labelmap(STORAGES[17 * number].labelmap(truth), folder / "truth" / "a.nii.gz")
        found, wanted = folder / "found", folder / "truth"
        rows.append(evaluate_folder(found, wanted, LIVER_TARGETS, same_size="header"))
    assert rows[0] == rows[1] == rows[2]


# --- Training -----------------------------------------------------------------------------------


def a_project(folder: Path, storage_of: Callable[[int], Turn]) -> Project:
    """Two labelled patients and two without, each stored in its own way."""
    cases = []
    for number, files in enumerate(write_patients(folder / "axial")[:4]):
        image, label = folder / "data" / files.image.name, None
        write_volume(storage_of(number).volume(read_volume(files.image)), image)
        if files.label is not None and number < 2:
            label = folder / "data" / files.label.name
            write_labelmap(storage_of(number).labelmap(read_labelmap(files.label)), label)
        cases.append(CaseFiles(files.id, image, label))
    return create_project(folder / "project", cases)


@pytest.fixture(scope="module")
def both_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder]:
    """The same patients stored axially, and in four other ways."""
    torch.set_num_threads(1)
    config = tiny_config(method="specialist")
    folder = tmp_path_factory.mktemp("runs")
    axial = a_project(folder / "a", lambda _: Turn())
    turned = a_project(folder / "b", lambda number: STORAGES[11 * number + 9])
    return start_run(axial, config, run_id="a"), start_run(turned, config, run_id="a")


def test_training_does_not_depend_on_how_volumes_are_stored(
    both_runs: tuple[RunFolder, RunFolder],
) -> None:
    axial, turned = both_runs
    names = sorted(p.relative_to(axial.path) for p in axial.path.rglob("specialist-*.safetensors"))
    assert len(names) >= 4
    for name in names:
        assert weights_in(turned.path / name)[0] == weights_in(axial.path / name)[0], name
    scores = [
        (run.path / "round-02" / "reliability.csv").read_text(encoding="utf-8") for run in both_runs
    ]
    assert scores[0] == scores[1]


def test_what_a_run_writes_lies_on_the_voxels_of_the_files(
    both_runs: tuple[RunFolder, RunFolder],
) -> None:
    axial, turned = both_runs
    for name in ("labels/c0", "labels/c3", "round-01/predictions/c2/refined"):
        found = read_labelmap(turned.path / f"{name}.nii.gz")
        case = next(part for part in name.split("/") if part.startswith("c"))
        image = read_volume(turned.path.parents[2] / "data" / f"ct{case[1:]}.nii.gz")
        assert found.geometry.matches(image.geometry)
        expected = read_labelmap(axial.path / f"{name}.nii.gz").labels
        assert expected.any()
        np.testing.assert_array_equal(axial_labelmap(found).labels, expected)


def test_a_run_notes_its_orientation(both_runs: tuple[RunFolder, RunFolder]) -> None:
    assert [run.status.orientation for run in both_runs] == ["LPS", "LPS"]


def test_a_run_of_before_is_used_where_its_volumes_were_stored_as_they_are_seen_now(
    both_runs: tuple[RunFolder, RunFolder],
) -> None:
    axial, turned = both_runs
    for run in both_runs:
        run.write_status(orientation=None)
    told: list[Event] = []
    load_ensemble(axial, Monitor(told.append))
    assert not any(isinstance(event, Notice) for event in told)
    with pytest.raises(RunError, match=r"run 'a' saw case c0 with axes \w+, .* Train a new run"):
        load_ensemble(turned)
    with pytest.raises(RunError, match="Train a new run"):
        resume_run(open_project(turned.path.parents[1]), "a")
    for run in both_runs:
        run.write_status(orientation="LPS")
    load_ensemble(turned)


def test_a_run_of_before_whose_images_are_gone_is_used_with_a_warning(
    both_runs: tuple[RunFolder, RunFolder],
) -> None:
    axial, _ = both_runs
    axial.write_status(orientation=None)
    image = axial.path.parents[2] / "data" / "ct0.nii.gz"
    moved = image.rename(image.with_name("away.nii.gz"))
    told: list[Event] = []
    try:
        load_ensemble(axial, Monitor(told.append))
    finally:
        moved.rename(image)
        axial.write_status(orientation="LPS")
    assert [e for e in told if isinstance(e, Notice) and "how the run saw case c0" in e.message]
