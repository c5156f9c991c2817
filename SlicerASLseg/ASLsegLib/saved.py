"""What a run has already said about a case of the project, brought into the scene."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from aslseg.errors import ImageError
from ASLsegLib import projects
from ASLsegLib.hearing import SPEAKING, Heard, least_agreement, show_proposed
from ASLsegLib.provenance import Provenance
from ASLsegLib.voices import Policy, flag_disagreement, keep_edits, voice_node, write_voice

if TYPE_CHECKING:
    from aslseg.project import Project


@dataclass(frozen=True)
class SavedVoices:
    """Label maps of a case that are on disk.

    Attributes:
        label: That a person made or accepted, (D, H, W) uint8, or None.
        labels: By voice, as a round wrote them.
        prompts: That SAM was asked with then.
        facts: Method, run and round.
    """

    label: np.ndarray | None = None
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    prompts: list[Any] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def read_saved(project: Project, case_id: str) -> SavedVoices:
    """Read a case's own label map and what the best round of the latest usable run said.

    Raises:
        ImageError: When a file is damaged.
    """
    case = project.case(case_id)
    label = None if case.label is None else project.load_labels(case).labels
    for run in projects.list_runs(project):
        folder = projects.voices_folder(project, run.run_id, run.best_round, case_id)
        if run.is_usable and (folder / "voices.json").exists():
            facts = {"run": run.run_id, "method": run.method, "round": run.best_round}
            return SavedVoices(label, *_read_voices(folder), facts)
    return SavedVoices(label)


def show_saved(
    volume: Any, saved: SavedVoices, targets: Any, may_replace: Policy = keep_edits
) -> None:
    """Show saved voices about a volume, and a person's label as the refined voice.

    Voices that are in the scene already stay as they are.
    """
    labels = dict(saved.labels)
    if saved.label is not None:
        labels["refined"] = saved.label
    nodes = {}
    for voice, values in labels.items():
        facts = Provenance(
            voice=voice,
            method=str(saved.facts.get("method", "")),
            run=str(saved.facts.get("run", "")),
            round=int(saved.facts.get("round", 0)),
            human=voice == "refined" and saved.label is not None,
        )
        if voice_node(volume, voice).GetSegmentation().GetNumberOfSegments() == 0:
            nodes[voice] = write_voice(volume, values, targets, facts, may_replace)
    if saved.prompts and "sam" in nodes:
        heard = Heard(labels, None, saved.prompts, list(targets), saved.facts)
        show_proposed(volume, heard)
    flag_disagreement(nodes, least_agreement(labels, list(targets)))


def _read_voices(folder: Any) -> tuple[dict[str, np.ndarray], list[Any]]:
    from aslseg.images import read_labelmap
    from aslseg.prompts import SlicePrompts

    labels = {
        voice: read_labelmap(folder / f"{voice}.nii.gz").labels
        for voice in SPEAKING
        if (folder / f"{voice}.nii.gz").exists()
    }
    path = folder / "prompts.json"
    if not path.exists():
        return labels, []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return labels, [SlicePrompts.from_json(value) for value in values]
    except (ValueError, KeyError) as error:
        msg = f"{path} is damaged; delete the folder of the case and resume the run."
        raise ImageError(msg) from error
