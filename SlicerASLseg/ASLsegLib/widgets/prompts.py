"""Points and boxes, and the labels that follow them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from ASLsegLib.scene.placement import Placement
from ASLsegLib.scene.prompts import (
    BOX,
    LASSO,
    NEGATIVE,
    POSITIVE,
    SCRIBBLE,
    SHAPES,
    clear_slice,
    edited_slices,
    free_prompts,
    prompt_nodes,
    take_over,
)
from ASLsegLib.scene.segmentations import find_prediction
from ASLsegLib.scene.shown_volume import require_in_views
from ASLsegLib.scene.slice_views import current_slice
from ASLsegLib.scene.volumes import SceneError
from ASLsegLib.widgets.section import Section, VolumeNote, fill_combo, no_sam, not_installed

if TYPE_CHECKING:
    from aslseg.engine.facts import PredictionFacts
    from ASLsegLib.logic.history import Change

SETTLE_S = 0.25
"""How long prompts have to rest before they are sent."""
TARGETS = ("liver", "tumour")
NOT_PROPOSED = _("Segment the volume first: no prompts are proposed yet.")


class PromptsSection(Section):
    """Places prompts and sends them to SAM."""

    shows = ("engine",)
    answers = ("PredictionFacts",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._placement = Placement(self._placement_ended)
        self._sent: dict[str, dict[int, str]] = {}
        self._asked: set[int] = set()
        self._watched: dict[str, Any] = {}
        self._changed_at: float | None = None
        self._shown = True
        self._sent_at: float | None = None
        self._resumes = ""
        self._note = VolumeNote(self.ui.promptsStatusLabel)
        ui = self.ui
        self._buttons = {
            POSITIVE: ui.addPositiveButton,
            NEGATIVE: ui.addNegativeButton,
            BOX: ui.addBoxButton,
            SCRIBBLE: ui.addScribbleButton,
            LASSO: ui.addLassoButton,
        }
        keys = ("O", "Shift+O", "B", "S", "L")
        for key, (kind, button) in zip(keys, self._buttons.items(), strict=True):
            self.on_click(button, self._toggler(kind))
            self.on_key(key, button)
        self.on_click(ui.editPromptsButton, self._edit_slice)
        self.on_click(ui.clearPromptsButton, self._clear_slice)
        self.on_click(ui.refineButton, self.refine)
        self.on_key("R", ui.clearPromptsButton)
        self.on_key("Ctrl+Return", ui.refineButton)
        self.on_signal(ui.targetBox, "activated(int)", self._choose_target)
        self.panel.prompt_wanted.connect(self._place_for)
        self.panel.case_chosen.connect(lambda _: self._placement.stop())
        self.logic.changes.undoing.connect(self._before_undo)
        self.logic.changes.undone.connect(self._after_undo)
        self.logic.released.connect(self._count_as_sent)
        self.logic.unsent_prompts.append(self._are_unsent)
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        if interaction is not None:
            event = interaction.InteractionModeChangedEvent
            self.panel.addObserver(interaction, event, self._mode_changed)

    def update(self) -> None:
        """Show what is possible, and watch the prompts of the volume."""
        volume = self.panel.volume
        self._note.keep_to(volume)
        if self._placement.volume not in (None, volume):
            self._placement.stop()  # what was placed stays with the volume that was left
        self._fill_targets()
        if volume is not None:
            self.logic.watch_prompts(volume)
            if volume.GetID() not in self._sent:
                self._count_as_sent(volume)  # the scene may have come with answers to them
        self._watch(volume)
        no_volume = "" if volume else _("Choose a volume.")
        no_model = not_installed() or no_sam(self.logic, self.panel.parameters)
        for kind, button in self._buttons.items():
            self.gate(button, no_volume)
            button.setChecked(self._placement.kind == kind)
        is_there = volume is not None and not not_installed()
        proposals = self.logic.proposed(volume) if is_there else []
        self.gate(self.ui.editPromptsButton, no_volume, "" if proposals else NOT_PROPOSED)
        self.gate(self.ui.clearPromptsButton, no_volume)
        edited = "" if volume and (edited_slices(volume)) else _("Place a point or a box first.")
        self.gate(self.ui.refineButton, no_volume, no_model, edited, needs_engine=True)

    def on_answer(self, facts: PredictionFacts) -> None:
        """Show how long the request took, and which clicks the result does not follow."""
        if self._sent_at is None:  # the request may be a script's
            return
        seconds, self._sent_at = time.monotonic() - self._sent_at, None
        where = facts.slice_index
        place = _("all slices with prompts") if where is None else _("slice {k}").format(k=where)
        text = _("Updated {place} in {seconds:.1f} s ({device}).")
        text = text.format(place=place, seconds=seconds, device=facts.device.upper())
        parts = [text, facts.note, *facts.unmet_clicks]
        about = self.logic.working_on
        self._note.show(" ".join(part for part in parts if part), about, self.panel.volume)

    def tick(self) -> None:
        """Show what is possible with changed prompts once they rest, and send them."""
        if self._changed_at is None:
            return
        volume = self.panel.volume
        rests = time.monotonic() - self._changed_at >= SETTLE_S
        if volume is not None and self._placement.kind not in SHAPES:
            self.logic.changes.note_prompts(volume, is_resting=rests)
        if not rests:
            return
        if not self._shown:
            self._shown = True
            self.panel.update_soon("engine")
        busy = self.logic.engine.is_busy or self._placement.kind in SHAPES
        if volume is None or busy or not self.panel.parameters.followEdits:
            return
        self._changed_at = None
        if not not_installed():
            self._follow(volume)

    def _follow(self, volume: Any) -> None:
        """Ask SAM about a slice whose prompts have changed; the others follow when it is free."""
        due = self._due_slices(volume)
        if due:
            shown = current_slice(volume)
            is_whole = self.panel.parameters.wholeVolume
            about = None if is_whole else shown if shown in due else min(due)
            self.panel.attempt(lambda: self._ask(about, follows=True), update=False)
        if self._changed_slices(volume):
            self._changed_at = time.monotonic()

    def _are_unsent(self, volume: Any) -> bool:
        """Tell whether prompts of a volume will be sent to SAM as soon as they rest."""
        if self._changed_at is None or volume is not self.panel.volume or not_installed():
            return False
        return bool(self.panel.parameters.followEdits and self._due_slices(volume))

    def _due_slices(self, volume: Any) -> set[int]:
        """Return the slices with changed prompts that SAM is asked about."""
        changed, boxed = self._changed_slices(volume), self._slices_that_grow(volume)
        return set() if self.panel.parameters.wholeVolume and boxed else changed - boxed

    def _changed_slices(self, volume: Any) -> set[int]:
        """Return the slices whose prompts are others than when SAM was asked about them."""
        now, sent = self._prompts_by_slice(volume), self._sent.get(volume.GetID(), {})
        return {k for k in now.keys() | sent.keys() if now.get(k) != sent.get(k)}

    def _slices_that_grow(self, volume: Any) -> set[int]:
        """Return the slices with a box that a lesion grows from: it is no prompt of its slice."""
        if not self.panel.parameters.eachBoxGrows:
            return set()
        return {k for k, _target, boxes, _points in free_prompts(volume) if boxes}

    def refine(self) -> None:
        """Run SAM with the prompts as they are now."""
        volume = self.panel.volume
        if volume is not None:
            is_whole = self.panel.parameters.wholeVolume
            self._ask(None if is_whole else current_slice(volume), follows=False)

    def _ask(self, slice_index: int | None, *, follows: bool) -> None:
        """Ask SAM about a slice, or about all with prompts."""
        volume, parameters = self.panel.choose_working_volume(), self.panel.parameters
        self._asked = self._changed_slices(volume) if slice_index is None else {slice_index}
        self._note_sent(volume, slice_index)
        self._sent_at = time.monotonic()
        if self._works_alone() and find_prediction(volume, "sam") is None:
            parameters.showSam = True  # else hidden by default, and there is nothing beside it
        self.logic.refine.begin(
            volume,
            slice_index,
            parameters.run or None,
            sam=parameters.samModel,
            may_replace=self.panel.questions.may_replace,
            follows=follows,
        )

    def leave(self) -> None:
        """End placing; what was placed stays."""
        self._placement.stop()

    def forget_scene(self) -> None:
        """Forget nodes that go away with the scene."""
        self._placement.forget()
        self._sent, self._changed_at = {}, None
        for node in self._watched.values():
            self.panel.removeObserver(node, node.PointModifiedEvent, self._prompts_changed)
            self.panel.removeObserver(node, node.PointRemovedEvent, self._prompts_changed)
        self._watched = {}

    def _toggler(self, kind: str) -> Any:
        def toggle() -> None:
            was = self._placement.kind
            self._placement.stop()
            if was != kind:
                require_in_views(self.panel.volume)
                self._placement.start(self.panel.choose_working_volume(), self._target, kind)

        return toggle

    def _before_undo(self, _change: Change) -> None:
        """Place nothing while prompts are brought back."""
        kind = self._placement.kind
        self._resumes = "" if kind in SHAPES else kind
        self._placement.stop()

    def _after_undo(self, change: Change) -> None:
        """Ask SAM nothing about prompts that were brought back, but what it has not answered."""
        self._note.forget(change.volume_id)
        volume = self.panel.volume
        if volume is None:
            return
        latest = self.logic.history.latest(volume.GetID())
        if latest is not None and latest.is_open:
            for k in self._asked:
                self._sent.get(volume.GetID(), {}).pop(k, None)
            self._changed_at = time.monotonic()
        else:
            self._count_as_sent(volume)
        if self._resumes:
            self._placement.start(volume, self._target, self._resumes)

    def _count_as_sent(self, volume: Any) -> None:
        """Ask SAM nothing about the prompts of a volume as they are now."""
        if not not_installed():
            self._note_sent(volume)

    def _note_sent(self, volume: Any, slice_index: int | None = None) -> None:
        """Note what the prompts of a slice are now, or those of all slices."""
        now = self._prompts_by_slice(volume)
        if slice_index is None:
            self._sent[volume.GetID()] = now
            return
        sent = self._sent.setdefault(volume.GetID(), {})
        sent.pop(slice_index, None)
        sent.update({k: text for k, text in now.items() if k == slice_index})

    def _place_for(self, target: str) -> None:
        """Begin to place a box on an object of a target, which grows from it; on none, stop."""
        if not target:
            self._placement.stop()
            return
        self.panel.parameters.eachBoxGrows = True
        self.panel.parameters.target = target
        self.ui.targetBox.setCurrentIndex(self.ui.targetBox.findData(target))
        self._placement.stop()
        self._placement.start(self.panel.choose_working_volume(), target, BOX)

    @property
    def _target(self) -> str:
        return self.ui.targetBox.currentData or TARGETS[-1]

    def _works_alone(self) -> bool:
        """Whether SAM predicts without a trained run."""
        return self.logic.usable_run(self.panel.parameters.run) is None

    def _fill_targets(self) -> None:
        project = self.logic.project
        names = [t.name for t in project.targets] if project else list(TARGETS)
        if [self.ui.targetBox.itemData(n) for n in range(self.ui.targetBox.count)] != names:
            fill_combo(self.ui.targetBox, [(n, n) for n in names], self.panel.parameters.target)

    def _choose_target(self) -> None:
        self.panel.parameters.target = self._target
        self._placement.stop()

    def _edit_slice(self) -> None:
        if self.panel.volume is None:
            return
        require_in_views(self.panel.volume)
        volume = self.panel.choose_working_volume()
        proposals = self.logic.proposed(volume)
        if not proposals:  # it was moved since it was segmented
            raise SceneError(NOT_PROPOSED)
        k = current_slice(volume)
        take_over(volume, proposals, k)
        self._note_sent(volume, k)  # the same prompts as before

    def _clear_slice(self) -> None:
        require_in_views(self.panel.volume)
        volume = self.panel.choose_working_volume()
        clear_slice(volume, current_slice(volume))
        self._changed_at = time.monotonic()

    def _prompts_by_slice(self, volume: Any) -> dict[int, str]:
        """Return the prompts in force as text, by edited slice, to tell whether they changed."""
        found: dict[int, list[Any]] = {k: [] for k in edited_slices(volume)}
        for prompt in self.logic.prompts(volume) if found else ():
            if prompt.slice_index in found:
                found[prompt.slice_index].append(prompt.to_json())
        return {k: json.dumps(prompts) for k, prompts in found.items()}

    def _placement_ended(self) -> None:
        self._changed_at = time.monotonic()
        self.panel.update()

    def _mode_changed(self, _caller: Any, _event: Any) -> None:
        self._placement.mode_changed()

    def _watch(self, volume: Any | None) -> None:
        for node_id in [one for one in self._watched if not slicer.mrmlScene.GetNodeByID(one)]:
            del self._watched[node_id]
            self._changed_at = time.monotonic()
        for node in prompt_nodes(volume) if volume is not None else []:
            if node.GetID() not in self._watched:
                self._watched[node.GetID()] = node
                for event in (node.PointModifiedEvent, node.PointRemovedEvent):
                    self.panel.addObserver(node, event, self._prompts_changed)
                self._changed_at = time.monotonic()

    def _prompts_changed(self, _caller: Any, _event: Any) -> None:
        self._changed_at, self._shown = time.monotonic(), False
