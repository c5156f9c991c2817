"""ASLseg: a specialist prompts SAM, an adaptation network repairs, reliable labels go round.

After Chen, Lin, Cheng and Tang, "ASLseg: Adapting SAM in the Loop for Semi-supervised Liver Tumor
Segmentation" (arXiv 2312.07969). No code was released and the abstract leaves most choices open, so
this is a reconstruction: Docs/methods.md says of each choice whether it is the paper's or ours.

A round: (1) train the specialist on labelled and unlabelled cases with a semi-supervised paradigm;
(2) its pseudo-labels prompt a SAM that was tuned on the labelled cases; (3) the adaptation network,
trained on synthetic pseudo-labels of the labelled cases, refines SAM's answers; (4) the reliable
ones join the training set for the next round.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aslseg.data.volume import Labelmap, Volume
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.postprocessing import labels_from
from aslseg.methods.baseline import training_plan_of
from aslseg.networks.checkpoints import require_weights
from aslseg.sam.predictor import build_sam_predictor
from aslseg.targets import cascade_stages
from aslseg.training.adaptation import adaptation_path, trained_refiner
from aslseg.training.adaptation_samples import sam_probabilities_of
from aslseg.training.cascade import (
    CascadeTrainingPlan,
    TrainedCascade,
    default_ssl_method,
    specialist_paths,
    train_cascade,
)
from aslseg.training.context import RunContext
from aslseg.training.cross_fitting import OutOfFoldModels, cross_fitted_models
from aslseg.training.rounds import Comparisons, Round, RoundOutcome, finish_round
from aslseg.training.sam_tuning import sam_path, tuned_sam_predictor


def run_round(context: RunContext, this: Round) -> RoundOutcome:
    """Run one round and say which pseudo-labels the next one may learn from.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and what the rounds before left.
    """
    out_of_fold_models = cross_fitted_models(context, this.first_folder / "crossfit")
    trained = train_cascade(context, _training_plan(context, this, out_of_fold_models))
    sam_predictor = tuned_sam_predictor(context, this.first_folder, out_of_fold_models)
    refiner = trained_refiner(
        context, trained, sam_predictor, this.first_folder, out_of_fold_models
    )
    ensemble = Ensemble(trained.specialist, sam_predictor, refiner, context.targets, context.config)
    return finish_round(
        context, this, ensemble, trained.earlier, _comparisons(context, this, trained)
    )


def load_ensemble(context: RunContext, folder: Path) -> Ensemble:
    """Read the trained parts of a finished round, to segment other volumes with.

    Raises:
        WeightsError: When a file is missing or damaged; nothing is trained here.
    """
    first = context.folder.first_folder(context.folder.number_of(folder))
    require_weights(_weights(context, folder, first))
    trained = train_cascade(context, CascadeTrainingPlan(folder, context.config.paradigm, {}, {}))
    sam_predictor = tuned_sam_predictor(context, first)
    refiner = trained_refiner(context, trained, sam_predictor, first)
    return Ensemble(trained.specialist, sam_predictor, refiner, context.targets, context.config)


def _weights(context: RunContext, folder: Path, first: Path) -> list[Path]:
    specialists = [
        path for s in cascade_stages(context.targets) for path in specialist_paths(folder, s)
    ]
    adaptation = [adaptation_path(first, target) for target in context.targets]
    tuned = context.config.sam.model != "none" and context.config.sam.tuning != "none"
    return [*specialists, *adaptation, *([sam_path(first)] if tuned else [])]


def _comparisons(context: RunContext, this: Round, trained: TrainedCascade) -> Comparisons:
    """Return the rows to compare with: a supervised specialist, and SAM as it was released."""
    if not context.config.baseline or this.number > 1:
        return {}
    plan = CascadeTrainingPlan(this.folder / "baseline", "supervised", {}, {})
    supervised = train_cascade(context, plan).specialist
    untrained = context.config.sam.model_copy(update={"tuning": "none"})
    released = build_sam_predictor(
        context.config.model_copy(update={"sam": untrained}),
        context.cache / "embeddings",
        context.device,
        context.monitor,
    )

    def by_supervised(volume: Volume) -> Labelmap:
        return supervised.segment(volume, context.monitor)

    if released is None:
        return {"supervised": by_supervised}

    def by_released_sam(volume: Volume) -> Labelmap:
        probabilities = trained.specialist.predict(volume, context.monitor)
        sam_probabilities = sam_probabilities_of(
            released, volume, probabilities, context.targets, context.monitor
        )
        return labels_from(
            sam_probabilities, context.targets, volume, context.config.min_component_ml
        )

    return {"supervised": by_supervised, "sam_untrained": by_released_sam}


def _training_plan(
    context: RunContext, this: Round, out_of_fold_models: OutOfFoldModels
) -> CascadeTrainingPlan:
    networks = {
        case_id: out_of_fold_model.networks
        for case_id, out_of_fold_model in out_of_fold_models.items()
    }
    return replace(training_plan_of(context, this, default_ssl_method), out_of_fold_models=networks)
