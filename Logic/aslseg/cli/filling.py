"""The command that fills an organ between slices that a person drew."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aslseg.cli.console import (
    ProjectFolder,
    SameSizeChoice,
    SameSizeOption,
    examples,
    messages,
    say,
    tell,
)
from aslseg.cli.hosts import HostOption, on_host
from aslseg.cli.progress import watched
from aslseg.data.images import ONE_FILE_SUFFIXES, suffix_of
from aslseg.data.slice_numbers import read_slices
from aslseg.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from aslseg.engine.protocol import Done
    from aslseg.project.case import Case
    from aslseg.project.project import Project


def fill(  # noqa: PLR0913 - one for each option of the command
    project: ProjectFolder,
    case: Annotated[str, typer.Argument(help="Case whose organ is filled.")],
    labels: Annotated[Path, typer.Option(help="Label map with the slices that you drew.")],
    slices: Annotated[
        str, typer.Option(help="These axial slices, as the image numbers them: 12,20,28 or 12-14.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the filled label map goes.")
    ],
    target: Annotated[
        str | None, typer.Option("--target", help="A lesion's target: it is filled, no organ.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Name of the run; default: the latest, if any.")
    ] = None,
    same_size: SameSizeOption = SameSizeChoice.REFUSE,
    host: HostOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Fill an organ, or a large lesion, between slices that you drew, about 15 mm apart.

    A network of the run learns from these slices for half a minute, and draws those between them;
    before any training a new one does, which takes a minute. The slices that you drew, those before
    the first and after the last one, and lesions stay as they are in the label map. With --target
    the one lesion is filled that the label map shows of that target. The label of the case in the
    project is left as it is.
    """
    from aslseg.data.images import read_labelmap, write_labelmap
    from aslseg.engine.facts import FillFacts
    from aslseg.project.labels import load_labels
    from aslseg.project.project import open_project

    if target is not None and run is not None:
        msg = "With --target a new network learns the lesion, and no run's; leave --run out."
        raise typer.BadParameter(msg)
    opened = open_project(project)
    known, drawn = opened.case(case), _drawn_slices(slices)
    _require_free(output, opened, labels, force=force)
    geometry = opened.geometry(known)
    shown = load_labels(labels, geometry, opened.targets, same_size=same_size.value)
    with TemporaryDirectory(prefix="aslseg-") as folder:
        path = Path(folder) / "drawn.nii.gz"
        write_labelmap(shown, path)
        files = {"labels": str(path), "output": folder}
        asked = {**files, "run": run, "slices": drawn, "target": target}
        done = _asked({**_about(opened, known, target), **asked}, host)
        write_labelmap(read_labelmap(Path(done.files["filled"])), output)
    if target is None and done.facts_as(FillFacts).run is None:
        say("No finished run has a network that could: a new one has learnt your slices.")
    tell(str(output))


def _drawn_slices(text: str) -> list[int]:
    """Read which slices were drawn.

    Raises:
        typer.BadParameter: When they are written differently, or are less than two.
    """
    try:
        found = [] if text in ("all", "none") else read_slices(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    if len({*found}) < 2:
        msg = f"'{text}' are not two slices or more; name those that you drew: --slices 12,20,28."
        raise typer.BadParameter(msg)
    return found


def _about(project: Project, case: Case, target: str | None) -> dict[str, Any]:
    """Return what the engine has to know of a case; no organ is of use where a lesion is filled."""
    masks = {} if target else case.masks
    return {
        "project": str(project.folder),
        "image": str(project.image_path(case)),
        "organs": {name: str(project.folder / mask) for name, mask in masks.items()},
    }


def _asked(request: dict[str, Any], host: str | None) -> Done:
    if host is not None:
        return on_host(host, "fill_between", request)
    from aslseg.engine.tasks import Engine

    with watched(messages) as monitor:
        return Engine().tasks["fill_between"](request, monitor)


def _require_free(output: Path, project: Project, drawn: Path, *, force: bool) -> None:
    """Make sure that a label map can be written to a file.

    Args:
        output: The file.
        project: Whose own files, and images, are never replaced.
        drawn: What a person drew, which is not replaced either.
        force: Whether another file may be replaced.

    Raises:
        StorageError: When it is there and must not be replaced.
        typer.BadParameter: When its name is no image's.
    """
    from aslseg.export.staging import require_not_own

    if suffix_of(output) not in ONE_FILE_SUFFIXES:
        msg = f"{output} is no name of a label map; end it in {', '.join(ONE_FILE_SUFFIXES)}."
        raise typer.BadParameter(msg)
    require_not_own(project, output.parent, [output.name])
    if output.resolve() == drawn.resolve():
        msg = f"{output} is what you drew and is never replaced; choose another name."
        raise StorageError(msg)
    if output.exists() and not force:
        msg = f"{output} is there already; choose another name, or replace it with --force."
        raise StorageError(msg)


def register(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg fill my_project ct_7 --labels drawn.nii.gz --slices 12,20,28 -o filled.nii.gz",
            "aslseg fill my_project ct_7 --labels one.nii.gz --slices 14,18,22,26,30 "
            "--target tumour -o filled.nii.gz",
        )
    )(fill)
