"""Rounds of self-training: predict all cases, select reliable labels, score, write.

A case's predictions are label maps, prompts and agreement in `round-NN/predictions/<case>`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from torch import nn

from aslseg import run_names, schema_1
from aslseg.context import RunContext
from aslseg.data.geometry import ijk_to_ras, ras_to_ijk
from aslseg.data.images import write_labelmap
from aslseg.data.orientation import axial_labelmap, to_axial
from aslseg.data.volume import Geometry, Labelmap, Volume, give_back_memory
from aslseg.distributed import mapped
from aslseg.errors import RunError
from aslseg.evaluation.scores import mean_dice, score_rows
from aslseg.inference.candidates import FEATURES
from aslseg.inference.cascade import Specialist
from aslseg.inference.ensemble import Ensemble, Segmentation
from aslseg.inference.lesion_stage import ClassifiedCandidates, candidate_map
from aslseg.inference.loading import load_round
from aslseg.project.candidate_table import CandidateRow, write_candidates
from aslseg.project.case import Case
from aslseg.project.predictions import read_predictions
from aslseg.project.run_tables import (
    DOUBTFUL,
    METRIC_COLUMNS,
    PREDICTIONS,
    REFINED,
    RELIABILITY_COLUMNS,
    SOURCES,
    read_reliability,
    write_table,
)
from aslseg.project.unlike_labelled import (
    organ_intensities,
    read_intensities,
    unlike_labelled,
    unlike_note,
    write_intensities,
)
from aslseg.project.windows import Intensities
from aslseg.reading import damage_told, read_object
from aslseg.storage import copy_atomic, write_json_atomic
from aslseg.training.pseudo_label import PseudoLabel, pseudo_label_paths
from aslseg.training.selection import (
    Decision,
    Reliability,
    doubtful_labels,
    reliability_of,
    select,
)

SEGMENTING, COMPARING = "Segmenting all cases", "Segmenting for comparison"
"""What the tasks are called in events, of a round's cases and of `Comparisons`."""

MOST_MEASURED = 16
"""Of so many labelled cases the organs are measured at most."""

Comparisons = Mapping[str, Callable[[Volume], Labelmap]]
"""Functions that segment a volume and are scored on held-out cases beside the method, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What a round starts from.

    Attributes:
        number: From 1.
        folder: Where it is written.
        first_folder: Folder of what it uses beside its specialist: its own, or that of the round
            in which all else was trained once.
        pseudo: What the round before accepted, by case id.
        start: The specialist's networks after the round before, by stage name.
        kept: Folder of the round before, whose stages without a parent this one uses as they are,
            and trains the others shortly; None where all stages are trained.
    """

    number: int
    folder: Path
    first_folder: Path
    pseudo: Mapping[str, PseudoLabel] = field(default_factory=dict)
    start: Mapping[str, nn.Module] = field(default_factory=dict)
    kept: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RoundOutcome:
    """The result of a round.

    Attributes:
        pseudo: Pseudo-labels that the next round may learn from.
        networks: The specialist's networks, by stage name.
        validation: Mean Dice of the refined label on validation cases; NaN without any.
    """

    pseudo: Mapping[str, PseudoLabel]
    networks: Mapping[str, nn.Module]
    validation: float


RunRound = Callable[[RunContext, Round], RoundOutcome]
"""Runs a round of a method."""


def finish_round(
    context: RunContext,
    this: Round,
    ensemble: Ensemble,
    earlier: Sequence[Specialist],
    comparisons: Comparisons | None = None,
) -> RoundOutcome:
    """Predict all cases, select the reliable labels, score the predictions, and write all of it.

    Args:
        context: Cases and settings.
        this: The round.
        ensemble: Its trained parts.
        earlier: The specialist at the snapshots of its schedule.
        comparisons: Further predictions to score.
    """
    for case in context.monitor.track(context.scored if comparisons else [], COMPARING):
        _compare(context, this, case, comparisons or {})
    cases = _segmented(context, this)
    _measure_labelled(context)
    mapped(_predict_case, cases, context.monitor, SEGMENTING, context, this, ensemble, earlier)
    reliability = _reliability_by_case(this, cases)
    decisions = _decide(context, this, reliability)
    if note := unlike_note({name: one.notes for name, one in reliability.items()}):
        context.monitor.warn(note)
    rows = [row for case in context.scored for row in _scores(context, this, case)]
    write_table(this.folder / run_names.METRICS, METRIC_COLUMNS, rows)
    _report(context, rows)
    pseudo = {
        decision.reliability.case_id: _copied_pseudo_label(this, decision)
        for decision in decisions
        if decision.accepted
    }
    validation = mean_dice(rows, source="refined", split="validation").value
    return RoundOutcome(pseudo, ensemble.specialist.networks, validation)


