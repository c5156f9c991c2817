"""A label map as a DICOM segmentation object of the series that it was made on, by highdicom.

It belongs to the study and so holds what the slices say of the patient. Segments do not overlap:
the liver is without its tumours. Liver and tumour have codes of SNOMED CT, as in Slicer; another
target has its name as a code of the scheme 99ASLSEG.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aslseg
from aslseg.data.dicom import is_dicom_folder, slice_files
from aslseg.data.volume import Labelmap
from aslseg.errors import ImageError
from aslseg.export.origin import MadeBy
from aslseg.storage import atomic_path
from aslseg.targets import Target, numbered_labels

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

ENDING = ".seg.dcm"
_SERIES_NUMBER = 900
_ALGORITHM: dict[MadeBy, str] = {
    "given": "MANUAL",
    "drawn": "MANUAL",
    "corrected": "SEMIAUTOMATIC",
    "accepted": "AUTOMATIC",
    "ai": "AUTOMATIC",
}
OURS = "ASLseg"
"""Begins the name of each algorithm of this program."""
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_UTF_8 = "ISO_IR 192"
_TISSUE = ("85756007", "SCT", "Tissue")
_CODES = {
    "liver": (("123037004", "SCT", "Anatomical Structure"), ("10200004", "SCT", "Liver")),
    "tumour": (
        ("49755003", "SCT", "Morphologically Altered Structure"),
        ("4147007", "SCT", "Mass"),
    ),
}


def comes_from_dicom(image: Path) -> bool:
    """Tell whether an image is a folder of DICOM slices."""
    return image.is_dir() and is_dicom_folder(image)


def write_dicom_seg(
    labelmap: Labelmap,
    image: Path,
    targets: Sequence[Target],
    path: Path,
    *,
    made_by: MadeBy,
    algorithm: str = OURS,
) -> None:
    """Write a DICOM segmentation object, whole or not at all.

    Args:
        labelmap: On the grid of the image.
        image: Folder of its DICOM slices.
        targets: Those that the label map decides; each becomes a segment, in their order.
        path: Where to.
        made_by: Who or what made the label map.
        algorithm: Name of what predicted.

    Raises:
        ImageError: When the image is no DICOM series, or its slices lack what an object of their
            study needs.
        StorageError: When the place cannot be written.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from highdicom.uid import UID
    from pydicom import dcmread

    slices = [dcmread(file) for file in slice_files(image)]
    for source in slices:
        _complete(source, labelmap.geometry.spacing_mm[0])
    try:
        found = Segmentation(
            source_images=slices,
            pixel_array=numbered_labels(labelmap.labels, targets),
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(targets, made_by, algorithm),
            series_instance_uid=UID(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=UID(),
            instance_number=1,
            manufacturer="ASLseg",
            manufacturer_model_name="ASLseg",
            software_versions=aslseg.__version__,
            device_serial_number="0",
            content_label="ASLSEG",
            series_description=f"ASLseg: {made_by}",
        )
    except (AttributeError, KeyError, ValueError) as error:
        msg = (
            f"The slices in {image} lack what a DICOM segmentation of them has to repeat "
            f"({type(error).__name__}: {error}); export the series again, or choose NIfTI."
        )
        raise ImageError(msg) from error
    with atomic_path(path) as temporary:
        found.save_as(temporary)


def _complete(source: Any, slice_mm: float) -> None:
    """Give a slice the attributes that are repeated and that those of others may lack.

    All text of the object is UTF-8: names of targets, and what slices say in letters of their own.
    """
    for name in _MAY_BE_EMPTY:
        if name not in source:
            setattr(source, name, "")
    if source.get("SpecificCharacterSet") != _UTF_8:
        source.decode()
        source.SpecificCharacterSet = _UTF_8
    if not source.get("SliceThickness"):
        source.SliceThickness = slice_mm


def _descriptions(
    targets: Sequence[Target], made_by: MadeBy, name: str
) -> list[SegmentDescription]:
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept

    kind = SegmentAlgorithmTypeValues(_ALGORITHM[made_by])
    algorithm = None
    if kind is not SegmentAlgorithmTypeValues.MANUAL:
        algorithm = AlgorithmIdentificationSequence(
            name=name,
            version=aslseg.__version__ if name.startswith(OURS) else "unknown",
            family=CodedConcept("123110", "DCM", "Artificial Intelligence"),
        )
    described: list[SegmentDescription] = []
    for number, target in enumerate(targets, start=1):
        own = (target.name, "99ASLSEG", target.name)
        category, type_ = _CODES.get(target.name.lower(), (_TISSUE, own))
        described.append(
            SegmentDescription(
                segment_number=number,
                segment_label=target.name,
                segmented_property_category=CodedConcept(*category),
                segmented_property_type=CodedConcept(*type_),
                algorithm_type=kind,
                algorithm_identification=algorithm,
            )
        )
    return described
