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
from aslseg.methods.baseline import curriculum_of
from aslseg.networks.checkpoints import require_weights
from aslseg.sam.predictor import build_generalist
from aslseg.targets import stages_of
from aslseg.training.adaptation import adaptation_path, trained_refiner
from aslseg.training.adaptation_samples import answers
from aslseg.training.cascade import Curriculum, Taught, plain, specialist_paths, teach_specialist
from aslseg.training.context import Job
from aslseg.training.cross_fitting import Witnesses, cross_fitted
from aslseg.training.rounds import Comparisons, Round, RoundOutcome, finish_round
from aslseg.training.sam_tuning import sam_path, tuned_generalist


def run_round(job: Job, this: Round) -> RoundOutcome:
    """Run one round and say which pseudo-labels the next one may learn from.

    Args:
        job: Cases, settings, device, listener.
        this: Number and folder of the round, and what the rounds before left.
    """
    witnesses = cross_fitted(job, this.first_folder / "crossfit")
    taught = teach_specialist(job, _curriculum(job, this, witnesses))
    generalist = tuned_generalist(job, this.first_folder, witnesses)
    refiner = trained_refiner(job, taught, generalist, this.first_folder, witnesses)
    ensemble = Ensemble(taught.specialist, generalist, refiner, job.targets, job.config)
    return finish_round(job, this, ensemble, taught.earlier, _comparisons(job, this, taught))


def load_ensemble(job: Job, folder: Path) -> Ensemble:
    """Read the trained parts of a finished round, to segment other volumes with.

    Raises:
        WeightsError: When a file is missing or damaged; nothing is trained here.
    """
    first = job.folder.first_folder(job.folder.number_of(folder))
    require_weights(_weights(job, folder, first))
    taught = teach_specialist(job, Curriculum(folder, job.config.paradigm, {}, {}))
    generalist = tuned_generalist(job, first)
    refiner = trained_refiner(job, taught, generalist, first)
    return Ensemble(taught.specialist, generalist, refiner, job.targets, job.config)


def _weights(job: Job, folder: Path, first: Path) -> list[Path]:
    specialists = [path for s in stages_of(job.targets) for path in specialist_paths(folder, s)]
    adaptation = [adaptation_path(first, target) for target in job.targets]
    tuned = job.config.sam.model != "none" and job.config.sam.tuning != "none"
    return [*specialists, *adaptation, *([sam_path(first)] if tuned else [])]


def _comparisons(job: Job, this: Round, taught: Taught) -> Comparisons:
    """Return the rows to compare with: a supervised specialist, and SAM as it was released."""
    if not job.config.baseline or this.number > 1:
        return {}
    curriculum = Curriculum(this.folder / "baseline", "supervised", {}, {})
    supervised = teach_specialist(job, curriculum).specialist
    untrained = job.config.sam.model_copy(update={"tuning": "none"})
    released = build_generalist(
        job.config.model_copy(update={"sam": untrained}),
        job.cache / "embeddings",
        job.device,
        job.monitor,
    )

    def by_supervised(volume: Volume) -> Labelmap:
        return supervised.segment(volume, job.monitor)

    if released is None:
        return {"supervised": by_supervised}

    def by_released_sam(volume: Volume) -> Labelmap:
        said = taught.specialist.predict(volume, job.monitor)
        answered = answers(released, volume, said, job.targets, job.monitor)
        return labels_from(answered, job.targets, volume, job.config.min_component_ml)

    return {"supervised": by_supervised, "sam_untrained": by_released_sam}


def _curriculum(job: Job, this: Round, witnesses: Witnesses) -> Curriculum:
    networks = {case_id: witness.networks for case_id, witness in witnesses.items()}
    return replace(curriculum_of(job, this, plain), witnesses=networks)
