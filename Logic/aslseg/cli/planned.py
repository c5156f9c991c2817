"""A planned project on the command line: what was found, what pairs, what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from aslseg.cli.console import FAILURE, messages, say, show_table, tell
from aslseg.cli.progress import watched
from aslseg.errors import refuse_unknown
from aslseg.targets import as_typed

if TYPE_CHECKING:
    from aslseg.project.case import CaseFiles
    from aslseg.project.plan import Plan


def left_out(cases: Sequence[CaseFiles], names: Sequence[str] | None) -> list[CaseFiles]:
    """Return the cases that are not named.

    Raises:
        ProjectError: When there is no case of a name.
    """
    refuse_unknown("case", names or (), {case.id for case in cases})
    return [case for case in cases if case.id not in (names or ())]


def tell_notes(notes: Sequence[str]) -> None:
    """Say what a person should know of a plan."""
    for note in notes:
        say(f"Note: {note}", style="yellow")


def show_plan(plan: Plan, *, compare: bool = False) -> None:
    """Write what would be made, and what is wrong with it.

    Args:
        plan: What would be made.
        compare: Whether to look for volumes that look like one patient, which reads all of them.

    Raises:
        typer.Exit: With an exit code of failure, when something is wrong.
    """
    from aslseg.project.patients import IN_WORDS
    from aslseg.project.plan import patients_of, plan_notes, plan_problems
    from aslseg.project.plan_bodies import look_alike

    patients = patients_of(plan)
    rows = [
        [
            case.id,
            case.image.name,
            "" if case.label is None else case.label.name,
            ", ".join(case.masks),
            IN_WORDS[case.split],
            patient,
        ]
        for case, patient in zip(plan.cases, patients, strict=True)
    ]
    rows += [["", "no volume", path.name, "", "", ""] for path in plan.unpaired]
    labelled = sum(case.label is not None for case in plan.cases)
    title = f"{len(plan.cases)} cases of {len(set(patients))} patients, {labelled} with a label map"
    head = ["case", "volume", "label map", "organ masks", "used to", "patient"]
    show_table(title, head, rows, words=6)
    targets = [as_typed(row.name or "?", row.value, row.inside) for row in plan.targets]
    tell(f"Targets: {', '.join(targets)}.")
    tell_notes(plan_notes(plan))
    if compare:
        with watched(messages) as monitor:
            alike = look_alike(plan, monitor)
        for sentence in alike or ["No two volumes that were compared look like one patient."]:
            tell(sentence)
    problems = list(dict.fromkeys(problem.message for problem in plan_problems(plan)))
    for message in problems:
        say(message, style="red")
    if problems:
        tell(f"{len(problems)} problems; nothing was written.")
        raise typer.Exit(FAILURE)
    tell("Nothing is wrong, and nothing was written; leave --dry-run out to make the project.")
