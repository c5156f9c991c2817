"""Predictions of a case on disk: label maps, prompts, agreement."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from aslseg import schema_1
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import RunError
from aslseg.inference.ensemble import Segmentation
from aslseg.project.run_tables import PREDICTIONS
from aslseg.reading import read_object
from aslseg.storage import write_json_atomic
from aslseg.training.selection import Reliability

_RELIABILITY = TypeAdapter(Reliability)


def save_predictions(folder: Path, segmentation: Segmentation, facts: Mapping[str, Any]) -> None:
    """Write the predictions of a case; `prediction.json` comes last and marks the case as complete.

    Args:
        folder: `round-NN/predictions/<case>`.
        segmentation: The predictions.
        facts: Written into `prediction.json`.
    """
    for name in PREDICTIONS:
        labels = getattr(segmentation, name)
        if labels is not None:
            write_labelmap(labels, folder / f"{name}.nii.gz")
    prompts = [prompt.to_json() for prompt in segmentation.prompts]
    write_json_atomic(folder / "prompts.json", prompts)
    write_json_atomic(folder / schema_1.PREDICTION_FILE, dict(facts))


def read_case_reliability(folder: Path) -> Reliability | None:
    """Return the reliability of a case that `save_predictions` completed, or None.

    Raises:
        RunError: When the file is damaged.
    """
    path = schema_1.prediction_file(folder)
    if not path.exists():
        return None
    remedy = f"delete the folder {folder} and resume the run, which then makes it again"
    try:
        return _RELIABILITY.validate_python(
            schema_1.renamed(read_object(path, RunError, remedy), schema_1.PREDICTION)
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        msg = f"{path} is damaged ('{where}': {first['msg']}); {remedy}."
        raise RunError(msg) from error


def read_prediction(folder: Path, name: str) -> Labelmap | None:
    """Read one prediction of a case, or None when there is none of that name."""
    path = folder / f"{name}.nii.gz"
    return read_labelmap(path) if path.exists() else None
