"""CPC-SAM: how two decoders prompt and label each other, and whole runs of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aslseg.config import CpcSamConfig, RunConfig, SamConfig
from aslseg.data.images import read_volume
from aslseg.errors import ConfigError, WeightsError
from aslseg.inference.ensemble import Ensemble
from aslseg.inference.loading import load_ensemble, segment_volume
from aslseg.methods.cpcsam import CrossPrompting, labelled_loss, points_of, pseudo_loss
from aslseg.preprocessing.patches import Batch
from aslseg.project.create import create_project, select_cases
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.runs import start_run
from aslseg.sam.classwise import ABSENT, POSITIVE, ClassPoints
from aslseg.sam.tuning import tune
from aslseg.sam.two_decoders import TwoDecoderSam
from aslseg.targets import LIVER_TARGETS
from aslseg.training.ssl.base import LossTerms
from aslseg.training.trainer import step_generator
from support.sam_doubles import a_small_sam
from support.sam_methods import (
    MakeConfig,
    OwnSamChecks,
    dice_loss,
    even,
    gradient_norm,
    patches_of,
    put_back,
    rates_of,
)
from support.tiny_project import (
    NETWORK,
    SPECIALIST,
    UNLABELLED,
    a_tiny_project,
    tiny_config,
    write_patients,
)
from support.whole_runs import (
    at_step,
    prediction_in,
    results,
    rows_of,
    stopped_and_resumed,
    weights_in,
)

EDGE = 40
OWN = CpcSamConfig(input_size=128, rank=2, supervised_share=0.5, warmup_share=0.25)
STAGE = SPECIALIST.model_copy(update={"iterations": 4, "batch_size": 2, "patch_size": EDGE})
IN_3D = STAGE.model_copy(
    update={"network": NETWORK.model_copy(update={"dimensions": 3}), "patch_size": 16}
)
LATE = STAGE.iterations - 1
"""A step after the part in which labels alone are trained on."""


def cpcsam_config(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "method": "cpcsam",
        "rounds": 1,
        "organ": STAGE,
        "lesion": STAGE,
        "sam": SamConfig(model="vit_t"),
        "cpcsam": OWN,
    }
    return tiny_config(**{**values, **changes})


def a_two_decoder_sam(classes: int = 2, seed: int = 0) -> TwoDecoderSam:
    sam = tune(a_small_sam(input_size=128), "lora", rank=2)
    torch.manual_seed(seed)
    return TwoDecoderSam(sam, classes, edge=EDGE, picture=lambda inputs: inputs[:, 1].sigmoid())


def a_cross_prompting(own: CpcSamConfig = OWN, classes: int = 2) -> CrossPrompting:
    return CrossPrompting(lambda: a_two_decoder_sam(classes), STAGE, own)


def a_batch(seed: int = 0) -> Batch:
    return patches_of(STAGE, seed)


def parts_of_trained(network: TwoDecoderSam) -> dict[str, list[nn.Parameter]]:
    return {
        "first": [p for p in network.decoders[0].parameters() if p.requires_grad],
        "second": [p for p in network.decoders[1].parameters() if p.requires_grad],
        "encoder": [p for p in network.sam.image_encoder.parameters() if p.requires_grad],
        "points": [network.class_points],
    }


def gradients_of(loss: Tensor, network: TwoDecoderSam) -> dict[str, float]:
    parts = parts_of_trained(network)
    return {name: gradient_norm(loss, wanted) for name, wanted in parts.items()}


# --- Points ---------------------------------------------------------------------------------------


def a_map() -> np.ndarray:
    """Return 9 x 11 pixels, twice: class 1 in two parts, class 2 in the second picture alone."""
    found = np.zeros((2, 9, 11), np.int64)
    found[:, 2:7, 1:6] = 1  # the largest; its middle is row 4, column 3
    found[:, 0:2, 8:11] = 1  # six pixels elsewhere
    found[1, 7:9, 7:10] = 2
    return found


def test_the_deep_point_is_the_middle_of_the_largest_component() -> None:
    deep, _ = points_of(a_map(), 3, np.random.default_rng(0))
    assert deep.xy.shape == (2, 3, 1, 2)
    assert deep.xy[0, 1, 0].tolist() == [3.5, 4.5]  # x, y of a pixel's centre


def test_the_random_point_lies_in_the_largest_component_and_anywhere_in_it() -> None:
    found = a_map()
    drawn = {
        tuple(points_of(found, 3, np.random.default_rng(seed))[1].xy[0, 1, 0].tolist())
        for seed in range(300)
    }
    assert drawn == {(x + 0.5, y + 0.5) for x in range(1, 6) for y in range(2, 7)}


def test_the_background_has_a_point_and_an_absent_class_has_none() -> None:
    for points in points_of(a_map(), 3, np.random.default_rng(0)):
        assert points.labels[:, :, 0].tolist() == [
            [POSITIVE, POSITIVE, ABSENT],
            [POSITIVE, POSITIVE, POSITIVE],
        ]
        x, y = (int(at) for at in points.xy[0, 0, 0].tolist())
        assert a_map()[0, y, x] == 0


def test_an_absent_class_tells_sam_nothing_wherever_its_place_is() -> None:
    network, points = a_two_decoder_sam(3).eval(), points_of(a_map(), 3, np.random.default_rng(0))
    embeddings = network.embed(a_batch().inputs)
    moved = points[0].xy.clone()
    moved[0, 2] = 7.0
    first, second = (
        network.decode(0, embeddings, ClassPoints(xy, points[0].labels))
        for xy in (points[0].xy, moved)
    )
    torch.testing.assert_close(first, second)
    moved[0, 1] = 7.0
    third = network.decode(0, embeddings, ClassPoints(moved, points[0].labels))
    assert not torch.allclose(first, third)


def test_nothing_found_at_all_gives_a_step_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    paradigm = a_cross_prompting(classes=3)
    decode = paradigm.student.decode

    def only_background(number: int, embeddings: Tensor, points: object = None) -> Tensor:
        logits = decode(number, embeddings, points)  # type: ignore[arg-type]
        return logits * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1) + torch.tensor(
            [50.0, 0.0, 0.0]
        ).view(1, 3, 1, 1)

    monkeypatch.setattr(paradigm.student, "decode", only_background)
    terms = paradigm.loss(a_batch(), a_batch(1), LATE, step_generator(0, 0))
    assert torch.isfinite(terms.total)


# --- Losses ---------------------------------------------------------------------------------------


def test_the_loss_of_labels_is_a_fifth_cross_entropy_and_four_fifths_dice() -> None:
    batch = replace(a_batch(), classes=torch.ones(2, EDGE, EDGE, dtype=torch.long))
    wanted = 0.2 * -math.log(0.75) + 0.8 * dice_loss(0.75, 1, 2 * EDGE**2)
    assert float(labelled_loss(even(math.log(3), 4, EDGE), batch)) == pytest.approx(
        wanted, rel=1e-5
    )


def test_the_loss_of_pseudo_labels_is_half_of_both() -> None:
    pseudo = torch.zeros(2, EDGE, EDGE, dtype=torch.long)
    wanted = 0.5 * (-math.log(0.25) + dice_loss(0.75, 0, 2 * EDGE**2))
    assert float(pseudo_loss(even(math.log(3), 2, EDGE), pseudo)) == pytest.approx(wanted, rel=1e-5)
    assert float(pseudo_loss(even(0.0, 2, EDGE)[:0], pseudo[:0])) == 0.0


class Script:
    """Logits that are put in by hand: by decoder, and by whether and how it is prompted."""

    def __init__(self, deep: Sequence[float], anywhere: Sequence[float], alone: Sequence[float]):
        self.logits = {"deep": deep, "anywhere": anywhere, "alone": alone}
        self.calls: list[tuple[int, str]] = []

    def __call__(self, number: int, embeddings: Tensor, points: object = None) -> Tensor:
        prompted = sum(name != "alone" for _, name in self.calls)
        kind = "alone" if points is None else ("deep", "anywhere")[prompted % 2]
        self.calls.append((number, kind))
        return even(self.logits[kind][number], len(embeddings), EDGE)


def test_the_terms_have_their_weights_and_the_pseudo_label_is_that_of_both_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Decoder 0 gives 3 to 1 for class 1 everywhere; decoder 1 with a deep point 4 to 1 against."""
    paradigm = a_cross_prompting()
    script = Script(
        deep=(math.log(3), -math.log(4)),
        anywhere=(math.log(3), math.log(2)),
        alone=(math.log(3), math.log(3)),
    )
    monkeypatch.setattr(paradigm.student, "decode", script)
    batch = replace(a_batch(), classes=torch.ones(2, EDGE, EDGE, dtype=torch.long))
    terms = paradigm.loss(batch, a_batch(1), LATE, step_generator(0, 0))

    assert script.calls == [
        (0, "alone"),
        (1, "alone"),
        (1, "deep"),  # what decoder 0 found prompts decoder 1
        (1, "anywhere"),
        (0, "deep"),
        (0, "anywhere"),
    ]
    n = 2 * EDGE**2

    def of_labels(p: float) -> float:
        return 0.2 * -math.log(p) + 0.8 * dice_loss(p, 1, n)

    assert float(terms.supervised) == pytest.approx(2 * of_labels(0.75), rel=1e-4)
    prompted = sum(of_labels(p) for p in (0.2, 2 / 3, 0.75, 0.75))
    assert float(terms.further["prompted"]) == pytest.approx(prompted, rel=1e-4)

    # Decoder 1 gives 0.2 and 2/3 for class 1, 0.43 in the mean, so class 0 is what it labels.
    def against(p: float) -> float:
        return 0.5 * (-math.log(1 - p) + dice_loss(p, 0, n))

    def agreeing(p: float) -> float:
        return 0.5 * (-math.log(p) + dice_loss(p, 1, n))

    cross = against(0.75) + agreeing(0.75)
    assert float(terms.unlabelled) == pytest.approx(0.4 * cross, rel=1e-4)
    consistency = against(2 / 3) + agreeing(0.75)
    assert float(terms.further["prompt_consistency"]) == pytest.approx(0.05 * consistency, rel=1e-4)


