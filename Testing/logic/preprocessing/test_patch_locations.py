"""A patch knows what lies under it: the slice, and the point of the slice under each pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aslseg.config import NetworkConfig, RoiConfig, SpecialistConfig
from aslseg.data.volume import Geometry, Volume
from aslseg.preprocessing.augmentation import PatchTransform
from aslseg.preprocessing.patches import (
    BatchSource,
    PatchLocation,
    TrainingCase,
    pixels_under,
    slices_under,
)
from aslseg.preprocessing.roi import Roi, build_roi
from aslseg.targets import LIVER_TARGETS, cascade_stages

GRID = Geometry.axis_aligned((20, 50, 60), (3.0, 2.0, 2.0))
OF_LIVER, OF_TUMOUR = cascade_stages(LIVER_TARGETS)
CRISP = SpecialistConfig(
    batch_size=6,
    patch_size=16,
    mirror=True,
    lesion_share=0.0,
    intensity_strength=0.0,
    network=NetworkConfig(channels=(4, 8, 8)),
    roi=RoiConfig(pixel_mm=2.0, slice_mm=3.0, context_slices=0, margin_mm=8.0),
)
IN_3D = CRISP.model_copy(
    update={"network": NetworkConfig(channels=(4, 8, 8), dimensions=3), "patch_size": 8}
)


def a_ramp(axis: int) -> Volume:
    """Return a volume whose intensity is the index along an axis."""
    return Volume(np.indices(GRID.shape)[axis].astype(np.float32), GRID)


def an_organ() -> np.ndarray:
    organ = np.zeros(GRID.shape, bool)
    organ[6:15, 10:41, 20:51] = True
    return organ


def the_roi(settings: SpecialistConfig, axis: int, *, crop: bool) -> Roi:
    stage, organ = (OF_TUMOUR, an_organ()) if crop else (OF_LIVER, None)
    roi = build_roi(a_ramp(axis), stage, settings, parent=organ)
    part = roi.box.slices[axis]
    place = np.arange(part.start, part.stop, dtype=np.float32)
    place = place.reshape([-1 if n == axis else 1 for n in range(3)])
    shape = [p.stop - p.start for p in roi.box.slices]
    whole = torch.from_numpy(np.broadcast_to(place, shape).copy())
    image = F.interpolate(whole[None, None], roi.image.shape, mode="trilinear")[0, 0].numpy()
    return Roi(image, roi.parent, None, roi.box, roi.volume_shape, roi.neighbour)


@pytest.mark.parametrize("crop", [False, True], ids=["whole volume", "crop around an organ"])
@pytest.mark.parametrize("pixel_mm", [2.0, 3.1])
@pytest.mark.parametrize("flat", [True, False], ids=["2d", "3d"])
def test_each_pixel_of_a_patch_shows_what_lies_at_its_place(
    crop: bool, pixel_mm: float, flat: bool
) -> None:
    """Intensities are indices of the volume, so a patch's pixels say where they are from."""
    settings = CRISP if flat else IN_3D
    roi_settings = settings.roi.model_copy(update={"pixel_mm": pixel_mm})
    settings = settings.model_copy(update={"roi": roi_settings})
    for axis, coordinate in ((1, 1), (2, 0)):
        roi = the_roi(settings, axis, crop=crop)
        batch = BatchSource([TrainingCase(roi)], settings, 0, 0).batch(0)
        for inputs, place in zip(batch.inputs, batch.locations, strict=True):
            shown = inputs[0] if flat else inputs[0, 4]
            under = pixels_under(place, roi, settings.patch_size)[..., coordinate] - 0.5
            part = roi.box.slices[axis]
            inside = (under > part.start + 1) & (under < part.stop - 2)
            assert inside.sum() > 10
            torch.testing.assert_close(shown[inside], under[inside], atol=0.02, rtol=0)


@pytest.mark.parametrize("flat", [True, False], ids=["2d", "3d"])
def test_each_plane_of_a_patch_lies_on_its_slice(flat: bool) -> None:
    settings = CRISP if flat else IN_3D
    roi = the_roi(settings, 0, crop=True)
    batch = BatchSource([TrainingCase(roi)], settings, 0, 0).batch(0)
    for inputs, place in zip(batch.inputs, batch.locations, strict=True):
        planes = inputs[:1] if flat else inputs[0]
        found = slices_under(place, roi, settings.patch_size)
        assert len(found) == len(planes)
        for plane, k in zip(planes, found, strict=True):
            inside = k is not None and roi.box.start[0] < k < roi.box.stop[0] - 1
            if inside:
                assert float(plane[8 if flat else 4, 4]) == pytest.approx(k, abs=0.51)


def test_planes_beyond_the_volume_lie_on_no_slice() -> None:
    roi = the_roi(IN_3D, 0, crop=False)
    place = PatchLocation(0, PatchTransform((0.0, 10.0, 10.0)))
    assert slices_under(place, roi, 8) == [None, None, None, 0, 1, 2, 3, 4]


def test_a_patch_knows_its_case() -> None:
    cases = [TrainingCase(the_roi(CRISP, 1, crop=False), case_id=name) for name in "ab"]
    settings = CRISP.model_copy(update={"batch_size": 20})
    batch = BatchSource(cases, settings, 0, 0).batch(0)
    assert {place.case for place in batch.locations} == {0, 1}
    assert batch.to(torch.device("cpu")).locations == batch.locations
