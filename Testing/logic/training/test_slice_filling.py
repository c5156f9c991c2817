"""Organs are filled between drawn slices by what the specialist learns from these."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from aslseg.data import filling_rules
from aslseg.data.orientation import Turn
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import CancelledError, ConfigError
from aslseg.evaluation.metrics import dice
from aslseg.events import CancelToken, Event, Monitor, Progress
from aslseg.inference.cascade import Specialist
from aslseg.networks.averaged import AveragedNetworks
from aslseg.networks.unet import build_network
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages
from aslseg.training import slice_filling
from aslseg.training.drawn_slices import drawn_slices
from aslseg.training.slice_filling import fill_between_slices, fill_lesion, fill_without_run
from aslseg.training.slice_learning import TASK, new_settings, tuning_settings
from support.tiny_project import GEOMETRY, SPECIALIST, a_patient, tiny_config

CPU = torch.device("cpu")
DRAWN = (2, 6, 10)
VOLUME, TRUTH = a_patient(0)
LIVER = TRUTH.labels > 0


def a_specialist(targets: tuple[Target, ...] = LIVER_TARGETS) -> Specialist:
    """Return networks that have learnt nothing yet."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stage = cascade_stages(targets)[0]
    network = build_network(stage, SPECIALIST).eval()
    return Specialist({stage.name: network}, targets, tiny_config(), CPU)


def shown(labels: np.ndarray = TRUTH.labels, drawn: tuple[int, ...] = DRAWN) -> Labelmap:
    """Return what is drawn in some slices, and a wrong square in the others."""
    wrong = np.zeros(GEOMETRY.shape, np.uint8)
    wrong[:, 2:8, 2:8] = 1
    wrong[list(drawn)] = labels[list(drawn)]
    return Labelmap(wrong, GEOMETRY)


def test_an_organ_is_found_between_slices_that_were_drawn() -> None:
    filled = fill_between_slices(a_specialist(), VOLUME, shown(), DRAWN, steps=40).labels > 0
    for k in (3, 4, 5, 7, 8, 9):
        assert dice(filled[k], LIVER[k]) > 0.9


def test_the_image_tells_more_than_the_drawn_outlines() -> None:
    """Between two drawn sections of a ball its middle is wider than both of them."""
    ends = (3, 9)
    filled = fill_between_slices(a_specialist(), VOLUME, shown(drawn=ends), ends, steps=60)
    assert dice(filled.labels[6] > 0, LIVER[6]) > 0.9
    assert dice(LIVER[3], LIVER[6]) < 0.85


def test_drawn_slices_and_those_beyond_stay_as_they_are() -> None:
    before = shown()
    filled = fill_between_slices(a_specialist(), VOLUME, before, (10, 2, 6, 6), steps=2)
    kept = [0, 1, 2, 6, 10, 11]
    np.testing.assert_array_equal(filled.labels[kept], before.labels[kept])
    assert filled.geometry == GEOMETRY


def test_lesions_stay() -> None:
    before = shown()
    before.labels[4, 30:33, 30:33] = 2
    before.labels[8][TRUTH.labels[8] == 2] = 2
    filled = fill_between_slices(a_specialist(), VOLUME, before, DRAWN, steps=2)
    np.testing.assert_array_equal(filled.labels == 2, before.labels == 2)


def test_the_specialist_stays_as_it_is() -> None:
    specialist = a_specialist()
    before = {n: v.clone() for n, v in specialist.networks["liver"].state_dict().items()}
    fill_between_slices(specialist, VOLUME, shown(), DRAWN, steps=2)
    for name, value in specialist.networks["liver"].state_dict().items():
        assert torch.equal(value, before[name])
    assert not specialist.networks["liver"].training


def test_of_averaged_networks_the_first_goes_on_learning() -> None:
    alone = a_specialist()
    other = copy.deepcopy(alone.networks["liver"])
    averaged = AveragedNetworks([alone.networks["liver"], other])
    of_two = replace(alone, networks={**alone.networks, "liver": averaged})
    first, second = (
        fill_between_slices(one, VOLUME, shown(), DRAWN, steps=2) for one in (alone, of_two)
    )
    np.testing.assert_array_equal(first.labels, second.labels)


