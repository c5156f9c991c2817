"""Drawn lesions lie in healthy tissue, look as sampled, and are labelled where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aslseg.preprocessing.roi import IGNORED
from aslseg.preprocessing.synthetic_lesions import (
    LEAST_SPREADS,
    MOST_LESIONS,
    RADII_PX,
    SyntheticLesion,
    draw_lesions,
    healthy_tissue,
    sample_lesions,
)

ROUND = SyntheticLesion(
    place=0.5,
    radius_px=5.0,
    stretch=1.0,
    waves=(),
    difference=-1.0,
    border_sd_px=0.5,
    kept_texture=1.0,
    grain=0.0,
    grain_sd_px=1.0,
    seed=0,
)
DEPTHS = torch.tensor([-4.0, 0.0, 4.0])


def tissue_at(row: int, column: int, size: int = 40) -> torch.Tensor:
    """Return (3, size, size) tissue whose middle voxel in the middle plane is at that place."""
    tissue = torch.zeros(3, size, size, dtype=torch.bool)
    tissue[:, row - 15 : row + 16, column - 15 : column + 16] = True
    return tissue


def test_lesions_are_as_often_and_as_many_as_is_said() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([len(sample_lesions(rng, 0.25)) for _ in range(4000)])
    assert np.mean(counts > 0) == pytest.approx(0.25, abs=0.03)
    assert set(counts.tolist()) == set(range(MOST_LESIONS + 1))
    assert sample_lesions(rng, 0.0) == []


def test_lesions_are_of_all_sizes_and_mostly_dark() -> None:
    rng = np.random.default_rng(0)
    lesions = [one for _ in range(1000) for one in sample_lesions(rng, 1.0)]
    radii, differences = np.array([(one.radius_px, one.difference) for one in lesions]).T
    assert RADII_PX[0] <= radii.min() < 2.2 < 11 < radii.max() <= RADII_PX[1]
    assert np.mean(differences < 0) == pytest.approx(0.9, abs=0.03)
    assert np.abs(differences).min() >= LEAST_SPREADS


def test_tissue_is_of_the_organ_known_to_be_healthy_and_no_vessel() -> None:
    image, organ = torch.zeros(40, 40), torch.ones(40, 40)
    classes = torch.zeros(40, 40, dtype=torch.long)
    organ[:10] = 0.2
    classes[10:20] = 1
    classes[20:25] = IGNORED
    image[:, 30:] = 4.0
    tissue = healthy_tissue(image, organ, classes)
    assert not tissue[:25].any()
    assert not tissue[:, 30:].any()
    assert tissue[25:, :25].all()


def test_a_lesion_is_dark_round_and_labelled_where_it_shows() -> None:
    planes, drawn = draw_lesions(torch.zeros(3, 40, 40), DEPTHS, tissue_at(20, 20), [ROUND])
    assert planes[1, 20, 20] == pytest.approx(-1.0, abs=0.01)
    assert int(drawn[1].sum()) == pytest.approx(np.pi * 25, rel=0.15)
    torch.testing.assert_close(planes < -0.5, drawn)
    assert not planes[1, :10].any()


def test_neighbouring_planes_show_the_smaller_sections_of_a_ball() -> None:
    _, drawn = draw_lesions(torch.zeros(3, 40, 40), DEPTHS, tissue_at(20, 20), [ROUND])
    above, middle, below = drawn.sum((1, 2)).tolist()
    assert above == below == pytest.approx(np.pi * 9, rel=0.15)
    assert above < middle
    small = replace(ROUND, radius_px=3.0)
    _, drawn = draw_lesions(torch.zeros(3, 40, 40), DEPTHS, tissue_at(20, 20), [small])
    assert not drawn[[0, 2]].any()


def test_a_lesion_ends_where_the_tissue_does() -> None:
    tissue = tissue_at(20, 20)
    tissue[:, :, 21:] = False
    large = replace(ROUND, radius_px=12.0, border_sd_px=1.4)
    _, drawn = draw_lesions(torch.zeros(3, 40, 40), DEPTHS, tissue, [large])
    assert drawn.any()
    assert not drawn[~tissue].any()


def test_texture_is_kept_in_part_and_grain_is_added() -> None:
    noise = torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(1))

    def roughness(lesion: SyntheticLesion, image: torch.Tensor) -> float:
        planes, drawn = draw_lesions(image, DEPTHS, tissue_at(20, 20), [lesion])
        return float(planes[drawn].std())

    smooth = replace(ROUND, kept_texture=0.0)
    assert roughness(smooth, noise) < 0.5 * roughness(ROUND, noise)
    assert roughness(replace(smooth, grain=0.4), torch.zeros(3, 40, 40)) > 0.2


def test_where_there_is_little_tissue_nothing_is_drawn() -> None:
    tissue = torch.zeros(3, 40, 40, dtype=torch.bool)
    tissue[1, 20, :20] = True
    image = torch.zeros(3, 40, 40)
    planes, drawn = draw_lesions(image, DEPTHS, tissue, [ROUND])
    assert planes is image
    assert not drawn.any()


def test_the_image_that_was_given_is_left_as_it_is() -> None:
    image = torch.zeros(3, 40, 40)
    draw_lesions(image, DEPTHS, tissue_at(20, 20), [ROUND])
    assert not image.any()
