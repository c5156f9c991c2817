"""The commands that use and show what was trained: `segment`, `evaluate` and `status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aslseg.cli.console import (
    ProjectFolder,
    RunName,
    SameSizeChoice,
    SameSizeOption,
    examples,
    find_run,
    messages,
    parse_targets,
    say,
    show_dice,
    show_table,
    tell,
    whole_pairs_of,
)
from aslseg.cli.progress import duration, watched
from aslseg.errors import ImageError, RunError, as_typed_command
from aslseg.evaluation.scores import mean_of
from aslseg.imports import MONAI_EXTRAS, without_imports
from aslseg.project.case import nothing_counts
from aslseg.project.run_folder import RunFolder, runs_of
from aslseg.project.run_tables import write_table
from aslseg.report.data import read_run
from aslseg.report.tables import mean_text, number

if TYPE_CHECKING:
    from aslseg.events import Monitor
    from aslseg.inference.ensemble import Ensemble


def segment(
    run: Annotated[Path, typer.Argument(help="Run folder, or a project for its latest run.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, DICOM folders, and folders of both.")
    ],
    output_folder: Annotated[Path, typer.Option("--output", "-o", help="Where label maps go.")],
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Write those of specialist and SAM as well.")
    ] = False,
    organ: Annotated[
        list[str] | None,
        typer.Option(
            help="ORGAN=FILE or ORGAN=FOLDER: masks that are used instead of a predicted organ, "
            "such as liver=masks. Repeatable."
        ),
    ] = None,
    voices: Annotated[bool, typer.Option("--voices", hidden=True)] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that this command did not write.")
    ] = False,
) -> None:
    """Segment new volumes with the networks of a run.

    Each label map lies exactly on its image: OUTPUT/<image name>.nii.gz. cases.csv and lesions.csv
    say what they measure. The same command goes on where it was stopped: a volume that this run has
    segmented is not segmented again. One that cannot be is told, and the others are segmented.

    Masks of an organ that you have already (--organ) belong to the images by their names, as for
    `aslseg init --masks`; where an image has none, the organ is predicted if the run has learnt it.
    """
    from aslseg.batch import FolderOptions, segment_folder

    given = whole_pairs_of(organ, "--organ", "ORGAN=FOLDER")
    options = FolderOptions(
        predictions=predictions or voices,
        replace=force,
        organs={name: Path(source) for name, source in given.items()},
    )
    with watched(messages) as monitor:
        done = segment_folder(
            find_run(run), images, output_folder, options, monitor=monitor, load=_load_networks
        )
    for name in done.done:
        tell(str(output_folder / f"{name}.nii.gz"))
    if done.skipped:
        say(f"{len(done.skipped)} volumes were done already.")
    if done.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in done.failed.items())
        msg = f"{len(done.failed)} volumes could not be segmented ({reasons})"
        raise ImageError(msg)


def _load_networks(run: RunFolder, monitor: Monitor, device: str | None) -> Ensemble:
    """Load the networks of a run for a process that does nothing else."""
    with without_imports(*MONAI_EXTRAS):
        from aslseg.inference.loading import load_ensemble
    from aslseg.networks.device import tune_allocator

    tune_allocator()
    return load_ensemble(run, monitor, device)


def status(
    project: ProjectFolder,
    run: RunName = None,
    report: Annotated[bool, typer.Option("--report", help="Write report.html anew.")] = False,
) -> None:
    """Show a project's cases, its runs, and how far and how good the latest run is."""
    from aslseg.project.project import open_project

    opened = open_project(project)
    tell(
        f"{project}: {len(opened.counted)} labelled, {len(opened.unlabelled)} unlabelled, "
        f"{len(opened.validation)} validation, {len(opened.test)} test volumes"
    )
    if note := nothing_counts(opened.cases):
        tell(note)
    for problem in opened.problems():
        say(f"Problem: {problem}", style="yellow")
    runs = runs_of(opened.folder)
    if not runs:
        tell(f"No runs yet. Start one: {as_typed_command('aslseg', 'train', project)}")
        return
    _show_runs(runs)
    folder = find_run(project, run)
    show_dice(read_run(folder.path), opened.targets)
    if report:
        from aslseg.report.report import write_report

        tell(f"Report: {write_report(folder.path)}")


