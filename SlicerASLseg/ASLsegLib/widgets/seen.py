"""What a person accepts or saves has to be seen first."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from ASLsegLib.scene.hidden_segments import show_hidden
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.segmentations import volume_drawn_on
from ASLsegLib.scene.shown_labels import target_segments
from ASLsegLib.scene.shown_volume import show_volume, why_not_in_views
from ASLsegLib.scene.volumes import SceneError, is_scalar
from ASLsegLib.widgets.section import PanelContext


def require_seen(
    panel: PanelContext, node: Any, target: str = "", *, is_saved: bool = False
) -> None:
    """Show what of a segmentation is hidden.

    So is the volume that it was drawn on, as the background of a slice view.

    Args:
        panel: Whose boxes show and hide predictions.
        node: The segmentation node.
        target: The target that is meant; all when empty.
        is_saved: Whether it is saved as it is, and not accepted.

    Raises:
        SceneError: When something was hidden: a person looks at it, and presses again then.
    """
    volume = volume_drawn_on(node)
    why = "" if volume is None or not is_scalar(volume) else why_not_in_views(volume)
    if why:
        show_volume(volume)
    hidden = show_hidden(node, target_segments(node, panel.logic.targets(), target))
    if hidden:
        source = source_of(node)
        if source:
            getattr(panel.ui, f"show{source.title()}Box").checked = True
        accepted = _(
            "{name} was hidden ({hidden}), so nothing was accepted. It is shown now: look at "
            "it, and press again."
        )
        saved = _(
            "{name} was hidden ({hidden}), so nothing was saved. It is shown now: look at it, "
            "and press again."
        )
        text = saved if is_saved else accepted
        why = why or text.format(name=node.GetName(), hidden=", ".join(hidden))
    if why:
        raise SceneError(why)
