"""Pseudo-labels for an out-of-fold model: made without the labels of its fold.

The pseudo-labels of a round come from networks that have seen every labelled case. Were an
out-of-fold model of the next round trained on them, it would know the cases of its fold through
them, and what is measured on these cases would be too good. So the specialist that was trained
without the fold in the round before labels the accepted cases anew for its successor. Which cases
are accepted, and the lesion stage, are those of the run. (Ours.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aslseg.context import RunContext
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import give_back_memory
from aslseg.distributed import mapped
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.loading import TrainedCascade, load_lesion_stage, specialist_alone
from aslseg.project.case import Case
from aslseg.targets import shown_targets
from aslseg.training.pseudo_label import PseudoLabel, pseudo_label_paths
from aslseg.training.selection import doubtful_labels

LABELLING = "Labelling without group {}"
"""What the task is called in events, by number of the fold."""


@dataclass(frozen=True, slots=True, eq=False)
class FoldLabelling:
    """Who labels the accepted cases for a model, and where the label maps go.

    Attributes:
        before: The specialist of the round before that was not trained on the fold.
        round_before: Folder of what decided about candidates in the round before.
        folder: Of the model; its label maps are its pseudo-labels.
    """

    before: TrainedCascade
    round_before: Path
    folder: Path


def label_without_fold(
    context: RunContext, accepted: Mapping[str, PseudoLabel], by: FoldLabelling, fold: int
) -> dict[str, PseudoLabel]:
    """Label accepted cases by a specialist that was trained without a fold.

    Label maps that are in the folder already stay as they are. A target that is not found in a case
    is not taught by it, as in `selection.select`.

    Args:
        context: Cases and settings.
        accepted: The run's pseudo-labels by case id.
        by: Who labels, and where to.
        fold: Its number, for progress events.

    Returns:
        By case id.

    Raises:
        WeightsError: When a classifier of the round before cannot be read.
        StorageError: When a label map cannot be written.
    """
    lesion_stage = load_lesion_stage(context, by.round_before, by.before.earlier)
    ensemble = specialist_alone(context, by.before.specialist, lesion_stage)
    cases = [case for case in context.unlabelled if case.id in accepted]
    task = LABELLING.format(fold)
    found = mapped(_label, cases, context.monitor, task, context, by, ensemble)
    return {
        case.id: PseudoLabel.in_folder(by.folder, case.id, accepted[case.id].targets & names)
        for case, names in zip(cases, found, strict=True)
    }


def _label(case: Case, context: RunContext, by: FoldLabelling, ensemble: Ensemble) -> set[str]:
    """Write the labels of a case, and what is doubtful of them; return the targets it shows."""
    path, path_of_doubt = pseudo_label_paths(by.folder, case.id)
    if path.exists():
        return set(shown_targets(read_labelmap(path).labels, context.targets))
    volume = context.project.load_image(case)
    found = ensemble.segment(volume, context.monitor)
    before = [by.before.earlier[-1].segment(volume, context.monitor)]
    reach = context.config.candidates.doubt
    write_labelmap(doubtful_labels(found, before, context.targets, reach), path_of_doubt)
    write_labelmap(found.refined, path)
    give_back_memory()
    return set(shown_targets(found.refined.labels, context.targets))
