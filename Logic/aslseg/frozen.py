"""Networks of which a part is frozen: copies share that part, and it is not written to disk."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def copy_sharing_frozen(module: AnyModule) -> AnyModule:
    """Copy a network whose frozen parameters stay in memory once.

    Args:
        module: Parameters that ask for no gradient are shared with the copy, others are copied.
    """
    return copy.deepcopy(module, {id(p): p for p in module.parameters() if not p.requires_grad})


class TrainedPart(nn.Module):
    """A network whose state is what is trained of it; the rest is whatever it was built with.

    `leave_out_frozen` has to be called once it is built.
    """

    _left_out: frozenset[str] = frozenset()

    def leave_out_frozen(self) -> None:
        """Leave buffers, and parameters that are frozen now, out of the state from here on.

        Copies leave out the same ones, even if they are frozen as a whole.
        """
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        self._left_out = frozenset(self.state_dict().keys() - trained)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the trained values, as `nn.Module` does."""
        state = super().state_dict(*args, **kwargs)
        for name in self._left_out:
            del state[kwargs.get("prefix", "") + name]
        return state

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any
    ) -> None:  # called by load_state_dict, here and in whatever this network is a part of
        own = super().state_dict()
        state_dict.update({prefix + name: own[name] for name in self._left_out})
        super()._load_from_state_dict(state_dict, prefix, *rest)
