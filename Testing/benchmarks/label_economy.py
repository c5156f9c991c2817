"""How many minutes of a person does a labelled data set cost? For Docs/studies/label-economy.md.

    python Testing/benchmarks/label_economy.py --data ../shared/data/lits --draw B --labelled 2 \
        --work local/economy
    python Testing/benchmarks/label_economy.py --hippocampus ../shared/data/hippocampus --cases 20 \
        --labelled 2 --work local/economy-hippocampus
    python Testing/benchmarks/label_economy.py --made-up --work local/economy-made-up

A simulated person labels all training volumes in several ways (`economy/ways.py`), to one standard.
What was done is logged act by act; what was trained, grown and logged is kept in the work folder,
so the same command goes on where it was broken off, and with other prices (`economy/prices.py`) it
takes seconds. `--finished RUN` copies a finished run of the first cases and counts the review of
each of its rounds, without training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from economy.curves import Logged, write_results
from economy.data import (
    DataSet,
    ThresholdSam,
    hippocampus,
    lits,
    made_up,
    made_up_settings,
)
from economy.sight import Standard
from economy.study import Study
from economy.ways import WAYS, Way, ways_of_finished_run

from aslseg.benchmark.presets import benchmark_preset
from aslseg.cli.settings import changed
from aslseg.config import RunConfig, SamConfig
from aslseg.inference.interactive.propagation import SliceSam
from aslseg.inference.interactive.session import ReleasedSam
from aslseg.networks.device import tune_allocator
from aslseg.presets import read_preset
from aslseg.project.run_folder import RunFolder


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    study = study_of(arguments)
    ways = ways_of(arguments, study)
    done = []
    for name, way in ways.items():
        print(f"{name}: {way.title}", flush=True)
        done.append(Logged(name, way.title, study.follow(name, way)))
        write_results(done, arguments.work)
    print((arguments.work / "summary.md").read_text(encoding="utf-8"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of LiTS, with splits.json")
    source.add_argument("--hippocampus", type=Path, help="folder with images/ and labels/")
    source.add_argument("--made-up", action="store_true", help="tiny patients")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--draw", default="B")
    parser.add_argument("--cases", type=int, default=10, help="but of LiTS")
    parser.add_argument("--labelled", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4, help="cases between two trainings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=[], help="all when left out")
    parser.add_argument("--finished", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--embeddings", type=Path, help="folder that several draws share; in --work when left out"
    )
    parser.add_argument("--preset", default="quick", help="for LiTS")
    parser.add_argument("--set", nargs="*", default=[], help="settings: dotted.name=value")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def study_of(arguments: argparse.Namespace) -> Study:
    data, config, sam, standard = parts_of(arguments)
    finished = None if arguments.finished is None else RunFolder(arguments.finished)
    return Study(
        data,
        arguments.work,
        changed(config, ["rounds=1", f"seed={arguments.seed}", *arguments.set]),
        sam,
        standard,
        batch=arguments.batch,
        seed=arguments.seed,
        finished=finished,
    )


def parts_of(arguments: argparse.Namespace) -> tuple[DataSet, RunConfig, SliceSam, Standard]:
    """Return data set, settings, SAM and standard."""
    work, cases, labelled = arguments.work, arguments.cases, arguments.labelled
    embeddings = arguments.embeddings or work / "embeddings"
    if arguments.made_up:
        data = made_up(work / "data", cases, labelled)
        return data, made_up_settings(), ThresholdSam(), Standard()
    if arguments.data:
        data, config = lits(arguments.data, arguments.draw, labelled), read_preset(arguments.preset)
        released = config.model_copy(update={"sam": SamConfig(model="vit_t", input_size=512)})
        return data, config, ReleasedSam(released, embeddings), Standard()
    data = hippocampus(arguments.hippocampus, work / "data", cases, labelled, arguments.seed)
    config = benchmark_preset("hippocampus").config.model_copy(update={"label_unlabelled": True})
    return data, config, ReleasedSam(config, embeddings), Standard(tolerance_mm=1.0)


def ways_of(arguments: argparse.Namespace, study: Study) -> Mapping[str, Way]:
    ways = WAYS
    if study.finished is not None:
        ways = ways_of_finished_run(max(study.finished.rounds))
    elif not study.data.organs:
        ways = {name: way for name, way in WAYS.items() if name in WITHOUT_LESIONS}
    return {name: ways[name] for name in arguments.ways or ways}


WITHOUT_LESIONS = ("hand", "sam", "once", "tool", "tool-sparse", "tool-random", "tool-once")
"""Ways of a data set without targets inside of others: there are no organs and no lesions."""


if __name__ == "__main__":
    main()