def restore_outcome(context: RunContext, number: int) -> RoundOutcome:
    """Return the outcome of a finished round, less cases labelled or rejected since then.

    Raises:
        RunError: When its table is absent or damaged.
        WeightsError: When its networks are missing or damaged.
    """
    folder = context.folder.round(number)
    table = folder / run_names.RELIABILITY
    if not table.exists():
        msg = f"{table} is absent; restore it, or delete {folder} and resume the run."
        raise RunError(msg)
    usable = {case.id for case in context.unlabelled if case.status != "rejected"}
    every = [target.name for target in context.targets]
    pseudo = {
        row.case: PseudoLabel.in_folder(folder, row.case, row.accepted_targets or every)
        for row in read_reliability(folder)
        if row.accepted and row.case in usable
    }
    networks = load_round(context, folder).specialist.networks
    validation = context.folder.validation_of(number)
    return RoundOutcome(pseudo, networks, float("nan") if validation is None else validation)


def _measure_labelled(context: RunContext) -> None:
    """Note what the organs of labelled cases look like, of which some stand for all."""
    cases, organs = context.labelled, list[Intensities]()
    for case in cases[:: math.ceil(len(cases) / MOST_MEASURED) or 1]:
        image, labels = context.project.load_image(case), context.labels_in_file(case)
        organs += organ_intensities(case.id, image, labels, context.targets)
    write_intensities(context.folder.path, organs)


def _segmented(context: RunContext, this: Round) -> list[Case]:
    """Return the cases that a round segments: of those without a label, what is asked for."""
    goes_on = this.number < context.config.rounds
    wanted = context.unlabelled if goes_on or context.config.label_unlabelled else []
    return [*wanted, *context.held_out]


def _folder(this: Round, case: Case) -> Path:
    return this.folder / run_names.PREDICTIONS / case.id


def _compare(context: RunContext, this: Round, case: Case, comparisons: Comparisons) -> None:
    for name, segment in comparisons.items():
        path = _folder(this, case) / f"{name}.nii.gz"
        if not path.exists():
            image = context.project.load_image(case)
            turn = to_axial(image.geometry)
            found = segment(turn.volume(image))
            write_labelmap(turn.inverse.labelmap(found, image.geometry), path)


def _predict_case(
    case: Case, context: RunContext, this: Round, ensemble: Ensemble, earlier: Sequence[Specialist]
) -> None:
    if read_case_reliability(_folder(this, case)) is None:
        _segment_case(case, context, this, ensemble, earlier)
        give_back_memory()


def _segment_case(
    case: Case, context: RunContext, this: Round, ensemble: Ensemble, earlier: Sequence[Specialist]
) -> None:
    volume = context.project.load_image(case)  # what is written lies on the voxels of the file
    segmentation = ensemble.segment(volume, context.monitor)
    before = []
    if case.split == "train":
        before = [specialist.segment(volume, context.monitor) for specialist in earlier]
    reliability = replace(
        reliability_of(case.id, segmentation, before, context.targets, volume.given),
        notes=unlike_labelled(
            volume,
            segmentation.refined,
            context.targets,
            read_intensities(context.folder.path),
        ),
    )
    if case.split == "train":
        reach = context.config.candidates.doubt
        doubtful = doubtful_labels(segmentation, before, context.targets, reach)
        write_labelmap(doubtful, _folder(this, case) / DOUBTFUL)
    save_predictions(_folder(this, case), segmentation, asdict(reliability))
    context.monitor.artifact("predictions", _folder(this, case), case.id)


def _reliability_by_case(this: Round, cases: Sequence[Case]) -> dict[str, Reliability]:
    """Return the reliability of the cases without a label of a person, by name."""
    found = {
        case.id: read_case_reliability(_folder(this, case)) for case in cases if case.label is None
    }
    return {name: one for name, one in found.items() if one is not None}


def _decide(
    context: RunContext, this: Round, reliability: Mapping[str, Reliability]
) -> list[Decision]:
    unlabelled = [reliability[case.id] for case in context.unlabelled if case.id in reliability]
    names = {target.name for target in context.targets}
    for one in unlabelled:
        if one.targets.keys() != names:
            folder = this.folder / run_names.PREDICTIONS / one.case_id
            msg = f"{folder} is about other targets than the project has; delete it and resume."
            raise RunError(msg)
    rejected = {case.id for case in context.unlabelled if case.status == "rejected"}
    settings, targets = context.config.reliability, context.targets
    decisions = select(unlabelled, settings, this.number, targets, rejected)
    write_table(
        this.folder / run_names.RELIABILITY,
        RELIABILITY_COLUMNS,
        [_reliability_row(this, decision) for decision in decisions],
    )
    return decisions


