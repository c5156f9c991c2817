"""Which image and which label map of a folder belong together, by the names of their files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from aslseg.data.dicom import is_dicom_folder
from aslseg.data.images import stem_of, suffix_of
from aslseg.errors import ProjectError, listed
from aslseg.project.case import OWN_FOLDERS, PROJECT_FILE, CaseFiles, name_key
from aslseg.targets import Target

_IMAGE = "image|images|img|volume|vol|scan|ct|mr|mri"


_LABEL = "label|labels|labelmap|seg|segmentation|mask|gt|truth|annotation"


_IMAGE_END = re.compile(rf"(?:_0000|[-_. ](?:{_IMAGE}))$", re.IGNORECASE)


_IMAGE_START = re.compile(rf"^(?:{_IMAGE})[-_. ]", re.IGNORECASE)


_LABEL_END = re.compile(rf"[-_. ](?:{_LABEL})$", re.IGNORECASE)


_LABEL_START = re.compile(rf"^(?:{_LABEL})(?:[-_. ]|$)", re.IGNORECASE)


_OTHER_CHANNEL = re.compile(r"_000[1-9]$")


_IN_FOLDERS = "in it and in folders in it"


_IN_IT = "in it, and DICOM slices in folders in it,"


_DEEPEST, _MOST_NAMED = 8, 6


_NOT_IN_NAMES = re.compile(r"[^\w.-]+|^[^\w]+|\.+$", re.ASCII)


@dataclass(frozen=True, slots=True)
class PairingProblem:
    """Names of files that do not tell what belongs together.

    Attributes:
        image: The image that it is about.
        message: What is wrong, and the remedy.
    """

    image: Path
    message: str


@dataclass(frozen=True, slots=True)
class FoundCases:
    """What a source of volumes holds.

    Attributes:
        cases: In the order of their names, numbers by their value.
        targets: That the source names; None when it names none.
        unpaired: Label maps that belong to no image.
        problems: What names do not tell.
        passed_over: Says which folders hold images deeper than these are looked for; empty where
            none does.
        left_out: Files among the images that are named as label maps, where label maps are given
            in another folder.
    """

    cases: tuple[CaseFiles, ...]
    targets: tuple[Target, ...] | None = None
    unpaired: tuple[Path, ...] = ()
    problems: tuple[PairingProblem, ...] = ()
    passed_over: str = ""
    left_out: tuple[Path, ...] = ()


def pair_folder(images: Path, labels: Path | None = None) -> FoundCases:
    """Find the cases of a folder by the names of its files.

    These belong together: `a` with `a`, `a_0000` with `a`, `volume-7` with `segmentation-7`,
    `a_image` with `a_label` or `a_seg`, and the only image with the only label map. A folder in
    the folder is one case: DICOM slices, or an image and its label map, of which the image may be
    a folder of DICOM slices.

    Args:
        images: Folder of images; without `labels`, of label maps as well.
        labels: Folder of label maps.

    Raises:
        ProjectError: When there is no such folder, no image, or `labels` is the folder of images.
    """
    for folder in (images, labels or images):
        if not folder.is_dir():
            msg = f"{folder} is no folder; give a folder of images or label maps."
            raise ProjectError(msg)
    if labels is not None and labels.samefile(images):
        msg = (
            f"{labels} is the folder of the images, each of which would be its own label map; "
            "leave the folder of label maps out where both lie in one."
        )
        raise ProjectError(msg)
    own, named = volumes_in(images), label_maps_in(images)
    if labels is not None:
        found = [_paired(own, _images_in(labels), images)]
    else:
        found = [_paired(own, named, images), *_nested_cases(images)]
    cases = _apart([case for one in found for case in one.cases])
    where = _IN_FOLDERS if labels is None else _IN_IT
    taken = [case.image for case in cases]
    deeper = _passed_over(images, taken, where, () if labels is None else (labels,))
    left_out = () if labels is None else tuple(named)
    if not cases:
        what = f" ({left_out_in_words(left_out)})" if left_out else ""
        remedy = "; give the folder with the NIfTI, NRRD or DICOM files."
        msg = f"{images} holds no image{what}" + (f". {deeper}" if deeper else remedy)
        raise ProjectError(msg)
    return FoundCases(
        tuple(sorted(cases, key=lambda case: natural_key(case.id))),
        unpaired=tuple(path for one in found for path in one.unpaired),
        problems=tuple(problem for one in found for problem in one.problems),
        passed_over=deeper,
        left_out=left_out,
    )


def left_out_in_words(files: Sequence[Path]) -> str:
    """Say which files among images are taken for no images, and why."""
    they = "it is named as a label map" if len(files) == 1 else "they are named as label maps"
    return f"Left out, for {they}: {', '.join(path.name for path in files)}"


def unpaired_in_words(label: Path, folder: Path | None = None) -> str:
    """Say that a label map has no image, and the remedy."""
    of = "" if folder is None else f" of {folder}"
    return f"{label} belongs to no image{of} by its name; rename it like its image."


def _apart(cases: Sequence[CaseFiles]) -> list[CaseFiles]:
    """Name images by their whole names where a shorter one fits several: p1_ct and p1_mr."""
    short = Counter(name_key(case.id) for case in cases)
    return [
        replace(case, id=as_name(stem_of(case.image)))
        if short[name_key(case.id)] > 1 and case.id == _case_id(case.image)
        else case
        for case in cases
    ]


def _images_in(folder: Path) -> list[Path]:
    """List image files and folders of DICOM slices; the folder itself if it holds slices."""
    if is_dicom_folder(folder):
        return [folder]
    return [path for path in _visible(folder) if suffix_of(path) or _is_dicom_case(path)]


def volumes_in(folder: Path) -> list[Path]:
    """List the images of a folder, without what is named as a label map."""
    return [path for path in _images_in(folder) if not _is_label(path)]


def label_maps_in(folder: Path) -> list[Path]:
    """List what `volumes_in` leaves out of a folder for its name."""
    return [path for path in _images_in(folder) if _is_label(path)]


def passed_over_by_volumes(folder: Path, but: Collection[Path] = ()) -> str:
    """Say in which folders images lie deeper than `volumes_in` looks for them; empty if in none.

    Args:
        folder: As for `volumes_in`.
        but: Folders in it that hold something else, such as label maps.
    """
    return _passed_over(folder, volumes_in(folder), _IN_IT, but)


def _passed_over(
    folder: Path, taken: Sequence[Path], where: str, but: Collection[Path] = ()
) -> str:
    """Say which folders in a folder have images deep inside and none that is taken."""
    others = {path.resolve() for path in but}
    found = [
        _image_folder(inner, others)
        for inner in _case_folders(folder)
        if not any(image.is_relative_to(inner) for image in taken)
    ]
    names = [str(path) for path in found if path is not None]
    if not names:
        return ""
    return (
        f"Images of {folder} are looked for {where} alone; these folders are passed over: "
        f"{listed(names, _MOST_NAMED)}. Give each of them itself, or move its images."
    )


def _image_folder(folder: Path, but: Collection[Path], depth: int = 0) -> Path | None:
    """Return the first folder that holds images: a folder, or one in it; None of what is apart."""
    if depth > _DEEPEST or folder.resolve() in but or (folder / PROJECT_FILE).is_file():
        return None
    with suppress(OSError):  # where nobody may look
        if is_dicom_folder(folder) or volumes_in(folder):
            return folder
        inside = (path for path in _visible(folder) if path.is_dir())
        found = (_image_folder(path, but, depth + 1) for path in inside)
        return next((path for path in found if path is not None), None)
    return None


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_dicom_case(path: Path) -> bool:
    return path.is_dir() and is_dicom_folder(path)


def _is_label(path: Path) -> bool:
    stem = stem_of(path)
    return path.is_file() and bool(_LABEL_END.search(stem) or _LABEL_START.search(stem))


def _nested_cases(folder: Path) -> list[FoundCases]:
    """Take each folder that holds an image as one case of the folder's name."""
    found = []
    for inner in (path for path in _case_folders(folder) if not is_dicom_folder(path)):
        files = [path for path in _visible(inner) if suffix_of(path)]
        own = [path for path in files if not _is_label(path)] or _only_dicom_case(inner)
        pairs = _paired(own, [path for path in files if _is_label(path)], inner)
        if len(pairs.cases) > 1:
            msg = f"{inner} holds several images; give the folders of images and labels apart."
            problems = (PairingProblem(pairs.cases[0].image, msg), *pairs.problems)
            found.append(replace(pairs, problems=problems))
        else:
            cases = tuple(replace(case, id=as_name(inner.name)) for case in pairs.cases)
            found.append(replace(pairs, cases=cases))
    return found


