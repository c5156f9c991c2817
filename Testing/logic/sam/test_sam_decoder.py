"""Embedding and decoding: the stock numbers, in one batch, cached, and in the right place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from torch import Tensor, nn

from aslseg.errors import CancelledError, StorageError
from aslseg.events import CancelToken, Monitor
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts, mask_to_logits
from aslseg.sam.decoder import decode, decode_batch, encode_sparse
from aslseg.sam.embeddings import (
    SLICES_PER_PART,
    EmbeddingStore,
    SliceFrame,
    embed_slices,
    embedding_key,
    encoder_digest,
    prepare_slices,
)
from aslseg.sam.model import build_sam
from aslseg.sam.tuning import tune
from support.sam_doubles import a_small_sam

FRAME = SliceFrame(40, 60, 128)


@pytest.fixture(scope="module")
def sam() -> Any:
    return a_small_sam()


def a_box(component: int = 0, shift: float = 0.0) -> SlicePrompts:
    return SlicePrompts(0, "t", component, BoxPrompt((10 + shift, 5, 30 + shift, 25)))


def various_prompts() -> list[SlicePrompts]:
    mask = np.zeros((40, 60), np.bool_)
    mask[8:20, 12:28] = True
    inside, outside = PointPrompt((20, 15)), PointPrompt((50.5, 35.5), positive=False)
    box = BoxPrompt((12, 8, 28, 20))
    return [
        SlicePrompts(0, "t", 0, box),
        SlicePrompts(0, "t", 1, None, (inside, outside)),
        SlicePrompts(0, "t", 2, box, (inside,), mask_to_logits(mask)),
        SlicePrompts(0, "t", 3, None, (), mask_to_logits(mask)),
        SlicePrompts(0, "t", 4, BoxPrompt((1, 1, 9, 9)), (), mask_to_logits(mask)),
    ]


def some_embeddings(count: int = 1) -> Tensor:
    return torch.randn(count, 256, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("shape", "scaled"),
    [
        pytest.param((256, 256), (512, 512), id="square"),
        pytest.param((100, 200), (256, 512), id="wide"),
        pytest.param((300, 77), (512, 131), id="tall, 131.4 columns"),
        pytest.param((1, 5000), (1, 512), id="a line keeps a row"),
    ],
)
def test_a_slice_fills_the_input_with_its_longer_side(
    shape: tuple[int, int], scaled: tuple[int, int]
) -> None:
    assert SliceFrame(*shape, 512).scaled == scaled


def test_points_are_scaled_to_the_input() -> None:
    frame = SliceFrame(100, 200, 512)
    corners = torch.tensor([[0.0, 0.0], [200.0, 100.0], [0.5, 99.5]])
    expected = torch.tensor([[0, 0], [512, 256], [1.28, 254.72]])
    torch.testing.assert_close(frame.to_input(corners), expected)


def test_a_bright_pixel_arrives_where_its_point_does() -> None:
    frame = SliceFrame(20, 40, 160)
    image = torch.zeros(1, 1, 20, 40)
    image[0, 0, 7, 31] = 1.0
    square = frame.image_to_input(image)[0, 0]
    rows, columns = torch.nonzero(square > square.max() * 0.9, as_tuple=True)
    centre = torch.stack([columns.float().mean() + 0.5, rows.float().mean() + 0.5])
    torch.testing.assert_close(centre, frame.to_input(torch.tensor([31.5, 7.5])))


def test_slices_are_normalised_as_sam_was_trained_and_padded_with_zeros(sam: Any) -> None:
    images = prepare_slices(sam, torch.ones(1, 40, 60))
    assert images.shape == (1, 3, 128, 128)
    white = (255 - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(images[0, :, 0, 0], white)
    assert images[0, :, 86:].abs().max() == 0  # 40 / 60 * 128 = 85.3 rows


def test_three_channels_are_kept_apart(sam: Any) -> None:
    slices = torch.rand(1, 3, 40, 60)
    grey = prepare_slices(sam, slices[:, 1])
    torch.testing.assert_close(prepare_slices(sam, slices)[:, 1], grey[:, 1])


def test_embeddings_and_masks_may_be_trained_upon(sam: Any) -> None:
    embedding = embed_slices(sam, torch.rand(1, 40, 60)).float()
    logits = decode(sam, embedding[0], [a_box()], FRAME).logits
    nn.Conv2d(256, 1, 1)(embedding).sum().backward()
    nn.Conv2d(1, 1, 3)(logits[None]).sum().backward()


def test_embeddings_are_stored_in_half_precision(sam: Any) -> None:
    embeddings = embed_slices(sam, torch.rand(3, 40, 60))
    assert (embeddings.shape, embeddings.dtype) == ((3, 256, 8, 8), torch.float16)


def test_no_slices_give_no_embeddings(sam: Any) -> None:
    assert embed_slices(sam, torch.zeros(0, 40, 60)).shape == (0, 256, 8, 8)


def nearest_cell(sam: Any, token: Tensor) -> tuple[int, int]:
    field = sam.prompt_encoder.get_dense_pe()[0]  # (256, h, w)
    index = int((field - token[:, None, None]).square().sum(dim=0).argmin())
    return divmod(index, field.shape[2])


@pytest.mark.parametrize("xy", [(0.5, 0.5), (59.5, 0.5), (31.5, 17.5), (8.5, 39.5)])
def test_a_point_on_a_pixel_is_nearest_to_the_cell_of_that_pixel(
    sam: Any, xy: tuple[float, float]
) -> None:
    prompt = SlicePrompts(0, "t", points=(PointPrompt(xy),))
    ((_, tokens),) = encode_sparse(sam, [prompt], FRAME)
    place = tokens[0, 0] - sam.prompt_encoder.point_embeddings[1].weight[0]
    x, y = xy[0] * 128 / 60, xy[1] * 85 / 40
    assert nearest_cell(sam, place) == (int(y // 16), int(x // 16))


def test_the_centre_of_a_cell_has_exactly_that_cells_position(sam: Any) -> None:
    frame = SliceFrame(128, 128, 128)
    prompt = SlicePrompts(0, "t", points=(PointPrompt((5 * 16 + 8, 2 * 16 + 8)),))
    ((_, tokens),) = encode_sparse(sam, [prompt], frame)
    place = tokens[0, 0] - sam.prompt_encoder.point_embeddings[1].weight[0]
    torch.testing.assert_close(place, sam.prompt_encoder.get_dense_pe()[0, :, 2, 5])


def stock_masks(sam: Any, embedding: Tensor, prompt: SlicePrompts) -> tuple[Tensor, Tensor]:
    """segment_anything's own way, for boxes and points; all four masks."""
    scale = torch.tensor([128 / 60, 85 / 40])
    points = boxes = None
    if prompt.points:
        xy = torch.tensor([[p.xy for p in prompt.points]]) * scale - 0.5
        points = (xy, torch.tensor([[int(p.positive) for p in prompt.points]]))
    if prompt.box:
        boxes = torch.tensor([prompt.box.xyxy]) * scale.repeat(2) - 0.5
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=None)
    return sam.mask_decoder.predict_masks(  # type: ignore[no-any-return]
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )


