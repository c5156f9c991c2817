"""The command `benchmark`: all methods on the same cases, seeds and budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aslseg.cli.console import examples, messages, show_table, tell
from aslseg.cli.progress import watched
from aslseg.cli.projects import (
    PatientOption,
    PatientsOption,
    cases_of,
    names_of,
    pairs_of,
    targets_of,
)
from aslseg.cli.runs import changed
from aslseg.errors import CancelledError

if TYPE_CHECKING:
    from aslseg.benchmark.data import BenchmarkData
    from aslseg.benchmark.presets import BenchmarkPreset
    from aslseg.benchmark.tables import Tables

Names = list[str] | None
Folder = Annotated[Path, typer.Argument(help="Folder to write to; the same one goes on.")]
Source = Annotated[
    Path, typer.Argument(help="Folder of images, dataset.json, or nnU-Net raw folder.")
]
HeldOut = Annotated[
    Names, typer.Option(help="Case to score; nobody learns from it. Repeatable, or a,b,c.")
]
Labels = Annotated[
    Path | None, typer.Option(help="Folder of label maps, where it is not that of the images.")
]
Targets = Annotated[
    Names, typer.Option(help="NAME=VALUE or NAME=VALUE:INSIDE, as for `aslseg init`.")
]
Order = Annotated[
    Names, typer.Option(help="Training cases in the order in which they are labelled: a,b,c.")
]
Preset = Annotated[str, typer.Option(help="small (2 cores) or full (a GPU).")]
Methods = Annotated[Names, typer.Option(help="Only these rows. Repeatable, or a,b,c.")]
Labelled = Annotated[Names, typer.Option(help="Numbers of labelled volumes; default 1,2,4.")]
Seeds = Annotated[Names, typer.Option(help="Seeds; default 0,1,2.")]
Budget = Annotated[int | None, typer.Option(min=1, help="Training steps of each run, in all.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes side by side.")]
Changes = Annotated[
    Names, typer.Option("--set", help="One setting of all rows, as for `aslseg train`.")
]


def benchmark(  # noqa: PLR0913 - each argument is an option
    folder: Folder,
    source: Source,
    held_out: HeldOut = None,
    labels: Labels = None,
    target: Targets = None,
    order: Order = None,
    patient: PatientOption = None,
    patients: PatientsOption = None,
    preset: Preset = "small",
    method: Methods = None,
    labelled: Labelled = None,
    seed: Seeds = None,
    budget: Budget = None,
    workers: Workers = None,
    settings: Changes = None,
) -> None:
    """Compare all methods: supervised, mean teacher, UA-MT, CPS, SemiSAM, SC-SAM, CPC-SAM, ASLseg.

    Each is run with 1, 2 and 4 labelled volumes and 3 seeds, with the same number of training
    steps in all; the upper bound is shown every label. Writes benchmark.md, benchmark.png,
    scores.csv and summary.csv. Ctrl-C stops; the same command goes on with what is not done yet.
    """
    from aslseg.benchmark.data import choose_data
    from aslseg.benchmark.presets import benchmark_preset
    from aslseg.project.patients import with_patients

    given = benchmark_preset(preset)
    chosen = replace(
        given,
        config=changed(given.config, settings or []),
        labelled=_numbers(labelled, "--labelled") or given.labelled,
        seeds=_numbers(seed, "--seed") or given.seeds,
        budget=budget or given.budget,
        workers=workers or given.workers,
    )
    data = choose_data(
        with_patients(cases_of(source, labels), pairs_of(patient, "--patient"), patients),
        names_of(held_out) or [],
        names_of(order) or [],
        targets_of(source, target),
    )
    _run(folder, data, chosen, names_of(method) or [])


def _run(folder: Path, data: BenchmarkData, preset: BenchmarkPreset, rows: list[str]) -> None:
    from aslseg.benchmark.figure import write_figure
    from aslseg.benchmark.runner import run_benchmark

    try:
        with watched(messages) as monitor:
            tables = run_benchmark(folder, data, preset, rows, monitor)
    except CancelledError as error:
        msg = "Stopped; finished experiments are kept. The same command goes on from there."
        raise CancelledError(msg) from error
    figure = write_figure(tables, folder / "benchmark.png")
    _show(tables)
    tell(f"Tables: {folder / 'benchmark.md'}")
    tell(f"Figure: {figure}")


def _numbers(texts: Names, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in names_of(texts) or [])
    except ValueError as error:
        msg = f"{option} takes whole numbers, such as {option} 1,2,4."
        raise typer.BadParameter(msg) from error


def _show(tables: Tables) -> None:
    from aslseg.benchmark.tables import dice_lines

    for target in tables.targets:
        head, *lines = dice_lines(tables, target)
        show_table(f"{target}: Dice, mean ± deviation over seeds", head, lines)


def register(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg benchmark results ct --labels segmentations --held-out ct_7,ct_16",
            "aslseg benchmark results lits --held-out 7,16 --order 4,9,33 --method aslseg",
            "aslseg benchmark results Task03_Liver/dataset.json --held-out liver_3 --preset full",
        )
    )(benchmark)
