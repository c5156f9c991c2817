"""Another image for a case, on purpose, and what becomes of what was drawn on the one before."""

from __future__ import annotations

from aslseg.data.images import digest_of_image, read_geometry, read_volume, stamp_of
from aslseg.data.volume import Geometry
from aslseg.errors import ProjectError
from aslseg.project.case import Case
from aslseg.project.create import refuse_same_images
from aslseg.project.drawn import drawn_files, keep_drawn, setting_aside
from aslseg.project.image_digests import remember
from aslseg.project.labels import load_labels
from aslseg.project.lesion_decisions import read_lesions
from aslseg.project.lock import changing
from aslseg.project.project import Project, open_project, write_project
from aslseg.project.run_folder import run_named
from aslseg.project.run_tables import REFINED


def renew_image(project: Project, case_id: str, *, keep: bool | None = None) -> Project:
    """Take the image that a case has now as its image, for one that was replaced on purpose.

    Args:
        project: The project.
        case_id: The case.
        keep: Whether its label map, organ masks and decisions about lesions, made on the image of
            before, count for this one too; False puts them into the history, where no training
            reads them, and decisions about the case hold no more. None where there are none.

    Raises:
        ProjectError: When there is no such case, nobody has said what shall become of these, or
            what is kept counts voxels of the image of before and this one has others, or nothing
            is left that tells which that one had.
        ImageError: When the image cannot be used, or what is kept does not lie on it.
        StorageError: When the folder cannot be written; nothing that was decided changes then.
    """
    with changing(open_project(project.folder).folder):
        current = open_project(project.folder)
        case = current.case(case_id)
        current.require_image(case)
        path = current.image_path(case)
        volume, stamp, digest = read_volume(path), stamp_of(path), digest_of_image(path)
        drawn = drawn_files(current, case)
        decided = bool(drawn) or current.lesion_path(case_id).exists()
        if digest != case.image_sha256 and decided and keep is None:
            msg = (
                f"The label map, masks or decisions of case {case_id} were made on the image of "
                "before. Look whether they fit the one that is there now, and say so: --keep, or "
                "--set-aside to put them into the history."
            )
            raise ProjectError(msg)
        if keep is False:
            facts = case.model_dump(include={"id", "image", "split", "patient"})
            case = Case.model_validate(facts)
        else:
            if digest != case.image_sha256:
                _refuse_other_voxels(current, case, volume.geometry)
            if case.label is not None:
                load_labels(current.label_path(case), volume.geometry, current.targets)
        updated = current.with_case(case.model_copy(update={"image_sha256": digest}))
        refuse_same_images(updated)
        ended = [current.case(case_id)] if keep is False else []
        for one in ended:
            keep_drawn(current, one)
        with setting_aside(current, ended):
            write_project(updated)
    remember(updated.folder, {case_id: [stamp, digest]})
    return updated


def _refuse_other_voxels(project: Project, case: Case, geometry: Geometry) -> None:
    """Refuse to keep what counts slices or voxels for an image that has others.

    The grid of before is that of what was drawn on it, or of the label maps that were reviewed.
    """
    lesions = read_lesions(project, case.id).decisions.values()
    if case.complete_slices is None and not lesions and not case.masks:
        return
    places = [
        *drawn_files(project, case),
        *(
            run_named(project.folder, one.run).predictions(one.round, case.id) / REFINED
            for one in lesions
            if one.run
        ),
    ]
    there = [path for path in places if path.exists()]
    if there and all(read_geometry(path).matches(geometry) for path in there):
        return
    slices = "organ masks" if case.complete_slices is None else "complete slices"
    what = "decisions about lesions" if lesions else slices
    why = "the one that is there now has other voxels; put"
    if not there:
        why = (
            "whether the one that is there now has the same cannot be told, for the run or file "
            "that they were made on is gone; restore that, or put"
        )
    msg = (
        f"The {what} of case {case.id} are kept by voxels of the image of before, and {why} what "
        "was drawn and decided into the history (--set-aside)."
    )
    raise ProjectError(msg)
