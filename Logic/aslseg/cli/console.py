"""What all commands share: consoles, errors as sentences, tables, and how runs are found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from aslseg import run_names
from aslseg.errors import AslsegError, CancelledError
from aslseg.evaluation.scores import mean_dice
from aslseg.failures import failure_of
from aslseg.project.case import PROJECT_FILE
from aslseg.project.project import open_project
from aslseg.project.run_folder import RunFolder, latest_finished, open_run
from aslseg.project.run_tables import Score
from aslseg.report.data import RunRecord, kept_round, read_run, source_name
from aslseg.report.tables import mean_text
from aslseg.targets import LIVER_TARGETS, Target, lesion_targets

FAILURE, STOPPED = 1, 130


class SameSizeChoice(str, Enum):
    """What to go by when a label map has the size of its image and another position."""

    REFUSE = "refuse"
    VOXELS = "voxels"
    HEADER = "header"


ProjectFolder = Annotated[Path, typer.Argument(help="Project folder, as made by `aslseg init`.")]
RunName = Annotated[str | None, typer.Option("--run", help="Name of the run; default: the latest.")]
SameSizeOption = Annotated[
    SameSizeChoice,
    typer.Option(
        help="A label map of its image's size whose header differs: refuse it, take its voxels as "
        "those of the image, or go by its header."
    ),
]

output = Console()
messages = Console(stderr=True)


class FriendlyGroup(TyperGroup):
    """Commands whose errors are one sentence on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; `--debug` lets tracebacks through.

        What nobody foresaw is told in a sentence too; its traceback goes to the log.
        """
        try:
            return super().invoke(ctx)
        except (CancelledError, KeyboardInterrupt) as error:
            say(str(error) or "Stopped.", style="yellow")
            raise typer.Exit(STOPPED) from error
        except Exception as error:
            own = isinstance(error, (typer.Abort, BrokenPipeError)) or hasattr(error, "exit_code")
            if own or ctx.params.get("debug"):  # the command line's own words and ends
                raise
            say(f"Error: {_sentence(error, ctx.invoked_subcommand)}", style="red")
            raise typer.Exit(FAILURE) from error


def _sentence(error: Exception, command: str | None) -> str:
    if isinstance(error, AslsegError):
        return str(error)
    return failure_of(error, f"aslseg {command or ''}".strip()).in_words


def say(text: str, style: str = "") -> None:
    """Tell the user something beside the output; long paths are not broken."""
    messages.print(_shown(text), style=style, markup=False, highlight=False, soft_wrap=True)


def tell(text: str) -> None:
    """Write a line of output."""
    output.print(_shown(text), markup=False, highlight=False, soft_wrap=True)


def _shown(text: str) -> str:
    """Return a text without halves of characters, as names of files can hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def examples(*lines: str) -> str:
    """Make the end of a help page from lines of examples."""
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])


