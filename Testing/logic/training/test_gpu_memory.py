"""A batch that does not fit into a graphics card is divided, and gives the same gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aslseg.distributed import WHOLE, WorkPart
from aslseg.errors import DeviceError
from aslseg.events import Event, Monitor, Notice
from aslseg.training.gpu_memory import parts_that_fit
from aslseg.training.trainer import Schedule, Trainer

GB = 10**9
SCHEDULE = Schedule("network", steps=6, learning_rate=0.05, seed=3)
BATCH = 8


def peak_of(parts: int) -> int:
    """Two gigabytes once, and sixteen for a whole batch."""
    return 2 * GB + 16 * GB // parts


@pytest.mark.parametrize(
    ("free_gb", "parts"), [(40, 1), (20.1, 1), (19.9, 2), (10, 4), (5, 8), (1, 8)]
)
def test_as_few_parts_as_fit_are_chosen_from_two_small_trials(free_gb: float, parts: int) -> None:
    tried: list[int] = []

    def tried_peak(of: int) -> int:
        tried.append(of)
        return peak_of(of)

    found = parts_that_fit(tried_peak, int(free_gb * GB), most=9)
    assert found.parts == parts
    assert found.needed_bytes == pytest.approx(18 * GB, rel=1e-6)
    assert tried == [8, 4]


def test_what_is_said_has_both_sizes_and_the_parts() -> None:
    said = parts_that_fit(peak_of, 10 * GB, most=8).in_words
    assert "18.0 GB" in said
    assert "10.0 GB" in said
    assert "4 parts" in said


class Card:
    """A step on a card that holds `most` patches at once."""

    def __init__(self, most: int, module: nn.Module) -> None:
        self.most, self.module = most, module
        self.sizes: list[int] = []

    def __call__(self, step: int, _: torch.Generator, part: WorkPart = WHOLE) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(step)
        inputs = part.share(torch.randn(BATCH, 4, generator=generator))
        self.sizes.append(len(inputs))
        if len(inputs) > self.most:
            msg = "CUDA out of memory."
            raise torch.cuda.OutOfMemoryError(msg)
        loss = (self.module(inputs)[:, 0] - inputs.sum(1)).square().mean()
        return {"loss": loss}


def trained(folder: Path, most: int) -> tuple[nn.Module, Card, list[str]]:
    torch.manual_seed(0)
    module, events = nn.Linear(4, 1), list[Event]()
    card = Card(most, module)
    trainer = Trainer(module, SCHEDULE, torch.device("cpu"), folder, precise=True, most_parts=BATCH)
    trainer.run(card, Monitor(events.append))
    return module, card, [e.message for e in events if isinstance(e, Notice)]


def test_a_step_without_memory_goes_on_in_parts_to_the_same_weights(tmp_path: Path) -> None:
    whole, card, said = trained(tmp_path, BATCH)
    assert not said
    assert card.sizes == [8] * 6
    divided, card, said = trained(tmp_path, 2)
    assert card.sizes == [8, 4] + [2] * 4 * 6
    assert len(said) == 2
    assert "from step 0 on each batch is computed in 4 parts" in said[1]
    torch.testing.assert_close(divided.state_dict(), whole.state_dict())


def test_a_card_without_room_for_one_patch_is_told_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"network does not fit .* choose a smaller batch_size"):
        trained(tmp_path, 0)
