"""Volumes of one body are found whatever their voxels, extent and position; others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from aslseg.data.body_match import (
    EDGE_MM,
    NEAR_ENOUGH,
    SAME_BODY,
    BodyDigest,
    body_digest,
    matching_bodies,
)
from aslseg.data.images import read_volume
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Float32, Geometry, Spacing3, Volume
from aslseg.errors import CancelledError
from aslseg.events import CancelToken, Monitor
from support.textured_bodies import SPACING_MM, a_body, moved


def digest_of(voxels: Float32, spacing_mm: Spacing3 = SPACING_MM) -> BodyDigest:
    found = body_digest(Volume(voxels, Geometry.axis_aligned(voxels.shape, spacing_mm)))
    assert isinstance(found, BodyDigest)
    return found


def match(first: BodyDigest, second: BodyDigest) -> tuple[float, float]:
    """Correlation and overlap of what is found; 0 when nothing is."""
    found = matching_bodies({"a": first, "b": second}, [("a", "b")])
    return (found[0].correlation, found[0].overlap) if found else (0.0, 0.0)


def test_a_digest_has_the_body_on_a_coarse_grid_without_its_coarse_structure() -> None:
    digest = digest_of(a_body(0))
    assert digest.mask.shape == (25, 28, 38)  # 200 x 228 x 300 mm in voxels of 8 mm
    litres = digest.mask.sum() * EDGE_MM**3 / 1e6
    assert litres == pytest.approx(np.pi * 0.108 * 0.144 * 0.2 * 1000, rel=0.1)
    assert abs(digest.detail[digest.mask].mean()) < 1e-3
    assert not digest.detail[~digest.mask].any()


@pytest.mark.parametrize(
    ("degrees", "shift", "rows"),
    [
        (0.0, (0.0, 0.0, 0.0), slice(None)),
        (5.0, (0.0, 4.0, -6.0), slice(None)),
        (-4.0, (2.5, 0.0, 3.0), slice(12, None)),  # 28 of 40 slices, as of a shorter scan
    ],
)
def test_one_body_is_found_when_it_lies_elsewhere(
    degrees: float, shift: tuple[float, float, float], rows: slice
) -> None:
    noise = np.random.default_rng(9).normal(0, 20, (40, 76, 100))
    again = moved(a_body(0), degrees, shift) + noise
    correlation, overlap = match(digest_of(a_body(0)), digest_of(again[rows].astype(np.float32)))
    assert correlation > 0.75
    assert overlap > 0.8


def test_other_voxels_and_another_order_of_axes_do_not_matter() -> None:
    voxels, geometry = a_body(0), Geometry.axis_aligned((40, 76, 100), SPACING_MM)
    turn = to_axial(Geometry((40, 76, 100), geometry.ijk_to_ras @ np.diag([-1.0, -1.0, 1.0, 1.0])))
    turned = body_digest(turn.volume(Volume(voxels, geometry)))
    assert isinstance(turned, BodyDigest)
    assert match(digest_of(voxels), turned)[0] > 0.99
    finer = ndimage.zoom(voxels, (2.0, 1.5, 1.5), order=1)
    spacing = (200 / 80, 228 / 114, 300 / 150)
    assert match(digest_of(voxels), digest_of(finer, spacing))[0] > 0.9


def test_other_bodies_of_the_same_shape_are_not_found() -> None:
    digests = {str(seed): digest_of(a_body(seed)) for seed in range(4)}
    pairs = [(a, b) for a in digests for b in digests if a < b]
    assert matching_bodies(digests, pairs) == []
    assert matching_bodies(digests, []) == []


def test_the_most_alike_come_first_and_only_pairs_that_are_asked_for() -> None:
    noise = np.random.default_rng(9).normal(0, 80, (40, 76, 100)).astype(np.float32)
    digests = {"a": digest_of(a_body(0)), "b": digest_of(a_body(0) + noise)}
    digests["c"] = digest_of(a_body(0))
    found = matching_bodies(digests, [("a", "b"), ("a", "c")])
    assert [(match.first, match.second) for match in found] == [("a", "c"), ("a", "b")]
    assert found[0].correlation > found[1].correlation > SAME_BODY > NEAR_ENOUGH


def test_what_is_no_ct_or_shows_too_little_is_not_compared() -> None:
    mri = np.abs(a_body(0)).astype(np.float32)
    geometry = Geometry.axis_aligned(mri.shape, SPACING_MM)
    assert "no CT" in str(body_digest(Volume(mri, geometry)))
    small = a_body(0)[:8]
    found = body_digest(Volume(small, Geometry.axis_aligned(small.shape, SPACING_MM)))
    assert found == "it shows less than 3 litres of a body"  # 40 mm of the ellipse: 1.8


def test_a_comparison_can_be_stopped() -> None:
    token = CancelToken()
    token.cancel()
    digests = {"a": digest_of(a_body(0)), "b": digest_of(a_body(1))}
    with pytest.raises(CancelledError):
        matching_bodies(digests, [("a", "b")], Monitor(token=token))


def test_patients_of_lits_with_two_volumes_are_found_and_no_others(shared_folder: Path) -> None:
    paths = sorted((shared_folder / "data" / "lits").glob("volume-*.nii.gz"))
    digests = {path.name[7:-7]: body_digest(read_volume(path)) for path in paths}
    bodies = {name: body for name, body in digests.items() if isinstance(body, BodyDigest)}
    assert len(bodies) == len(paths)
    pairs = [(a, b) for a in bodies for b in bodies if int(a) < int(b)]
    found = {(match.first, match.second) for match in matching_bodies(bodies, pairs)}
    assert found == {("7", "9"), ("14", "15")}