def test_the_same_slices_are_filled_the_same_way() -> None:
    first, second = (
        fill_between_slices(a_specialist(), VOLUME, shown(), DRAWN, steps=4) for _ in range(2)
    )
    np.testing.assert_array_equal(first.labels, second.labels)


class Known:
    """Predicts what it was given."""

    def __init__(self, **regions: np.ndarray) -> None:
        self.regions = {name: region.astype(np.float32) for name, region in regions.items()}

    def predict(self, *_: object) -> dict[str, np.ndarray]:
        return self.regions


def test_several_organs_share_the_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = (Target(name="front", value=1), Target(name="back", value=2))
    halves = LIVER.astype(np.uint8)
    halves[:, 19:][LIVER[:, 19:]] = 2
    before = Labelmap(np.zeros_like(halves), GEOMETRY)
    before.labels[list(DRAWN)] = halves[list(DRAWN)]
    known = Known(front=halves == 1, back=halves == 2)
    monkeypatch.setattr(slice_filling, "tuned", lambda *_: known)
    filled = fill_between_slices(a_specialist(targets), VOLUME, before, DRAWN).labels
    for k in (4, 8):
        assert dice(filled[k] == 1, halves[k] == 1) > 0.9
        assert dice(filled[k] == 2, halves[k] == 2) > 0.9


@pytest.mark.parametrize(("across", "counts_alone"), [(20, True), (120, False)])
def test_the_prediction_counts_sooner_in_a_small_organ(
    monkeypatch: pytest.MonkeyPatch, across: int, counts_alone: bool
) -> None:
    """Four mm from both drawn slices an organ of 20 mm is as predicted, not one of 120 mm."""
    labels = np.zeros((5, 140, 140), np.uint8)
    labels[[0, 4], 10 : 10 + across, 10 : 10 + across] = 1
    geometry = Geometry.axis_aligned((5, 140, 140), (2.0, 1.0, 1.0))
    predicted = np.zeros(labels.shape, bool)
    predicted[:, 14 : 10 + across, 10 : 10 + across] = True
    known = Known(liver=predicted)
    monkeypatch.setattr(slice_filling, "newly_trained", lambda *_: known)
    volume = Volume(np.zeros(labels.shape, np.float32), geometry)
    filled = fill_without_run(
        LIVER_TARGETS, volume, Labelmap(labels, geometry), (0, 4), device=CPU
    ).labels
    assert np.array_equal(filled[2] > 0, predicted[2]) == counts_alone


def test_parts_that_hang_together_with_nothing_that_was_drawn_are_left_out() -> None:
    voxels = VOLUME.voxels.copy()
    voxels[3:6, 32:39, 2:9] = 100.0  # as bright as the liver, and away from it
    labels = shown()
    filled = fill_between_slices(a_specialist(), Volume(voxels, GEOMETRY), labels, DRAWN, steps=40)
    assert not filled.labels[3:6, 32:39, 2:9].any()


def test_slices_are_those_of_the_axial_grid_however_the_file_is_stored() -> None:
    coronal = Turn((1, 0, 2), (False, True, True))
    volume = coronal.volume(VOLUME)
    assert volume.voxels.shape == (40, 12, 40)
    labels = coronal.labelmap(shown(), volume.geometry)
    filled = fill_between_slices(a_specialist(), volume, labels, DRAWN, steps=40)
    seen = coronal.inverse.array(filled.labels)
    for k in (4, 8):
        assert dice(seen[k] > 0, LIVER[k]) > 0.9


def test_slices_far_from_the_drawn_ones_are_not_looked_at() -> None:
    """Nothing beyond 30 mm changes anything, or takes time."""
    found = []
    for more in (9, 20):
        geometry = Geometry.axis_aligned((12 + 2 * more, 40, 40), GEOMETRY.spacing_mm)
        voxels = np.full(geometry.shape, 30.0 * more, np.float32)
        voxels[more - 8 : more + 20] = -1000.0
        voxels[more : more + 12] = VOLUME.voxels
        labels = np.zeros(geometry.shape, np.uint8)
        drawn = [more + k for k in DRAWN]
        labels[drawn] = TRUTH.labels[list(DRAWN)]
        volume, given = Volume(voxels, geometry), Labelmap(labels, geometry)
        filled = fill_without_run(LIVER_TARGETS, volume, given, drawn, device=CPU, steps=8)
        assert not filled.labels[:more].any()
        found.append(filled.labels[more : more + 12])
    np.testing.assert_array_equal(*found)


