"""What the values of settings are called in the panel's boxes, and a line about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicer.i18n import tr as _

PRESETS = {
    "quick": (_("Quick"), _("For a processor or a graphics card; what was measured.")),
    "standard": (_("Standard"), _("For a graphics card; larger, slower, not measured yet.")),
    "demo": (_("Demo"), _("For made-up patients.")),
}
METHODS = {
    "aslseg": (
        "ASLseg",
        _("Specialist and SAM learn from each other's labels, round after round."),
    ),
    "semisam": ("SemiSAM", _("SAM is left as it is; the specialist has to agree with it.")),
    "scsam": ("SC-SAM", _("U-Net and SAM are trained together.")),
    "cpcsam": ("CPC-SAM", _("Two decoders of one SAM are trained on each other.")),
    "specialist": (_("Specialist alone"), _("The network without SAM.")),
}
SAM_MODELS = {
    "vit_t": _("MobileSAM (fast)"),
    "vit_b": _("SAM ViT-B (larger)"),
    "vit_l": _("SAM ViT-L (graphics card)"),
    "vit_h": _("SAM ViT-H (graphics card, slow)"),
    "none": _("no SAM"),
}
PARADIGMS = {
    "supervised": _("labelled volumes alone"),
    "mean_teacher": _("mean teacher"),
    "uncertainty_aware": _("uncertainty-aware mean teacher"),
    "cross_pseudo": _("cross pseudo supervision"),
    "unimatch": "UniMatch",
    "bidirectional_copy_paste": _("bidirectional copy-paste"),
}
TUNINGS = {
    "none": _("nothing"),
    "decoder": _("mask decoder"),
    "lora": _("low-rank updates (LoRA)"),
    "adapter": _("adapters"),
}


def about(choices: Mapping[str, tuple[str, str]], value: str) -> str:
    """Return the line about a value; nothing of one that an edited scene has made up."""
    return choices[value][1] if value in choices else ""


def name_choices(ui: Any) -> None:
    """Call the values in the boxes by their names.

    Slicer's connector fills a box with the values themselves and goes by their order alone.
    """
    for combo, names in (
        (ui.presetBox, {value: name for value, (name, _about) in PRESETS.items()}),
        (ui.methodBox, {value: name for value, (name, _about) in METHODS.items()}),
        (ui.samBox, SAM_MODELS),
        (ui.paradigmBox, PARADIGMS),
        (ui.tuningBox, TUNINGS),
    ):
        for index in range(combo.count):
            combo.setItemText(index, names.get(combo.itemText(index), combo.itemText(index)))