def show_table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1
) -> None:
    """Write a table as output; columns after the first `words` hold numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, name in enumerate(head):
        table.add_column(name, justify="left" if column < words else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    output.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    output.print(table)


def show_dice(run: RunRecord, targets: Sequence[Target]) -> None:
    """Write the mean Dice on validation volumes by round and source, and which round is kept."""
    mark = "" if run.has_sam else " - RUN WITHOUT SAM"
    lesions = [target.name for target in lesion_targets(targets) if target.name in run.targets]
    rows = [row for source in run.sources if (row := _dice_row(run, source, lesions))]
    if rows:
        _show_dice_rows(run, rows, lesions, f"Dice on validation volumes, mean and spread{mark}")
    else:
        tell(f"No validation volume has been scored{mark}.")
    if kept := kept_round(run):
        tell(kept)


def _show_dice_rows(
    run: RunRecord, rows: Sequence[list[str]], lesions: Sequence[str], title: str
) -> None:
    head = ["Round", "Source"]
    for name in run.targets:
        head += [name, "found", "false"] if name in lesions else [name]
    show_table(title, [*head, "Volumes"], rows, words=2)
    if lesions:
        names = " and ".join(lesions)
        tell(f"found: of the true parts of {names}; false: parts that are none, per volume.")


def _dice_row(run: RunRecord, source: tuple[int, str], lesions: Sequence[str]) -> list[str]:
    cells, cases = list[str](), 0
    for target in run.targets:
        scores = [
            score
            for score in run.scores
            if (score.round, score.source) == source
            and (score.target, score.split) == (target, "validation")
        ]
        mean = mean_dice(scores)
        cases = max(cases, mean.count)
        cells.append(mean_text(mean))
        if target in lesions:
            cells += _lesion_cells(scores)
    if not cases:
        return []
    name = source_name(source[1], has_sam=run.has_sam)
    return [str(source[0]), name, *cells, str(cases)]


def _lesion_cells(scores: Sequence[Score]) -> list[str]:
    """Return how many lesions are found, and how many are false in a volume."""
    if not scores:
        return ["", ""]
    found, true = sum(s.lesions_found for s in scores), sum(s.lesions_true for s in scores)
    return [f"{found} of {true}", f"{sum(s.false_positives for s in scores) / len(scores):.1f}"]


def find_run(path: Path, run_id: str | None = None) -> RunFolder:
    """Find a run: `path` is a run folder, or a project folder whose latest run is meant.

    That is the latest one with a finished round, where there is any; a later one is told.

    Raises:
        RunError: When there is none, or one that is looked at is damaged.
    """
    if run_id is None and (path / run_names.CONFIG).is_file():
        return RunFolder(path.resolve())
    project = path.parent if path.name == PROJECT_FILE else path
    run = open_run(project, run_id)
    if run_id is not None or run.best_round > 0:
        return run
    finished = latest_finished(project)
    if finished is None:
        return run
    say(
        f"Run '{run.run_id}' is later, and has no finished round yet: this is of run "
        f"'{finished.run_id}', the latest that has one.",
        style="yellow",
    )
    return finished


def parse_targets(texts: Sequence[str] | None) -> tuple[Target, ...]:
    """Read targets as typed: `NAME=VALUE`, or `NAME=VALUE:INSIDE`; liver and tumour by default.

    Raises:
        typer.BadParameter: When one is written differently, or cannot be.
    """
    if not texts:
        return LIVER_TARGETS
    return tuple(_parse_target(text) for text in texts)


def _parse_target(text: str) -> Target:
    name, _, rest = text.partition("=")
    value, _, inside = rest.partition(":")
    try:
        return Target(name=name.strip(), value=int(value), inside=inside.strip() or None)
    except ValueError as error:
        msg = f"'{text}' is no target; write NAME=VALUE or NAME=VALUE:INSIDE (tumour=2:liver)."
        raise typer.BadParameter(msg) from error


def names_of(texts: list[str] | None) -> list[str] | None:
    """Split what was given as `a,b` or in several options."""
    if texts is None:
        return None
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def pairs_of(texts: list[str] | None, option: str, written: str = "CASE=VALUE") -> dict[str, str]:
    """Read `CASE=VALUE`, or what else is written so; several may be given as `a=1,b=2`.

    Raises:
        typer.BadParameter: When one is not written so, or a name comes twice.
    """
    return whole_pairs_of(names_of(texts), option, written)


def whole_pairs_of(texts: Sequence[str] | None, option: str, written: str) -> dict[str, str]:
    """Read pairs whose values may have commas, as folders may; see `pairs_of`."""
    named: dict[str, str] = {}
    for text in texts or ():
        case_id, _, value = text.partition("=")
        if not (case_id and value) or case_id in named:
            once = written.partition("=")[0].lower()
            msg = f"{option} takes {written}, each {once} once, and not '{text}'."
            raise typer.BadParameter(msg)
        named[case_id] = value
    return named


def finish(folder: RunFolder) -> Path:
    """Write the report of a run and show its scores."""
    from aslseg.report.report import write_report

    report = write_report(folder.path)
    show_dice(read_run(folder.path), open_project(folder.path.parents[1]).targets)
    tell(f"Report: {report}")
    return report
