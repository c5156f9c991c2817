"""Who speaks in a session, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aslseg.config import RunConfig, SamConfig
from aslseg.data.volume import Labelmap, Labels, Volume
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.cascade import Probabilities
from aslseg.inference.ensemble import Ensemble, PromptPredictor
from aslseg.inference.interactive.slice_refiner import Planes
from aslseg.inference.postprocessing import label_slice, labels_from, plain_labels
from aslseg.networks.device import choose_device
from aslseg.prompts import SlicePrompts
from aslseg.sam.predictor import VolumeSamPredictor, build_sam_predictor
from aslseg.targets import Target


@dataclass(frozen=True, slots=True, eq=False)
class SessionModels:
    """Who speaks in a session.

    Attributes:
        targets: The classes.
        ensemble: The trained parts of a run; None when SAM is alone.
        sam: Who answers a person's prompts; None when nobody can.
    """

    targets: tuple[Target, ...]
    ensemble: Ensemble | None
    sam: PromptPredictor | None

    @property
    def proposes(self) -> bool:
        """Whether SAM is asked without a person's prompts too."""
        return self.ensemble is not None and self.ensemble.sam_predictor is not None

    def label_volume(self, probabilities: Probabilities, volume: Volume) -> Labelmap:
        """Turn probabilities into a label map; SAM alone is taken at its word."""
        if self.ensemble is None:
            return Labelmap(plain_labels(probabilities, self.targets), volume.geometry)
        least = self.ensemble.config.min_component_ml
        return labels_from(probabilities, self.targets, volume, least)

    def label_slice(self, planes: Planes, k: int, before: Labels, volume: Volume) -> Labels:
        """Turn the probabilities of slice `k` into labels, (H, W)."""
        if self.ensemble is None:
            return plain_labels(planes, self.targets)
        least = self.ensemble.config.min_component_ml
        return label_slice(planes, k, before, self.targets, volume, min_component_ml=least)


class ReleasedSam:
    """SAM with released weights, loaded when it is first asked.

    Args:
        config: Model, input size, device.
        cache: Folder of the embeddings.
    """

    def __init__(self, config: RunConfig, cache: Path) -> None:
        untuned = config.sam.model_copy(update={"tuning": "none"})
        self._config = config.model_copy(update={"sam": untuned})
        self._cache = cache
        self._loaded: VolumeSamPredictor | None = None

    def predict(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> Probabilities:
        """Answer prompts.

        Raises:
            WeightsError: When the weights cannot be had.
        """
        return self.sam_predictor(monitor or Monitor()).predict(volume, prompts, monitor)

    def sam_predictor(self, monitor: Monitor) -> VolumeSamPredictor:
        """Return the model, loading it if that was not done yet.

        Raises:
            WeightsError: When the weights cannot be had.
            ConfigError: When the settings want no SAM.
        """
        if self._loaded is None:
            device = choose_device(self._config.device).torch_device
            self._loaded = build_sam_predictor(self._config, self._cache, device, monitor)
        if self._loaded is None:
            msg = "SAM is needed to answer prompts, and the settings want none; choose a model."
            raise ConfigError(msg)
        return self._loaded


def models_of_ensemble(ensemble: Ensemble, cache: Path) -> SessionModels:
    """Return the voices of a run's trained parts.

    An ensemble that does not ask SAM answers a person's prompts with SAM as it was released.

    Args:
        ensemble: Of a run.
        cache: Folder of the embeddings.
    """
    sam: PromptPredictor | None = ensemble.sam_predictor
    if sam is None:
        model = ensemble.config.sam.model
        wanted = ensemble.config.sam if model != "none" else SamConfig()
        sam = ReleasedSam(ensemble.config.model_copy(update={"sam": wanted}), cache)
    return SessionModels(ensemble.targets, ensemble, sam)


def models_without_run(
    targets: Sequence[Target], settings: SamConfig, cache: Path, device: str = "auto"
) -> SessionModels:
    """Return SAM as it was released, alone: it answers a person's prompts.

    Args:
        targets: The classes.
        settings: Model and input size.
        cache: Folder of the embeddings.
        device: Where to compute.

    Raises:
        DeviceError: When the device is not there.
    """
    choose_device(device)
    config = RunConfig(sam=settings).model_copy(update={"device": device})
    return SessionModels(tuple(targets), None, ReleasedSam(config, cache))
