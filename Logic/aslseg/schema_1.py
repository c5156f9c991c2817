"""Projects and runs of schema version 1: the names of theirs that differ from today's.

Files of both versions are read by today's names. Writing a file gives it today's names;
`upgrade_run` does so for all files of a run; an upgrade that was interrupted can be repeated, and
the run is read meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aslseg import run_names
from aslseg.errors import RunError
from aslseg.reading import MOST_TABLE_BYTES, read_object, read_text
from aslseg.storage import write_json_atomic, write_text_atomic

STATUS = {
    "legs": "retrained_rounds",
    "learnt": "label_digests",
    "since": "patience_start",
    "stage": "task",
}
PREDICTION = {
    "voice_agreement": "prediction_agreement",
    "emptied": "empty_in_one",
    "silent": "is_empty",
}
COLUMNS = {"stage": "source", "voice_agreement": "prediction_agreement"}
"""Of `metrics.csv` and `reliability.csv`."""
CONFIG = {
    "organ": {"view": "roi"},
    "lesion": {"view": "roi"},
    "adaptation": {"voices": "context_slices", "predictions": "context_slices"},
}
"""Of the groups of settings in `config.json`; `predictions` is a name of version 2."""

_VOICES, _VOICES_FILE = "voices", "voices.json"
_SOURCES = ("specialist", "sam", "refined")
_REMEDY = "restore it from a copy, or start a new run"


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return values by today's names; where both names are there, today's counts."""
    old = {names[key]: value for key, value in values.items() if key in names}
    return {**old, **{key: value for key, value in values.items() if key not in names}}


def renamed_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by today's names; what is no group of settings stays as it is."""
    return {
        key: renamed(value, CONFIG[key]) if key in CONFIG and isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def renamed_metric(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `metric` event by today's names; what it is about was its `stage`."""
    return renamed(values, {"stage": "source" if values.get("stage") in _SOURCES else "task"})


def predictions_folder(round_folder: Path) -> Path:
    """Return the folder of a round that has one folder of predictions per case."""
    old = round_folder / _VOICES
    new = round_folder / run_names.PREDICTIONS
    return old if old.is_dir() and not new.exists() else new


def prediction_file(case_folder: Path) -> Path:
    """Return the file that marks the predictions of a case as complete."""
    old, new = case_folder / _VOICES_FILE, case_folder / run_names.PREDICTION
    return old if old.exists() and not new.exists() else new


def upgrade_run(run_folder: Path) -> None:
    """Give all files of a run today's names; the caller holds the run's lock.

    Raises:
        RunError: When a file is damaged.
        StorageError: When the folder cannot be written.
    """
    _upgrade_config(run_folder / run_names.CONFIG)
    for round_folder in sorted(run_folder.glob("round-*")):
        for name in (run_names.METRICS, run_names.RELIABILITY):
            _upgrade_table(round_folder / name)
        folder = predictions_folder(round_folder)
        if folder.name == _VOICES:
            folder = folder.rename(round_folder / run_names.PREDICTIONS)
        for path in sorted(folder.glob(f"*/{_VOICES_FILE}")):
            facts = renamed(read_object(path, RunError, _REMEDY), PREDICTION)
            write_json_atomic(path.with_name(run_names.PREDICTION), facts)
            path.unlink()


def _upgrade_config(path: Path) -> None:
    if path.exists():
        values = read_object(path, RunError, _REMEDY)
        if renamed_config(values) != values:
            written = path.stat().st_mtime_ns  # by which runs are ordered
            write_json_atomic(path, renamed_config(values))
            os.utime(path, ns=(written, written))


def _upgrade_table(path: Path) -> None:
    if path.exists():
        text = read_text(path, RunError, _REMEDY, MOST_TABLE_BYTES)
        head, end, rows = text.partition("\r\n")
        names = [COLUMNS.get(name, name) for name in head.split(",")]
        write_text_atomic(path, ",".join(names) + end + rows)
