"""How a specialist learns from labelled and unlabelled patches: interchangeable paradigms.

A paradigm owns networks and the loss of a step; the loop over steps is in `training.trainer`.
`training` and `methods` import it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from aslseg.config import Paradigm as ParadigmName
from aslseg.config import SpecialistConfig
from aslseg.training.ssl.base import Paradigm
from aslseg.training.ssl.cross_pseudo import CrossPseudoSupervision
from aslseg.training.ssl.mean_teacher import MeanTeacher, UncertaintyAwareMeanTeacher
from aslseg.training.ssl.supervised import Supervised

PARADIGMS: dict[ParadigmName, type[Paradigm]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "uncertainty_aware": UncertaintyAwareMeanTeacher,
    "cross_pseudo": CrossPseudoSupervision,
}


def build_paradigm(
    name: ParadigmName, build: Callable[[], nn.Module], settings: SpecialistConfig
) -> Paradigm:
    """Build a paradigm around freshly built networks.

    Args:
        name: Which one.
        build: Makes one untrained network; called once per network that is needed.
        settings: Weights and schedule of the unlabelled term.
    """
    return PARADIGMS[name](build, settings)


__all__ = ["PARADIGMS", "Paradigm", "build_paradigm"]
