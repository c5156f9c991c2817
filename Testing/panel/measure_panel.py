"""Measure a click-through of the panel on real volumes, with the real engine in its process.

    python Testing/panel/measure_panel.py PROJECT IMAGE [IMAGE ...] [--train SECONDS]

PROJECT holds a finished run. Printed per image: seconds from the click to four nodes, the longest
block of the event loop while the engine works and while its result is imported, and the time from
an edited prompt to the updated label. With --train, a run is started and stopped after so many
seconds, and the memory of the application's process is sampled meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "Logic")]

from measuring import memory_mb, say  # noqa: E402


def main() -> None:
    """Run the click-through and print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--train", type=float, default=0.0)
    chosen = parser.parse_args()
    from standin.core import start

    start()
    from harness import close_module, open_module

    began = time.monotonic()
    widget = open_module()
    say(opened_s=time.monotonic() - began, memory_mb=memory_mb(), load=os.getloadavg())
    widget.panel.ui.projectFolderEdit.currentPath = str(chosen.project)
    timed("project_open_s", lambda: click(widget.panel.ui.openProjectButton))
    for image in chosen.images:
        look_at(widget, image)
    if chosen.train:
        watch_training(widget, chosen.train)
    close_module()


def look_at(widget: Any, image: Path) -> None:
    """Segment one image and edit prompts on it."""
    import slicer

    from standin.harness import choose_node

    began = time.monotonic()
    volume = slicer.util.loadVolume(str(image))
    say(image=image.name, loaded_s=time.monotonic() - began, voxels=list(shape_of(volume)))
    choose_node(widget.panel.ui.inputVolumeSelector, volume)
    for attempt in ("first", "warm"):
        segment(widget, attempt)
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    say(nodes=names)
    edit_prompts(widget, volume)
    say(memory_mb=memory_mb())


def segment(widget: Any, attempt: str) -> None:
    """Press the button and wait for the nodes."""
    from standin.harness import measured_event_loop, wait_until

    engine = widget.logic.engine
    began = time.monotonic()
    with measured_event_loop() as working:
        click(widget.panel.ui.segmentButton)
        wait_until(lambda: engine.state in ("importing", "failed"), 3600)
    ended = time.monotonic()
    with measured_event_loop() as importing:
        wait_until(lambda: not engine.is_busy and not widget.logic.background.is_busy, 600)
    say(
        segment=attempt,
        engine_s=ended - began,
        four_nodes_s=time.monotonic() - began,
        longest_block_working_ms=working.longest_ms,
        longest_block_importing_ms=importing.longest_ms,
    )


def edit_prompts(widget: Any, volume: Any) -> None:
    """Move a prompt three times and wait for the label of the slice each time."""
    from harness import show_slice_of

    from ASLsegLib.scene.prompts import POSITIVE, add_point
    from standin.harness import measured_event_loop, wait_until

    engine = widget.logic.engine
    prompts = [p for p in widget.logic.proposed(volume) if p.box is not None]
    prompt = prompts[len(prompts) // 2]
    show_slice_of(volume, prompt.slice_index)
    click(widget.panel.ui.editPromptsButton)
    wait_until(lambda: not engine.is_busy, 60)
    left, top, right, bottom = prompt.box.xyxy
    for number in (1, 2, 3):
        xy = (left + (right - left) * number / 4, (top + bottom) / 2)
        with measured_event_loop() as blocks:
            add_point(volume, prompt.target, xy, prompt.slice_index, POSITIVE)
            began = time.monotonic()
            wait_until(lambda: engine.is_busy, 5)
            asked = time.monotonic()
            wait_until(lambda: not engine.is_busy, 120)
        now = time.monotonic()
        say(
            edit=number,
            slice=prompt.slice_index,
            edit_to_label_s=now - began,
            request_to_label_s=now - asked,
            longest_block_ms=blocks.longest_ms,
        )


def watch_training(widget: Any, seconds: float) -> None:
    """Train for a while and watch memory and event loop."""
    from standin.harness import measured_event_loop, run_event_loop, wait_until

    ui, trainer = widget.panel.ui, widget.logic.trainer
    ui.trainSection.collapsed = False
    click(ui.startButton)
    samples = []
    with measured_event_loop() as blocks:
        until = time.monotonic() + seconds
        while time.monotonic() < until and trainer.is_busy:
            run_event_loop(5.0)
            samples.append(memory_mb())
    say(training=ui.trainingLabel.text, memory_mb=samples, longest_block_ms=blocks.longest_ms)
    began = time.monotonic()
    click(ui.stopButton)
    wait_until(lambda: not trainer.is_busy, 30)
    say(stopped_s=time.monotonic() - began)


def click(button: Any) -> None:
    """Click as a person does."""
    import harness

    harness.click(button)


def timed(name: str, action: Any) -> None:
    """Say how long something took."""
    began = time.monotonic()
    action()
    say(**{name: time.monotonic() - began})


def shape_of(volume: Any) -> tuple[int, int, int]:
    """Return the voxels along (k, j, i)."""
    return volume.GetImageData().GetDimensions()[::-1]


if __name__ == "__main__":
    main()
