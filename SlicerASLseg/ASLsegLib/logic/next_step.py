"""What a person does next, in words, from what is known of the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from slicer.i18n import tr as _

WANTED_LABELS = 2
_UNFINISHED = ("cancelled", "failed", "interrupted")


@dataclass(frozen=True)
class NextStep:
    """The next step.

    Attributes:
        text: For a person.
        section: The section of the panel that it is done in: `cases`, `train`, `review`, `results`.
    """

    text: str
    section: str


@dataclass(frozen=True)
class Situation:
    """What the next step depends on.

    Attributes:
        targets: Names of the project's targets, parents first; empty without a project.
        cases: Number of cases.
        labelled: Of the cases to learn from, those with a person's label of which a slice counts.
        unlabelled: Of the cases to learn from, those without.
        is_training: Whether a training is under way.
        run_state: Of the latest run; empty without one.
        has_round: Whether a run has a finished round.
        waiting: AI labels that nobody has decided about.
        incomplete: A person's labels to learn from of which no slice counts.
        decided: Cases that a person decided about since the last training.
        review_time: How long those that wait take at a person's pace, in words; empty if unknown.
    """

    targets: Sequence[str] = ()
    cases: int = 0
    labelled: int = 0
    unlabelled: int = 0
    is_training: bool = False
    run_state: str = ""
    has_round: bool = False
    waiting: int = 0
    incomplete: int = 0
    decided: int = 0
    review_time: str = ""


def next_step(now: Situation) -> NextStep:
    """Return what a person does next."""
    if not now.cases:
        return _first_cases(now)
    if now.is_training:
        return NextStep(_("The training goes on by itself; look at cases meanwhile."), "review")
    if now.run_state == "elsewhere":
        return NextStep(_("Another computer trains: Resume follows it again."), "train")
    if not now.has_round:
        return _first_training(now)
    if now.run_state in _UNFINISHED:
        return NextStep(_("The last training was stopped: Resume finishes it."), "train")
    if now.waiting:
        text = _("Review {count} AI labels: Next brings one after the other.")
        if now.review_time:
            text = _("Review {count} AI labels, {time} at your pace: Next brings one.")
        return NextStep(text.format(count=now.waiting, time=now.review_time), "review")
    if now.incomplete:
        text = _("Labels without a complete slice: {count}. Next brings one.")
        return NextStep(text.format(count=now.incomplete), "review")
    if now.decided:
        return NextStep(_("All is decided: Resume trains on with it, or export."), "train")
    return NextStep(_("Measure and export."), "results")


def is_later(time: str, trained: str) -> bool:
    """Tell whether a decision may be later than a training; both as ISO 8601, which may be bad."""
    try:
        return datetime.fromisoformat(time) > datetime.fromisoformat(trained)
    except (ValueError, TypeError):  # TypeError: one of both has no time zone
        return True


def _first_cases(now: Situation) -> NextStep:
    if not now.targets:
        text = _("Choose a folder and make a project, or try with made-up patients.")
        return NextStep(text, "cases")
    return NextStep(_("Add the volumes that you have."), "cases")


def _first_training(now: Situation) -> NextStep:
    missing = WANTED_LABELS - now.labelled
    wanted = _plural(now.targets[-1])
    if missing == WANTED_LABELS:
        text = _("Outline {what} of two volumes, then Train.")
        return NextStep(text.format(what=wanted), "cases")
    if missing > 0:
        text = _("Outline {what} of one more volume, then Train.")
        return NextStep(text.format(what=wanted), "cases")
    if now.run_state in _UNFINISHED:
        return NextStep(_("The training was stopped: Resume goes on from there."), "train")
    text = _("Train: {labelled} volumes are labelled, {unlabelled} get an AI label.")
    return NextStep(text.format(labelled=now.labelled, unlabelled=now.unlabelled), "train")


def _plural(target: str) -> str:
    return _("the {target}").format(target=target if target.endswith("s") else f"{target}s")
