"""What the specialist's probabilities ask SAM about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aslseg.config import SamConfig, Target
from aslseg.inference import clean_container
from aslseg.prompts import SlicePrompts, prompts_from_mask
from aslseg.views import Float32
from aslseg.volume import Mask


def propose(
    said: Mapping[str, Float32], targets: Sequence[Target], settings: SamConfig
) -> list[SlicePrompts]:
    """Turn probabilities into prompts.

    A container is proposed as its one cleaned body; contents from a lower threshold that favours
    recall, for what is never proposed SAM is never asked about.
    """
    prompts: list[SlicePrompts] = []
    for name, mask in proposed_masks(said, targets, settings).items():
        prompts += prompts_from_mask(mask, target=name, settings=settings.prompts)
    return prompts


def proposed_masks(
    said: Mapping[str, Float32], targets: Sequence[Target], settings: SamConfig
) -> dict[str, Mask]:
    """Return what SAM is asked about, by target."""
    containers = {target.inside for target in targets}
    threshold = settings.prompts.proposal_threshold
    return {
        name: clean_container(heard > 0.5) if name in containers else heard >= threshold
        for name, heard in said.items()
    }
