"""Sample data: public volumes with checksums, and a patient that is made on this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from ASLsegLib.paths import resource

CATEGORY = "ASLseg"
PHANTOM_SEED = 3
_RELEASES = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
# imagesTr/liver_100 of the Medical Segmentation Decathlon (Task03, CC BY-SA 4.0), kept by Slicer.
_LIVER_SHA256 = "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"


def register() -> None:
    """Tell the module Sample Data what there is; nothing is downloaded now."""
    import SampleData

    icons = resource("Icons")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="ASLsegPhantom",
        thumbnailFileName=str(icons / "ASLsegPhantom.png"),
        customDownloader=make_phantom_nodes,
        uris="https://github.com/SlicerASLseg/SlicerASLseg",
    )
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="ASLsegCTLiver",
        thumbnailFileName=str(icons / "ASLsegCTLiver.png"),
        uris=_RELEASES + _LIVER_SHA256,
        fileNames="CTLiver.nrrd",
        nodeNames="CTLiver",
        checksums=f"SHA256:{_LIVER_SHA256}",
    )


def make_phantom_nodes(_source: Any = None) -> list[Any]:
    """Add a made-up abdominal CT with liver and tumours to the scene; nothing is downloaded.

    Returns:
        The volume node.
    """
    from aslseg.data.phantom.dataset import make_phantom
    from ASLsegLib.scene.volumes import add_volume

    slicer.util.showStatusMessage(_("Making a phantom"), 2000)
    volume, _labels = make_phantom(PHANTOM_SEED)
    node = add_volume(volume, "Phantom CT")
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevelMinMax(-100.0, 240.0)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return [node]


def demo_folder() -> Path:
    """Return a new folder for the phantom project, in the person's documents."""
    base = Path.home() / "Documents"
    parent = base if base.is_dir() else Path.home()
    names = (f"ASLseg phantom{'' if n == 1 else f' {n}'}" for n in range(1, 1000))
    return next(parent / name for name in names if not (parent / name).exists())
