"""SAM in all sizes: names, shapes, position embeddings, and what is refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.errors import WeightsError
from aslseg.imports import without_its_init
from aslseg.sam import embeddings, tiny_vit, vit
from aslseg.sam.embeddings import embed_slices, input_size_of, slices_at_once
from aslseg.sam.model import (
    SIZES,
    ViTSizes,
    assemble_sam,
    build_sam,
    load_state_of_any_size,
    load_weights,
)
from aslseg.sam.stock import ImageEncoderViT, Sam
from aslseg.sam.tiny_vit import TinyViT, WindowAttention
from aslseg.sam.vit import attend_fused, attend_plain
from support.sam_doubles import SMALL_VIT, TINY, a_small_sam


@pytest.mark.parametrize("kind", ["tiny", "vit"])
@pytest.mark.parametrize("input_size", [64, 112, 128])
def test_an_embedding_is_16_times_smaller_than_the_input(kind: str, input_size: int) -> None:
    sam: Any = a_small_sam(kind, input_size)
    with torch.inference_mode():
        embedding = sam.image_encoder(torch.zeros(2, 3, input_size, input_size))
    assert embedding.shape == (2, 256, input_size // 16, input_size // 16)
    assert input_size_of(sam) == input_size


def test_sam_is_built_in_evaluation_mode() -> None:
    assert not a_small_sam().training


def test_an_input_size_that_16_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        assemble_sam(TINY, 100)


def test_an_unknown_size_of_sam_is_refused() -> None:
    name: Any = "vit_x"
    with pytest.raises(ValueError, match="vit_t, vit_b, vit_l, vit_h"):
        build_sam(name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vit_b", 93_735_472), ("vit_l", 312_342_832), ("vit_h", 641_090_608)],
)
def test_the_original_sizes_have_the_published_numbers_of_parameters(
    name: str, parameters: int
) -> None:
    key: Any = name
    with torch.device("meta"):
        sam = assemble_sam(SIZES[key], 1024)
    assert sum(p.numel() for p in sam.parameters()) == parameters


def test_an_original_sam_has_the_names_and_shapes_of_the_stock_builder() -> None:
    with without_its_init("segment_anything"):
        from segment_anything.build_sam import sam_model_registry

    with torch.device("meta"):
        ours, stock = assemble_sam(SIZES["vit_b"], 1024), sam_model_registry["vit_b"]()
    shapes = [{k: v.shape for k, v in sam.state_dict().items()} for sam in (ours, stock)]
    assert shapes[0] == shapes[1]


def test_mobile_sam_has_ten_million_parameters() -> None:
    with torch.device("meta"):
        sam = assemble_sam(SIZES["vit_t"], 1024)
    classifier = 2 * 320 + 320 * 1000 + 1000  # released with it, not part of ours
    assert sum(p.numel() for p in sam.parameters()) == 10_130_092 - classifier


@pytest.mark.parametrize("trained", [True, False])
def test_window_attention_equals_its_formula(trained: bool) -> None:
    attention = WindowAttention(8, 2, 3)
    nn.init.normal_(attention.attention_biases)
    x = torch.randn(4, 3, 3, 8)
    qkv = attention.qkv(attention.norm(x)).view(4, 9, 2, 12)
    q, k, v = (part.transpose(1, 2) for part in qkv.split([4, 4, 4], dim=3))
    bias = torch.empty(2, 9, 9)
    for i in range(9):
        for j in range(9):
            rows, columns = abs(i // 3 - j // 3), abs(i % 3 - j % 3)
            bias[:, i, j] = attention.attention_biases[:, 3 * rows + columns]
    weights = (q @ k.transpose(-2, -1) / 2.0 + bias).softmax(dim=-1)  # 2 = sqrt(4)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(4, 3, 3, 8))
    with torch.set_grad_enabled(trained):
        torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("shape", [(7, 4), (3, 5), (2, 2), (4, 3)])
def test_windows_over_the_edge_see_zeros_there(shape: tuple[int, int]) -> None:
    attention = WindowAttention(8, 2, 3)
    nn.init.normal_(attention.attention_biases)
    x = torch.randn(2, *shape, 8)
    filled = F.pad(x, (0, 0, 0, -shape[1] % 3, 0, -shape[0] % 3))
    torch.testing.assert_close(attention(x), attention(filled)[:, : shape[0], : shape[1]])


@pytest.mark.parametrize("cells", [7, 8, 9, 2])
def test_a_vit_equals_that_of_segment_anything(cells: int) -> None:
    # Windows of 3 are filled up by 2, 1, 0 and 1 on either side.
    ours: Any = a_small_sam("vit", 16 * cells)
    stock = ImageEncoderViT(
        img_size=16 * cells,
        embed_dim=SMALL_VIT.dim,
        depth=SMALL_VIT.depth,
        num_heads=SMALL_VIT.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=SMALL_VIT.window,
        global_attn_indexes=SMALL_VIT.global_blocks,
    )
    stock.load_state_dict(ours.image_encoder.state_dict())
    images, weights = torch.randn(2, 3, 16 * cells, 16 * cells), torch.randn(2, 256, cells, cells)
    found, expected = ours.image_encoder(images), stock(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for embedding in (found, expected):
        (embedding * weights).sum().backward()
    of_stock = dict(stock.named_parameters())
    for name, value in ours.image_encoder.named_parameters():
        torch.testing.assert_close(value.grad, of_stock[name].grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("kind", "cells"), [("tiny", 7), ("tiny", 2), ("vit", 7), ("vit", 2)])
def test_windows_filled_up_as_on_a_card_give_the_same(
    kind: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: Any = a_small_sam(kind, 16 * cells).image_encoder
    images, weights = torch.randn(2, 3, 16 * cells, 16 * cells), torch.randn(2, 256, cells, cells)
    found = encoder(images)
    (found * weights).sum().backward()
    gradients = {name: p.grad.clone() for name, p in encoder.named_parameters()}
    encoder.zero_grad()
    module = tiny_vit if kind == "tiny" else vit
    asked: list[bool] = []
    monkeypatch.setattr(module, "fills_windows", lambda x: asked.append(x.is_cuda) or True)
    filled = encoder(images)
    torch.testing.assert_close(filled, found, rtol=1e-4, atol=1e-4)
    (filled * weights).sum().backward()
    assert asked
    assert not any(asked)
    for name, value in encoder.named_parameters():
        torch.testing.assert_close(value.grad, gradients[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [5, 8])
def test_fused_attention_equals_the_plain_one(channels: int) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 7, channels, requires_grad=True) for _ in range(2)]
    parts.append(torch.randn(2, 3, 7, 4, requires_grad=True))
    found, gradients = [], []
    for attend in (attend_plain, attend_fused):
        found.append(attend(*parts))
        gradients.append(torch.autograd.grad(found[-1].square().sum(), parts))
    torch.testing.assert_close(*found)
    for plain, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, fused)


def test_slices_encoded_together_have_the_embeddings_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sam, slices01 = a_small_sam("tiny", 64), torch.rand(5, 40, 50)
    alone = embed_slices(sam, slices01)
    monkeypatch.setattr(embeddings, "slices_at_once", lambda kind, size: 3)
    torch.testing.assert_close(embed_slices(sam, slices01), alone, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("kind", "input_size", "count"),
    [("cpu", 256, 1), ("mps", 1024, 1), ("cuda", 1024, 4), ("cuda", 512, 16), ("cuda", 2048, 1)],
)
def test_a_graphics_card_encodes_several_slices_at_once(
    kind: str, input_size: int, count: int
) -> None:
    assert slices_at_once(kind, input_size) == count


def test_changed_attention_biases_are_felt_in_evaluation_mode() -> None:
    sam: Any = a_small_sam()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = sam.image_encoder(image)
        other: Any = a_small_sam(seed=1)
        sam.load_state_dict(other.state_dict())
        torch.testing.assert_close(sam.image_encoder(image), other.image_encoder(image))
        assert not torch.allclose(sam.image_encoder(image), before)


def test_each_image_of_a_batch_is_embedded_as_if_alone() -> None:
    sam: Any = a_small_sam()
    images = torch.randn(3, 3, 80, 80)
    with torch.inference_mode():
        alone = torch.cat([sam.image_encoder(image[None]) for image in images])
        torch.testing.assert_close(sam.image_encoder(images), alone)


def test_training_mode_keeps_the_statistics_of_batch_norm() -> None:
    encoder = TinyViT(64, TINY)
    encoder.train()
    assert encoder.training
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    encoder(torch.randn(2, 3, 64, 64))
    assert before
    assert all(torch.equal(encoder.state_dict()[k], v) for k, v in before.items())


def test_position_embeddings_fit_another_input_size() -> None:
    large, small = a_small_sam("vit", 256), a_small_sam("vit", 64)
    load_state_of_any_size(small, large.state_dict(), named="large")
    given, fitted = large.state_dict(), small.state_dict()
    absolute = "image_encoder.pos_embed"
    expected = F.interpolate(given[absolute].permute(0, 3, 1, 2), (4, 4), mode="bicubic")
    torch.testing.assert_close(fitted[absolute], expected.permute(0, 2, 3, 1))
    relative = "image_encoder.blocks.1.attn.rel_pos_h"  # of the block with global attention
    assert (given[relative].shape[0], fitted[relative].shape[0]) == (31, 7)
    windowed = "image_encoder.blocks.0.attn.rel_pos_h"
    assert torch.equal(given[windowed], fitted[windowed])


def test_relative_positions_are_fitted_as_the_stock_code_would() -> None:
    with without_its_init("segment_anything"):
        from segment_anything.modeling.image_encoder import get_rel_pos

    large, small = a_small_sam("vit", 256), a_small_sam("vit", 64)
    load_state_of_any_size(small, large.state_dict(), named="large")
    name = "image_encoder.blocks.1.attn.rel_pos_w"
    expected = get_rel_pos(4, 4, large.state_dict()[name])
    torch.testing.assert_close(get_rel_pos(4, 4, small.state_dict()[name]), expected)


def test_a_linear_ramp_of_relative_positions_stays_one_with_zero_in_the_middle() -> None:
    large, small = a_small_sam("vit", 256), a_small_sam("vit", 128)
    state = dict(large.state_dict())
    name = "image_encoder.blocks.1.attn.rel_pos_h"
    state[name] = torch.arange(-15.0, 16.0)[:, None].expand(-1, 16)
    load_state_of_any_size(small, state, named="large")
    ramp = small.state_dict()[name][:, 0]
    assert ramp[7] == pytest.approx(0.0, abs=1e-5)
    torch.testing.assert_close(ramp, -ramp.flip(0))
    torch.testing.assert_close(ramp[1:-1].diff(), torch.full((12,), 31 / 15))


def test_weights_of_the_same_size_are_loaded_exactly() -> None:
    one, other = a_small_sam("vit"), a_small_sam("vit", seed=1)
    load_state_of_any_size(other, one.state_dict(), named="one")
    assert all(torch.equal(a, b) for a, b in _values(one, other))


def _values(one: nn.Module, other: nn.Module) -> list[tuple[Tensor, Tensor]]:
    return list(zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_weights_of_the_other_encoder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(a_small_sam("tiny").state_dict(), path)
    with pytest.raises(WeightsError, match=r"tiny\.pt holds the weights of another model"):
        load_weights(a_small_sam("vit"), path)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.pt"
    torch.save(assemble_sam(ViTSizes(64, 2, 2, (1,), 3), 128).state_dict(), path)
    with pytest.raises(WeightsError, match="another size of SAM"):
        load_weights(assemble_sam(SMALL_VIT, 128), path)


def test_a_classifier_among_the_weights_is_left_out() -> None:
    one, other = a_small_sam(), a_small_sam(seed=1)
    state = {**one.state_dict(), "image_encoder.head.weight": torch.zeros(10, 64)}
    load_state_of_any_size(other, state, named="with head")
    assert all(torch.equal(a, b) for a, b in _values(one, other))


def test_a_missing_weight_is_named() -> None:
    state = dict(a_small_sam().state_dict())
    del state["image_encoder.neck.0.weight"]
    with pytest.raises(WeightsError, match=r"neck\.0\.weight"):
        load_state_of_any_size(a_small_sam(), state, named="x")


class _CreatesAFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_a_checkpoint_that_would_run_code_is_refused_without_running_it(tmp_path: Path) -> None:
    trap, path = tmp_path / "was_here", tmp_path / "sam.pth"
    torch.save({"image_encoder.neck.0.weight": _CreatesAFile(trap)}, path)
    with pytest.raises(WeightsError, match="would run code"):
        load_weights(a_small_sam(), path)
    assert not trap.exists()
    with path.with_suffix(".pkl").open("wb") as file:
        pickle.dump(_CreatesAFile(trap), file)
    with pytest.raises(WeightsError):
        load_weights(a_small_sam(), path.with_suffix(".pkl"))
    assert not trap.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert trap.exists()


def test_the_encoder_needs_segment_anything_only() -> None:
    assert isinstance(a_small_sam(), Sam)


def run_python(code: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchvision_is_not_needed_and_segment_anything_stays_importable() -> None:
    code = """
        import sys
        from aslseg.sam.stock import Sam
        print("torchvision" in sys.modules, "segment_anything" in sys.modules)
        sys.modules["torchvision"] = None  # makes `import torchvision` raise ImportError
        try:
            import segment_anything
        except ImportError as error:
            print("torchvision" in str(error))
        import aslseg.sam.decoder
    """
    assert run_python(code) == "False False\nTrue"


def test_networks_are_those_that_segment_anything_has_of_itself() -> None:
    with without_its_init("segment_anything"):
        from segment_anything import modeling
    assert modeling.Sam is Sam


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):  # noqa: SIM117
        with without_its_init("no_such_package"):
            import no_such_package  # noqa: F401
