"""Simulated clicks lie where the prediction is wrong, with the sign that corrects it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from aslseg.data.volume import Mask
from aslseg.sam import clicks as clicking
from aslseg.sam.clicks import DEEP_CLICKS, ClickTask, logits_under, next_click, simulate_clicks
from aslseg.sam.embeddings import SliceFrame
from support.sam_doubles import a_small_sam

EDGE = 12


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def a_square(row: int, column: int, edge: int, shape: tuple[int, ...] = (EDGE, EDGE)) -> Mask:
    mask = np.zeros(shape, bool)
    mask[..., row : row + edge, column : column + edge] = True
    return mask


# --- Where to click -------------------------------------------------------------------------------


@given(
    st.integers(0, 2**16), st.integers(0, 9), st.sampled_from([(9, 8), (3, 5, 4)]), st.floats(0, 1)
)
def test_a_click_is_positive_on_what_was_missed_and_negative_on_what_was_invented(
    seed: int, number: int, shape: tuple[int, ...], share: float
) -> None:
    draw = rng(seed)
    wanted, predicted = draw.random(shape) < share, draw.random(shape) < 0.5
    click = next_click(wanted, predicted, number, draw)
    if click is None:
        assert (wanted == predicted).all()
        return
    assert wanted[click.index] != predicted[click.index]
    assert click.positive == wanted[click.index]


def test_the_sign_is_looked_up_at_all_three_coordinates() -> None:
    """The released code read the label at (0, x, y): here that voxel has the opposite one."""
    wanted = np.zeros((4, 5, 5), bool)
    wanted[3, 1:4, 1:4] = True
    predicted = np.zeros_like(wanted)
    predicted[0] = True
    for number in range(8):
        click = next_click(wanted, predicted, number, rng(number))
        assert click is not None
        assert click.positive == (click.index[0] == 3)


def test_no_click_is_made_when_nothing_is_wrong() -> None:
    same = a_square(2, 2, 5)
    assert next_click(same, same.copy(), 0, rng()) is None
    empty = np.zeros_like(same)
    assert next_click(empty, empty, 5, rng()) is None


@pytest.mark.parametrize("number", range(DEEP_CLICKS))
def test_the_first_clicks_go_deep_into_the_larger_error(number: int) -> None:
    wanted = a_square(0, 0, 7) | a_square(9, 9, 3)  # radius 4 (beyond the border is outside) and 2
    predicted = a_square(9, 9, 3) | a_square(0, 9, 3)
    for seed in range(20):
        click = next_click(wanted, predicted, number, rng(seed))
        assert click is not None
        assert click.positive
        assert 2 <= min(click.index) <= max(click.index) <= 4  # deeper than half of the radius


def test_later_clicks_go_anywhere_into_what_is_wrong() -> None:
    wanted, predicted = a_square(0, 0, 6), a_square(8, 8, 1)
    clicks = [next_click(wanted, predicted, DEEP_CLICKS, rng(seed)) for seed in range(300)]
    found = {click.index for click in clicks if click is not None}
    assert len(found) > 30
    assert (8, 8) in found  # the small error too


# --- Sequences of clicks--------------------------------------------------------------------------


def a_task(wanted: Mask, seed: int = 0, input_size: int = 128) -> ClickTask:
    torch.manual_seed(seed)
    cells = input_size // 16
    rows, columns = torch.meshgrid(*[torch.arange(EDGE) + 0.5] * 2, indexing="ij")
    points = torch.stack([columns, rows], -1) * 2 + 3  # the mask covers a part of the slice
    frame = SliceFrame(40, 30, input_size)
    return ClickTask(torch.randn(256, cells, cells), frame, points.float(), wanted)


class Recorder:
    """Records what a sequence of clicks gives to SAM's prompt encoder."""

    def __init__(self, sam: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[tuple[Tensor, Tensor, Tensor | None]] = []
        encoder: Any = sam.prompt_encoder
        original = encoder.forward

        def forward(points: tuple[Tensor, Tensor], boxes: None, masks: Tensor | None) -> Any:
            self.given.append((*points, masks))
            return original(points, boxes, masks)

        monkeypatch.setattr(encoder, "forward", forward)


def test_each_step_gives_all_clicks_so_far_and_the_logits_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sam = a_small_sam()
    recorder = Recorder(sam, monkeypatch)
    sequence = simulate_clicks(sam, [a_task(a_square(3, 3, 6))], 4, rng())[0]
    assert len(recorder.given) == len(sequence.clicks) == len(sequence.logits) == 4
    frame = sequence.task.frame
    for number, (xy, labels, masks) in enumerate(recorder.given):
        clicks = sequence.clicks[: number + 1]
        assert labels.tolist() == [[int(click.positive) for click in clicks]]
        points = torch.stack([sequence.task.points[click.index] for click in clicks])
        torch.testing.assert_close(xy[0], frame.to_input(points) - 0.5)
        assert (masks is None) == (number == 0)
    assert recorder.given[3][2] is not None
    # The mask prompt is SAM's prediction of the step before, at its own resolution.
    before = logits_under(recorder.given[3][2][0, 0], sequence.task)
    torch.testing.assert_close(before, sequence.logits[2])


def test_the_first_click_is_positive_and_lies_in_what_is_wanted() -> None:
    """The released code clicked on the background's channel, which is true everywhere."""
    wanted = a_square(1, 5, 4)
    for seed in range(10):
        sequence = simulate_clicks(a_small_sam(), [a_task(wanted)], 1, rng(seed))[0]
        assert sequence.clicks[0].positive
        assert wanted[sequence.clicks[0].index]


def test_a_click_sequence_does_not_depend_on_those_beside_it() -> None:
    """The released code began the second case with the mask of the first one."""
    sam, alone = a_small_sam(), a_task(a_square(3, 3, 6), seed=1)
    one_click = simulate_clicks(sam, [alone], 1, rng(3))[0]
    other = a_task(a_square(6, 1, 5), seed=2)

    sequences = simulate_clicks(sam, [other, alone], 1, Draws([rng(0), rng(3)]))  # type: ignore[arg-type]

    assert sequences[1].clicks == one_click.clicks
    torch.testing.assert_close(sequences[1].logits[0], one_click.logits[0], atol=1e-4, rtol=1e-4)
    assert (sequences[0].logits[0] - sequences[1].logits[0]).abs().max() > 0.01


class Draws:
    """Lets each sequence of a step draw from a generator of its own."""

    def __init__(self, generators: list[np.random.Generator]) -> None:
        self.generators = list(generators)

    def integers(self, limit: int) -> int:
        return int(self.generators.pop(0).integers(limit))


def test_every_click_sequence_starts_with_an_empty_mask() -> None:
    sam = a_small_sam()
    for tasks in ([a_task(a_square(3, 3, 6))], [a_task(a_square(2, 2, 3), seed=5)]):
        sequence = simulate_clicks(sam, tasks, 2, rng())[0]
        assert sequence.clicks[0].positive
    assert not clicking.ClickSequence(tasks[0]).predicted.any()


def test_a_click_sequence_ends_when_nothing_is_wrong_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sam, wanted = a_small_sam(), a_square(3, 3, 6)
    agreeing = torch.from_numpy(np.where(wanted, 5.0, -5.0)).float()
    monkeypatch.setattr(clicking, "logits_under", lambda *_: agreeing)
    sequence = simulate_clicks(sam, [a_task(wanted)], 10, rng())[0]
    assert len(sequence.clicks) == len(sequence.logits) == 1


def test_masks_are_read_where_their_pixels_lie() -> None:
    """SAM's logits are columns and rows of its input here, so pixels must find their own."""
    task = a_task(a_square(0, 0, 1))
    low = torch.arange(32, dtype=torch.float32)  # pixels of 4 in an input of 128
    centres = low * 4 + 2
    x_ramp, y_ramp = centres.expand(32, 32), centres[:, None].expand(32, 32)
    wanted = task.frame.to_input(task.points)
    inside = (wanted > 2).all(-1) & (wanted < 126).all(-1)
    assert inside.sum() > 50
    torch.testing.assert_close(logits_under(x_ramp, task)[inside], wanted[..., 0][inside])
    torch.testing.assert_close(logits_under(y_ramp, task)[inside], wanted[..., 1][inside])


def test_sam_is_not_changed_and_takes_no_gradient() -> None:
    sam = a_small_sam()
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    sequence = simulate_clicks(sam, [a_task(a_square(3, 3, 6))], 3, rng())[0]
    assert not any(logits.requires_grad for logits in sequence.logits)
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())


def test_no_task_needs_no_sam() -> None:
    assert simulate_clicks(nn.Identity(), [], 3, rng()) == []