def test_progress_is_told_and_it_can_be_stopped() -> None:
    told: list[Event] = []
    monitor = Monitor(told.append, interval_s=0.0)
    fill_between_slices(a_specialist(), VOLUME, shown(), DRAWN, monitor, steps=3)
    steps = [one.step for one in told if isinstance(one, Progress) and one.task == TASK]
    assert steps == [0, 1, 2, 3]
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        fill_between_slices(a_specialist(), VOLUME, shown(), DRAWN, Monitor(token=token), steps=3)


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ((), "Slices are 0 to 11"),
        ((3, 12), "Slices are 0 to 11"),
        ((-1, 3), "Slices are 0 to 11"),
        ((4,), "Nothing lies between"),
        ((4, 5, 6), "Nothing lies between"),
        ((0, 11), "show nothing of liver"),
    ],
)
def test_slices_that_nothing_can_be_filled_between_are_refused(
    slices: tuple[int, ...], message: str
) -> None:
    labels = Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY)
    labels.labels[4:7] = TRUTH.labels[4:7]
    with pytest.raises(ConfigError, match=message):
        fill_between_slices(a_specialist(), VOLUME, labels, slices, steps=1)


def test_given_organs_and_runs_without_their_network_are_refused() -> None:
    given = replace(VOLUME, given={"liver": LIVER})
    with pytest.raises(ConfigError, match="A mask of liver came with the volume"):
        fill_between_slices(a_specialist(), given, shown(), DRAWN, steps=1)
    without = replace(a_specialist(), networks={})
    with pytest.raises(ConfigError, match="no network for liver"):
        fill_between_slices(without, VOLUME, shown(), DRAWN, steps=1)


def test_a_network_of_slices_learns_finer_pixels_but_none_finer_than_those_of_the_volume() -> None:
    trained = SPECIALIST.model_copy(
        update={"patch_size": 96, "roi": SPECIALIST.roi.model_copy(update={"pixel_mm": 3.0})}
    )
    finer = tuning_settings(trained, (5.0, 1.0, 1.0), steps=7)
    assert (finer.roi.pixel_mm, finer.patch_size, finer.iterations) == (2.5, 96, 7)
    assert tuning_settings(trained, (5.0, 2.7, 2.7), steps=7).roi.pixel_mm == 2.7
    coarse = tuning_settings(trained, (5.0, 4.0, 4.0), steps=7)
    assert (coarse.roi, coarse.patch_size) == (trained.roi, 96)
    in_3d = trained.network.model_copy(update={"dimensions": 3})
    blocks = tuning_settings(trained.model_copy(update={"network": in_3d}), (5.0, 1.0, 1.0), 7)
    assert (blocks.roi, blocks.patch_size) == (trained.roi, 96)


def test_a_new_network_fills_where_nothing_was_trained() -> None:
    filled = fill_without_run(LIVER_TARGETS, VOLUME, shown(), DRAWN, device=CPU, steps=60).labels
    np.testing.assert_array_equal(filled[list(DRAWN)], TRUTH.labels[list(DRAWN)])
    for k in (3, 4, 5, 7, 8, 9):
        assert dice(filled[k] > 0, LIVER[k]) > 0.9
    again = fill_without_run(LIVER_TARGETS, VOLUME, shown(), DRAWN, device=CPU, steps=60).labels
    np.testing.assert_array_equal(filled, again)


@pytest.fixture
def _any_lesion_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling_rules, "LESION_MM", 30.0)


