"""Semi-supervised training of the specialist: interchangeable methods.

An SSL method owns networks and the loss of a step; the loop over steps is in `training.trainer`.
`training` and `methods` import it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from aslseg.config import SpecialistConfig, SSLName
from aslseg.training.ssl.base import SSLMethod, Supervised
from aslseg.training.ssl.bidirectional_copy_paste import BidirectionalCopyPaste
from aslseg.training.ssl.cross_pseudo import CrossPseudoSupervision
from aslseg.training.ssl.mean_teacher import MeanTeacher, UncertaintyAwareMeanTeacher
from aslseg.training.ssl.unimatch import UniMatch

SSL_METHODS: dict[SSLName, type[SSLMethod]] = {
    "supervised": Supervised,
    "mean_teacher": MeanTeacher,
    "uncertainty_aware": UncertaintyAwareMeanTeacher,
    "cross_pseudo": CrossPseudoSupervision,
    "unimatch": UniMatch,
    "bidirectional_copy_paste": BidirectionalCopyPaste,
}


def build_ssl_method(
    name: SSLName, build: Callable[[], nn.Module], settings: SpecialistConfig
) -> SSLMethod:
    """Build an SSL method with untrained networks.

    Args:
        name: Which one.
        build: Makes one untrained network; called once per network that is needed.
        settings: Weights and schedule of the unlabelled term.
    """
    return SSL_METHODS[name](build, settings)


__all__ = ["SSL_METHODS", "SSLMethod", "build_ssl_method"]