def test_in_the_first_part_of_the_schedule_labels_alone_are_trained_on() -> None:
    def terms_at(step: int) -> LossTerms:
        return a_cross_prompting().loss(a_batch(), a_batch(1), step, step_generator(0, 0))

    for step in (0, 1):
        terms = terms_at(step)
        assert float(terms.unlabelled) == 0.0
        assert terms.further == {}
    for step in (2, 3):
        terms = terms_at(step)
        assert float(terms.unlabelled.detach()) > 0
        assert float(terms.further["prompt_consistency"].detach()) > 0
        assert float(terms.further["prompted"].detach()) > 0
        assert float(terms.supervised.detach()) == float(terms_at(0).supervised.detach())


def test_weights_of_zero_switch_their_term_off() -> None:
    own = OWN.model_copy(update={"cross_weight": 0.0, "prompt_weight": 0.0})
    terms = a_cross_prompting(own).loss(a_batch(), a_batch(1), LATE, step_generator(0, 0))
    assert float(terms.unlabelled.detach()) == 0.0
    assert float(terms.further["prompt_consistency"].detach()) == 0.0


def test_without_unlabelled_patches_labels_train_the_prompted_decoders_too() -> None:
    terms = a_cross_prompting().loss(a_batch(), None, LATE, step_generator(0, 0))
    assert float(terms.unlabelled.detach()) == 0.0
    assert float(terms.further["prompted"].detach()) > 0


