"""The commands that change the cases of a project that is there, and take labels for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aslseg.cli.console import (
    SameSizeChoice,
    SameSizeOption,
    examples,
    messages,
    names_of,
    pairs_of,
    show_table,
    tell,
    whole_pairs_of,
)
from aslseg.cli.planned import show_plan, tell_notes
from aslseg.cli.progress import watched
from aslseg.cli.projects import ColorOption, PatientOption, TerminologyOption, styles_of
from aslseg.data.slice_numbers import read_slices
from aslseg.errors import ConfigError, as_typed_command
from aslseg.project.case import Case, nothing_counts
from aslseg.project.patients import IN_WORDS
from aslseg.project.project import Project

if TYPE_CHECKING:
    from aslseg.project.case_changes import CaseChanges
    from aslseg.project.edit import Removal


def cases(  # noqa: PLR0913 - one for each option of the command
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    add: Annotated[
        Path | None,
        typer.Option(help="Folder of images, dataset.json or nnU-Net raw folder to add."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="With --add: folder of label maps, where it is another.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --add: show what was found; write nothing.")
    ] = False,
    rename: Annotated[
        list[str] | None, typer.Option(help="CASE=NAME. Before the first training. Repeatable.")
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(help="Case to take out of the project; its files are kept. Repeatable."),
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="CASE=train, validation or test: what a case is for. Repeatable."),
    ] = None,
    patient: PatientOption = None,
    color: ColorOption = None,
    terminology: TerminologyOption = None,
    complete: Annotated[
        list[str] | None,
        typer.Option(
            help="CASE=SLICES, such as ct_3=4,8,12-15, or CASE=all or none: axial slices of a "
            "label map in which everything is labelled; only these are learnt from and scored. "
            "Repeatable."
        ),
    ] = None,
) -> None:
    """List the cases of a project, and change them: rename, remove, add, give another role.

    Removing deletes nothing: the image stays where it is, the label map goes to labels/history. A
    case that a run or a decision knows keeps its name. Of several changes all are made, or none.
    """
    from aslseg.project.case_changes import CaseChanges, change_cases
    from aslseg.project.project import open_project

    if labels is not None and add is None:
        msg = "--labels are those of the images that --add names; give that too"
        raise typer.BadParameter(msg)
    opened = open_project(project)
    marked = whole_pairs_of(complete, "--complete", "CASE=SLICES")
    colors, terminologies = styles_of(color, terminology)
    changes = CaseChanges(
        names=pairs_of(rename, "--rename"),
        removed=tuple(names_of(remove) or ()),
        patients=pairs_of(patient, "--patient"),
        splits=pairs_of(role, "--role"),
        complete_slices={case_id: _slices(text) for case_id, text in marked.items()},
        colors=colors,
        terminologies=terminologies,
    )
    if dry_run:
        _refuse_unshown(add, changes)
    if add is not None:
        opened = _added(opened, add, labels, None if dry_run else changes.check)
    if changes != CaseChanges():
        opened, removals = change_cases(opened, changes)
        _tell_removals(removals)
    _show(opened)


def _refuse_unshown(add: Path | None, changes: CaseChanges) -> None:
    """Refuse a trial of what is not only shown."""
    from aslseg.project.case_changes import CaseChanges

    if add is None or changes != CaseChanges():
        msg = "--dry-run shows what --add would add; give that, and no other change"
        raise typer.BadParameter(msg)


def _slices(text: str) -> list[int] | None:
    """Read numbers and ranges of slices; None for `all`, and no slice for `none`.

    Raises:
        typer.BadParameter: When it is written differently.
    """
    if text in ("all", "none"):
        return None if text == "all" else []
    try:
        return read_slices(text)
    except ConfigError as error:
        msg = f"{error} Or write all or none."
        raise typer.BadParameter(msg) from error


def _added(
    project: Project,
    source: Path,
    labels: Path | None,
    check: Callable[[Project], object] | None,
) -> Project:
    """Add cases, if the project with them passes the check; without one they are only shown."""
    from aslseg.project.create import add_cases
    from aslseg.project.plan import left_out_notes, plan_additions, refuse_problems

    with watched(messages) as monitor:
        plan = plan_additions(project, source, labels, monitor=monitor)
    if check is None:
        show_plan(plan)
        return project
    tell_notes(left_out_notes(plan))
    refuse_problems(plan)
    with watched(messages) as monitor:
        return add_cases(project, plan.cases, monitor, check=check)


def _tell_removals(removals: Sequence[Removal]) -> None:
    for removal in removals:
        kept = f"; its label map is kept as {removal.label}" if removal.label else ""
        tell(f"{removal.case_id} was removed: {removal.image} stays where it is{kept}.")


def labels(
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of label maps, named as the images are, or of a folder for each case with "
            "a mask of each target, as TotalSegmentator writes them."
        ),
    ],
    origin: Annotated[str, typer.Option(help="Name of what made them, such as TotalSegmentator.")],
    called: Annotated[
        list[str] | None,
        typer.Option(
            help="TARGET=NAME: what it is called there, a segment, a mask's file or a value, such "
            "as tumour=liver_lesions; only these are taken then. Repeatable."
        ),
    ] = None,
    same_size: SameSizeOption = SameSizeChoice.REFUSE,
) -> None:
    """Take labels of another model for cases without a label, to be reviewed like predictions.

    They are nobody's labels until a person has accepted them, case by case or lesion by lesion.
    They can be learnt from before: aslseg train --set start_labels=NAME.
    """
    from aslseg.project.external_labels import add_external_labels, read_external
    from aslseg.project.project import open_project

    names = pairs_of(called, "--called", "TARGET=NAME")
    with watched(messages) as monitor:
        run = add_external_labels(
            open_project(project),
            origin,
            folder,
            called=names,
            same_size=same_size.value,
            monitor=monitor,
        )
    found = read_external(run).cases
    rows = [[name, ", ".join(case.targets), case.file] for name, case in found.items()]
    show_table(f"{len(rows)} labels of {origin}", ["case", "decides", "file"], rows, words=3)
    learn = as_typed_command("aslseg", "train", project, "--set", f"start_labels={origin}")
    tell(f"Review them in Slicer, or train with them: {learn}")


def _show(project: Project) -> None:
    rows = [
        [
            case.id,
            _label(case),
            IN_WORDS[case.split],
            case.patient,
            str(project.image_path(case)),
        ]
        for case in project.cases
    ]
    show_table(
        f"{len(rows)} cases", ["case", "label", "used to", "patient", "image"], rows, words=5
    )
    if note := nothing_counts(project.cases):
        tell(note)


def _label(case: Case) -> str:
    """Say whether a case has a label map, and of how many slices where some alone count."""
    if case.label is None or case.complete_slices is None:
        return "yes" if case.label else "no"
    return f"{len(case.complete_slices)} slice{'s' if len(case.complete_slices) != 1 else ''}"


def register(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg cases my_project",
            "aslseg cases my_project --add more_ct --labels more_labels --dry-run",
            "aslseg cases my_project --rename ct_3=anna --remove ct_9 --role ct_4=test",
            "aslseg cases my_project --complete ct_3=4,8,12-15",
        )
    )(cases)
    app.command(
        epilog=examples(
            "aslseg labels my_project totalsegmentator_out --origin TotalSegmentator",
            "aslseg labels my_project nnunet_out --origin nnU-Net --called tumour=2",
        )
    )(labels)
