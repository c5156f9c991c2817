"""What is trained of SAM: nothing changes before the first step, and only it changes after."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aslseg.errors import WeightsError
from aslseg.prompts import BoxPrompt, SlicePrompts
from aslseg.sam.decoder import decode_batch
from aslseg.sam.embeddings import SliceFrame
from aslseg.sam.tuning import (
    Adapter,
    LowRankQV,
    load_trainable_state,
    trainable_state,
    tune,
    tunes_encoder,
)
from support.sam_doubles import a_small_sam

KINDS = ("tiny", "vit")
ENCODER_TUNINGS: tuple[Any, ...] = ("lora", "adapter")
PROMPT = SlicePrompts(0, "t", box=BoxPrompt((20, 20, 60, 90)))
FRAME = SliceFrame(128, 128, 128)
IMAGE = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(5))


def predict(sam: Any) -> Tensor:
    embedding = sam.image_encoder(IMAGE)
    index = torch.tensor([0])
    return decode_batch(sam, embedding, [PROMPT], index=index, frame=FRAME).logits


def train_a_little(sam: nn.Module, steps: int = 3) -> list[float]:
    trained = [p for p in sam.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    target = torch.zeros(1, 128, 128)
    target[:, 20:90, 20:60] = 1
    losses = []
    for _ in range(steps):
        loss = nn.functional.binary_cross_entropy_with_logits(predict(sam), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["none", "decoder", *ENCODER_TUNINGS])
def test_before_the_first_step_nothing_changes_at_all(kind: str, how: Any) -> None:
    sam = a_small_sam(kind)
    with torch.inference_mode():
        before = predict(sam)
        assert torch.equal(predict(tune(sam, how)), before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ENCODER_TUNINGS)
def test_after_a_step_the_embedding_changes(kind: str, how: Any) -> None:
    sam: Any = tune(a_small_sam(kind), how)
    with torch.inference_mode():
        before = sam.image_encoder(IMAGE)
    train_a_little(sam)
    with torch.inference_mode():
        assert not torch.allclose(sam.image_encoder(IMAGE), before)


@pytest.mark.parametrize("how", ["decoder", *ENCODER_TUNINGS])
def test_training_lowers_the_loss(how: Any) -> None:
    losses = train_a_little(tune(a_small_sam(), how), steps=6)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["decoder", *ENCODER_TUNINGS])
def test_the_released_values_outside_of_the_decoder_stay(kind: str, how: Any) -> None:
    sam = a_small_sam(kind)
    released = {k: v.clone() for k, v in sam.state_dict().items() if k.startswith("image_")}
    train_a_little(tune(sam, how).train())
    assert all(torch.equal(sam.state_dict()[name], value) for name, value in released.items())


def test_the_prompt_encoder_is_trained_but_for_its_position_encoding() -> None:
    state = trainable_state(tune(a_small_sam(), "decoder"))
    assert any(name.startswith("prompt_encoder.") for name in state)
    assert not any("gaussian" in name for name in state)


@pytest.mark.parametrize("kind", KINDS)
def test_the_decoder_tuning_leaves_the_encoder_frozen(kind: str) -> None:
    assert not tunes_encoder(tune(a_small_sam(kind), "decoder"))
    assert tunes_encoder(tune(a_small_sam(kind), "lora"))


def test_nothing_is_trained_when_nothing_shall_be() -> None:
    assert trainable_state(tune(a_small_sam(), "none")) == {}


def test_low_rank_updates_have_the_size_of_their_rank() -> None:
    sam = tune(a_small_sam("vit"), "lora", rank=3)
    extra = [p.numel() for n, p in sam.named_parameters() if "low_rank" in n]
    assert sum(extra) == 2 * (2 * (32 * 3 + 3 * 32))  # blocks * (q and v) * (down + up)


@pytest.mark.parametrize("grouped", [True, False])
def test_keys_are_never_updated_and_queries_and_values_are(grouped: bool) -> None:
    update = LowRankQV(8, 2, 3, grouped_by_head=grouped)
    for parameter in update.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(5, 8)
    shape = (5, 2, 3, 4) if grouped else (5, 3, 2, 4)
    parts = update(x).view(shape).transpose(1, 2) if grouped else update(x).view(shape)
    q, k, v = parts.unbind(1)  # each (5, 2, 4)
    torch.testing.assert_close(q.flatten(1), update.q_up(update.q_down(x)))
    torch.testing.assert_close(v.flatten(1), update.v_up(update.v_down(x)))
    assert k.abs().max() == 0


def test_an_adapter_is_scaled() -> None:
    adapter = Adapter(4, 2, scale=0.5)
    nn.init.ones_(adapter.up.bias)
    torch.testing.assert_close(adapter(torch.randn(3, 4)), torch.full((3, 4), 0.5))


@pytest.mark.parametrize("how", ["decoder", *ENCODER_TUNINGS])
def test_trained_values_make_a_fresh_model_give_the_same_masks(how: Any) -> None:
    trained = tune(a_small_sam(), how)
    train_a_little(trained)
    fresh = tune(a_small_sam(), how)
    load_trainable_state(fresh, trainable_state(trained))
    with torch.inference_mode():
        assert torch.equal(predict(fresh), predict(trained))


def test_trained_values_are_a_copy() -> None:
    sam = tune(a_small_sam(), "decoder")
    before = trainable_state(sam)
    train_a_little(sam, steps=1)
    after = trainable_state(sam)
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("how", "rank"), [("adapter", 4), ("lora", 5), ("decoder", 4)])
def test_trained_values_of_another_tuning_are_refused(how: Any, rank: int) -> None:
    state = trainable_state(tune(a_small_sam(), "lora", rank=4))
    with pytest.raises(WeightsError, match="do not fit"):
        load_trainable_state(tune(a_small_sam(), how, rank=rank), state)


def test_tuning_twice_is_refused() -> None:
    sam = tune(a_small_sam(), "lora")
    with pytest.raises(ValueError, match="already"):
        tune(sam, "adapter")


def test_an_unknown_tuning_is_refused() -> None:
    how: Any = "prefix"
    with pytest.raises(ValueError, match="prefix"):
        tune(a_small_sam(), how)


def test_a_copy_is_tuned_by_its_own_modules() -> None:
    sam: Any = tune(a_small_sam(), "adapter")
    copied: Any = copy.deepcopy(sam)
    train_a_little(copied)
    with torch.inference_mode():
        assert not torch.equal(copied.image_encoder(IMAGE), sam.image_encoder(IMAGE))
