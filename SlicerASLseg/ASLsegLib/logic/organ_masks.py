"""Organ masks that a person has already: from a folder, or from a segmentation of the scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aslseg.data.volume import Labelmap
from ASLsegLib.logic.base import Otherwise, Pending, waiting
from ASLsegLib.logic.export import reference_volume, volume_of_label
from ASLsegLib.logic.project import ProjectLogic
from ASLsegLib.logic.questions import MayHide, require_shown, require_yes, save_nothing_hidden
from ASLsegLib.scene.case_nodes import case_of, require_intact
from ASLsegLib.scene.segments import segment_ids
from ASLsegLib.scene.shown_labels import read_shown_part
from ASLsegLib.scene.volumes import SceneError, geometry_of

if TYPE_CHECKING:
    from aslseg.data.volume import SameSize
    from aslseg.events import Monitor
    from aslseg.project.project import Project


MayReplace = Callable[[str, Sequence[str]], bool]
"""Asked with an organ and the cases that have a mask of it: may the new one take its place?"""


def replace_no_mask(organ: str, case_ids: Sequence[str]) -> bool:
    """For scripts: what would have to be asked is refused.

    Raises:
        SceneError: Always.
    """
    msg = (
        f"There is a mask of {organ} already of {', '.join(case_ids)}; with `may_replace` that "
        "returns True it is replaced, and kept in the history."
    )
    raise SceneError(msg)


class OrganMaskLogic(ProjectLogic):
    """The part of the logic that takes organs as they are given, instead of predicting them."""

    def __init__(self) -> None:
        super().__init__()
        self._files_of: dict[str, dict[str, str]] = {}

    def forget_scene(self) -> None:
        """Forget the masks of volumes too: another volume may get the id of one that is gone."""
        super().forget_scene()
        self._files_of.clear()

    def organs(self) -> tuple[str, ...]:
        """Return the names of the open project's targets that masks can be given of."""
        parents = {target.inside for target in self.targets()}
        return tuple(target.name for target in self.targets() if target.name in parents)

    def organs_in(self, segmentation: Any) -> tuple[str, ...]:
        """Return the organs that a segmentation has a segment of."""
        from aslseg.project.labels import plain_name

        names = segmentation.GetSegmentation()
        shown = {plain_name(names.GetSegment(n).GetName()) for n in segment_ids(segmentation)}
        return tuple(organ for organ in self.organs() if plain_name(organ) in shown)

    @waiting
    def add_organ_masks(
        self,
        organ: str,
        folder: Path | str,
        *,
        same_size: SameSize = "refuse",
        may_replace: MayReplace = replace_no_mask,
    ) -> Pending[Project]:
        """Give the cases of the project the masks of an organ that a folder holds for them.

        Args:
            organ: Name of a target that contains others, such as "liver".
            folder: One file a case, named as its image; or TotalSegmentator's folders.
            same_size: What to go by when a mask has its image's size and another position.
            may_replace: Asked about cases that have another mask; where it says no, they keep it.

        Raises:
            SceneError: When nobody was asked about masks that would be replaced.
        """
        from aslseg.project.given_masks import set_organ_masks

        project, source = self.opened(), Path(folder)

        def begin(done: Callable[[Project], None], failed: Otherwise) -> None:
            def ask(found: tuple[dict[str, Path], list[str]]) -> None:
                given, others = found
                try:
                    is_replaced = not others or may_replace(organ, others)
                except Exception as error:  # handed on as those of the thread are
                    failed(error)
                    return
                if not is_replaced:
                    given = {case: path for case, path in given.items() if case not in others}
                self.background.start(
                    "reading organ masks",
                    lambda monitor: set_organ_masks(
                        project,
                        organ,
                        given,
                        replaceable=others,
                        same_size=same_size,
                        monitor=monitor,
                    ),
                    lambda changed: done(self.updated(changed)),
                    failed,
                )

            self.background.start(
                "comparing organ masks",
                lambda monitor: _masks_in(source, project, organ, same_size, monitor),
                ask,
                failed,
            )

        return self._begun(begin)

    @waiting
    def save_organ_mask(
        self,
        segmentation: Any,
        organ: str | None = None,
        *,
        may_replace: MayReplace = replace_no_mask,
        may_hide: MayHide = save_nothing_hidden,
    ) -> Pending[Project]:
        """Keep a segment as the given mask of an organ of its case: it is not predicted any more.

        Args:
            segmentation: Segmentation node with a segment named like the organ.
            organ: Name of the target; the only one that contains others when None.
            may_replace: Asked when the case has a mask already.
            may_hide: Asked with the name of the segmentation and the segments that are not seen.

        Raises:
            SceneError: When there is no such segment, its volume is no case of the project, or
                a question is refused.
            CancelledError: When it must not be replaced.
        """
        from aslseg.project.given_masks import set_organ_masks

        project, volume = self.opened(), volume_of_label(segmentation)
        case_id, name = case_of(volume, project), organ or self._only_organ()
        if not case_id:
            msg = f"{segmentation.GetName()} was drawn on no case of the project; load the case."
            raise SceneError(msg)
        node = self.case_node(case_id)
        require_intact(node, case_id, volume)
        shown = self.organ_mask_of(segmentation, volume, name)
        mask = Labelmap(shown.labels, geometry_of(node))
        require_shown(segmentation, _segments_of(segmentation, name), may_hide)
        has_one = name in project.case(case_id).masks
        if has_one:
            require_yes(may_replace(name, [case_id]))

        def show(changed: Project) -> Project:
            self._files_of.get(volume.GetID(), {}).pop(name, None)  # the saved one counts
            return self.updated(changed)

        return self._in_background(
            "saving an organ mask",
            lambda _: set_organ_masks(
                project, name, {case_id: mask}, replaceable=[case_id] * has_one
            ),
            show,
        )

    def organ_mask_of(self, segmentation: Any, volume: Any, organ: str) -> Labelmap:
        """Return what the segments named like an organ show, as 0 and 1 on the grid of a volume.

        Raises:
            SceneError: When there is no such segment, or when the segmentation was not drawn on the
                volume, or does not say on which: it may be the organ of somebody else.
        """
        reference_volume(segmentation)  # none when its volume is gone
        volume_of_label(segmentation, volume)
        wanted = _segments_of(segmentation, organ)
        geometry = geometry_of(volume)
        labels = np.zeros(geometry.shape, np.uint8)
        for part in (read_shown_part(segmentation, one, volume)[0] for one in wanted):
            if part is not None:
                labels[part.place] |= part.values
        return Labelmap(labels, geometry)

    def _only_organ(self) -> str:
        organs = self.organs()
        if len(organs) != 1:
            names = ", ".join(organs) or "none"
            msg = f"Say which organ the mask is of ({names})."
            raise SceneError(msg)
        return organs[0]

    def _organ_files(
        self, volume: Any, organs: Mapping[str, Any] | None, folder: Path
    ) -> tuple[dict[str, str], list[Callable[[], None]]]:
        """Return the files of organ masks for the engine, and what writes them in a thread.

        Args:
            volume: Volume node that is segmented; a case of the project brings its own masks.
            organs: By target name, a file or a segmentation node; those of before when None.
            folder: Where masks of the scene are written.
        """
        writes: list[Callable[[], None]] = []
        if organs is None:
            return self._given_organs(volume), writes
        known = self._files_of.setdefault(volume.GetID(), {})
        known.clear()
        for number, (name, given) in enumerate(organs.items()):
            is_file = isinstance(given, str | Path)
            path = Path(given) if is_file else folder / f"organ-{number}.nii.gz"
            if not is_file:
                writes.append(_writer(self.organ_mask_of(given, volume, name), path))
            known[name] = str(path)
        return self._given_organs(volume), writes

    def _given_organs(self, volume: Any) -> dict[str, str]:
        """Return the files of organ masks that a volume has: of its case, and those of before."""
        files: dict[str, str] = {}
        case_id = case_of(volume, self.project)
        if self.project is not None and case_id:
            case = self.project.case(case_id)
            files = {name: str(self.project.folder / mask) for name, mask in case.masks.items()}
        return files | self._files_of.get(volume.GetID(), {})


