"""The models of a session, and the rules by which their probabilities become labels."""

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
    """The models of a session.

    Attributes:
        targets: The classes.
        ensemble: The trained parts of a run; None when SAM is alone.
        sam: Predicts with a person's prompts; None without SAM.
    """

    targets: tuple[Target, ...]
    ensemble: Ensemble | None
    sam: PromptPredictor | None

    @property
    def proposes(self) -> bool:
        """Whether SAM predicts without a person's prompts too."""
        return self.ensemble is not None and self.ensemble.sam_predictor is not None

    def label_volume(self, probabilities: Probabilities, volume: Volume) -> Labelmap:
        """Return the label map of (D, H, W) probabilities; those of SAM alone are not cleaned."""
        if self.ensemble is None:
            return Labelmap(plain_labels(probabilities, self.targets), volume.geometry)
        least = self.ensemble.config.min_component_ml
        return labels_from(probabilities, self.targets, volume, least)

    def label_slice(self, planes: Planes, k: int, before: Labels, volume: Volume) -> Labels:
        """Return the labels (H, W) of the probabilities of slice `k`."""
        if self.ensemble is None:
            return plain_labels(planes, self.targets)
        least = self.ensemble.config.min_component_ml
        return label_slice(planes, k, before, self.targets, volume, min_component_ml=least)


class ReleasedSam:
    """SAM with released weights, loaded at its first prediction.

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
        """Predict as `VolumeSamPredictor.predict`.

        Raises:
            WeightsError: When the weights cannot be had.
            ConfigError: When the settings want no SAM.
        """
        return self._predictor(monitor or Monitor()).predict(volume, prompts, monitor)

    def _predictor(self, monitor: Monitor) -> VolumeSamPredictor:
        if self._loaded is None:
            device = choose_device(self._config.device).torch_device
            self._loaded = build_sam_predictor(self._config, self._cache, device, monitor)
        if self._loaded is None:
            msg = "Prompts need SAM, and the settings want none; choose a model."
            raise ConfigError(msg)
        return self._loaded


def models_of_ensemble(ensemble: Ensemble, cache: Path) -> SessionModels:
    """Return the models of a session with a run.

    An ensemble without SAM gets SAM as it was released, for a person's prompts.

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
    """Return SAM as it was released, alone, for a person's prompts.

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