def _reliability_row(this: Round, decision: Decision) -> dict[str, Any]:
    reliability = decision.reliability
    return {
        "round": this.number,
        "case": reliability.case_id,
        "checkpoint_agreement": _rounded(reliability.checkpoint_agreement),
        "prediction_agreement": _rounded(reliability.prediction_agreement),
        "score": _rounded(reliability.score),
        "accepted": bool(decision.accepted),
        "reason": decision.reason,
        "accepted_targets": ";".join(decision.accepted),
        "notes": "; ".join(reliability.notes),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _copied_pseudo_label(this: Round, decision: Decision) -> PseudoLabel:
    """Copy the refined label of a case, and what is doubtful of it, to the pseudo-labels."""
    case_id = decision.reliability.case_id
    predictions = this.folder / run_names.PREDICTIONS / case_id
    paths = pseudo_label_paths(this.folder, case_id)
    for source, path in zip((REFINED, DOUBTFUL), paths, strict=True):
        if not (predictions / source).exists():
            msg = f"{predictions / source} was written but is gone; delete {predictions}."
            raise RunError(msg)
        copy_atomic(predictions / source, path)
    return PseudoLabel.in_folder(this.folder, case_id, decision.accepted)


def _scores(context: RunContext, this: Round, case: Case) -> list[dict[str, Any]]:
    truth, incomplete = context.labels(case), context.incomplete(case)
    rows: list[dict[str, Any]] = []
    predictions = read_predictions(_folder(this, case), context.project.geometry(case), SOURCES)
    for source, labels in predictions.items():
        facts = {"round": this.number, "source": source, "split": case.split, "case": case.id}
        predicted = axial_labelmap(labels)
        if incomplete is not None:
            predicted, truth = predicted.without(incomplete), truth.without(incomplete)
        rows += score_rows(predicted, truth, context.targets, facts)
    counted = context.project.scored_targets(case)
    return [row for row in rows if row["target"] in counted]


def _report(context: RunContext, rows: Sequence[Mapping[str, Any]]) -> None:
    for source in SOURCES:
        for target in context.targets:
            value = mean_dice(rows, source=source, target=target.name, split="validation").value
            if value == value:
                name = f"validation dice {target.name}"
                context.monitor.metric(name, value, context.monitor.round, source=source)


_RELIABILITY = TypeAdapter(Reliability)


def save_predictions(folder: Path, segmentation: Segmentation, facts: Mapping[str, Any]) -> None:
    """Write the predictions of a case; `prediction.json` comes last and marks the case as complete.

    Args:
        folder: `round-NN/predictions/<case>`; its name is the case's id.
        segmentation: The predictions.
        facts: Written into `prediction.json`.
    """
    for name in PREDICTIONS:
        labels = getattr(segmentation, name)
        if labels is not None:
            write_labelmap(labels, folder / f"{name}.nii.gz")
    prompts = [prompt.to_json() for prompt in segmentation.prompts]
    write_json_atomic(folder / run_names.PROMPTS, prompts)
    if segmentation.candidates:
        geometry = segmentation.specialist.geometry
        rows = candidate_rows(folder.name, segmentation.candidates, geometry)
        numbers = candidate_map(segmentation.candidates, to_axial(geometry).shape(geometry.shape))
        stored = to_axial(geometry).inverse.array(numbers)
        write_candidates(folder, rows, Labelmap(np.ascontiguousarray(stored), geometry), FEATURES)
    write_json_atomic(folder / run_names.PREDICTION, dict(facts))


def candidate_rows(
    case_id: str, classified: Mapping[str, ClassifiedCandidates], geometry: Geometry
) -> list[CandidateRow]:
    """Return the rows of a case's table of candidates, in the order of their numbers.

    Args:
        case_id: The case.
        classified: Its candidates by target.
        geometry: Of the image as it is stored.
    """
    axial = to_axial(geometry).geometry(geometry)
    rows: list[CandidateRow] = []
    for name, one in classified.items():
        centres_ras = ijk_to_ras(one.found.centres_kji[:, ::-1], axial)
        centres_ijk = ras_to_ijk(centres_ras, geometry)
        for n in range(len(one.found)):
            (i, j, k), (r, a, s) = centres_ijk[n].tolist(), centres_ras[n].tolist()
            row = CandidateRow(
                case=case_id,
                target=name,
                number=len(rows) + 1,
                centre_ijk=(i, j, k),
                centre_ras=(r, a, s),
                volume_ml=float(one.found.volume_ml[n]),
                probability=float(one.probability[n]),
                threshold=one.threshold,
                accepted=bool(one.accepted[n]),
                features=dict(zip(FEATURES, one.found.features[n].tolist(), strict=True)),
            )
            rows.append(row)
    return rows


def read_case_reliability(folder: Path) -> Reliability | None:
    """Return the reliability of a case that `save_predictions` completed, or None.

    None as well where an earlier version wrote it, which scored all targets as one.

    Raises:
        RunError: When the file is damaged.
    """
    path = schema_1.prediction_file(folder)
    if not path.exists():
        return None
    remedy = f"delete the folder {folder} and resume the run, which then makes it again"
    facts = schema_1.renamed(read_object(path, RunError, remedy), schema_1.PREDICTION)
    if "checkpoint_agreement" in facts and "targets" not in facts:
        return None
    with damage_told(path, RunError, remedy):
        return _RELIABILITY.validate_python(facts)
