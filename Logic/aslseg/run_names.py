"""Names of the files and folders of a run, for what writes, reads, sends and fetches them.

Names that one module alone knows are in that module. `Docs/contracts.md` says what is in each.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePath
from typing import Literal

SCHEMA_VERSION: Literal[2] = 2
"""Of projects and runs that are written now."""

CONFIG, STATUS, ORDER = "config.json", "status.json", "order.json"
EVENTS, LOG, LOCK, REPORT = "events.jsonl", "log.txt", "lock", "report.html"
EXTERNAL = "external.json"
"""Of label maps of another model, which lie among the runs."""
LABELS, START = "labels", "start"
"""Folders of a run: label maps of all cases, and those of another model that it began with."""

ROUND, METRICS, RELIABILITY = "round.json", "metrics.csv", "reliability.csv"
CROSS_VALIDATION, CO_TRAINING = "cross_validation.csv", "co_training.csv"
PREDICTIONS, PSEUDO = "predictions", "pseudo"
"""Folders of a round; the former has one of each case."""
PREDICTION, PROMPTS = "prediction.json", "prompts.json"
"""Files of a case's predictions; the former comes last."""

CROSSFIT, GATE, SINGLE_NETWORKS = "crossfit", "gate", "single-networks"
ROIS, ROIS_SECOND_PASS = "rois", "rois-second-pass"
SAMPLES, SAM_SAMPLES = "samples", "sam-samples"
SCRATCH = (ROIS, ROIS_SECOND_PASS, SAMPLES, SAM_SAMPLES)
"""Folders of images and masks that a training makes for itself, and makes again where they are not
whole."""
FOR_TRAINING = (*SCRATCH, CROSSFIT, GATE, SINGLE_NETWORKS)
"""Folders of a round that nothing but its training needs."""


def lies_in(path: PurePath, folders: Collection[str]) -> bool:
    """Return whether a file of a run lies in a folder of one of some names.

    Args:
        path: From the run's folder.
        folders: Names; below `predictions` they are those of cases, and none of these.
    """
    for name in path.parts[:-1]:
        if name in folders:
            return True
        if name == PREDICTIONS:
            return False
    return False
