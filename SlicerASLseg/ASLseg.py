"""The Slicer module ASLseg: label-efficient CT segmentation. What it does is in ASLsegLib."""

from __future__ import annotations

import importlib
import sys
import unittest

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from ASLsegLib.logic.logic import Logic
from ASLsegLib.parameters import ASLsegParameterNode, discard_unusable
from ASLsegLib.paths import resource
from ASLsegLib.scene.volumes import SceneError
from ASLsegLib.widgets.panel import Panel

DOCUMENTATION = "https://github.com/SlicerASLseg/SlicerASLseg"


class ASLseg(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        import qt

        parent.title = _("ASLseg: label-efficient CT segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor", "Markups", "Plots"]
        parent.contributors = ["The SlicerASLseg developers"]
        parent.helpText = _(
            "ASLseg has nothing to do with arterial spin labelling: it segments CT volumes, such "
            "as liver and tumours, from few labelled volumes and many without labels. "
        ) + _(
            "A specialist network and the Segment Anything Model (SAM) train on each other's "
            "labels. You see both predictions, correct them by clicks, and review the rest. "
            'See the <a href="{url}">tutorial and documentation</a>.'
        ).format(url=DOCUMENTATION)
        parent.acknowledgementText = _(
            "Made with segment-anything, MONAI and 3D Slicer. For research, not for diagnosis."
        )
        parent.icon = qt.QIcon(str(resource("Icons", "ASLseg.png")))
        slicer.app.connect("startupCompleted()", register_sample_data)


def register_sample_data():
    """Offer sample data; called when the application has started."""
    from ASLsegLib import sample_data

    sample_data.register()


class ASLsegLogic(Logic, ScriptedLoadableModuleLogic):
    """Everything that the panel does, for scripts: see `ASLsegLib.logic.logic.Logic`."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        Logic.__init__(self)

    def getParameterNode(self):
        """Return the scene's parameters; drop unusable values and emit `failed` about them."""
        node = super().getParameterNode()
        dropped = discard_unusable(node)
        if dropped:
            text = _("The scene holds settings that this version cannot use: {names}. {remedy}")
            remedy = _("The usual values are used; look at them before you train or segment.")
            self.failed.emit(SceneError(text.format(names=", ".join(dropped), remedy=remedy)))
        return ASLsegParameterNode(node)


class ASLsegWidget(ScriptedLoadableModuleWidget):
    """Hosts the panel."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.logic = None
        self.panel = None

    def setup(self):
        """Make the panel."""
        super().setup()
        self.logic = ASLsegLogic()
        self.panel = Panel(self.logic)
        self.layout.addWidget(self.panel.widget)
        if getattr(self.parent, "isEntered", False):  # reloaded: Slicer does not enter it again
            self.enter()

    def cleanup(self):
        """End the child process and stop listening to the scene."""
        if self.panel is not None:
            self.panel.close()
            self.panel = None

    def enter(self):
        """Show the scene's parameters."""
        if self.panel is not None:
            self.panel.enter()

    def exit(self):
        """Leave the scene's parameters alone while another module is open."""
        if self.panel is not None:
            self.panel.exit()

    def onReload(self):
        """Load all files of the module again."""
        self.cleanup()
        names = [name for name in sys.modules if name.startswith("ASLsegLib.")]
        for name in sorted(names):
            del sys.modules[name]
        importlib.import_module("ASLsegLib.logic.logic")
        super().onReload()


class ASLsegTest(ScriptedLoadableModuleTest):
    """What is tested within Slicer itself; the other tests are in Testing/panel."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run every test of this class, as ctest does."""
        for name in unittest.defaultTestLoader.getTestCaseNames(type(self)):
            self.setUp()
            getattr(self, name)()

    def test_a_phantom_goes_to_the_scene_and_back(self):
        """Check that a volume keeps its place and its voxels."""
        from aslseg.data.phantom.dataset import make_phantom
        from ASLsegLib.scene.volumes import add_volume, volume_of

        volume, _labels = make_phantom(0, (8, 40, 48), (20.0, 8.0, 8.0))
        back = volume_of(add_volume(volume, "phantom"))
        assert back.geometry.matches(volume.geometry)
        assert (back.voxels == volume.voxels).all()

    def test_the_panel_opens(self):
        """Check that the panel is there."""
        widget = slicer.modules.aslseg.widgetRepresentation()
        assert widget is not None