def test_each_decoder_learns_and_nothing_flows_through_the_pseudo_label() -> None:
    paradigm = a_cross_prompting()
    network, batch = paradigm.student, a_batch()
    embeddings = network.embed(torch.cat([batch.inputs, a_batch(1).inputs]))
    for asker in (0, 1):
        unprompted = network.decode(asker, embeddings)
        one = paradigm.crossed(1 - asker, unprompted, embeddings, batch, np.random.default_rng(0))
        asking, answering = ("first", "second") if asker == 0 else ("second", "first")
        of_cross = gradients_of(one.cross, network)
        assert of_cross[asking] > 1e-6
        assert of_cross["encoder"] > 0
        assert of_cross[answering] == of_cross["points"] == 0.0  # it has only labelled
        of_consistency = gradients_of(one.consistency, network)
        assert of_consistency[answering] > 1e-6
        assert of_consistency["points"] > 0
        assert of_consistency[asking] == 0.0  # its map only made the points
        of_labels = gradients_of(one.prompted, network)
        assert of_labels[answering] > 1e-6
        assert of_labels[asking] == 0.0


def test_both_decoders_learn_from_the_whole_step() -> None:
    paradigm = a_cross_prompting()
    terms = paradigm.loss(a_batch(), a_batch(1), LATE, step_generator(0, 0))
    for term in (terms.supervised, terms.unlabelled, *terms.further.values()):
        found = gradients_of(term, paradigm.student)
        assert min(found["first"], found["second"], found["encoder"]) > 1e-6


def test_classes_of_unlabelled_patches_are_never_looked_at() -> None:
    batch = a_batch(1)
    other = replace(batch, classes=1 - batch.classes)
    first, second = (
        a_cross_prompting().loss(a_batch(), extra, LATE, step_generator(0, 0))
        for extra in (batch, other)
    )
    assert float(first.total.detach()) == float(second.total.detach())


def test_a_step_depends_on_its_generator_alone() -> None:
    def total(seed: int) -> float:
        np.random.seed(seed)  # noqa: NPY002 - nobody may look at it
        terms = a_cross_prompting().loss(a_batch(), a_batch(1), LATE, step_generator(0, 0))
        return float(terms.total.detach())

    assert total(0) == total(1)


