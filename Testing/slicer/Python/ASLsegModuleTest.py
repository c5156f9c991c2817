"""The module inside Slicer: it opens, explains itself, and survives the scene's comings and goings.

Run by `ctest` in Slicer's build of the extension, and on the stand-in of Testing/panel.
"""

import sys
import unittest
from pathlib import Path

import slicer

CONTROLS = ("QPushButton", "QCheckBox", "QComboBox", "QSpinBox", "qMRMLNodeComboBox")


class ASLsegModuleTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()
        self.module = slicer.modules.aslseg
        self.panel = self.module.widgetRepresentation()

    def test_it_is_found_among_the_segmentation_modules(self):
        self.assertEqual(self.module.name, "ASLseg")
        self.assertIn("Segmentation", self.module.categories)

    def test_its_help_begins_with_what_it_is_not(self):
        self.assertIn("arterial spin", self.module.helpText[:400])

    def test_library_panel_and_icon_come_from_the_same_installation(self):
        import aslseg
        from ASLsegLib import home

        library = Path(aslseg.__file__).resolve().parents[1]
        self.assertEqual(library, Path(home.library()).resolve())
        for parts in (("UI", "ASLseg.ui"), ("Icons", "ASLseg.png"), ("requirements.txt",)):
            self.assertTrue(home.resource(*parts).is_file())

    def test_opening_the_panel_imports_no_torch(self):
        self.assertIsNotNone(self.panel)
        self.assertNotIn("torch", sys.modules)

    def test_every_control_explains_itself(self):
        silent = [
            control.name
            for kind in CONTROLS
            for control in slicer.util.findChildren(self.panel, className=kind)
            if not control.toolTip and not control.name.startswith("qt_")
        ]
        self.assertEqual(
            [name for name in silent if name.endswith(("Button", "Box", "Selector"))], []
        )

    def test_a_closed_scene_leaves_a_panel_that_takes_the_next_volume(self):
        first = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "first")
        slicer.util.findChild(self.panel, "inputVolumeSelector").setCurrentNode(first)
        slicer.mrmlScene.Clear()
        slicer.app.processEvents()
        selector = slicer.util.findChild(self.panel, "inputVolumeSelector")
        self.assertIsNone(selector.currentNode())
        second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "second")
        selector.setCurrentNode(second)
        self.assertEqual(selector.currentNode().GetName(), "second")