def _masks_in(
    folder: Path, project: Project, organ: str, same_size: SameSize, monitor: Monitor
) -> tuple[dict[str, Path], list[str]]:
    """Return the masks of an organ in a folder, by case, and the cases that have another one."""
    from aslseg.project.given_masks import other_organ_masks
    from aslseg.project.organ_masks import find_organ_masks

    images = {case.id: project.image_path(case) for case in project.cases}
    found = find_organ_masks(images, organ, folder)
    others = other_organ_masks(project, organ, found, same_size=same_size, monitor=monitor)
    return found, others


def _segments_of(segmentation: Any, organ: str) -> list[str]:
    """Return the ids of the segments that are named like an organ.

    Raises:
        SceneError: When there is none.
    """
    from aslseg.project.labels import plain_name

    names = segmentation.GetSegmentation()
    wanted = [
        one
        for one in segment_ids(segmentation)
        if plain_name(names.GetSegment(one).GetName()) == plain_name(organ)
    ]
    if not wanted:
        msg = f"{segmentation.GetName()} has no segment '{organ}'; rename the one you mean."
        raise SceneError(msg)
    return wanted


def _writer(mask: Labelmap, path: Path) -> Callable[[], None]:
    def write() -> None:
        from aslseg.data.images import write_labelmap

        write_labelmap(mask, path)

    return write
