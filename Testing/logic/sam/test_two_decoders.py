"""A SAM with two decoders: its predictions, its points, and what of it is copied and kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aslseg.networks.checkpoints import TrainedPart, copy_sharing_frozen
from aslseg.sam.classwise import POSITIVE, ClassPoints
from aslseg.sam.tuning import tune
from aslseg.sam.two_decoders import TwoDecoderSam, class_decoder
from support.sam_doubles import a_small_sam

EDGE = 24
CLASSES = 3


def a_picture(inputs: Tensor) -> Tensor:
    return inputs[:, 1].sigmoid()


def a_two_decoder_sam(kind: str = "tiny", how: Any = "lora") -> TwoDecoderSam:
    sam = tune(a_small_sam(kind, 128), how, rank=2)
    torch.manual_seed(0)
    return TwoDecoderSam(sam, CLASSES, edge=EDGE, picture=a_picture).eval()


def inputs_of(height: int = EDGE, width: int = EDGE) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def one_point(x: float, y: float) -> ClassPoints:
    labels = torch.full((2, CLASSES, 1), POSITIVE)
    return ClassPoints(torch.tensor([x, y]).expand(2, CLASSES, 1, 2), labels)


# --- Predictions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tiny", "vit"])
def test_before_the_first_step_low_rank_updates_change_nothing(kind: str) -> None:
    tuned, plain = a_two_decoder_sam(kind), a_two_decoder_sam(kind, "decoder")
    torch.testing.assert_close(tuned.embed(inputs_of()), plain.embed(inputs_of()))


def test_two_decoders_differ_from_the_start_and_share_the_image() -> None:
    network = a_two_decoder_sam()
    embeddings = network.embed(inputs_of())
    first, second = (network.decode(number, embeddings) for number in (0, 1))
    assert first.shape == second.shape == (2, CLASSES, EDGE, EDGE)
    assert not torch.allclose(first, second, atol=1e-2)
    released: Any = a_small_sam("tiny", 128).mask_decoder
    for decoder in network.decoders:
        own: Any = decoder
        for part in ("transformer", "output_upscaling", "iou_token"):
            for mine, theirs in zip(
                getattr(own, part).parameters(), getattr(released, part).parameters(), strict=True
            ):
                assert torch.equal(mine, theirs)
        assert len(own.mask_tokens.weight) == CLASSES


def test_a_decoder_has_as_many_masks_as_there_are_classes() -> None:
    for classes in (2, 5):
        decoder: Any = class_decoder(a_small_sam().mask_decoder, classes)  # type: ignore[arg-type]
        assert len(decoder.mask_tokens.weight) == len(decoder.output_hypernetworks_mlps) == classes


def test_the_prediction_is_the_mean_of_both_decoders() -> None:
    network = a_two_decoder_sam()
    with torch.no_grad():
        embeddings = network.embed(inputs_of())
        probabilities = [network.decode(number, embeddings).softmax(1) for number in (0, 1)]
        found = network(inputs_of())
    torch.testing.assert_close(
        found.softmax(1), (probabilities[0] + probabilities[1]) / 2, atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, EDGE, EDGE))


def test_what_is_larger_than_a_patch_is_seen_in_windows_of_its_size() -> None:
    """A network of single pixels predicts the same, however it is windowed."""
    network = a_two_decoder_sam()
    seen: list[tuple[int, ...]] = []

    def by_pixel(number: int, embeddings: Tensor, points: object = None) -> Tensor:
        seen.append(tuple(embeddings.shape[-2:]))
        return torch.stack([embeddings, -embeddings, 0 * embeddings], 1)

    network.embed = lambda window: window[:, 1]  # type: ignore[method-assign]
    network.decode = by_pixel  # type: ignore[method-assign]
    wide = inputs_of(50, 31)
    wanted = torch.stack([wide[:, 1], -wide[:, 1], 0 * wide[:, 1]], 1).softmax(1)
    torch.testing.assert_close(network(wide).softmax(1), wanted)
    assert set(seen) == {(EDGE, EDGE)}
    small = inputs_of(10, 17)
    assert network(small).shape == (2, CLASSES, 10, 17)


# --- Points ---------------------------------------------------------------------------------------


def test_a_point_is_nearest_to_the_cell_that_it_lies_in() -> None:
    network = a_two_decoder_sam()
    encoder: Any = network.sam.prompt_encoder
    cells = encoder.get_dense_pe()[0].flatten(1).T.detach()  # (64, 256) of an input of 128
    for x, y in [(0.5, 23.5), (20.5, 1.5), (7.5, 12.5), (23.5, 16.5)]:
        tokens = network._tokens(one_point(x, y), torch.device("cpu")).detach()
        for number in range(CLASSES):
            position = tokens[0, number] - network.class_points[number].detach()
            nearest = int((cells - position).norm(dim=1).argmin())
            assert divmod(nearest, 8) == (int(y / 3), int(x / 3))


def test_a_point_is_told_as_sam_itself_tells_it() -> None:
    network = a_two_decoder_sam()
    encoder: Any = network.sam.prompt_encoder
    tokens = network._tokens(one_point(7.5, 12.5), torch.device("cpu"))
    scaled = torch.tensor([7.5, 12.5]).expand(1, 2, 2) * 128 / EDGE - 0.5
    stock, _ = encoder(points=(scaled, torch.tensor([[0, 1]])), boxes=None, masks=None)
    torch.testing.assert_close(tokens[0, [0, 1, 3]], stock[0])  # negative, positive, the empty one


def test_each_class_has_an_embedding_of_its_own_that_learns() -> None:
    network = a_two_decoder_sam()
    probabilities = network.decode(0, network.embed(inputs_of()), one_point(7.5, 12.5))
    probabilities[:, 1].mean().backward()
    gradient = network.class_points.grad
    assert gradient is not None
    assert (gradient.norm(dim=1) > 0).all()


# --- What is frozen -------------------------------------------------------------------------------


class Half(TrainedPart):
    def __init__(self, frozen: float) -> None:
        super().__init__()
        self.still = nn.Linear(1, 1).requires_grad_(requires_grad=False)
        self.still.weight.data.fill_(frozen)
        self.moving = nn.Linear(1, 1)
        self.register_buffer("kept", torch.tensor(frozen))
        self.leave_out_frozen()


def test_the_state_is_what_is_trained() -> None:
    assert set(Half(1.0).state_dict()) == {"moving.weight", "moving.bias"}
    within = nn.ModuleDict({"a": Half(1.0), "b": nn.Linear(1, 1)})
    wanted = {"a.moving.weight", "a.moving.bias", "b.weight", "b.bias"}
    assert set(within.state_dict()) == wanted


def test_loading_moves_what_is_trained_and_nothing_else() -> None:
    for nested in (False, True):
        source, goal = Half(1.0), Half(2.0)
        if nested:
            nn.ModuleList([goal]).load_state_dict(nn.ModuleList([source]).state_dict())
        else:
            goal.load_state_dict(source.state_dict())
        assert torch.equal(goal.moving.weight, source.moving.weight)
        assert float(goal.still.weight) == float(goal.kept) == 2.0


def test_a_state_of_something_else_is_still_refused() -> None:
    state = Half(1.0).state_dict()
    del state["moving.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*moving\.bias"):
        Half(1.0).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*strange"):
        Half(1.0).load_state_dict({**Half(1.0).state_dict(), "strange": torch.zeros(1)})


def test_a_copy_shares_what_is_frozen_and_keeps_its_state_when_all_of_it_is() -> None:
    source = Half(1.0)
    copied = copy_sharing_frozen(source).requires_grad_(requires_grad=False)
    assert copied.still.weight is source.still.weight
    assert copied.moving.weight is not source.moving.weight
    assert source.moving.weight.requires_grad
    assert copied.state_dict().keys() == source.state_dict().keys()
