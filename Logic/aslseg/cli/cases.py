"""The command that lists and changes the cases of a project that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aslseg.cli.console import examples, messages, names_of, pairs_of, show_table, tell
from aslseg.cli.planned import show_plan
from aslseg.cli.progress import watched
from aslseg.cli.projects import PatientOption
from aslseg.project.patients import IN_WORDS
from aslseg.project.project import Project


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
    color: Annotated[
        list[str] | None, typer.Option(help="TARGET=#rrggbb: how it is shown. Repeatable.")
    ] = None,
) -> None:
    """List the cases of a project, and change them: rename, remove, add, give another role.

    Removing deletes nothing: the image stays where it is, the label map goes to labels/history. A
    case that a run or a decision knows keeps its name.
    """
    from aslseg.project.edit import rename_case, restyle_targets
    from aslseg.project.project import open_project
    from aslseg.project.roles import assign

    opened = open_project(project)
    if add is not None:
        opened = _added(opened, add, labels, dry_run=dry_run)
    for case_id, name in pairs_of(rename, "--rename").items():
        opened = rename_case(opened, case_id, name)
    if remove:
        opened = _removed(opened, names_of(remove) or [])
    named, parts = pairs_of(patient, "--patient"), pairs_of(role, "--role")
    if named or parts:
        opened = assign(opened, patients=named, splits=parts)
    if color:
        opened = restyle_targets(opened, colors=pairs_of(color, "--color"))
    _show(opened)


def _added(project: Project, source: Path, labels: Path | None, *, dry_run: bool) -> Project:
    from aslseg.project.plan import plan_additions, write_plan

    with watched(messages) as monitor:
        plan = plan_additions(project, source, labels, monitor=monitor)
    if dry_run:
        show_plan(plan)
        return project
    with watched(messages) as monitor:
        return write_plan(plan, monitor=monitor)


def _removed(project: Project, names: list[str]) -> Project:
    from aslseg.project.edit import remove_cases

    updated, removals = remove_cases(project, names)
    for removal in removals:
        kept = f"; its label map is kept as {removal.label}" if removal.label else ""
        tell(f"{removal.case_id} was removed: {removal.image} stays where it is{kept}.")
    return updated


def _show(project: Project) -> None:
    rows = [
        [
            case.id,
            "yes" if case.label else "no",
            IN_WORDS[case.split],
            case.patient,
            str(project.image_path(case)),
        ]
        for case in project.cases
    ]
    show_table(f"{len(rows)} cases", ["case", "label", "for", "patient", "image"], rows, words=5)


def register(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg cases my_project",
            "aslseg cases my_project --add more_ct --labels more_labels --dry-run",
            "aslseg cases my_project --rename ct_3=anna --remove ct_9 --role ct_4=test",
        )
    )(cases)
