"""Label maps of another model, as a start: reviewed as those of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ASLsegLib.logic.base import Pending, waiting
from ASLsegLib.logic.project import ProjectLogic

if TYPE_CHECKING:
    from aslseg.data.volume import SameSize
    from aslseg.project.run_folder import RunFolder


class ExternalLabelLogic(ProjectLogic):
    """The part of the logic that takes another model's labels."""

    def external_origins(self) -> list[str]:
        """Return the models whose labels the open project has, to review or to start from."""
        return [run.run_id for run in self.runs() if run.is_external]

    @waiting
    def add_external_labels(
        self,
        origin: str,
        folder: Path | str,
        *,
        called: Mapping[str, str] | None = None,
        same_size: SameSize = "refuse",
    ) -> Pending[RunFolder]:
        """Take the label maps of another model for the cases without a label, to be reviewed.

        Args:
            origin: What made them, such as "TotalSegmentator".
            folder: One file a case, named as its image; or a folder a case, with a mask of each
                target.
            called: By target name, what the model calls it: a segment, a mask's file, or a value.
            same_size: What to go by when a label map has its image's size and another position.

        Raises:
            ProjectError: When no file is named as a case without a label.
            ImageError: When a label map is damaged, or none of the targets is in it.
        """
        project, source = self.opened(), Path(folder)

        def work(monitor: Any) -> RunFolder:
            from aslseg.project.external_labels import add_external_labels as add

            return add(project, origin, source, called=called, same_size=same_size, monitor=monitor)

        def show(run: RunFolder) -> RunFolder:
            self.forget_state()
            self.updated(project)
            return run

        return self._in_background("reading labels of another model", work, show)
