"""The command that lists the lesions of a case and decides about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aslseg.cli.console import examples, names_of, show_table, tell

if TYPE_CHECKING:
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.project.project import Project
    from aslseg.project.run_folder import RunFolder


def lesions(
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    case: Annotated[str, typer.Argument(help="Case that a run, or another model, has labelled.")],
    run: Annotated[
        str | None,
        typer.Option(
            help="Run or origin of the labels, default: the latest of the case; to decide "
            "RUN/ROUND, as it stands above the list."
        ),
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="Number of a lesion that is right. Repeatable, or 1,2.")
    ] = None,
    delete: Annotated[
        list[str] | None, typer.Option(help="Number of one that is none. Repeatable, or 1,2.")
    ] = None,
    undo: Annotated[
        list[str] | None, typer.Option(help="Number of one to be undecided again. Repeatable.")
    ] = None,
    done: Annotated[
        bool, typer.Option("--done", help="There are no more: the label becomes the case's.")
    ] = False,
) -> None:
    """List the lesions of a case, and accept or delete them by number.

    Another round numbers other lesions, and leaves others, so that `--run` has to say which round
    decisions are about. What is decided teaches the next training. Where `--done` is refused,
    nothing of what the command asks for is decided.
    """
    from aslseg.errors import RunError
    from aslseg.evaluation.lesions_by_number import decide_lesions, finish_lesions
    from aslseg.project.project import open_project
    from aslseg.project.run_folder import open_run

    opened = open_project(project)
    name, number = _list_of(run, needed=bool(accept or delete or undo or done))
    reviewed = open_run(opened.folder, name) if name else _latest_of(opened, case)
    if reviewed is None:
        msg = f"{project} has no labels to review; train, or take another model's (aslseg labels)."
        raise RunError(msg)
    shown = number or reviewed.best_round  # a run that goes on meanwhile may find another one
    decide = finish_lesions if done else decide_lesions
    rows = decide(
        opened,
        reviewed,
        case,
        accept=_numbers(accept, "--accept"),
        delete=_numbers(delete, "--delete"),
        undo=_numbers(undo, "--undo"),
        round_number=shown,
    )
    head = ["number", "target", "ml", "mm", "HU", "decision or doubt"]
    table = [_row(number, lesion) for number, lesion in rows.items()]
    title = f"{len(rows)} lesions of {case}; decide about them with --run {reviewed.run_id}/{shown}"
    show_table(title, head, table, words=2)
    if done:
        tell(f"The label of {case} is a person's now.")


def _latest_of(project: Project, case_id: str) -> RunFolder | None:
    """Return the latest run with a prediction of a case, else the latest; None without any."""
    from aslseg.project.latest_predictions import latest_predictions
    from aslseg.project.run_folder import finished_runs, latest_finished

    runs = finished_runs(project.folder, external=True)
    found = latest_predictions([project.case(case_id)], runs)
    return found.get(case_id) or latest_finished(project.folder, external=True)


def _list_of(run: str | None, *, needed: bool) -> tuple[str, int]:
    """Return the run and the round that are named; an empty name and 0 where they are not."""
    name, _, number = (run or "").partition("/")
    if (number or needed) and not (number.isascii() and number.isdigit() and int(number)):
        msg = "Say which list this is about: --run RUN/ROUND stands above it."
        raise typer.BadParameter(msg)
    return name, int(number or 0)


def _numbers(texts: list[str] | None, option: str) -> list[int]:
    names = names_of(texts) or []
    wrong = [text for text in names if not (text.isascii() and text.isdigit())]
    if wrong:
        msg = f"{option} takes numbers of the list, and not '{wrong[0]}'."
        raise typer.BadParameter(msg)
    return [int(text) for text in names]


def _row(number: int, lesion: ReviewedLesion) -> list[str]:
    doubt = "; ".join(lesion.reasons) or "undecided"
    return [
        str(number),
        lesion.target,
        f"{lesion.volume_ml:.2f}",
        f"{lesion.size.long_mm:.0f} x {lesion.size.short_mm:.0f}",
        f"{lesion.mean_hu:.0f}",
        lesion.state if lesion.state != "undecided" else f"? {doubt}",
    ]


def register(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg lesions my_project ct_7",
            "aslseg lesions my_project ct_7 --run aslseg-20261121-101500-0a1b/2 --accept 1,3 "
            "--delete 2 --done",
        )
    )(lesions)