@pytest.mark.usefixtures("_any_lesion_is_large")
def test_a_lesion_is_filled_where_it_may_be() -> None:
    drawn = [2, 4, 6, 8, 10]
    lesion = np.zeros(GEOMETRY.shape, bool)
    lesion[drawn] = LIVER[drawn]
    within = np.ones(GEOMETRY.shape, bool)
    within[:, :, 20:] = False
    given = replace(VOLUME, given={"lesion": LIVER})
    filled = fill_lesion(given, lesion, drawn, within, device=CPU, steps=60)
    np.testing.assert_array_equal(filled[drawn], lesion[drawn])
    for k in (3, 5, 7, 9):
        assert dice(filled[k], LIVER[k] & within[k]) > 0.9
        assert not (filled[k] & ~within[k]).any()
    everywhere = fill_lesion(VOLUME, lesion, drawn, device=CPU, steps=60)
    assert dice(everywhere, LIVER & (np.arange(12) < 11)[:, None, None]) > 0.9


def test_a_lesion_that_is_drawn_in_few_slices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"too few slices \(4\) to teach a network"):
        fill_lesion(VOLUME, LIVER, (2, 4, 6, 8, 8), device=CPU, steps=1)
    with pytest.raises(ConfigError, match="The lesion is 46 mm wide or high; a network fills"):
        fill_lesion(VOLUME, LIVER, (2, 4, 6, 8, 10), device=CPU, steps=1)
    with pytest.raises(ConfigError, match="show nothing of lesion"):
        fill_lesion(VOLUME, np.zeros_like(LIVER), (0, 2, 4, 6, 8), device=CPU, steps=1)


def test_a_new_network_refuses_what_a_trained_one_does() -> None:
    given = replace(VOLUME, given={"liver": LIVER})
    with pytest.raises(ConfigError, match="A mask of liver came with the volume"):
        fill_without_run(LIVER_TARGETS, given, shown(), DRAWN, device=CPU, steps=1)
    with pytest.raises(ConfigError, match="Nothing lies between"):
        fill_without_run(LIVER_TARGETS, VOLUME, shown(), (4, 5), device=CPU, steps=1)


def test_no_organ_is_filled_beside_one_whose_mask_was_given_and_is_shown() -> None:
    """A network that learns both would change the given one."""
    organs = (Target(name="liver", value=1), Target(name="spleen", value=2))
    labels = Labelmap(shown().labels.copy(), GEOMETRY)
    labels.labels[:, :3, :3] = 2
    given = replace(VOLUME, given={"spleen": labels.labels == 2})
    with pytest.raises(ConfigError, match="A mask of spleen came with the volume"):
        fill_without_run(organs, given, labels, DRAWN, device=CPU, steps=1)


def test_a_new_network_sees_what_the_drawn_slices_say_of_size_and_brightness() -> None:
    """An organ of 240 mm is seen by pixels of 2.5 mm, one of 48 mm by those of the volume."""
    labels = np.zeros((12, 300, 300), np.uint8)
    labels[2:11, 20:260, 100:200] = 1
    geometry = Geometry.axis_aligned((12, 300, 300), (5.0, 1.0, 1.0))
    voxels = np.full(labels.shape, -1000.0, np.float32)
    voxels[:, :280] = -100.0
    voxels[labels == 1] = 120.0
    image = Volume(voxels, geometry)
    drawn = drawn_slices(LIVER_TARGETS, image, Labelmap(labels, geometry), (2, 6, 10))
    settings = new_settings(drawn, image, 7)
    assert settings.roi.pixel_mm == 2.5
    assert settings.roi.window_hu == (-100.0, 120.0)
    assert (settings.patch_size, settings.iterations) == (128, 7)
    labels[:, 68:] = 0
    small = drawn_slices(LIVER_TARGETS, image, Labelmap(labels, geometry), (2, 6, 10))
    assert new_settings(small, image, 7).roi.pixel_mm == pytest.approx(100 / 96)
    labels[:, :, 148:] = 0
    smaller = drawn_slices(LIVER_TARGETS, image, Labelmap(labels, geometry), (2, 6, 10))
    assert new_settings(smaller, image, 7).roi.pixel_mm == 1.0
    assert new_settings(smaller, image, 7).patch_size == 64
