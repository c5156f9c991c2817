"""Networks learn drawn slices in a fifth of their steps, which is enough for phantoms."""

from __future__ import annotations

import pytest
import torch

from aslseg.data.volume import Volume
from aslseg.events import Monitor
from aslseg.inference.cascade import Specialist
from aslseg.training import slice_filling
from aslseg.training.drawn_slices import DrawnSlices
from aslseg.training.slice_learning import newly_trained, tuned


def learn_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each network, new or of a run, take a fifth of the steps that are asked for."""

    def briefly_trained(
        drawn: DrawnSlices, image: Volume, device: torch.device, steps: int, monitor: Monitor
    ) -> Specialist:
        return newly_trained(drawn, image, device, steps // 5, monitor)

    def briefly_tuned(
        specialist: Specialist, drawn: DrawnSlices, image: Volume, steps: int, monitor: Monitor
    ) -> Specialist:
        return tuned(specialist, drawn, image, steps // 5, monitor)

    monkeypatch.setattr(slice_filling, "newly_trained", briefly_trained)
    monkeypatch.setattr(slice_filling, "tuned", briefly_tuned)
