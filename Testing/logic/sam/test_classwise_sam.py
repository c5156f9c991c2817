"""A SAM that tells classes apart: its points, its learned boxes, its softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from aslseg.sam.classwise import (
    ABSENT,
    NEGATIVE,
    POSITIVE,
    ClassPoints,
    ClasswiseSam,
    deep_points,
    random_points,
    stacked_points,
)
from aslseg.sam.embeddings import SliceFrame
from support.sam_doubles import a_small_sam

EDGE = 24


def a_map(seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a map of three classes in two pictures; class 2 has three pixels in the first."""
    classes = np.zeros((2, EDGE, EDGE), np.int64)
    classes[:, 3:9, 10:22] = 1
    classes[0, 20, 1:4] = 2
    return classes


def a_classwise(*, learned_boxes: bool = True, classes: int = 3) -> ClasswiseSam:
    torch.manual_seed(0)
    return ClasswiseSam(a_small_sam(), classes, learned_boxes=learned_boxes).eval()


# --- Points ---------------------------------------------------------------------------------------


def test_points_are_x_y_and_lie_in_and_beside_their_class() -> None:
    classes = a_map()
    points = random_points(classes, 3, 5, np.random.default_rng(0))
    assert points.xy.shape == (2, 3, 10, 2)
    for picture in range(2):
        for number in range(3):
            for (x, y), label in zip(
                points.xy[picture, number].tolist(),
                points.labels[picture, number].tolist(),
                strict=True,
            ):
                if label != ABSENT:
                    assert x % 1 == y % 1 == 0.5  # the centre of a pixel
                    here = classes[picture, int(y), int(x)]
                    assert (here == number) == (label == POSITIVE)


def test_there_are_five_of_each_kind_or_as_many_as_there_are_pixels() -> None:
    labels = random_points(a_map(), 3, 5, np.random.default_rng(0)).labels

    def counted(picture: int, number: int) -> list[int]:
        return [int((labels[picture, number] == kind).sum()) for kind in (1, 0, -1)]

    assert counted(0, 0) == counted(0, 1) == counted(1, 1) == [5, 5, 0]
    assert counted(0, 2) == [3, 5, 2]
    assert counted(1, 2) == [0, 5, 5]


def test_each_pixel_is_drawn_once() -> None:
    points = random_points(a_map(), 3, 5, np.random.default_rng(1))
    assert len({tuple(xy) for xy in points.xy[0, 1].tolist()}) == 10


def test_deep_points_know_no_chance() -> None:
    mask = a_map()[0] == 1
    first, again = deep_points(mask, 5), deep_points(mask.copy(), 5)
    assert first == again
    positive = [xy for xy, label in first if label == POSITIVE]
    negative = [xy for xy, label in first if label == NEGATIVE]
    assert len(positive) == len(negative) == 5
    assert all(mask[int(y), int(x)] for x, y in positive)
    assert not any(mask[int(y), int(x)] for x, y in negative)
    assert [label for _, label in deep_points(np.zeros_like(mask), 2)] == [ABSENT, ABSENT, 0, 0]


def test_shorter_lists_are_filled_with_what_is_no_point() -> None:
    one, two = ((1.5, 2.5), POSITIVE), ((3.5, 4.5), NEGATIVE)
    points = stacked_points([[[one, two], [two]]])
    assert points.labels.tolist() == [[[1, 0], [0, -1]]]
    assert points.xy[0, 0].tolist() == [[1.5, 2.5], [3.5, 4.5]]


@pytest.mark.parametrize("learned_boxes", [False, True])
def test_a_point_is_nearest_to_the_cell_that_it_lies_in(learned_boxes: bool) -> None:
    """The release gave (row, column), and pixels where SAM wants parts of its input."""
    sam = a_classwise(learned_boxes=learned_boxes)
    encoder: Any = sam.sam.prompt_encoder
    cells = encoder.get_dense_pe()[0].flatten(1).T.detach()  # (64, 256) of an input of 128
    for x, y in [(0.5, 23.5), (20.5, 1.5), (7.5, 12.5), (23.5, 16.5)]:
        xy = torch.tensor([x, y]).expand(1, 3, 1, 2)
        points = ClassPoints(xy, torch.ones(1, 3, 1, dtype=torch.long))
        frame = SliceFrame(EDGE, EDGE, 128)
        sparse, _ = sam._tokens(torch.zeros(1, 256, 8, 8), points, frame)
        position = (sparse[0, 0] - encoder.point_embeddings[1].weight[0]).detach()
        nearest = int((cells - position).norm(dim=1).argmin())
        assert divmod(nearest, 8) == (int(y / 3), int(x / 3))


# --- Predictions ----------------------------------------------------------------------------------


def test_each_class_has_tokens_of_its_own() -> None:
    points = random_points(a_map(), 3, 5, np.random.default_rng(0))
    embeddings = torch.randn(2, 256, 8, 8)
    frame = SliceFrame(EDGE, EDGE, 128)
    with_boxes, _ = a_classwise()._tokens(embeddings, points, frame)
    without, _ = a_classwise(learned_boxes=False)._tokens(embeddings, points, frame)
    assert with_boxes.shape == (6, 12, 256)  # ten points and a box, of two pictures' classes
    assert without.shape == (6, 11, 256)  # ten points, and that there is no box
    assert torch.equal(with_boxes[:, :10], without[:, :10])
    boxes = with_boxes[:, 10:]
    assert not torch.allclose(boxes[0], boxes[1])  # classes
    assert not torch.allclose(boxes[0], boxes[3])  # pictures


def test_a_picture_is_predicted_alike_alone_and_beside_another() -> None:
    sam = a_classwise()
    points = random_points(a_map(), 3, 5, np.random.default_rng(0))
    embeddings = torch.randn(2, 256, 8, 8)
    with torch.no_grad():
        both = sam.decode(embeddings, points, EDGE)
        second = sam.decode(embeddings[1:], ClassPoints(points.xy[1:], points.labels[1:]), EDGE)
    assert both.shape == (2, 3, EDGE, EDGE)
    torch.testing.assert_close(both[1:], second, atol=1e-4, rtol=1e-4)


def test_everything_that_is_tuned_gets_a_gradient() -> None:
    sam = a_classwise()
    points = random_points(a_map(), 3, 5, np.random.default_rng(0))
    pictures = torch.rand(2, EDGE, EDGE)
    sam.decode(sam.embed(pictures), points, EDGE).square().mean().backward()
    without = {name for name, p in sam.named_parameters() if p.grad is None}
    # Of the four mask tokens' heads one is read; the predicted overlap is not used.
    assert not any(name.startswith("boxes") for name in without)
    assert any("image_encoder" in name for name, p in sam.named_parameters() if p.grad is not None)
    assert all("mask_decoder" in name or "prompt_encoder" in name for name in without)
