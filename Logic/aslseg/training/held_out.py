"""What is predicted of labelled cases by models that were not trained on them.

SAM's tuning, the adaptation network and the lesion stage all learn from it. So it is predicted once
in a round, and kept on disk meanwhile: as it was, to the last bit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from aslseg.context import LabelledVolume, RunContext
from aslseg.data.masks import BoundingBox, box_of, crop, uncrop
from aslseg.data.volume import Float32, Shape3
from aslseg.inference.cascade import Probabilities, StagePrediction
from aslseg.inference.ensemble import sam_probabilities_of
from aslseg.sam.predictor import VolumeSamPredictor, volume_digest
from aslseg.storage import atomic_path
from aslseg.training.cross_fitting import OutOfFoldModel

_FIRST_VOXEL = BoundingBox((0, 0, 0), (1, 1, 1))
"""What is kept of a map that is zero everywhere."""


def predict_held_out(
    context: RunContext, model: OutOfFoldModel, labelled: LabelledVolume
) -> list[StagePrediction]:
    """Predict a case of a model's fold, stage after stage.

    Raises:
        StorageError: When the prediction cannot be kept.
    """
    place = _place(model, labelled)
    paths = {name: place / f"stage-{name}.npy" for name in model.specialist.networks}
    known = {name: np.load(path) for name, path in paths.items() if path.exists()}
    stages = model.specialist.predict_stages(labelled.volume, context.monitor, known)
    for prediction in stages:
        name, classes = prediction.stage.name, prediction.classes
        if classes is not None and name not in known:
            with atomic_path(paths[name]) as temporary:
                np.save(temporary, classes)
    return stages


def predict_sam_held_out(
    context: RunContext,
    model: OutOfFoldModel,
    labelled: LabelledVolume,
    probabilities: Probabilities,
    sam_predictor: VolumeSamPredictor,
) -> Probabilities:
    """Return SAM's probabilities of all targets, prompted by a prediction of a held-out case.

    Args:
        context: The run.
        model: That has predicted.
        labelled: The case.
        probabilities: Of `predict_held_out`.
        sam_predictor: SAM as tuned without the cases of the fold.

    Raises:
        StorageError: When they cannot be kept.
    """
    place = _place(model, labelled)
    paths = {name: place / f"sam-{n}.npz" for n, name in enumerate(probabilities)}
    volume = labelled.volume
    if all(path.exists() for path in paths.values()):
        return {name: _read(path, volume.geometry.shape) for name, path in paths.items()}
    found = sam_probabilities_of(
        sam_predictor, volume, probabilities, context.targets, context.monitor
    )
    for name, path in paths.items():
        _write(found[name], path)
    return found


def _place(model: OutOfFoldModel, labelled: LabelledVolume) -> Path:
    """Return the folder of what is predicted of a volume with its given masks, as they are now."""
    volume = labelled.volume
    digest = hashlib.sha256(volume_digest(volume).encode())
    for name in sorted(volume.given):
        digest.update(f"\0{name}\0".encode() + np.packbits(volume.given[name]).tobytes())
    return model.kept / f"{labelled.case_id}-{digest.hexdigest()[:32]}"


def _write(probability: Float32, path: Path) -> None:
    """Write what is not zero of a map (D, H, W)."""
    box = box_of(probability > 0) or _FIRST_VOXEL
    with atomic_path(path) as temporary:
        np.savez(temporary, corners=[box.start, box.stop], values=crop(probability, box))


def _read(path: Path, shape: Shape3) -> Float32:
    with np.load(path) as stored:
        (k, j, i), (k1, j1, i1) = stored["corners"].tolist()
        return uncrop(stored["values"], BoundingBox((k, j, i), (k1, j1, i1)), shape)
