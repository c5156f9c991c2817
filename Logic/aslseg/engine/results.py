"""The files and the facts of a `done` event about a volume."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.inference.interactive.predictions import SessionPrediction
from aslseg.inference.interactive.session import Session
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import PREDICTIONS
from aslseg.storage import sha256_of, write_json_atomic


def write_prediction(prediction: SessionPrediction, folder: Path) -> dict[str, str]:
    """Write label maps, disagreement and prompts; label maps of one slice are named after it.

    Returns:
        Paths by name: `specialist`, `sam`, `refined`, `disagreement`, `prompts`; predictions that
        were not made are missing.
    """
    prefix = "" if prediction.slice_index is None else f"slice-{prediction.slice_index:04d}-"
    files: dict[str, Path] = {}
    geometry: Geometry | None = None
    for source in PREDICTIONS:
        labels: Labelmap | None = getattr(prediction, source)
        if labels is not None:
            files[source] = folder / f"{prefix}{source}.nii.gz"
            geometry = labels.geometry
            write_labelmap(labels, files[source])
    if geometry is not None:
        files["disagreement"] = folder / f"{prefix}disagreement.nii.gz"
        write_volume(Volume(prediction.disagreement, geometry), files["disagreement"])
    files["prompts"] = folder / f"{prefix}prompts.json"
    write_json_atomic(files["prompts"], [prompt.to_json() for prompt in prediction.prompts])
    return {name: str(path) for name, path in files.items()}


def facts_of(
    session: Session, prediction: SessionPrediction, run: RunFolder | None
) -> dict[str, Any]:
    """Return slice, targets, unmet clicks and provenance of a prediction."""
    return {
        "slice_index": prediction.slice_index,
        "targets": [target.model_dump(mode="json") for target in session.models.targets],
        "prompts": len(prediction.prompts),
        "unmet_clicks": list(prediction.unmet_clicks),
        **provenance_of(session, run),
    }


def provenance_of(session: Session, run: RunFolder | None) -> dict[str, Any]:
    """Return method, run, round and weights of a prediction; without a run, a note."""
    ensemble = session.models.ensemble
    if run is None or ensemble is None:
        note = "No trained run: SAM alone predicts, as it was released, and only from your prompts."
        return {"run": None, "method": "sam", "round": 0, "weights": "", "note": note}
    best = int(run.status.get("best_round", 0))
    return {
        "run": run.run_id,
        "method": ensemble.config.method,
        "preset": ensemble.config.preset,
        "round": best,
        "weights": weights_digest(run, best),
        "sam": ensemble.config.sam.model,
        "note": "",
    }


def weights_digest(run: RunFolder, round_number: int) -> str:
    """Return 16 hexadecimal digits that name the trained weights of a round."""
    folders = dict.fromkeys([run.first_folder(round_number), run.round(round_number)])
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    whole = "".join(f"{path.name}{sha256_of(path)}" for path in files)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]