def _show_runs(runs: list[RunFolder]) -> None:
    head = ["Run", "State", "Round", "Task", "Step", "Left"]
    show_table("Runs", head, [_run_row(run) for run in runs], words=4)


def _run_row(run: RunFolder) -> list[str]:
    try:
        status, state = run.status, state_of(run)
    except RunError:
        return [run.run_id, "damaged status.json", "", "", "", ""]
    left = status.seconds_left if state == "running" else None
    return [
        run.run_id,
        state,
        f"{status.round} of {status.rounds or '?'}",
        status.task,
        f"{status.step} of {status.of}",
        duration(left) if left else "",
    ]


def state_of(run: RunFolder) -> str:
    """Say how a run stands, and what goes on with one that nobody here works on."""
    state = run.state
    ways = {"interrupted": "train --resume", "elsewhere": "follow"}
    return f"{state}: {ways[state]}" if state in ways else state


def evaluate(
    predicted: Annotated[Path, typer.Argument(help="Folder of label maps to score.")],
    truth: Annotated[Path, typer.Argument(help="Folder of true label maps of the same names.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE or NAME=VALUE:INSIDE; default: liver and tumour."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all scores to this file.")] = None,
    same_size: SameSizeOption = SameSizeChoice.REFUSE,
) -> None:
    """Compare label maps with the truth: Dice, Jaccard, distances in mm, lesions.

    Empty masks: two of them score Dice 1 and distance 0, one of them Dice 0 and no distance. A
    target includes what lies inside of it: the liver is scored with its tumours.
    """
    from aslseg.evaluation.scores import evaluate_folder

    targets = parse_targets(target)
    if csv is not None and csv.suffix.lower() != ".csv":
        msg = f"Scores are written to a file whose name ends with .csv, not to {csv}; name one."
        raise typer.BadParameter(msg)
    with watched(messages) as monitor:
        rows = evaluate_folder(predicted, truth, targets, monitor, same_size=same_size.value)
    if csv is not None:
        write_table(csv, list(rows[0]), rows)
    _show_scores(rows)
    if csv is not None:
        tell(f"Scores: {csv}")


def _show_scores(rows: list[dict[str, Any]]) -> None:
    head = ["Case", "Target", "Dice", "Jaccard", "HD95 mm", "ASSD mm", "Lesions found", "False"]
    lines = [_score_line(row) for row in rows]
    for name in dict.fromkeys(row["target"] for row in rows):
        mean = mean_of(row["dice"] for row in rows if row["target"] == name)
        lines.append(["mean", name, mean_text(mean)])
    show_table("Scores", head, lines, words=2)


def _score_line(row: dict[str, Any]) -> list[str]:
    digits = {"dice": 3, "jaccard": 3, "hd95_mm": 1, "assd_mm": 2}
    numbers = [number(row[name], places) for name, places in digits.items()]
    lesions = f"{row['lesions_found']} of {row['lesions_true']}"
    return [row["case"], row["target"], *numbers, lesions, str(row["false_positives"])]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg segment my_project new_ct.nii.gz -o labels",
            "aslseg segment my_project folder_of_cts -o labels",
            "aslseg segment my_project/runs/first scans/*.nrrd -o labels --predictions",
        )
    )(segment)
    app.command(
        epilog=examples(
            "aslseg evaluate labels truth",
            "aslseg evaluate labels truth --target kidney=1 --csv scores.csv",
        )
    )(evaluate)
    app.command(epilog=examples("aslseg status my_project", "aslseg status my_project --report"))(
        status
    )
