"""The command `benchmark`: all methods on the same cases, draws and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aslseg.cli.console import (
    examples,
    messages,
    names_of,
    pairs_of,
    parse_targets,
    show_table,
    tell,
)
from aslseg.cli.progress import watched
from aslseg.cli.projects import PatientOption, PatientsOption
from aslseg.cli.settings import changed
from aslseg.errors import CancelledError

if TYPE_CHECKING:
    from aslseg.benchmark.data import BenchmarkData
    from aslseg.benchmark.presets import BenchmarkPreset
    from aslseg.benchmark.tables import Tables
    from aslseg.project.case import CaseFiles
    from aslseg.targets import Target

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
DrawsPath = Annotated[
    Path | None,
    typer.Option(help="JSON file of patients, tests and draws, for --held-out and --order."),
]
Draw = Annotated[Names, typer.Option(help="Only these draws of the file. Repeatable, or a,b,c.")]
Preset = Annotated[
    str, typer.Option(help="small, hippocampus, liver (days on 2 cores) or full (a GPU).")
]
OfTables = Annotated[
    Names, typer.Option("--table", help="Only schedule, or time (which needs schedule).")
]
Methods = Annotated[Names, typer.Option(help="Only these rows. Repeatable, or a,b,c.")]
Labelled = Annotated[Names, typer.Option(help="Numbers of labelled cases; default 1,2,4.")]
Seeds = Annotated[Names, typer.Option(help="Seeds; default 0.")]
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
    draws: DrawsPath = None,
    draw: Draw = None,
    patient: PatientOption = None,
    patients: PatientsOption = None,
    preset: Preset = "small",
    method: Methods = None,
    labelled: Labelled = None,
    seed: Seeds = None,
    table: OfTables = None,
    workers: Workers = None,
    settings: Changes = None,
) -> None:
    """Compare all methods on the same cases, draws of labels and seeds.

    Two tables: every row with the same schedule of the specialist, and every row with the processor
    time of ASLseg. Writes benchmark.md, benchmark.png, cases.csv, lesions.csv and summary.csv.
    Ctrl-C stops; the same command goes on with what is not done yet.
    """
    from aslseg.benchmark.presets import benchmark_preset
    from aslseg.project.datasets import cases_of, is_dataset, targets_from_dataset
    from aslseg.project.patients import with_patients

    given = benchmark_preset(preset)
    chosen = replace(
        given,
        config=changed(given.config, settings or []),
        labelled=_numbers(labelled, "--labelled") or given.labelled,
        seeds=_numbers(seed, "--seed") or given.seeds,
        tables=_tables(table) or given.tables,
        workers=workers or given.workers,
    )
    cases = with_patients(cases_of(source, labels), pairs_of(patient, "--patient"), patients)
    parts = _Parts(draws, names_of(draw), names_of(held_out), names_of(order))
    is_named = not target and is_dataset(source)
    targets = targets_from_dataset(source) if is_named else parse_targets(target)
    data = _data_of(cases, targets, parts)
    _run(folder, data, chosen, names_of(method) or [])


@dataclass(frozen=True)
class _Parts:
    """What says which case plays which part: a file of draws, or the names themselves."""

    draws: Path | None
    chosen: Names
    held_out: Names
    order: Names


def _data_of(cases: Sequence[CaseFiles], targets: Sequence[Target], parts: _Parts) -> BenchmarkData:
    from aslseg.benchmark.draws import drawn_data, one_draw, read_draws

    if parts.draws is None:
        if parts.chosen:
            msg = "--draw chooses among the draws of a file; name that with --draws."
            raise typer.BadParameter(msg)
        return one_draw(cases, parts.held_out or [], parts.order or [], targets)
    if parts.held_out or parts.order:
        msg = "--draws names held-out and labelled cases itself; leave --held-out and --order out."
        raise typer.BadParameter(msg)
    return drawn_data(cases, read_draws(parts.draws), targets, parts.chosen or [])


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


def _tables(texts: Names) -> tuple[str, ...]:
    from aslseg.benchmark.experiments import TABLES

    names = names_of(texts) or []
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        msg = f"There is no table '{unknown[0]}'; choose among {', '.join(TABLES)}."
        raise typer.BadParameter(msg)
    return tuple(names)


def _show(tables: Tables) -> None:
    from aslseg.benchmark.endpoints import PRIMARY, TITLES
    from aslseg.benchmark.tables import TABLE_TITLES, value_lines

    for table in tables.tables:
        for target in tables.targets:
            endpoint = PRIMARY[target.inside is not None]
            head, *lines = value_lines(tables, table, target.name, endpoint)
            title = f"{TABLE_TITLES[table]}. {target.name}: {TITLES[endpoint]}, 95 % interval"
            show_table(title, head, lines)


def register(app: typer.Typer) -> None:
    """Add the command of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg benchmark results ct --labels segmentations --held-out ct_7,ct_16",
            "aslseg benchmark results lits --draws draws.json --draw B,C --preset liver",
            "aslseg benchmark results Task03_Liver/dataset.json --held-out liver_3 --preset full",
        )
    )(benchmark)
