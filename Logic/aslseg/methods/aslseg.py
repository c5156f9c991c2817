"""ASLseg: a specialist prompts SAM, an adaptation network corrects, reliable labels are reused.

After Chen, Lin, Cheng and Tang, "ASLseg: Adapting SAM in the Loop for Semi-supervised Liver Tumor
Segmentation" (arXiv 2312.07969). No code was released and the abstract leaves most choices open, so
this is a reconstruction: Docs/methods.md says of each choice whether it is the paper's or ours.

A round: (1) train the specialist on labelled and unlabelled cases with an SSL method;
(2) its pseudo-labels prompt a SAM that was tuned on the labelled cases; (3) the adaptation network,
trained on synthetic pseudo-labels of the labelled cases, refines SAM's predictions, and the lesion
stage accepts or rejects each lesion; (4) the reliable ones join the training set of the next round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aslseg.context import RunContext
from aslseg.data.volume import Labelmap, Volume
from aslseg.inference.cascade import Specialist
from aslseg.inference.ensemble import Ensemble, sam_probabilities_of
from aslseg.inference.loading import (
    TrainedCascade,
    load_cascade,
    load_lesion_stage,
    released_sam_predictor,
)
from aslseg.inference.postprocessing import labels_from
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.training.adaptation import train_refiner
from aslseg.training.cascade import (
    Build,
    CascadeTrainingPlan,
    default_ssl_method,
    train_cascade,
)
from aslseg.training.cross_fitting import OutOfFoldModels, cross_fitted_models, networks_of
from aslseg.training.lesion_training import train_lesion_stage
from aslseg.training.rounds import Comparisons, Round, RoundOutcome, finish_round
from aslseg.training.sam_tuning import tune_sam_predictor
from aslseg.training.stage_choice import keep_better_stages


def run_round(context: RunContext, this: Round) -> RoundOutcome:
    """Run one round.

    Args:
        context: Cases, settings, device, listener.
        this: Number and folder of the round, and the outcome of the round before.
    """
    plan = training_plan_of(context, this, default_ssl_method)
    models: OutOfFoldModels = {}
    if this.kept is None:
        models = cross_fitted_models(context, replace(plan, folder=this.first_folder))
    trained = train_cascade(context, replace(plan, out_of_fold_models=networks_of(models)))
    sam_predictor = tune_sam_predictor(context, this.first_folder, models)
    refiner = train_refiner(context, trained, sam_predictor, this.first_folder, models)
    lesion_stage = train_lesion_stage(
        context, this.first_folder, trained.earlier, models, with_sam=sam_predictor is not None
    )
    if this.folder == this.first_folder and keep_better_stages(context, this.folder):
        trained = load_cascade(context, this.folder)
        lesion_stage = load_lesion_stage(
            context, this.folder, trained.earlier, with_sam=sam_predictor is not None
        )
    ensemble = Ensemble(
        trained.specialist, sam_predictor, refiner, context.targets, context.config, lesion_stage
    )
    return finish_round(
        context, this, ensemble, trained.earlier, _comparisons(context, this, trained)
    )


def _comparisons(context: RunContext, this: Round, trained: TrainedCascade) -> Comparisons:
    """Return what to compare with: a supervised specialist, and SAM as released."""
    if not context.config.baseline or this.number > 1:
        return {}
    comparisons: dict[str, Callable[[Volume], Labelmap]] = {}
    if context.config.trains_baseline:
        plan = CascadeTrainingPlan(this.folder / "baseline", "supervised", {}, {})
        comparisons["supervised"] = _by_specialist(context, train_cascade(context, plan).specialist)
    released = released_sam_predictor(context, tuning="none")
    if released is not None:
        comparisons["sam_untrained"] = _by_released_sam(context, trained.specialist, released)
    return comparisons


def _by_specialist(context: RunContext, specialist: Specialist) -> Callable[[Volume], Labelmap]:
    return lambda volume: specialist.segment(volume, context.monitor)


def _by_released_sam(
    context: RunContext, specialist: Specialist, released: VolumeSamPredictor
) -> Callable[[Volume], Labelmap]:
    def segment(volume: Volume) -> Labelmap:
        probabilities = specialist.predict(volume, context.monitor)
        sam_probabilities = sam_probabilities_of(
            released, volume, probabilities, context.targets, context.monitor
        )
        return labels_from(
            sam_probabilities, context.targets, volume, context.config.min_component_ml
        )

    return segment


def training_plan_of(context: RunContext, this: Round, build: Build) -> CascadeTrainingPlan:
    """Return the training plan of a round; later rounds are shorter, short ones much."""
    later = this.number > 1
    share = context.config.later_share if this.kept is None else context.config.review_share
    return CascadeTrainingPlan(
        folder=this.folder,
        ssl_name=context.config.paradigm,
        pseudo=this.pseudo,
        start=this.start,
        share=share if later else 1.0,
        rate=context.config.later_learning_rate if later else 1.0,
        build=build,
        kept=this.kept,
    )
