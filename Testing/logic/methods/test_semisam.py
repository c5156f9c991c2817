"""SemiSAM: what SAM adds to a teacher's training, and that no defect of the release is here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aslseg.config import RunConfig, SamConfig, SemiSamConfig, SpecialistConfig
from aslseg.context import RunContext
from aslseg.data.images import read_labelmap, read_volume, write_labelmap, write_volume
from aslseg.data.volume import Labelmap
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.loading import required_sam_predictor, segment_volume
from aslseg.methods import semisam
from aslseg.methods.semisam import PseudoTarget, SamConsistency, click_consistency
from aslseg.networks.unet import build_network
from aslseg.preprocessing.augmentation import PatchTransform
from aslseg.preprocessing.patches import BatchSource, TrainingCase, pixels_under, slices_under
from aslseg.preprocessing.roi import build_roi
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder, create_run
from aslseg.runs import start_run
from aslseg.sam import predictor
from aslseg.sam.clicks import ClickSequence, ClickTask
from aslseg.targets import Target, cascade_stages
from aslseg.training.cascade import default_ssl_method
from aslseg.training.ssl.mean_teacher import MeanTeacher
from aslseg.training.trainer import step_generator
from tiny_project import (
    GEOMETRY,
    NETWORK,
    SPECIALIST,
    UNLABELLED,
    a_patient,
    a_tiny_project,
    tiny_config,
)
from whole_runs import (
    at_step,
    results,
    rows_of,
    run_with_noise_as_hidden_labels,
    stopped_and_resumed,
    use_small_sam,
)

SAM = SamConfig(model="vit_t", input_size=256)
STAGE = SPECIALIST.model_copy(update={"consistency_weight": 1.0, "iterations": 6, "batch_size": 2})
IN_3D = STAGE.model_copy(
    update={"network": NETWORK.model_copy(update={"dimensions": 3}), "patch_size": 16}
)
ATRIUM = (Target(name="atrium", value=1),)


def semisam_config(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "method": "semisam",
        "rounds": 1,
        "sam": SAM,
        "organ": STAGE,
        "lesion": STAGE,
        "semisam": SemiSamConfig(clicks=2, planes=2),
    }
    return tiny_config(**{**values, **changes})


@pytest.fixture(autouse=True)
def _small_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_sam(monkeypatch)


# --- The term of a step ---------------------------------------------------------------------------


def a_context(tmp_path: Path, config: RunConfig) -> RunContext:
    project = a_tiny_project(tmp_path)
    run = create_run(project.folder, config)
    return RunContext(project, config, run, torch.device("cpu"), Monitor())


def a_sam_loss(
    tmp_path: Path, settings: SpecialistConfig = STAGE, **changes: object
) -> tuple[SamConsistency, BatchSource]:
    """Return a auxiliary that has met the unlabelled cases, and the source of their patches."""
    context = a_context(tmp_path, semisam_config(organ=settings, **changes))
    auxiliary = SamConsistency(context, required_sam_predictor(context, tuning="none"), settings)
    stage = cascade_stages(context.targets)[0]
    cases = [
        TrainingCase(build_roi(context.image(case), stage, settings), case_id=case.id)
        for case in context.unlabelled
    ]
    auxiliary.setup(cases)
    return auxiliary, BatchSource(cases, settings, 0, 1)


def a_student(batch_size: int, spatial: tuple[int, ...], classes: int = 2) -> Tensor:
    """Return probabilities of a blob in the middle of each patch, with a gradient."""
    at = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in spatial], indexing="ij")
    inside = sum(axis.square() for axis in at) < 0.3
    logits = torch.where(inside, 1.0, -1.0).expand(batch_size, 1, *spatial)
    others = [logits - 3.0] * (classes - 2)
    both = torch.cat([torch.zeros_like(logits), logits, *others], 1)
    return both.clone().requires_grad_()


both_dimensions = pytest.mark.parametrize("settings", [STAGE, IN_3D], ids=["2d", "3d"])
by_confidence = pytest.mark.parametrize("confidence", [False, True])


@both_dimensions
@by_confidence
def test_the_term_has_a_gradient(
    tmp_path: Path, settings: SpecialistConfig, confidence: bool
) -> None:
    """The released term was divided by its own sum: always 1, gradient 0."""
    auxiliary, source = a_sam_loss(
        tmp_path, settings, semisam=SemiSamConfig(clicks=3, planes=2, confidence=confidence)
    )
    batch = source.batch(0)
    logits = a_student(len(batch.classes), batch.classes.shape[1:])
    term = auxiliary.loss(logits.softmax(1), batch, 0, step_generator(0, 0))
    (gradient,) = torch.autograd.grad(term, [logits])
    assert float(gradient.abs().sum()) > 1e-4
    pseudo_target = auxiliary.pseudo_target(
        logits.softmax(1).detach(), batch.locations, step_generator(0, 0)
    )
    assert float(gradient[(pseudo_target.weight == 0).expand_as(gradient)].abs().sum()) == 0.0


def test_the_term_is_the_weighted_squared_difference_to_sams_masks(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path)
    batch = source.batch(0)
    probability = a_student(2, (32, 32)).softmax(1)
    weight = torch.rand(2, 1, 32, 32)
    masks = torch.zeros_like(probability)
    masks[:, 0] = 1.0
    pseudo = PseudoTarget(masks, weight)

    class Fixed(SamConsistency):
        def pseudo_target(self, *_: object) -> PseudoTarget:  # type: ignore[override]
            return pseudo

    fixed = Fixed(auxiliary.context, auxiliary.sam_predictor, auxiliary.settings)
    term = fixed.loss(probability, batch, 0, step_generator(0, 0))
    squared = (2 * probability[:, 1].square() * weight[:, 0]).sum()
    expected = 0.5 * squared / (2 * weight.sum())
    assert float(term.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize(
    ("step", "teacher", "sam"),
    [
        (0, 0.00067, 0.05),
        (1500, 0.0060, 0.0366),
        (3000, 0.0287, 0.0143),
        (4500, 0.0732, 0.0030),
        (6000, 0.1, 0.00034),
    ],
)
def test_the_teachers_weight_rises_and_sams_falls_as_published(
    tmp_path: Path, step: int, teacher: float, sam: float
) -> None:
    settings = STAGE.model_copy(
        update={"iterations": 6000, "consistency_weight": 0.1, "rampup_share": 1.0}
    )
    context = a_context(tmp_path, semisam_config(organ=settings))
    auxiliary = SamConsistency(context, required_sam_predictor(context, tuning="none"), settings)
    stage = cascade_stages(context.targets)[0]
    paradigm = MeanTeacher(lambda: build_network(stage, settings), settings)
    assert paradigm.consistency_weight(step) == pytest.approx(teacher, rel=0.01)
    assert auxiliary.weight(step) == pytest.approx(sam, rel=0.02)


def test_consistent_masks_count_in_full_and_inconsistent_ones_do_not() -> None:
    sure, absent = torch.tensor(40.0), torch.tensor(-40.0)
    masks = [torch.stack([sure, sure, torch.tensor(0.0)]), torch.stack([sure, absent, sure])]
    # Probabilities: (1, 1), (1, 0) and (1/2, 1), with variances 0, 1/4 and 1/16.
    assert click_consistency(masks).tolist() == pytest.approx([1.0, 0.0, 0.75])
    assert click_consistency(masks[:1]).tolist() == [1.0, 1.0, 1.0]


# --- What SAM is query ----------------------------------------------------------------------------


def queries_of(
    auxiliary: SamConsistency, source: BatchSource, logits: Tensor
) -> list[semisam._ClickQuery]:
    planes = logits if logits.ndim == 5 else logits[:, :, None]
    foreground = planes.argmax(1).numpy()
    return auxiliary._queries(foreground, source.batch(0).locations, np.random.default_rng(0))


@both_dimensions
def test_sam_is_prompted_for_the_students_foreground_where_it_lies(
    tmp_path: Path, settings: SpecialistConfig
) -> None:
    auxiliary, source = a_sam_loss(tmp_path, settings)
    batch = source.batch(0)
    logits = a_student(len(batch.classes), batch.classes.shape[1:]).detach()
    queries = queries_of(auxiliary, source, logits)
    assert queries
    foreground = (logits.argmax(1) == 1).numpy()
    for query in queries:
        shown = (
            foreground[query.patch] if settings is STAGE else foreground[query.patch][query.plane]
        )
        np.testing.assert_array_equal(query.task.wanted, shown)
        assert not shown.all()  # the release query for everything
        location, known = (
            batch.locations[query.patch],
            auxiliary._cases[batch.locations[query.patch].case],
        )
        slices = slices_under(location, known.case.roi, settings.patch_size)
        torch.testing.assert_close(
            query.task.points, pixels_under(location, known.case.roi, settings.patch_size)
        )
        k = slices[query.plane]
        assert k is not None
        assert torch.equal(query.task.embedding, known.embeddings.stack([k])[0])


def test_of_a_block_sam_is_prompted_on_a_few_planes(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path, IN_3D, semisam=SemiSamConfig(clicks=1, planes=3))
    logits = a_student(2, (16, 16, 16)).detach()
    planes = [(q.patch, q.plane) for q in queries_of(auxiliary, source, logits)]
    assert len(planes) == len(set(planes))
    assert 0 < max(sum(patch == n for patch, _ in planes) for n in (0, 1)) <= 3


def test_each_class_is_prompted_by_itself(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path)
    logits = a_student(2, (32, 32), classes=3).detach()
    logits[:, 2, 4:9, 4:9] = 9.0
    queries = queries_of(auxiliary, source, logits)
    assert [(q.patch, q.number) for q in queries] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert queries[1].task.wanted.sum() == 25


def test_where_the_student_finds_nothing_sam_is_not_prompted_and_the_term_is_zero(
    tmp_path: Path,
) -> None:
    auxiliary, source = a_sam_loss(tmp_path)
    batch = source.batch(0)
    logits = torch.zeros(2, 2, 32, 32)
    logits[:, 0] = 1.0
    logits.requires_grad_()
    pseudo_target = auxiliary.pseudo_target(
        logits.softmax(1).detach(), batch.locations, step_generator(0, 0)
    )
    assert not pseudo_target.weight.any()
    assert float(auxiliary.loss(logits.softmax(1), batch, 0, step_generator(0, 0))) == 0.0


def test_what_lies_beside_the_slice_does_not_count(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path, semisam=SemiSamConfig(clicks=1, confidence=False))
    batch = source.batch(0)
    far = replace(batch.locations[0], transform=PatchTransform((0.0, 0.0)))
    probability = torch.zeros(1, 2, 32, 32)
    probability[:, 1] = 1.0
    pseudo_target = auxiliary.pseudo_target(probability, [far], step_generator(0, 0))
    assert pseudo_target.weight[0, 0, 20:, 20:].min() == 1.0
    assert pseudo_target.weight[0, 0, :14].max() == pseudo_target.weight[0, 0, :, :14].max() == 0.0


def test_sams_masks_are_put_where_they_were_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auxiliary, source = a_sam_loss(tmp_path, IN_3D, semisam=SemiSamConfig(clicks=1, planes=2))
    batch = source.batch(0)
    logits = a_student(2, (16, 16, 16)).detach()
    sequences: list[ClickSequence] = []

    def obedient(_: object, tasks: list[ClickTask], *__: object) -> list[ClickSequence]:
        for task in tasks:
            sequence = ClickSequence(task)
            sequence.logits.append(torch.from_numpy(np.where(task.wanted, 3.0, -3.0)))
            sequences.append(sequence)
        return sequences

    monkeypatch.setattr(semisam, "simulate_clicks", obedient)
    pseudo_target = auxiliary.pseudo_target(
        logits.softmax(1), batch.locations, step_generator(0, 0)
    )
    prompted = (pseudo_target.weight > 0).flatten(3).any(-1)[:, 0]
    assert 0 < int(prompted.sum()) == len(sequences) <= 4
    student = torch.nn.functional.one_hot(logits.argmax(1), 2).movedim(-1, 1).float()
    here = prompted[:, None, :, None, None].expand_as(student)
    assert torch.equal(pseudo_target.masks[here], student[here])
    assert torch.equal(pseudo_target.masks.sum(1), torch.ones(2, 16, 16, 16))


def test_all_unlabelled_cases_are_met_and_none_of_their_labels_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunContext, "labels", None)  # whoever opens a label map now fails
    auxiliary, source = a_sam_loss(tmp_path)
    assert [known.case.case_id for known in auxiliary._cases] == list(UNLABELLED)
    assert {p.case for step in range(20) for p in source.batch(step).locations} == {0, 1, 2}


# --- Beside a teacher -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mean_teacher", "uncertainty_aware"])
@both_dimensions
def test_the_term_comes_on_top_of_what_the_teacher_does(
    tmp_path: Path, name: str, settings: SpecialistConfig
) -> None:
    auxiliary, source = a_sam_loss(tmp_path, settings)
    stage = cascade_stages(auxiliary.context.targets)[0]
    volume, labels = a_patient(0)
    roi = build_roi(volume, stage, settings, labels=labels, targets=auxiliary.context.targets)
    labelled = BatchSource([TrainingCase(roi)], settings, 0, 0).batch(0)

    def terms(guided: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        paradigm = default_ssl_method(name, stage, settings)  # type: ignore[arg-type]
        paradigm.auxiliary_losses = (auxiliary,) if guided else ()
        assert not any("sam" in key for key in paradigm.state_dict())
        found = paradigm.loss(labelled, source.batch(0), 3, step_generator(0, 3))
        parts = torch.stack(list(found.named().values()))
        torch.testing.assert_close(found.total, parts.sum())
        return found.named()

    alone, together = terms(False), terms(True)
    assert together.keys() - alone.keys() == {"sam"}
    for key, value in alone.items():
        assert torch.equal(value, together[key])


def test_the_term_is_about_unlabelled_patches_alone(tmp_path: Path) -> None:
    auxiliary, source = a_sam_loss(tmp_path)
    stage = cascade_stages(auxiliary.context.targets)[0]
    paradigm = default_ssl_method("mean_teacher", stage, STAGE)
    paradigm.auxiliary_losses = (auxiliary,)
    seen: list[int] = []

    class Counting(SamConsistency):
        def loss(self, probability: Tensor, *_: object) -> Tensor:  # type: ignore[override]
            seen.append(len(probability))
            return probability.sum() * 0

    paradigm.auxiliary_losses = (Counting(auxiliary.context, auxiliary.sam_predictor, STAGE),)
    labelled, unlabelled = source.batch(1), source.batch(0)
    labelled = replace(labelled, inputs=labelled.inputs[:1], classes=labelled.classes[:1])
    labelled = replace(labelled, weight=labelled.weight[:1])
    paradigm.loss(labelled, unlabelled, 0, step_generator(0, 0))
    assert seen == [2]
    paradigm.loss(labelled, None, 0, step_generator(0, 0))
    assert seen == [2]


# --- Whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_small_sam(monkeypatch)
        built = []
        original = predictor.build_sam

        def counting(*args: object, **words: object) -> torch.nn.Module:
            built.append(args)
            return original(*args, **words)  # type: ignore[arg-type]

        monkeypatch.setattr(predictor, "build_sam", counting)
        torch.set_num_threads(1)
        project = a_tiny_project(tmp_path_factory.mktemp("semisam"))
        run = start_run(project, semisam_config(rounds=2), run_id="a")
        assert len(built) == 2  # once a round, not at every step
        return run


def test_a_run_writes_what_every_method_writes(finished: RunFolder) -> None:
    rows = rows_of(finished.round(2) / "metrics.csv")
    assert [(r["source"], r["target"]) for r in rows] == [
        (source, target) for source in ("specialist", "refined") for target in ("liver", "tumour")
    ]
    reliability = rows_of(finished.round(1) / "reliability.csv")
    assert {row["case"] for row in reliability} == set(UNLABELLED)
    for row in reliability:  # one source: the checkpoints' agreement is all there is
        assert row["prediction_agreement"] == ""
        assert row["score"] == row["checkpoint_agreement"]
    assert not list(finished.path.rglob("sam*.safetensors"))
    assert '"name": "sam"' in (finished.path / "events.jsonl").read_text(encoding="utf-8")


def test_segmenting_needs_no_sam(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(predictor, "build_sam", refuse)
    image = finished.path.parents[2] / "data" / "ct6.nii.gz"
    segmented = segment_volume(finished, read_volume(image))
    assert segmented.sam is None
    assert segmented.specialist_alone
    written = read_labelmap(finished.path / "labels" / "c6.nii.gz")
    np.testing.assert_array_equal(segmented.refined.labels, written.labels)


@pytest.mark.slow
def test_noise_in_place_of_the_hidden_labels_changes_nothing(
    finished: RunFolder, tmp_path: Path
) -> None:
    """The released script clicked on the labels of the whole batch, unlabelled cases included."""
    run = run_with_noise_as_hidden_labels(tmp_path, semisam_config(rounds=2))
    assert results(run) == results(finished)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["specialist-liver", "specialist-tumour"])
def test_a_stopped_run_goes_on_to_the_same_end(
    finished: RunFolder, tmp_path: Path, stage: str
) -> None:
    run = stopped_and_resumed(tmp_path, semisam_config(rounds=2), at_step(stage, 0))
    assert results(run) == results(finished)


def an_atrium_project(folder: Path) -> Project:
    """Make a project of one target and one labelled case."""
    files = []
    for number in range(4):
        volume, labels = a_patient(number)
        image, truth = folder / f"mr{number}.nii.gz", folder / f"truth{number}.nii.gz"
        write_volume(volume, image)
        write_labelmap(Labelmap((labels.labels > 0).astype(np.uint8), GEOMETRY), truth)
        files.append(CaseFiles(f"c{number}", image, truth))
    chosen = select_cases(files, labelled=["c0"], validation=["c3"])
    return create_project(folder / "project", chosen, ATRIUM)


@pytest.mark.slow
@pytest.mark.parametrize("paradigm", ["mean_teacher", "uncertainty_aware"])
@both_dimensions
def test_a_single_target_with_one_labelled_case_is_trained_on(
    tmp_path: Path, paradigm: str, settings: SpecialistConfig
) -> None:
    config = semisam_config(paradigm=paradigm, organ=settings)
    run = start_run(an_atrium_project(tmp_path), config)
    assert {row["target"] for row in rows_of(run.round(1) / "metrics.csv")} == {"atrium"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sam": SamConfig(model="none")}, "semisam needs SAM; set sam.model"),
        ({"paradigm": "cross_pseudo"}, "addition to a teacher; set paradigm to mean_teacher"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_words(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        start_run(a_tiny_project(tmp_path), semisam_config(**changes))


def test_the_baselines_are_a_method_too(tmp_path: Path) -> None:
    config = semisam_config(method="specialist", paradigm="supervised", sam=SamConfig(model="none"))
    run = start_run(a_tiny_project(tmp_path), config)
    stages = [row["source"] for row in rows_of(run.round(1) / "metrics.csv")]
    assert stages == ["specialist", "specialist", "refined", "refined"]
