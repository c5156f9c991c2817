"""Lesions in three dimensions from the prompts of one slice."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from ASLsegLib.scene.prompts import XYXY, free_prompts
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.slice_views import current_slice
from ASLsegLib.scene.volumes import SceneError
from ASLsegLib.widgets.section import Section, VolumeNote, no_sam, not_installed

if TYPE_CHECKING:
    from aslseg.engine.facts import GrowthFacts
    from ASLsegLib.engine.client import PanelEvent
    from ASLsegLib.logic.growth import Growth
    from ASLsegLib.logic.history import Change

LOOK_S = 0.1
"""How often prompts are looked at: before those of a slice are sent."""
SETTLE_S = 0.3
"""How long prompts have to rest before a lesion grows from them."""

Box = tuple[str, int, str, XYXY]
"""Id of its volume, slice, target and pixels."""


class GrowthSection(Section):
    """Lets lesions grow, follows prompts that correct them, and takes them back."""

    shows = ("engine",)
    answers = ("GrowthFacts",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._looked_at = self._changed_at = 0.0
        self._seen = ""
        self._slice: int | None = None
        self._started_at: float | None = None
        self._started: Growth | None = None
        self.on_click(self.ui.growButton, self.grow)
        self.on_key("G", self.ui.growButton)
        self._brought_back = self._refused = ""
        self._left_alone: set[Box] = set()
        self._begun_from: list[Box] = []
        self._note = VolumeNote(self.ui.growthStatusLabel)
        self.logic.changes.undone.connect(self._leave_alone)
        self.logic.released.connect(self._leave_released_alone)
        self.logic.unsent_prompts.append(self._are_unsent)

    def update(self) -> None:
        """Show what is possible."""
        volume, no_volume = self.panel.volume, _("Choose a volume.")
        self._note.keep_to(volume)
        place = _("Place a box or points on this slice first.")
        self._slice = None if volume is None else current_slice(volume)
        can_grow = volume is not None and bool(free_prompts(volume, self._slice))
        self.gate(
            self.ui.growButton,
            "" if volume else no_volume,
            not_installed() or no_sam(self.logic, self.panel.parameters),
            "" if can_grow else place,
            needs_engine=True,
        )

    def grow(self) -> None:
        """Let a lesion grow from the prompts of the slice that is looked at."""
        if self.panel.volume is not None:
            volume = self.panel.choose_working_volume()
            self._grow(volume, current_slice(volume))

    def tick(self) -> None:
        """Let lesions grow from new boxes, and again when their prompts have changed and rest."""
        volume, parameters = self.panel.volume, self.panel.parameters
        if volume is None or not_installed() or time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        if current_slice(volume) != self._slice:
            self.update()  # other prompts, or none
            self.panel.update_soon("slice")
        self.logic.release_removed(volume)
        if not self._is_watching(volume, parameters):
            return
        growth = self._last_growth(volume)
        if growth is not None and not self._is_drawing() and not self._is_brought_back(volume):
            self.logic.correct_growth(growth)
        if self._rests(volume, growth) and not self._is_drawing():
            self._follow(volume, growth)

    def _is_drawing(self) -> bool:
        buttons = self.ui.addBoxButton, self.ui.addScribbleButton, self.ui.addLassoButton
        return any(button.checked for button in buttons)

    def _rests(self, volume: Any, growth: Growth | None) -> bool:
        """Tell whether the prompts are for some time what they are now."""
        text = json.dumps([free_prompts(volume), growth.prompts_text if growth else ""])
        if text != self._seen:
            self._seen, self._changed_at = text, time.monotonic()
        return time.monotonic() - self._changed_at >= SETTLE_S

    def _follow(self, volume: Any, growth: Growth | None) -> None:
        """Let the last lesion grow again where its prompts have changed, or one from a new box."""
        if growth is not None and self._has_new_prompts(growth):
            self.panel.attempt(lambda: self._grow_again(growth), update=False)
        elif self.panel.parameters.eachBoxGrows and not self.logic.engine.is_busy:
            boxes, here = _free_boxes(volume), volume.GetID()
            self._left_alone = {b for b in self._left_alone if b in boxes or b[0] != here}
            new = self._new_boxes(volume)
            if new:
                self.panel.attempt(lambda: self._grow_from_box(new[-1][1]), update=False)

    def _are_unsent(self, volume: Any) -> bool:
        """Tell whether a lesion will grow from prompts of a volume as soon as they rest."""
        if volume is None or volume is not self.panel.volume or not_installed():
            return False
        growth = self._last_growth(volume)
        if growth is not None and self._has_new_prompts(growth):
            return True
        return bool(self.panel.parameters.eachBoxGrows and self._new_boxes(volume))

    def _new_boxes(self, volume: Any) -> list[Box]:
        """Return the boxes of a volume from which a lesion grows by itself."""
        boxes = _free_boxes(volume)
        return [box for box in boxes if box[2] == self._target and box not in self._left_alone]

    def _has_new_prompts(self, growth: Growth) -> bool:
        return growth.prompts_text not in (growth.grown_from, self._refused, "[]")

    def _leave_alone(self, change: Change) -> None:
        """Let no lesion grow from prompts that undo brought back, before they change again."""
        self._note.forget(change.volume_id)
        volume = self.panel.volume
        if volume is not None and volume.GetID() == change.volume_id:
            self._brought_back = json.dumps(free_prompts(volume))
            self._left_alone.update(_free_boxes(volume))

    def _leave_released_alone(self, volume: Any) -> None:
        """Let no lesion grow by itself from boxes of one that was removed."""
        self._left_alone.update(_free_boxes(volume))
        self.panel.update_soon("engine")

    def _is_brought_back(self, volume: Any) -> bool:
        return bool(self._brought_back) and self._brought_back == json.dumps(free_prompts(volume))

    def on_event(self, event: PanelEvent) -> None:
        """Show how far a lesion has grown; where it could not, leave its box alone."""
        if event.event == "slice_mask" and self.logic.growing is not None:
            count = len(self.logic.growing.segment.slices)
            text = _("Growing: slice {k}, {count} slices so far.")
            self._say(text.format(k=event.slice_index, count=count), self.logic.growing.volume)
        if event.event in ("done", "failed", "cancelled") and self.logic.growing is None:
            boxes, self._begun_from = self._begun_from, []
            if event.event != "done":
                self._leave_boxes_alone(boxes)

    def _leave_boxes_alone(self, boxes: list[Box]) -> None:
        """Let nothing grow from boxes by itself before they change, and say so."""
        self._left_alone.update(boxes)
        volume = self.panel.volume
        if volume is not None and set(boxes) & set(_free_boxes(volume)):
            text = _("Nothing has grown: move the box, or press 'Grow in 3-D', to try again.")
            self._say(text, volume)

    def forget_scene(self) -> None:
        """Forget what went away with the scene."""
        self._seen = self._brought_back = self._refused = ""
        self._left_alone, self._begun_from = set(), []
        self._started_at = self._started = None

    def on_answer(self, facts: GrowthFacts) -> None:
        """Show what has grown, and why it ends where it ends."""
        if self._started_at is None:
            return
        seconds, self._started_at = time.monotonic() - self._started_at, None
        growth = self._started
        volume = self.panel.volume if growth is None else growth.volume
        if growth is not None and not growth.is_there:
            text = _("{name} was removed while it grew: draw its box anew, or grow it again.")
            self._say(text.format(name=growth.name), volume)
            return
        if facts.first_slice is None:
            self._say(_("Nothing was found there: draw the box anew, or add a point."), volume)
            return
        text = _("{target}: slices {first} to {last}, {ml:.1f} ml, in {seconds:.1f} s ({device}).")
        words = text.format(
            target=facts.target,
            first=facts.first_slice,
            last=facts.last_slice,
            ml=facts.volume_ml,
            seconds=seconds,
            device=facts.device.upper(),
        )
        self._say(" ".join([words, *facts.ends, *self._about_strokes()]), volume)

    def _say(self, text: str, about: Any) -> None:
        """Say something about a volume, as long as that is the chosen one."""
        self._note.show(text, about, self.panel.volume)

    def _about_strokes(self) -> list[str]:
        """Say that strokes by hand are kept, where the lesion that was started last has some."""
        growth = self._started
        is_drawn_in = growth is not None and growth.segment.has_strokes
        return [_("What you drew or erased in it is kept.")] if is_drawn_in else []

    @property
    def _target(self) -> str:
        return str(self.ui.targetBox.currentData or self.panel.parameters.target)

    def _is_watching(self, volume: Any, parameters: Any) -> bool:
        return bool(parameters.eachBoxGrows or self._last_growth(volume) is not None)

    def _last_growth(self, volume: Any) -> Growth | None:
        """Return the last lesion of the volume: prompts near it correct it."""
        found = [one for one in self.logic.growths if one.volume is volume and one.is_there]
        return found[-1] if found else None

    def _grow_from_box(self, slice_index: int) -> None:
        """Let a lesion grow, which is taken back together with its box."""
        known = self._left_alone
        self._left_alone = known.union(_free_boxes(self.panel.volume))  # unless it begins
        growth = self._grow(self.panel.choose_working_volume(), slice_index)
        self._left_alone = known
        if growth.change is not None:
            self.logic.history.fold(growth.change)

    def _grow(self, volume: Any, slice_index: int) -> Growth:
        self._require_sam()
        parameters, boxes = self.panel.parameters, _free_boxes(volume)
        self.logic.grow.begin(
            volume,
            slice_index,
            self._target,
            run_id=parameters.run or None,
            sam=parameters.samModel,
        )
        growth = self.logic.growths[-1]
        self._begun_from = boxes
        self._note_start(growth)
        return growth

    def _grow_again(self, growth: Growth) -> None:
        if self.logic.engine.is_busy:
            if self.logic.growing is growth:
                self.logic.cancel()  # it begins again when the engine is free
            return
        self._refused = growth.prompts_text  # unless it begins
        self._require_sam()
        parameters = self.panel.parameters
        self.logic.grow_again.begin(
            growth, parameters.run or None, sam=parameters.samModel, follows=True
        )
        self._refused = ""
        self._note_start(growth)

    def _require_sam(self) -> None:
        problem = no_sam(self.logic, self.panel.parameters)
        if problem:
            raise SceneError(problem)

    def _note_start(self, growth: Growth) -> None:
        self._started_at, self._started = time.monotonic(), growth
        if source_of(growth.node) == "sam":  # else hidden by default, and with it the lesion
            self.panel.parameters.showSam = True


def _free_boxes(volume: Any) -> list[Box]:
    """Return the boxes in the scene that belong to no growing lesion, by slice, in their order."""
    return [
        (volume.GetID(), k, target, xyxy)
        for k, target, boxes, _ in free_prompts(volume)
        for xyxy in boxes
    ]