def _case_folders(folder: Path) -> list[Path]:
    """List the folders in a folder.

    Those in which a project keeps its own files are none, where it was made among its images.
    """
    own_folders = OWN_FOLDERS if (folder / PROJECT_FILE).is_file() else ()
    return [path for path in _visible(folder) if path.is_dir() and path.name not in own_folders]


def _only_dicom_case(folder: Path) -> list[Path]:
    """Return the one folder of DICOM slices in a folder; nothing where there are several."""
    found = [path for path in _visible(folder) if _is_dicom_case(path)]
    return found if len(found) == 1 else []


def _paired(images: Sequence[Path], labels: Sequence[Path], folder: Path) -> FoundCases:
    if len(images) == len(labels) == 1:
        return FoundCases((CaseFiles(_case_id(images[0]), images[0], labels[0]),))
    fitting = {path: labels_of(path, labels) for path in images}
    claims = Counter(found[0] for found in fitting.values() if len(found) == 1)
    cases, problems = [], _channel_problems(images)
    for image, found in fitting.items():
        label = found[0] if len(found) == 1 and claims[found[0]] == 1 else None
        cases.append(CaseFiles(_case_id(image), image, label))
        if found and label is None:
            problems.append(PairingProblem(image, _ambiguous(image, found, folder)))
    fit = {label for found in fitting.values() for label in found}
    return FoundCases(
        tuple(cases),
        unpaired=tuple(label for label in labels if label not in fit) if images else (),
        problems=tuple(problems),
    )


