"""SAM asked with boxes of the truth: what its outlines are worth where nothing is left to find.

It reads labels of held-out cases, so it is a ceiling and no method.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aslseg.benchmark.data import BenchmarkData
from aslseg.benchmark.scoring import CasePrediction
from aslseg.config import PromptConfig, RunConfig
from aslseg.data.geometry import resample_labels
from aslseg.data.images import read_volume
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Labelmap
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.postprocessing import plain_labels
from aslseg.networks.device import choose_device
from aslseg.project.case import EMBEDDINGS
from aslseg.prompts import SlicePrompts, prompts_from_mask
from aslseg.sam.crops import crops_of, with_crops
from aslseg.sam.predictor import VolumeSamPredictor, build_sam_predictor
from aslseg.targets import region_mask

BOXES = PromptConfig(
    min_area_px=1, box_margin_px=0.0, positive_points=0, negative_points=0, use_mask=False
)


class TrueBoxes:
    """Released SAM with exact boxes of the truth on every slice.

    Args:
        shown: Cases as methods see them.
        given: Cases with their truth.
        config: Model, input size, window and crops.
        cache: Folder of the embeddings.
        monitor: Told of a download.

    Raises:
        ConfigError: When the settings have no SAM.
        WeightsError: When its weights cannot be had.
    """

    def __init__(
        self,
        shown: BenchmarkData,
        given: BenchmarkData,
        config: RunConfig,
        cache: Path,
        monitor: Monitor,
    ) -> None:
        self._images = {case.id: case.image for case in shown.cases}
        self._given = given
        self._sam = _released(config, cache, monitor)

    def predict(self, case_id: str) -> CasePrediction:
        """Predict a case from boxes around its true targets."""
        stored = read_volume(self._images[case_id])
        turn = to_axial(stored.geometry)
        volume = turn.volume(stored)
        truth = turn.labelmap(resample_labels(self._given.truth(case_id), stored.geometry))
        targets = self._given.targets
        masks = {t.name: region_mask(truth.labels, t, targets) for t in targets}
        prompts: list[SlicePrompts] = []
        for name, mask in masks.items():
            prompts += prompts_from_mask(mask, target=name, settings=BOXES)
        crops = crops_of(volume, masks, targets, self._sam.settings)
        found = self._sam.predict(volume, with_crops(prompts, crops))
        empty = np.zeros(volume.geometry.shape, np.float32)
        probabilities = {t.name: found.get(t.name, empty) for t in targets}
        labels = Labelmap(plain_labels(probabilities, targets), volume.geometry)
        back = turn.inverse
        return CasePrediction(
            back.labelmap(labels, stored.geometry),
            {name: back.array(values) for name, values in probabilities.items()},
        )


def _released(config: RunConfig, cache: Path, monitor: Monitor) -> VolumeSamPredictor:
    untuned = config.sam.model_copy(update={"tuning": "none"})
    device = choose_device(config.device).torch_device
    sam = build_sam_predictor(
        config.model_copy(update={"sam": untuned}), cache / EMBEDDINGS, device, monitor
    )
    if sam is None:
        msg = "The row of true boxes needs SAM; set sam.model to vit_t or a larger one."
        raise ConfigError(msg)
    return sam
