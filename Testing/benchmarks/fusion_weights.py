"""What other fusion weights, or another threshold of candidates, make of a finished round.

    python Testing/benchmarks/fusion_weights.py local/study/A-labelled-2 aslseg-0 --round 2 \
        --data ../shared/data/lits --weights 0.5:1 0.5:0.33 0.5:0 1:0.33 --threshold 0.61

For a run of `lits_study.py`: the round's networks segment all cases whose labels are hidden from
it; specialist and SAM run once a case. Rows are the supervised specialist (of a run with
`baseline=true`), the specialist, SAM, and the final label with each pair of weights (of SAM and of
the correction, for the target named) and, with `--threshold`, with candidates accepted above it.
Hidden labels are opened for the scores alone, which are those of `lesion_candidates.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lesion_candidates import scores, summary
from lits_study import truth_path

from aslseg.context import RunContext
from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap, axial_volume
from aslseg.data.volume import Float32, Labelmap, Volume
from aslseg.events import Monitor
from aslseg.inference.cascade import Specialist, all_targets
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.lesion_stage import accepted_only, effects_on
from aslseg.inference.loading import aslseg_ensemble, context_of, load_cascade
from aslseg.inference.postprocessing import labels_from
from aslseg.inference.refinement import Refiner
from aslseg.networks.adaptation import FusionWeights
from aslseg.networks.device import tune_allocator
from aslseg.project.project import open_project
from aslseg.project.run_folder import open_run


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    tune_allocator()
    run = open_run(arguments.project, arguments.run)
    context = context_of(open_project(arguments.project), run, Monitor())
    folder = run.round(arguments.round)
    ensemble = aslseg_ensemble(context, folder)
    baseline = run.round(1) / "baseline"
    supervised = load_cascade(context, baseline).specialist if baseline.exists() else None
    rows: dict[str, dict[str, list[dict]]] = {"train": {}, "test": {}}
    hidden = [case for case in context.project.cases if case.label is None]
    for case in hidden:
        truth = axial_labelmap(read_labelmap(truth_path(arguments.data, case.id)))
        volume = axial_volume(context.image(case))
        if supervised is not None:
            alone = labels_of(context, volume, all_targets(supervised.predict_stages(volume)))
            rows[case.split].setdefault("supervised", []).append(scores(alone, truth))
        for name, found in labels(arguments, context, ensemble, volume):
            rows[case.split].setdefault(name, []).append(scores(found, truth))
        print(case.id, flush=True)
    for split, of_split in rows.items():
        for name, of_name in of_split.items():
            print(f"{split} ({len(of_name)}), {summary(name, of_name)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("run")
    parser.add_argument("--round", type=int, default=1)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--target", default="liver")
    parser.add_argument("--weights", type=weights, nargs="*", default=[])
    parser.add_argument("--threshold", type=float)
    return parser.parse_args()


def weights(text: str) -> FusionWeights:
    sam, correction = map(float, text.split(":"))
    return FusionWeights(sam, correction)


def labels(
    arguments: argparse.Namespace, context: RunContext, ensemble: Ensemble, volume: Volume
) -> Iterator[tuple[str, Labelmap]]:
    """Yield each row's label map of a volume; specialist and SAM run once."""
    assert isinstance(ensemble.specialist, Specialist)
    assert isinstance(ensemble.refiner, Refiner)
    stages = ensemble.specialist.predict_stages(volume)
    specialist = all_targets(stages)
    yield "specialist", labels_of(context, volume, specialist)
    prompts = ensemble.propose_prompts(volume, specialist)
    sam = ensemble.sam_predictor.predict(volume, prompts)
    empty = np.zeros(volume.geometry.shape, np.float32)
    yield "SAM", labels_of(context, volume, {name: sam.get(name, empty) for name in specialist})
    classified = ensemble.classify_candidates(volume, stages, sam)
    network = ensemble.refiner.networks[arguments.target]
    own = network.fusion_weights
    for pair in dict.fromkeys([own, *arguments.weights]):
        network.set_fusion_weights(pair)
        refined = ensemble.refiner.refine(volume, specialist, sam)
        name = f"final, {pair.sam:g}:{pair.correction:g}"
        yield (
            name,
            labels_of(context, volume, accepted_only(refined, effects_on(refined, classified))),
        )
        if arguments.threshold is not None:
            others = {
                n: replace(one, threshold=arguments.threshold) for n, one in classified.items()
            }
            found = labels_of(context, volume, accepted_only(refined, effects_on(refined, others)))
            yield f"{name}, candidates above {arguments.threshold:g}", found
    network.set_fusion_weights(own)


def labels_of(
    context: RunContext, volume: Volume, probabilities: Mapping[str, Float32]
) -> Labelmap:
    least_ml = context.config.min_component_ml
    return labels_from(probabilities, context.targets, volume, least_ml)


if __name__ == "__main__":
    main()
