"""Organ masks that a person already has: given beside the label maps, for some or all cases.

A mask is of a target that contains others: a liver, inside of which tumours are sought. It takes
the place of the predicted one, and stays as it is in every result.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aslseg.data.geometry import fit_labels
from aslseg.data.images import SUFFIXES, read_labelmap, read_segments, stem_of, suffix_of
from aslseg.data.nifti import label_names
from aslseg.data.nrrd import Segment
from aslseg.data.volume import Geometry, Labelmap, Labels, Mask, SameSize, Volume
from aslseg.errors import ImageError, ProjectError
from aslseg.project.case import LABEL_SUFFIX, MASKS, CaseFiles
from aslseg.project.labels import plain_name
from aslseg.project.pairing import labels_by_case
from aslseg.targets import Target, cascade_stages, region_mask, region_values

logger = logging.getLogger(__name__)

LEAST_INSIDE = 0.5
"""Less than this part of the labelled contents in the mask is worth a warning."""


def organ_of(targets: Sequence[Target], name: str) -> Target:
    """Return the target that masks can be given of: one that contains others.

    Raises:
        ProjectError: When there is no such target, or nothing lies in it.
    """
    parents = [target.name for target in targets if any(t.inside == target.name for t in targets)]
    for target in targets:
        if target.name == name and name in parents:
            return target
    known = ", ".join(parents) or "none here"
    msg = (
        f"Masks are given of targets that contain others ({known}), and '{name}' is none; give its "
        "labels as label maps instead."
    )
    raise ProjectError(msg)


def is_other_mask(path: Path, mask: Labelmap) -> bool:
    """Tell whether a file is there and holds another mask on the same grid."""
    return path.exists() and not np.array_equal(read_labelmap(path).labels > 0, mask.labels > 0)


def another_mask(name: str, case_ids: Sequence[str]) -> str:
    """Say that cases have another mask of an organ, which must not be replaced, and the remedy."""
    return (
        f"There is another mask of {name} already of {', '.join(case_ids)}; say that it may be "
        "replaced (--replace, in Python `replaceable`; the old one stays in the history), or leave "
        "the case out."
    )


def mask_place(target: Target, case_id: str) -> Path:
    """Return where the mask of a case is kept, relative to the project."""
    plain = re.sub(r"[^\w-]+", "_", target.name, flags=re.ASCII)
    return Path(MASKS, f"{target.value}-{plain}", case_id + LABEL_SUFFIX)


def with_organ_masks(cases: Sequence[CaseFiles], name: str, source: Path) -> list[CaseFiles]:
    """Return cases with the masks of an organ that a folder or file holds for them.

    Args:
        cases: Images to be brought in.
        name: Of the target.
        source: As for `find_organ_masks`.

    Raises:
        ProjectError: As `find_organ_masks`.
    """
    found = find_organ_masks({case.id: case.image for case in cases}, name, source)
    return [
        replace(case, masks={**case.masks, name: found[case.id]}) if case.id in found else case
        for case in cases
    ]


def find_organ_masks(images: Mapping[str, Path], name: str, source: Path) -> dict[str, Path]:
    """Find the masks of an organ by the names of files.

    Args:
        images: Image by case id.
        name: Of the target.
        source: A folder with one file a case, named as label maps are; or with TotalSegmentator's
            folders `<case>/<name>.nii.gz` or `<case>/segmentations/<name>.nii.gz`; or the file of
            the only image.

    Returns:
        File by case id; cases without one are missing.

    Raises:
        ProjectError: When the folder holds no mask of any case, or names do not tell which.
    """
    if source.is_file() and len(images) == 1:
        return dict.fromkeys(images, source)
    if not source.is_dir():
        msg = f"{source} is no folder; give the folder with the masks of {name}."
        raise ProjectError(msg)
    places = {path: masks for path in sorted(source.iterdir()) if (masks := _masks_at(path, name))}
    fitting = labels_by_case(images, list(places))
    found = {case_id: _only(places[path], name) for case_id, path in fitting.items()}
    if not found:
        example = stem_of(Path(next(iter(images), "case")))
        msg = (
            f"{source} holds no mask of {name} that is named as an image is; name them like "
            f"{example}.nii.gz or {example}/{name.replace(' ', '_')}.nii.gz."
        )
        raise ProjectError(msg)
    return found


def mask_at(path: Path, name: str) -> Path | None:
    """Return a file, or the structure's file in a folder of TotalSegmentator; None for others.

    Raises:
        ProjectError: When a folder has several files of the structure.
    """
    found = _masks_at(path, name)
    return _only(found, name) if found else None


def _masks_at(path: Path, name: str) -> list[Path]:
    """List a file, or the files of a structure in a folder of TotalSegmentator."""
    if path.name.startswith("."):
        return []
    if path.is_file():
        return [path] if suffix_of(path) in SUFFIXES else []
    return [
        file
        for folder in (path, path / "segmentations")
        for file in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if suffix_of(file) and plain_name(stem_of(file)) == plain_name(name)
    ]


def _only(masks: Sequence[Path], name: str) -> Path:
    """Return the only mask, or refuse several."""
    if len(masks) > 1:
        msg = (
            f"{masks[0]} and {masks[1].relative_to(masks[0].parent)} both are masks of {name} by "
            "name; leave one of them in the folder."
        )
        raise ProjectError(msg)
    return masks[0]


def read_organ_mask(
    path: Path,
    geometry: Geometry,
    target: Target,
    targets: Sequence[Target],
    *,
    same_size: SameSize = "refuse",
) -> Labelmap:
    """Read a mask onto the grid of its image.

    Args:
        path: A mask (any value above 0); a label map of the project's targets, of which the
            target's region counts; or a file that names its segments, of which the one named like
            the target counts (`.seg.nrrd`, TotalSegmentator's multi-label NIfTI).
        geometry: The grid of the image.
        target: That the mask is of.
        targets: All targets.
        same_size: What to go by when it has the image's size and another position.

    Returns:
        Labels 0 and 1.

    Raises:
        ImageError: When it is missing, damaged, empty, or does not say what is the target.
        GeometryMismatchError: When it lies elsewhere.
    """
    labelmap, segments = read_named(path)
    mask = _mask_in(labelmap.labels, segments, target, targets, path)
    found = Labelmap(mask.astype(np.uint8), labelmap.geometry)
    return checked_organ_mask(found, geometry, target, str(path), same_size=same_size)


def read_named(path: Path) -> tuple[Labelmap, tuple[Segment, ...]]:
    """Read a label map as `read_segments`, with the names of TotalSegmentator's NIfTI files too.

    Raises:
        ImageError: As `read_segments`.
    """
    labelmap, segments = read_segments(path)
    if not segments and suffix_of(path).startswith(".nii"):
        segments = tuple(Segment(name, value) for value, name in label_names(path).items())
    return labelmap, segments


def checked_organ_mask(
    mask: Labelmap, geometry: Geometry, target: Target, name: str, *, same_size: SameSize = "refuse"
) -> Labelmap:
    """Bring a mask of 0 and 1 to the grid of its image.

    Raises:
        ImageError: When it is empty; `name` stands for the mask.
        GeometryMismatchError: When it lies elsewhere.
    """
    fitted = fit_labels(mask, geometry, name, same_size=same_size)
    if not fitted.labels.any():
        msg = f"{name} is an empty mask of {target.name}; leave it out, and it is predicted."
        raise ImageError(msg)
    return Labelmap((fitted.labels > 0).astype(np.uint8), geometry)


def _mask_in(
    labels: Labels,
    segments: Sequence[Segment],
    target: Target,
    targets: Sequence[Target],
    path: Path,
) -> Mask:
    if segments:
        wanted = [s.value for s in segments if plain_name(s.name) == plain_name(target.name)]
        if wanted:
            return np.isin(labels, wanted)
        names = ", ".join(segment.name for segment in segments[:6])
        msg = f"{path} has no segment '{target.name}' (but {names}); rename the one that is meant."
        raise ImageError(msg)
    values = np.unique(labels[labels > 0]).tolist()
    if len(values) > 1 and not set(values) <= set(region_values(target, targets)):
        msg = (
            f"{path} holds the values {', '.join(map(str, values[:6]))} and does not say which is "
            f"{target.name}; save it as a mask of its own, or with named segments (.seg.nrrd)."
        )
        raise ImageError(msg)
    return labels > 0


def volume_with_organs(
    volume: Volume, files: Mapping[str, Path], targets: Sequence[Target]
) -> Volume:
    """Return a new image with masks of organs that are not to be predicted.

    Args:
        volume: The image, as its file has it.
        files: By target name, as for `read_organ_mask`.
        targets: Of the run that will segment it.

    Raises:
        ProjectError: When a name is none of a target that contains others.
        ImageError: When a file cannot be used.
    """
    organs = {name: organ_of(targets, name) for name in files}
    masks = {
        name: read_organ_mask(path, volume.geometry, organs[name], targets).labels > 0
        for name, path in files.items()
    }
    return replace(volume, given={**volume.given, **masks})


def with_masks(
    labelmap: Labelmap, masks: Mapping[str, Mask], targets: Sequence[Target], name: str
) -> Labelmap:
    """Return a label map with the given masks of organs that it has no voxel of.

    A person drew lesions alone where the organ was given: its voxels that are no lesion become the
    organ's. An organ that the label map does have stays as it is drawn.

    Args:
        labelmap: Of a person.
        masks: By target name, (D, H, W) on the same grid.
        targets: All targets.
        name: What a warning calls the label map.
    """
    labels = labelmap.labels
    inner_first = [t for stage in reversed(cascade_stages(targets)) for t in stage.targets]
    for target in inner_first:
        mask = masks.get(target.name)
        if mask is None or (labels == target.value).any():
            continue
        contents = region_mask(labels, target, targets)
        inside = np.count_nonzero(contents & mask)
        if inside < LEAST_INSIDE * np.count_nonzero(contents):
            logger.warning("%s lies mostly outside of the given %s; check both.", name, target.name)
        around = [other.value for other in targets if target.name in _names_inside(other, targets)]
        labels = np.where(mask & np.isin(labels, [0, *around]), np.uint8(target.value), labels)
    return Labelmap(labels, labelmap.geometry)


def _names_inside(target: Target, targets: Sequence[Target]) -> list[str]:
    """Return the names of the targets that lie in another one."""
    values = region_values(target, targets)[1:]
    return [other.name for other in targets if other.value in values]