@torch.inference_mode()
def test_the_masks_are_those_of_the_stock_code(sam: Any) -> None:
    embedding = some_embeddings()
    prompts = [p for p in various_prompts() if p.mask_logits is None]
    decoded = decode(sam, embedding[0], prompts, FRAME)
    for row, prompt in enumerate(prompts):
        masks, _ = stock_masks(sam, embedding, prompt)
        torch.testing.assert_close(decoded.low_res[row], masks[0, 0])
        logits = sam.postprocess_masks(masks[:, :1], (85, 128), (40, 60))
        torch.testing.assert_close(decoded.logits[row], logits[0, 0])


def test_no_mask_depends_on_the_other_prompts_of_the_batch(sam: Any) -> None:
    embedding, prompts = some_embeddings()[0], various_prompts()
    together = decode(sam, embedding, prompts, FRAME)
    for row, prompt in enumerate(prompts):
        alone = decode(sam, embedding, [prompt], FRAME)
        torch.testing.assert_close(together.logits[row], alone.logits[0])


def test_prompts_of_several_slices_share_a_batch(sam: Any) -> None:
    embeddings, prompts = some_embeddings(3), various_prompts()
    index = torch.tensor([2, 0, 1, 0, 2])
    with torch.inference_mode():
        together = decode_batch(sam, embeddings, prompts, index=index, frame=FRAME)
    for row, prompt in enumerate(prompts):
        alone = decode(sam, embeddings[index[row]], [prompt], FRAME)
        torch.testing.assert_close(together.logits[row], alone.logits[0])


