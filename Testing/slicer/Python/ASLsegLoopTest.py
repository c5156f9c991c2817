"""The whole loop on phantoms, in the scene: train without SAM, segment, save a label, go on.

Takes one or two minutes. Skipped where the engine's packages are not installed.
"""

import shutil
import tempfile
import unittest
from pathlib import Path

import slicer

from ASLsegLib import requirements

NETWORK = {"channels": [8, 16, 16]}
STAGE = {
    "iterations": 20,
    "batch_size": 4,
    "patch_size": 32,
    "network": NETWORK,
    "roi": {"pixel_mm": 6.0},
}
SETTINGS = {
    "rounds": 1,
    "patience": 1,
    "device": "cpu",
    "organ": STAGE,
    "lesion": STAGE,
    "adaptation": {"iterations": 10, "patch_size": 32, "channels": [4, 8], "pixel_mm": 6.0},
    "sam": {"model": "none"},
}


@unittest.skipIf(requirements.missing(), "the engine's packages are not installed")
class ASLsegLoopTest(unittest.TestCase):
    def setUp(self):
        from ASLseg import ASLsegLogic

        slicer.mrmlScene.Clear()
        self.folder = Path(tempfile.mkdtemp(prefix="aslseg-"))
        self.logic = ASLsegLogic()

    def tearDown(self):
        self.logic.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def test_a_phantom_project_is_trained_segmented_labelled_and_resumed(self):
        project = self.logic.create_phantom_project(self.folder / "project", cases=4, labelled=2)
        self.assertEqual(len(project.cases), 4)

        run = self.logic.train("demo", SETTINGS)
        self.assertEqual(self.logic.usable_run(), run)

        unlabelled = next(case.id for case in self.logic.project.cases if case.label is None)
        volume = self.logic.load_case(unlabelled)
        predictions = self.logic.segment(volume)
        self.assertLessEqual({"specialist", "refined"}, set(predictions))
        names = predictions["refined"].GetSegmentation().GetSegmentIDs()
        self.assertEqual(len(names), len(self.logic.targets()))
        liver = slicer.util.arrayFromSegmentBinaryLabelmap(predictions["refined"], names[0], volume)
        self.assertEqual(liver.shape, slicer.util.arrayFromVolume(volume).shape)

        self.logic.save_label(predictions["refined"], unlabelled, volume)
        self.assertIsNotNone(self.logic.project.case(unlabelled).label)

        again = self.logic.resume(run, more_rounds=1)
        self.assertEqual(again, run)
        self.assertEqual(self.logic.runs()[0].rounds, (1, 2))