def _ambiguous(image: Path, labels: Sequence[Path], folder: Path) -> str:
    if len(labels) > 1:
        return f"{labels[0]} and {labels[1].name} both fit {image.name} by their names; rename one."
    return f"{labels[0]} fits several images of {folder} by its name; rename it like its image."


def _channel_problems(images: Sequence[Path]) -> list[PairingProblem]:
    stems = {stem_of(path) for path in images}
    message = "{} is another channel of a case; leave one channel per case in the folder."
    return [
        PairingProblem(path, message.format(path))
        for path in images
        if _OTHER_CHANNEL.search(stem_of(path)) and f"{stem_of(path)[:-5]}_0000" in stems
    ]


def labels_of(image: Path, labels: Sequence[Path]) -> list[Path]:
    """Find the label maps of an image: of its very name, else of what the name means."""
    name, key = stem_of(image).removesuffix("_0000"), _image_key(image)
    same = [path for path in labels if stem_of(path) == name]
    return same or [path for path in labels if _label_key(path) == key]


def labels_by_case(images: Mapping[str, Path], labels: Sequence[Path]) -> dict[str, Path]:
    """Find the label map of each case, by the name of its image or else by its own.

    Args:
        images: Image by case id.
        labels: Files or folders.

    Returns:
        One of `labels` by case id; cases without one are missing.

    Raises:
        ProjectError: When names do not tell which belongs to which.
    """
    found: dict[str, Path] = {}
    for case_id, image in images.items():
        fitting = labels_of(image, labels) or labels_of(Path(case_id), labels)
        if len(fitting) > 1:
            msg = f"{fitting[0]} and {fitting[1].name} both fit {case_id} by name; rename one."
            raise ProjectError(msg)
        if fitting:
            found[case_id] = fitting[0]
    repeated = [path for path, count in Counter(found.values()).items() if count > 1]
    if repeated:
        msg = f"{repeated[0]} fits several cases by its name; rename it like its image."
        raise ProjectError(msg)
    return found


def _image_key(path: Path) -> str:
    return name_key(_IMAGE_START.sub("", _IMAGE_END.sub("", stem_of(path))))


def _label_key(path: Path) -> str:
    stem = _LABEL_START.sub("", _LABEL_END.sub("", stem_of(path)))
    return name_key(_IMAGE_START.sub("", stem))


def _case_id(path: Path) -> str:
    return as_name(_IMAGE_END.sub("", stem_of(path)))


def as_name(text: str) -> str:
    """Return a text as a name of ASCII letters; a digest stands for letters that it cannot hold."""
    name = _NOT_IN_NAMES.sub("_", text) or "case"
    if text.isascii():
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name.strip('_') or 'case'}-{digest[:8]}"


def natural_key(text: str) -> list[tuple[int, str]]:
    """Return a key by which 'case 9' comes before 'case 10'."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
