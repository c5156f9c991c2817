"""What tests of methods with their own SAM share: patches, known losses, and checks of runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aslseg.config import RunConfig, SamConfig, SpecialistConfig
from aslseg.data.images import read_labelmap, read_volume
from aslseg.distributed import WorkPart
from aslseg.errors import ConfigError, WeightsError
from aslseg.events import Monitor
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.loading import load_ensemble
from aslseg.preprocessing.patches import Batch
from aslseg.project.run_folder import RunFolder
from aslseg.runs import start_run
from aslseg.training.ssl.base import SSLMethod
from aslseg.training.trainer import Schedule, Trainer
from support.tiny_project import a_tiny_project
from support.whole_runs import (
    at_step,
    results,
    run_with_noise_as_hidden_labels,
    stopped_and_resumed,
)

MakeConfig = Callable[..., RunConfig]


def patches_of(settings: SpecialistConfig, seed: int = 0, channels: int = 3) -> Batch:
    """Return two patches of noise, whose brighter pixels are class 1."""
    spatial = (settings.patch_size,) * settings.network.dimensions
    channels = 1 if settings.network.dimensions == 3 else channels
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, channels, *spatial, generator=generator)
    return Batch(inputs, (inputs[:, 0] > 0.5).long(), torch.ones(2))


def even(log_odds: float, count: int, edge: int) -> Tensor:
    """Return logits of class 1 with the same probability in every pixel."""
    return torch.tensor([0.0, log_odds]).view(1, 2, 1, 1).repeat(count, 1, edge, edge)


def dice_loss(p: float, y: float, n: int) -> float:
    """Return the Dice loss of n pixels that all have the probability p, and all the label y."""
    return 1 - (2 * p * y * n + 1) / ((p * p + y) * n + 1)


def gradient_norm(loss: Tensor, parameters: Iterable[nn.Parameter]) -> float:
    """Return the norm of a loss's gradient, over the parameters that are trained."""
    wanted = [p for p in parameters if p.requires_grad]
    found = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    return math.sqrt(sum(float(g.square().sum()) for g in found if g is not None))


def rates_of(method: SSLMethod, steps: int, folder: Path) -> list[list[float]]:
    """Return the learning rates of a method's optimisers at each step of a schedule."""
    trainer = Trainer(
        method,
        Schedule("s", steps, 9.0),
        torch.device("cpu"),
        folder,
        configure_optimizers=method.configure_optimizers(),
    )
    rates: list[list[float]] = []

    def step_loss(step: int, _: torch.Generator, __: WorkPart) -> dict[str, Tensor]:
        rates.append([o.param_groups[0]["lr"] for o in trainer._optimisers])
        return {"loss": sum((p.sum() * 0 for p in method.parameters()), torch.zeros(()))}

    trainer.run(step_loss, Monitor())
    return rates


@contextmanager
def put_back(path: Path) -> Iterator[None]:
    """Let a file be changed or removed; afterwards it is as it was."""
    data = path.read_bytes()
    try:
        yield
    finally:
        path.write_bytes(data)


class OwnSamChecks:
    """Checks of whole runs of a method that cannot do without its SAM.

    The module has the fixture `make_config`; `methods/conftest.py` has the others.

    Attributes:
        needed: Weights of a round that segmenting needs.
    """

    needed: str

    def test_a_loaded_run_gives_the_labels_that_were_written_and_gives_them_again(
        self, finished: RunFolder, ensemble: Ensemble
    ) -> None:
        image = finished.path.parents[2] / "data" / "ct6.nii.gz"
        written = read_labelmap(finished.path / "labels" / "c6.nii.gz")
        for _ in range(2):
            segmented = ensemble.segment(read_volume(image))
            np.testing.assert_array_equal(segmented.refined.labels, written.labels)

    def test_a_missing_file_is_refused(self, finished: RunFolder) -> None:
        path = finished.round(1) / f"{self.needed}.safetensors"
        with put_back(path):
            path.unlink()
            with pytest.raises(WeightsError, match=self.needed):
                load_ensemble(finished)

    def test_a_run_without_sam_is_refused_in_words(
        self, make_config: MakeConfig, tmp_path: Path
    ) -> None:
        config = make_config(sam=SamConfig(model="none"))
        with pytest.raises(ConfigError, match=f"{config.method} needs SAM; set"):
            start_run(a_tiny_project(tmp_path), config)

    @pytest.mark.slow
    def test_a_stopped_run_goes_on_to_the_same_end(
        self, finished: RunFolder, make_config: MakeConfig, tmp_path: Path
    ) -> None:
        stages = ("specialist-liver", "specialist-tumour")
        places = [at_step(stage, 0) for stage in stages]
        run = stopped_and_resumed(a_tiny_project(tmp_path), make_config(), *places)
        assert results(run) == results(finished)

    @pytest.mark.slow
    def test_noise_in_place_of_the_hidden_labels_changes_nothing(
        self, finished: RunFolder, make_config: MakeConfig, tmp_path: Path
    ) -> None:
        run = run_with_noise_as_hidden_labels(tmp_path, make_config())
        assert results(run) == results(finished)
