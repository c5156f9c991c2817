"""The module inside Slicer: it opens, explains itself, and survives the scene's comings and goings.

Run by `ctest` in Slicer's build of the extension, and on the stand-in of Testing/standin.
"""

import sys
import unittest
from pathlib import Path

import slicer

CONTROLS = ("Button", "Box", "Selector", "Slider", "Edit", "Table")
VOLUME = "vtkMRMLScalarVolumeNode"


class ASLsegModuleTest(unittest.TestCase):
    def setUp(self):
        slicer.mrmlScene.Clear()
        self.module = slicer.modules.aslseg
        self.panel = self.module.widgetRepresentation()
        self.ui = slicer.modules.ASLsegWidget.panel.ui

    def test_it_is_found_among_the_segmentation_modules(self):
        self.assertEqual(self.module.name, "ASLseg")
        self.assertIn("Segmentation", self.module.categories)

    def test_its_help_begins_with_what_it_is_not(self):
        self.assertIn("arterial spin", self.module.helpText[:400])

    def test_library_panel_and_icon_come_from_the_same_installation(self):
        import aslseg
        from ASLsegLib import paths as home

        library = Path(aslseg.__file__).resolve().parents[1]
        self.assertEqual(library, Path(home.library()).resolve())
        for parts in (("UI", "ASLseg.ui"), ("Icons", "ASLseg.png"), ("requirements.txt",)):
            self.assertTrue(home.resource(*parts).is_file())

    def test_opening_the_panel_imports_no_torch(self):
        self.assertIsNotNone(self.panel)
        self.assertNotIn("torch", sys.modules)

    def test_every_control_explains_itself(self):
        named = {
            name: control for name, control in vars(self.ui).items() if name.endswith(CONTROLS)
        }
        self.assertGreater(len(named), 30)
        self.assertEqual([name for name, control in named.items() if not control.toolTip], [])

    def test_a_closed_scene_leaves_a_panel_that_takes_the_next_volume(self):
        selector = self.ui.inputVolumeSelector
        selector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass(VOLUME, "first"))
        slicer.mrmlScene.Clear()
        slicer.app.processEvents()
        self.assertIsNone(selector.currentNode())
        selector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass(VOLUME, "second"))
        self.assertEqual(selector.currentNode().GetName(), "second")