def test_more_prompts_than_fit_into_a_pass_are_all_decoded(
    sam: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [a_box(n, shift=float(n)) for n in range(5)]
    whole = decode(sam, some_embeddings()[0], prompts, FRAME).logits
    monkeypatch.setattr("aslseg.sam.decoder.PROMPTS_PER_PASS", 2)
    torch.testing.assert_close(decode(sam, some_embeddings()[0], prompts, FRAME).logits, whole)


def test_no_prompts_give_no_masks(sam: Any) -> None:
    decoded = decode(sam, some_embeddings()[0], [], FRAME)
    assert decoded.logits.shape == (0, 40, 60)
    assert decoded.low_res.shape == (0, 32, 32)


def test_embeddings_of_half_precision_are_taken(sam: Any) -> None:
    half = some_embeddings().half()
    one, other = (decode(sam, e[0], [a_box()], FRAME).logits for e in (half, half.float()))
    assert torch.equal(one, other)


def test_a_mask_prompt_of_any_resolution_covers_the_slice(sam: Any) -> None:
    mask = np.zeros((40, 60), np.bool_)
    mask[8:20, 12:28] = True
    fine = mask.repeat(2, axis=0).repeat(2, axis=1)
    decoded = [
        decode(sam, some_embeddings()[0], [SlicePrompts(0, "t", mask_logits=m)], FRAME).logits
        for m in (mask_to_logits(mask), mask_to_logits(fine), mask_to_logits(~mask))
    ]
    apart = (decoded[0] - decoded[1]).abs().max()
    assert apart < 0.2 * (decoded[0] - decoded[2]).abs().max()


def test_decoding_is_differentiable_down_to_the_decoder_and_the_prompts() -> None:
    sam: Any = tune(a_small_sam(), "decoder")
    decoded = decode_batch(
        sam, some_embeddings(2), [a_box(), a_box()], index=torch.tensor([0, 1]), frame=FRAME
    )
    decoded.logits.square().mean().backward()
    assert float(sam.mask_decoder.mask_tokens.weight.grad.abs().sum()) > 0
    assert float(sam.prompt_encoder.point_embeddings[2].weight.grad.abs().sum()) > 0


class Counting:
    """Makes an embedding that is the number of its slice, and counts."""

    def __init__(self) -> None:
        self.slices: list[int] = []

    def __call__(self, indices: list[int]) -> Tensor:
        self.slices += indices
        return torch.stack([torch.full((256, 2, 2), float(k)) for k in indices])


def test_stored_embeddings_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    stored = EmbeddingStore(tmp_path).get_or_compute("key", range(40), Counting())
    assert stored.stack([39, 0, 17, 0])[:, 0, 0, 0].tolist() == [39, 0, 17, 0]
    assert stored.stack([5]).dtype == torch.float16


def test_only_missing_slices_are_computed(tmp_path: Path) -> None:
    compute, store = Counting(), EmbeddingStore(tmp_path)
    store.get_or_compute("key", [1, 2, 3], compute)
    again = EmbeddingStore(tmp_path).get_or_compute("key", [2, 5, 3], compute)
    assert compute.slices == [1, 2, 3, 5]
    assert again.indices == [1, 2, 3, 5]


def test_another_key_shares_nothing(tmp_path: Path) -> None:
    compute, store = Counting(), EmbeddingStore(tmp_path)
    store.get_or_compute("one", [1], compute)
    store.get_or_compute("two", [1], compute)
    assert compute.slices == [1, 1]


def test_a_slice_that_was_not_asked_for_is_not_there(tmp_path: Path) -> None:
    stored = EmbeddingStore(tmp_path).get_or_compute("key", [1], Counting())
    with pytest.raises(KeyError):
        stored.stack([2])


def test_a_damaged_part_is_made_again(tmp_path: Path) -> None:
    compute, store = Counting(), EmbeddingStore(tmp_path)
    store.get_or_compute("key", [1, 2], compute)
    (part,) = (tmp_path / "key").iterdir()
    part.write_bytes(part.read_bytes()[:-10])
    again = store.get_or_compute("key", [1, 2], compute)
    assert compute.slices == [1, 2, 1, 2]
    assert again.stack([2])[0, 0, 0, 0] == 2


def test_the_cache_may_be_deleted(tmp_path: Path) -> None:
    compute, store = Counting(), EmbeddingStore(tmp_path)
    for _ in range(2):
        store.get_or_compute("key", [1], compute)
        for part in (tmp_path / "key").iterdir():
            part.unlink()
    assert compute.slices == [1, 1]


def test_what_was_made_before_a_cancel_is_kept(tmp_path: Path) -> None:
    token, compute = CancelToken(), Counting()

    def cancel_after_first(indices: list[int]) -> Tensor:
        token.cancel()
        return compute(indices)

    store, monitor = EmbeddingStore(tmp_path), Monitor(token=token)
    with pytest.raises(CancelledError):
        store.get_or_compute("key", range(40), cancel_after_first, monitor=monitor)
    stored = store.get_or_compute("key", range(40), compute)
    assert compute.slices == list(range(40))
    assert len(list(stored.folder.iterdir())) == -(-40 // SLICES_PER_PART)


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a file in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        EmbeddingStore(tmp_path).get_or_compute("key", [1], Counting())


def test_the_key_changes_with_image_model_and_settings() -> None:
    keys = {
        embedding_key("image", "model", {"size": 512}),
        embedding_key("other", "model", {"size": 512}),
        embedding_key("image", "other", {"size": 512}),
        embedding_key("image", "model", {"size": 256}),
    }
    assert len(keys) == 4
    assert embedding_key("i", "m", {"a": 1, "b": 2}) == embedding_key("i", "m", {"b": 2, "a": 1})


def test_the_digest_is_of_the_encoder_alone() -> None:
    sam: Any = a_small_sam()
    before = encoder_digest(sam)
    nn.init.ones_(sam.mask_decoder.mask_tokens.weight)
    assert encoder_digest(sam) == before
    nn.init.ones_(sam.image_encoder.neck[0].weight)
    assert encoder_digest(sam) != before


def dice_of_a_box(shared_folder: Path, input_size: Any, slices: list[int]) -> float:
    folder = shared_folder / "data" / "chaos_ct_liver"
    images = [sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("ct", "liver_gt")]
    ct, liver = (sitk.GetArrayFromImage(sitk.DICOMOrient(i, "LPS"))[slices] for i in images)
    pixels = torch.from_numpy(np.clip((ct.astype(np.float32) + 100) / 350, 0, 1))
    weights = shared_folder / "weights" / "mobile_sam.pt"
    sam = build_sam("vit_t", input_size=input_size, checkpoint=weights)
    scores = []
    for embedding, truth in zip(embed_slices(sam, pixels), liver > 0, strict=True):
        rows, columns = np.nonzero(truth)
        edges = (columns.min() - 5, rows.min() - 5, columns.max() + 6, rows.max() + 6)
        prompt = SlicePrompts(0, "liver", box=BoxPrompt(tuple(float(e) for e in edges)))
        frame = SliceFrame(*truth.shape, input_size)
        mask = (decode(sam, embedding, [prompt], frame).logits[0] > 0).numpy()
        scores.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    return float(np.mean(scores))


@pytest.mark.slow
@pytest.mark.parametrize(("input_size", "at_least"), [(512, 0.82), (1024, 0.88)])
def test_a_box_around_a_real_liver_finds_it(
    shared_folder: Path, input_size: int, at_least: float
) -> None:
    assert dice_of_a_box(shared_folder, input_size, [30, 40, 50]) > at_least
