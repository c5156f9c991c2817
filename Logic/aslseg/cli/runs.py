"""The commands that work with runs: `train`, `segment`, `evaluate` and `status`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aslseg.cli.console import (
    SameSizeChoice,
    SameSizeOption,
    examples,
    find_run,
    finish,
    left_out,
    messages,
    pairs_of,
    parse_targets,
    say,
    show_dice,
    show_table,
    tell,
)
from aslseg.cli.hosts import HostOption, on_host, work_on_run
from aslseg.cli.progress import duration, watched
from aslseg.config import RunConfig, read_config
from aslseg.errors import CancelledError, ImageError, RunError
from aslseg.evaluation.scores import mean_of
from aslseg.overrides import is_in_group, with_overrides
from aslseg.project.case import nothing_counts
from aslseg.project.run_folder import RunFolder, runs_of
from aslseg.project.run_tables import write_table
from aslseg.reading import parse_json
from aslseg.report.data import read_run
from aslseg.report.tables import mean_text, number

if TYPE_CHECKING:
    from aslseg.events import Monitor
    from aslseg.inference.ensemble import Ensemble
    from aslseg.project.project import Project


ProjectFolder = Annotated[Path, typer.Argument(help="Project folder, as made by `aslseg init`.")]


MONAI_EXTRAS = ("matplotlib", "matplotlib.pyplot", "scipy.signal", "scipy.stats")
"""What `import monai` loads for functions that segmenting does not need, in half of its time."""


RunName = Annotated[str | None, typer.Option("--run", help="Name of the run; default: the latest.")]
PresetName = Annotated[str | None, typer.Option(help="Named settings: quick, standard, demo.")]
SettingsFile = Annotated[Path | None, typer.Option(help="Settings as a JSON file.")]
SingleSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, such as rounds=3 or sam.model=none; repeatable."),
]


def train(  # noqa: PLR0913 - one for each option of the command
    project: ProjectFolder,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    more: Annotated[
        int | None,
        typer.Option(min=1, metavar="ROUNDS", help="Add rounds to a run, with the labels of now."),
    ] = None,
    run: RunName = None,
    preset: PresetName = None,
    config: SettingsFile = None,
    settings: SingleSettings = None,
    host: HostOption = None,
) -> None:
    """Run a method's rounds: train, make AI labels, select, repeat; then write the report.

    The setting `method` chooses aslseg, semisam, scsam, cpcsam or specialist (a baseline).

    Several graphics cards or machines: torchrun --nproc-per-node 8 -m aslseg train PROJECT.

    Ctrl-C stops at the next safe place. `--resume` goes on from there and gives the result that the
    undisturbed run would have given. `--more 1` adds a round to a finished run, which is trained
    on the labels that you corrected or accepted since then too.

    With `--host` another computer does it. Ctrl-C leaves it to go on there: `aslseg follow` shows
    it again and fetches what it has made, `aslseg stop` stops it.
    """
    from aslseg.project.project import open_project

    _check_options(preset or config or settings, more, resume=resume)
    opened = open_project(project)
    chosen = None
    if not resume and more is None:
        chosen = _settings_of(opened, preset, config, settings)
    if host is not None:
        work_on_run(host, *_train_request(project, chosen, run, more), project)
        return
    try:
        with watched(messages) as monitor:
            folder = _trained(opened, chosen, run, more, monitor)
    except CancelledError as error:
        msg = f"{error} Go on with: aslseg train {project} --resume"
        raise CancelledError(msg) from error
    if int(os.environ.get("RANK", "0")) == 0:  # of processes that torchrun started, the first
        finish(folder)


def _train_request(
    project: Path, config: RunConfig | None, run: str | None, more: int | None
) -> tuple[str, dict[str, Any]]:
    """Return what a host is asked for, as `_trained` does it here."""
    about = {"project": str(project), "run": run}
    if config is None:
        return "resume", {**about, "rounds": more}
    return "train", {**about, "settings": config.model_dump(mode="json")}


def estimate(
    project: ProjectFolder,
    preset: PresetName = None,
    config: SettingsFile = None,
    settings: SingleSettings = None,
    host: HostOption = None,
) -> None:
    """Say how long `train` would take here or on a host, from a few steps that are tried."""
    from aslseg.project.project import open_project
    from aslseg.runs import estimate_run

    opened = open_project(project)
    chosen = _settings_of(opened, preset, config, settings)
    if host is not None:
        from aslseg.engine.facts import EstimateFacts

        asked = {"project": str(project), "settings": chosen.model_dump(mode="json")}
        facts = on_host(host, "estimate", asked).facts_as(EstimateFacts)
        _tell_estimate(facts.seconds, facts.rounds, facts.steps)
        return
    with watched(messages) as monitor:
        found = estimate_run(opened, chosen, monitor)
    _tell_estimate(found.seconds, found.rounds, found.steps)


def _tell_estimate(seconds: float, rounds: int, steps: int) -> None:
    from aslseg.steps import rough_time

    time = rough_time(seconds)
    tell(f"{time[0].upper()}{time[1:]}: {rounds} rounds, {steps} steps.")


def finetune(
    project: ProjectFolder,
    run: RunName = None,
    share: Annotated[
        float | None,
        typer.Option(min=0.001, max=1.0, help="Part of their schedule that is trained."),
    ] = None,
    host: HostOption = None,
) -> None:
    """Let a finished run learn from the lesions that you decided about since, in a short round.

    Only the stages of lesions go on training; `train --more 1` trains everything.
    """
    from aslseg.project.project import open_project
    from aslseg.runs import train_on

    if host is not None:
        asked = {"project": str(project), "run": run, "share": share}
        work_on_run(host, "train_on", asked, project)
        return
    with watched(messages) as monitor:
        folder = train_on(open_project(project), run, monitor, share=share)
    finish(folder)


def _check_options(settings: object, more: int | None, *, resume: bool) -> None:
    if resume and more is not None:
        msg = "--resume finishes a stopped run and --more adds rounds to a finished one; give one."
        raise typer.BadParameter(msg)
    if settings and (resume or more is not None):
        msg = "A run keeps the settings that it was started with; leave --preset, --config and "
        raise typer.BadParameter(msg + "--set out, or start a new run.")


def _trained(
    project: Project, config: RunConfig | None, run: str | None, more: int | None, monitor: Monitor
) -> RunFolder:
    from aslseg.project.project import open_project
    from aslseg.runs import continue_run, resume_run, start_run

    project = open_project(project.folder)  # the imports took seconds, in which it may have changed
    if more is not None:
        return continue_run(project, run, more, monitor)
    if config is None:
        return resume_run(project, run, monitor)
    return start_run(project, config, monitor, run_id=run)


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

    given = pairs_of(organ, "--organ", "ORGAN=FOLDER")
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
    with left_out(*MONAI_EXTRAS):
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
        tell(f"No runs yet. Start one: aslseg train {project}")
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
        facts = run.status
    except RunError:
        return [run.run_id, "damaged status.json", "", "", "", ""]
    left = facts.get("seconds_left")
    return [
        run.run_id,
        state_of(run),
        f"{facts.get('round', 0)} of {facts.get('rounds', '?')}",
        str(facts.get("task", "")),
        f"{facts.get('step', 0)} of {facts.get('of', 0)}",
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
            "aslseg train my_project",
            "aslseg train my_project --preset demo --set seed=1",
            "aslseg train my_project --set method=semisam",
            "aslseg train my_project --set sam.model=none",
            "aslseg train my_project --resume",
            "aslseg train my_project --more 1",
            "aslseg train my_project --host gpu1",
        )
    )(train)
    app.command(epilog=examples("aslseg finetune my_project"))(finetune)
    app.command(
        epilog=examples(
            "aslseg estimate my_project", "aslseg estimate my_project --preset standard"
        )
    )(estimate)
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


def _settings_of(
    project: Project, preset: str | None, file: Path | None, settings: list[str] | None
) -> RunConfig:
    """Return the settings of a new run of a project."""
    from aslseg.presets import DEFAULT_PRESET

    base = base_config(preset, file, default=project.preset or DEFAULT_PRESET)
    return changed(base, settings or [])


def base_config(preset: str | None, file: Path | None, *, default: str) -> RunConfig:
    """Read the settings of a preset or of a file.

    Raises:
        typer.BadParameter: When both are given.
        ConfigError: When there is no such preset, or the file cannot be used.
    """
    from aslseg.presets import read_preset

    if file is not None and preset is not None:
        msg = "Give either --preset or --config, not both."
        raise typer.BadParameter(msg)
    return read_config(file) if file is not None else read_preset(preset or default)


def changed(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Change single settings, each written as `name=value` or `group.name=value`.

    Raises:
        typer.BadParameter: When one is written differently.
        ConfigError: When one is unknown or out of range.
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not is_in_group(config, name.strip()):
            msg = f"'{setting}' is no setting; write name=value, for example rounds=3."
            raise typer.BadParameter(msg)
        changes[name.strip()] = _typed(text.strip())
    return with_overrides(config, changes, "--set")


def _typed(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text
