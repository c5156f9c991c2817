"""Find who speaks in a session: a run's best round, or SAM as it was released, alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aslseg.config import RunConfig, SamConfig, Target
from aslseg.devices import choose_device
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.generalist import Generalist
from aslseg.generalist_setup import build_generalist
from aslseg.inference import Probabilities
from aslseg.prompts import SlicePrompts
from aslseg.runfolder import RunFolder
from aslseg.runs import load_ensemble
from aslseg.session_voices import Voices
from aslseg.speaking import Asked
from aslseg.volume import Volume


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
        self._loaded: Generalist | None = None

    def ask(
        self, volume: Volume, prompts: Sequence[SlicePrompts], monitor: Monitor | None = None
    ) -> Probabilities:
        """Answer prompts.

        Raises:
            WeightsError: When the weights cannot be had.
        """
        return self.generalist(monitor or Monitor()).ask(volume, prompts, monitor)

    def generalist(self, monitor: Monitor) -> Generalist:
        """Return the model, loading it if that was not done yet.

        Raises:
            WeightsError: When the weights cannot be had.
            ConfigError: When the settings want no SAM.
        """
        if self._loaded is None:
            device = choose_device(self._config.device).torch_device
            self._loaded = build_generalist(self._config, self._cache, device, monitor)
        if self._loaded is None:
            msg = "SAM is needed to answer prompts, and the settings want none; choose a model."
            raise ConfigError(msg)
        return self._loaded


def voices_of_run(
    run: RunFolder, monitor: Monitor | None = None, device: str | None = None
) -> Voices:
    """Return the voices of a run's best round.

    A run whose method does not ask SAM answers a person's prompts with SAM as it was released.

    Args:
        run: With a finished round.
        monitor: Who listens, and may ask to stop.
        device: Where to compute, whatever the run was trained on; None is what its settings say.

    Raises:
        RunError: When the run has no finished round.
        WeightsError: When a file of trained weights is missing, damaged or changed.
    """
    ensemble = load_ensemble(run, monitor, device)
    sam: Asked | None = ensemble.generalist
    if sam is None:
        cache = run.path.parents[1] / "cache" / "embeddings"
        model = ensemble.config.sam.model
        wanted = ensemble.config.sam if model != "none" else SamConfig()
        sam = ReleasedSam(ensemble.config.model_copy(update={"sam": wanted}), cache)
    return Voices(ensemble.targets, ensemble, sam)


def voices_without_run(
    targets: Sequence[Target], settings: SamConfig, cache: Path, device: str = "auto"
) -> Voices:
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
    return Voices(tuple(targets), None, ReleasedSam(config, cache))