def test_the_rate_rises_then_falls_and_moves_all_that_is_trained(tmp_path: Path) -> None:
    settings = STAGE.model_copy(update={"iterations": 8})
    paradigm = CrossPrompting(a_two_decoder_sam, settings, OWN)
    (learner,) = paradigm.configure_optimizers()
    assert (learner.optimiser, learner.learning_rate, learner.weight_decay) == ("adamw", 1e-3, 0.1)
    assert {id(p) for p in learner.parameters} == {
        id(p) for p in paradigm.parameters() if p.requires_grad
    }
    rates = [rate for (rate,) in rates_of(paradigm, 8, tmp_path)]
    risen = [0.5, *[1.0] * 7]  # two steps of warm-up
    wanted = [1e-3 * r * (1 - t / 8) ** 0.9 for t, r in enumerate(risen)]
    assert rates == pytest.approx(wanted)


# --- Whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def make_config() -> MakeConfig:
    return cpcsam_config


class TestWholeRuns(OwnSamChecks):
    needed = "specialist-tumour"


def test_sam_is_the_specialist_and_the_only_source(finished: RunFolder) -> None:
    rows = rows_of(finished.round(1) / "metrics.csv")
    assert {row["source"] for row in rows} == {"specialist", "refined"}
    folder = finished.round(1) / "predictions" / UNLABELLED[0]
    specialist, refined = prediction_in(folder, "specialist"), prediction_in(folder, "refined")
    np.testing.assert_array_equal(specialist.labels, refined.labels)


def test_only_what_was_trained_is_written(finished: RunFolder) -> None:
    for name in ("specialist-liver-1of3", "specialist-liver", "specialist-tumour"):
        names = set(weights_in(finished.round(1) / f"{name}.safetensors")[0])
        assert {n.partition(".")[0] for n in names} == {"sam", "decoders", "class_points"}
        encoder = [n for n in names if n.startswith("sam.image_encoder")]
        assert encoder
        assert all("low_rank" in n for n in encoder)


def test_what_is_frozen_is_in_memory_once(ensemble: Ensemble) -> None:
    liver, tumour = (dict(n.named_parameters()) for n in ensemble.specialist.networks.values())
    shared = {n for n in liver.keys() & tumour.keys() if liver[n] is tumour[n]}
    assert shared == {n for n in liver if "image_encoder" in n and "low_rank" not in n}


@pytest.mark.slow
def test_the_second_round_goes_on_from_the_first_also_when_stopped(tmp_path: Path) -> None:
    stage = STAGE.model_copy(update={"iterations": 2})
    config = cpcsam_config(rounds=2, patience=2, organ=stage, lesion=stage)
    whole = start_run(a_tiny_project(tmp_path / "whole"), config, run_id="a")
    first, second = (
        weights_in(whole.round(number) / "specialist-liver.safetensors")[0] for number in (1, 2)
    )
    assert first.keys() == second.keys()
    assert first != second
    run = stopped_and_resumed(
        a_tiny_project(tmp_path / "stopped"), config, at_step("specialist-tumour", 0, 2)
    )
    assert results(run) == results(whole)


def a_flat_project(folder: Path) -> Project:
    """Make a project with both targets beside each other, in one stage."""
    chosen = select_cases(write_patients(folder / "data"), labelled=("c0", "c1"), test=("c6",))
    targets = tuple(t.model_copy(update={"inside": None}) for t in LIVER_TARGETS)
    return create_project(folder / "project", chosen, targets)


@pytest.mark.slow
def test_several_classes_of_one_stage_are_told_apart(tmp_path: Path) -> None:
    run = start_run(a_flat_project(tmp_path), cpcsam_config())
    names = {path.name for path in run.round(1).glob("specialist-*.safetensors")}
    assert "specialist-liver-tumour.safetensors" in names
    segmented = segment_volume(run, read_volume(tmp_path / "data" / "ct6.nii.gz"))
    assert segmented.probabilities.keys() == {"liver", "tumour"}


def test_weights_of_another_rank_are_refused(finished: RunFolder) -> None:
    config = cpcsam_config(cpcsam=OWN.model_copy(update={"rank": 3}))
    path = finished.path / "config.json"
    with put_back(path):
        path.write_text(config.model_dump_json())
        with pytest.raises(WeightsError, match="sizes"):
            load_ensemble(finished)


@pytest.mark.parametrize("changes", [{"organ": IN_3D}, {"lesion": IN_3D}], ids=["organ", "lesion"])
def test_blocks_are_refused_in_words(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="looks at slices"):
        start_run(a_tiny_project(tmp_path), cpcsam_config(**changes))
