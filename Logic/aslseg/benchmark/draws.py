"""Draws: which cases are scored, which are for training, and in which order they are labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from aslseg.benchmark.data import BenchmarkData
from aslseg.config import Settings
from aslseg.errors import ProjectError, first_finding, refuse_unknown
from aslseg.project.case import CaseFiles
from aslseg.reading import read_object
from aslseg.targets import LIVER_TARGETS, Target

Names = tuple[str, ...]
ONE_DRAW = "given"
"""Name of the draw that `--order` makes."""


class DrawsFile(Settings):
    """A file of draws.

    Attributes:
        about: Where the draws come from, for a person.
        patients: Cases of each patient that has several, by any name of the patient.
        test: Cases that are scored.
        training: Cases for training, in the order in which unlabelled ones are taken.
        draws: By name, training cases in the order in which they are labelled.
    """

    about: str = ""
    patients: dict[str, Names] = Field(default_factory=dict)
    test: Annotated[Names, Field(min_length=1)]
    training: Annotated[Names, Field(min_length=1)]
    draws: Annotated[dict[str, Names], Field(min_length=1)]


def read_draws(path: Path) -> DrawsFile:
    """Read a file of draws.

    Raises:
        ProjectError: When it is missing or damaged.
    """
    remedy = "give a file as Docs/results/draws-lits.json"
    values = read_object(path, ProjectError, remedy)
    try:
        return DrawsFile.model_validate(values)
    except ValidationError as error:
        where, what = first_finding(error)
        msg = f"{path}: '{where or 'the whole'}' cannot be used ({what}); {remedy}."
        raise ProjectError(msg) from error


def drawn_data(
    cases: Sequence[CaseFiles],
    file: DrawsFile,
    targets: Sequence[Target] = LIVER_TARGETS,
    chosen: Sequence[str] = (),
) -> BenchmarkData:
    """Give cases the parts that a file of draws has for them; those that it lacks are left out.

    Args:
        cases: Images with their label maps.
        file: The draws.
        targets: Classes of the label maps.
        chosen: Names of the draws to use; all for none.

    Raises:
        ProjectError: When a name is unknown or has two parts to play, a label map is missing, or a
            patient is tested on and trained on.
        ImageError: When a label map is an AI's that nobody has looked at.
    """
    refuse_unknown("draw", chosen, file.draws)
    _check_orders(file)
    patients = {case: who for who, theirs in file.patients.items() for case in theirs}
    known = {case.id: case for case in cases}
    missing = [name for name in (*file.test, *file.training) if name not in known]
    if missing:
        msg = f"The draws name '{missing[0]}', and there is no such case; give its image too."
        raise ProjectError(msg)
    used = [known[name] for name in (*file.training, *file.test)]
    named = [replace(case, patient=patients.get(case.id, case.patient)) for case in used]
    draws = {name: file.draws[name] for name in chosen or file.draws}
    return BenchmarkData.checked(named, file.test, draws, targets)


def _check_orders(file: DrawsFile) -> None:
    for name, order in file.draws.items():
        stray = [case for case in order if case not in file.training]
        if stray or len(set(order)) < len(order):
            what = f"labels '{stray[0]}', which is not for training" if stray else "repeats a case"
            msg = f"Draw '{name}' {what}; correct the file of draws."
            raise ProjectError(msg)


def one_draw(
    cases: Sequence[CaseFiles],
    held_out: Sequence[str],
    order: Sequence[str] = (),
    targets: Sequence[Target] = LIVER_TARGETS,
) -> BenchmarkData:
    """Make the only draw of cases.

    Args:
        cases: Images with the label maps that there are.
        held_out: Names of the cases to score; all others are for training.
        order: Training cases in the order in which they are labelled; those that are not named
            follow in the order of `cases`.
        targets: Classes of the label maps.

    Raises:
        ProjectError: As `drawn_data`, and when nothing is held out.
        ImageError: As `drawn_data`.
    """
    if not held_out:
        msg = "No case is held out; name those that the methods are scored on."
        raise ProjectError(msg)
    twice = [name for name in order if name in held_out]
    if twice:
        msg = f"Case '{twice[0]}' is named twice: it cannot be scored and labelled."
        raise ProjectError(msg)
    known = [case.id for case in cases if case.label is not None and case.id not in held_out]
    draw: Mapping[str, Names] = {ONE_DRAW: (*order, *(name for name in known if name not in order))}
    return BenchmarkData.checked(cases, held_out, draw, targets)
