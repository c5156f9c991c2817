"""The panel on the stand-in, in a process of its own; a line of JSON for each case on stdout.

    python campaign_child.py attributes FOLDER COUNT SEED   scenes with foreign attributes
    python campaign_child.py rounds TRAINED COUNT           open a volume, segment it, close it

FOLDER is empty; TRAINED is what `Testing/panel/trained.py` made.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing" / "panel"), str(ROOT / "Testing"), str(ROOT / "Logic")]

import numpy as np  # noqa: E402
from hypothesis import HealthCheck, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from faults.checks import human_labels  # noqa: E402
from standin.core import start  # noqa: E402

CASE, OTHER = "c2", "c0"
TAGS = ("Target", "Digest", "Method", "Run", "Round", "Model", "Human", "Prompted", "Voice")
READ = (
    *(("attribute", "volume", name) for name in ("Case", "Image", "Voxels", "Label")),
    *(("attribute", "other volume", name) for name in ("Case", "Image", "Overlay")),
    *(("attribute", node, "SlicesTakenOver") for node in ("volume", "other volume")),
    *(("attribute", "prompts", "ProposedPrompts"),) * 3,
    *(("attribute", node, "Voice") for node in ("refined", "sam", "prompts", "drawn")),
    *(("reference", node, "Volume") for node in ("refined", "prompts", "drawn", "point", "box")),
    ("reference", "other volume", "HardenedFrom"),
    *(("attribute", node, name) for node in ("point", "box") for name in ("Target", "Prompt")),
    *(("tag", node, name) for node in ("refined", "sam") for name in TAGS),
)
"""What the panel reads of a scene: kind, node and name."""
CORPUS = (
    "", "0", "-1", "yes", "no", "empty", "99999999999999999999", "1e400", "NaN", "null", "[]", "{}",
    "[null]", "[1e400]", "[-1, 10000000]", '["a"]', "[" * 5000, '[{"slice_index": -5}]',
    '[{"slice_index": 0, "target": "liver", "box": [9, 9, 1, 1]}]', "../../../etc/passwd", OTHER,
    CASE, "liver", "tumour", "refined", "prompts", "box", "positive", "\x00", "\ud7ff", "<b>x</b>",
    "vtkMRMLScalarVolumeNode1", "vtkMRMLSegmentationNode1", "x" * 100_000,
)  # fmt: skip
PARAMETERS = (
    "inputVolume", "projectFolder", "run", "target", "method", "preset", "samModel", "rounds",
    "acceptedPercent", "seed", "showRefined", "labelSegmentation", "resultSegmentation",
)  # fmt: skip

VALUES = st.one_of(st.sampled_from(CORPUS), st.text(max_size=40))
Mutation = tuple[tuple[str, str, str], str]
PLACES = (*READ, *(("parameter", "scene", name) for name in PARAMETERS))
MUTATIONS = st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=4, max_size=10)


class Attributes:
    """Scenes whose attributes, tags, references and parameters were changed."""

    def __init__(self, folder: Path) -> None:
        from harness import open_module
        from trained import small_project

        self.project = small_project(folder)
        self.widget = open_module()
        self.logic, self.panel = self.widget.logic, self.widget.panel
        self.labels = human_labels(self.project.folder)
        self.description = (self.project.folder / "project.json").read_bytes()

    def try_one(self, mutations: list[Mutation]) -> None:
        """Make a scene, change it, and do what a person does; raise what must not be."""
        import slicer

        from standin.harness import clean_scene, run_event_loop

        clean_scene()
        self.restore()
        self.logic.open_project(self.project.folder)
        self.nodes = self.make_scene()
        for (kind, place, name), value in mutations:
            self.mutate(kind, place, name, value)
        run_event_loop(0.02)
        self.panel.update()
        self.act()
        run_event_loop(0.02)
        slicer.mrmlScene.Clear(0)
        run_event_loop(0.02)
        self.check()

    def restore(self) -> None:
        """Bring the project back to where it began."""
        for name in set(human_labels(self.project.folder)) - set(self.labels):
            (self.project.folder / name).unlink()
        (self.project.folder / "project.json").write_bytes(self.description)
        (self.project.folder / "reviews.jsonl").unlink(missing_ok=True)

    def make_scene(self) -> dict[str, Any]:
        """Return the nodes of a scene in which two cases are open and one was drawn on."""
        import slicer
        from harness import write_labels

        from ASLsegLib.scene.prompts import POSITIVE, add_point, box_node, points_node
        from ASLsegLib.scene.provenance import Provenance

        volume, other = self.logic.load_case(CASE), self.logic.load_case(OTHER)
        shape = slicer.util.arrayFromVolume(volume).shape
        drawn = np.zeros(shape, np.uint8)
        drawn[2:6, 4:12, 4:12], drawn[3, 5, 5] = 1, 2
        made = {"volume": volume, "other volume": other}
        for source in ("refined", "sam", "prompts"):
            provenance = Provenance(source, "aslseg", "run-1", 1)
            made[source] = write_labels(volume, drawn, self.project.targets, provenance)
        made["drawn"] = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
        made["drawn"].CreateDefaultDisplayNodes()
        made["drawn"].SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segment = made["drawn"].GetSegmentation().AddEmptySegment("liver", "liver")
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            (drawn > 0).astype(np.uint8), made["drawn"], segment, volume
        )
        add_point(volume, "liver", (8.0, 8.0), 3, POSITIVE)
        made["point"] = points_node(volume, "liver", POSITIVE)
        made["box"] = box_node(volume, "tumour", (3.0, 3.0, 9.0, 9.0), 4)
        return made

    def mutate(self, kind: str, place: str, name: str, value: str) -> None:
        """Change one thing."""
        if kind == "parameter":
            self.panel.parameters.parameterNode.SetParameter(name, value)
        elif kind == "attribute":
            self.nodes[place].SetAttribute(f"ASLseg.{name}", value)
        elif kind == "reference":
            self.nodes[place].SetNodeReferenceID(f"ASLseg.{name}", value)
        else:
            segment = self.nodes[place].GetSegmentation().GetNthSegment(0)
            segment.SetTag(f"ASLseg.{name}", value)

    def act(self) -> None:
        """Do everything that reads attributes; only refusals in words are right."""
        from aslseg.errors import AslsegError
        from ASLsegLib.scene.prompts import clear_slice

        for action in (
            lambda: self.logic.prompts(self.nodes["volume"]),
            lambda: self.logic.predictions(self.nodes["volume"]),
            lambda: clear_slice(self.nodes["volume"], 3),
            lambda: self.logic.save_label(self.nodes["drawn"]),
            lambda: self.logic.accept(CASE),
            lambda: self.logic.lesions(self.nodes["refined"]),
            lambda: self.logic.load_case(CASE),
            self.panel.update,
        ):
            with suppress(AslsegError):
                action()

    def check(self) -> None:
        """Make sure that nothing of a person was lost, and nothing unforeseen was shown."""
        from standin.dialogs import dialogs

        now = human_labels(self.project.folder)
        changed = [name for name, data in self.labels.items() if now.get(name) != data]
        assert not changed, f"labels of a person were changed: {changed}"
        shown = [message.text for message in dialogs.errors()]
        dialogs.clear()
        assert not [text for text in shown if "not foreseen" in text], shown


def attributes(folder: Path, count: int, number: int) -> None:
    """Try so many scenes."""
    tried = Attributes(folder)
    done = 0

    @seed(number)
    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(MUTATIONS)
    def one(mutations: list[Mutation]) -> None:
        nonlocal done
        failure = ""
        began = time.monotonic()
        try:
            tried.try_one(mutations)
        except Exception as error:  # told to the parent, which counts; the next one is tried
            failure = f"{type(error).__name__}: {error} from {short(mutations)}"
        seconds = time.monotonic() - began
        done += 1
        say(case=done, failure=failure, seconds=round(seconds, 2))

    one()


def short(mutations: list[Mutation]) -> str:
    """Return mutations for a line of a report."""
    return repr([(*place, value[:40]) for place, value in mutations])


def rounds(trained: Path, count: int) -> None:
    """Open a volume, let the run segment it, close it; tell the memory after each."""
    import psutil
    import slicer
    from harness import open_module

    from standin.harness import run_event_loop

    widget = open_module()
    logic = widget.logic
    logic.open_project(trained / "project")
    for number in range(count):
        failure = ""
        try:
            predictions = logic.segment(logic.load_case(CASE))
            assert "refined" in predictions, "no refined label came"
        except Exception as error:  # as above
            failure = f"{type(error).__name__}: {error}"
        close(number, slicer.mrmlScene)
        run_event_loop(0.1)
        left = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLVolumeNode")]
        memory = psutil.Process().memory_info().rss / 2**20
        say(case=number, failure=failure, left=left, mib=round(memory, 1))


def close(number: int, scene: Any) -> None:
    """Remove what was opened; every tenth time the whole scene is closed, with the engine."""
    import slicer

    if number % 10 == 9:
        scene.Clear(0)
        return
    for kind in ("vtkMRMLSegmentationNode", "vtkMRMLVolumeNode"):
        for node in slicer.util.getNodesByClass(kind):
            scene.RemoveNode(node)


def say(**facts: Any) -> None:
    """Write a line for the parent."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do one campaign and end at once, whatever Qt would like to tidy up."""
    with tempfile.TemporaryDirectory() as place:
        start(Path(place))
        name, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
        if name == "attributes":
            attributes(folder, count, int(sys.argv[4]))
        else:
            rounds(folder, count)
        from harness import close_module

        close_module()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
