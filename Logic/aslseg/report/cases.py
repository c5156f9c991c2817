"""The parts of a report that show volumes: those for validation, and those without label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap, axial_to_slices, axial_volume, to_axial
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import AslsegError
from aslseg.project.case import Case
from aslseg.project.project import Project
from aslseg.project.run_tables import PREDICTIONS, Reliability, round_number
from aslseg.report.data import RunRecord
from aslseg.report.pictures import SOURCE_COLOURS, Slice, rank_slices, slice_picture
from aslseg.schema_1 import predictions_folder

NAMES = {"truth": "Truth", "specialist": "Specialist", "sam": "SAM", "refined": "Refined"}
"""Of outlines."""
MOST_DOUBTFUL, MOST_RELIABLE = 4, 2
"""Number of unlabelled volumes that are shown."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture inside of the page: a `data:` address and what it shows."""

    address: str
    caption: str


@dataclass(frozen=True, slots=True)
class CasePictures:
    """What a report shows of a case.

    Attributes:
        heading: Names the case.
        pictures: Of its slices.
        paragraphs: Why there is none.
        notices: What went wrong.
    """

    heading: str
    pictures: Sequence[Picture] = ()
    paragraphs: Sequence[str] = ()
    notices: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PicturePart:
    """A section of pictures: text about all of them, names of colours, and the cases."""

    paragraphs: Sequence[str]
    legend: Sequence[tuple[str, str]] = ()
    cases: Sequence[CasePictures] = ()


def validation_pictures(run: RunRecord, project: Project) -> PicturePart:
    """Show the worst and the best slice of each validation volume with all outlines."""
    if not project.validation:
        return PicturePart(["No volume is kept for validation, so no round can be scored."])
    folder = _predictions_folder(run)
    if folder is None:
        return PicturePart(["There are no label maps of validation volumes yet."])
    what = (
        f"Worst and best slice of each volume after round {_round_of(folder)}, "
        "by the Dice of the last prediction. "
        "Sections of less than a twentieth of a target's largest one do not count."
    )
    cases = [
        _case_pictures(case.id, partial(_ends_of, run, project, case, folder / case.id))
        for case in project.validation
    ]
    return PicturePart([what, _lines(project)], _legend(run, ("truth", *PREDICTIONS)), cases)


def unlabelled_pictures(run: RunRecord, project: Project) -> PicturePart:
    """Show, of the most doubtful and the most reliable volumes, where predictions agree least."""
    folder = _predictions_folder(run)
    judged = _judged(run, project, folder) if folder else []
    if not folder or not judged:
        return PicturePart(["No unlabelled volume has been judged yet."])
    rest = judged[MOST_DOUBTFUL:]
    shown = [*judged[:MOST_DOUBTFUL], *rest[max(0, len(rest) - MOST_RELIABLE) :]]
    what = (
        f"{len(shown)} of {len(judged)} volumes after round {_round_of(folder)}, the most doubtful "
        "first and the most reliable last: of each the slice in which specialist and refined "
        "label agree least."
    )
    cases = [
        _case_pictures(
            f"{item.case}: score {item.score:.2f}, "
            f"{'joined' if item.accepted else 'did not join'} the training set",
            partial(_least_agreeing, run, project, item.case, folder),
        )
        for item in shown
    ]
    return PicturePart([what, _lines(project)], _legend(run, PREDICTIONS), cases)


def _case_pictures(heading: str, draw: Callable[[], Sequence[Picture] | str]) -> CasePictures:
    """Draw the pictures of a case; `draw` returns a sentence when there is nothing to show."""
    try:
        drawn = draw()
    except AslsegError as error:
        return CasePictures(heading, notices=[str(error)])
    if isinstance(drawn, str):
        return CasePictures(heading, paragraphs=[drawn])
    return CasePictures(heading, drawn)


def _lines(project: Project) -> str:
    dashes = ", ".join(
        f"{target.name} {word}"
        for target, word in zip(project.targets, ("solid", "dashed", "dotted"), strict=False)
    )
    return f"Left as scanned, right with outlines: {dashes}. The patient's right is on the left."


def _legend(run: RunRecord, predictions: Sequence[str]) -> list[tuple[str, str]]:
    shown = [source for source in predictions if run.has_sam or source != "sam"]
    return [(NAMES[source], SOURCE_COLOURS[source]) for source in shown]


def _predictions_folder(run: RunRecord) -> Path | None:
    rounds = sorted(run.folder.glob("round-*"))
    folders = [path for path in map(predictions_folder, rounds) if path.is_dir()]
    best = int(run.status.get("best_round") or 0)
    of_best = next((folder for folder in folders if _round_of(folder) == best), None)
    return of_best or (folders[-1] if folders else None)


def _round_of(folder: Path) -> int:
    return round_number(folder.parent)


def _judged(run: RunRecord, project: Project, folder: Path) -> list[Reliability]:
    """Return the reliability of the round's unlabelled volumes, the most doubtful first."""
    number, unlabelled = _round_of(folder), {case.id for case in project.unlabelled}
    items = [i for i in run.reliability if i.round == number and i.case in unlabelled]
    return sorted(items, key=lambda item: item.score)


def _predicted(run: RunRecord, folder: Path) -> dict[str, Labelmap]:
    """Read the predictions of a case on its axial grid, in the order in which they are made."""
    return {
        source: axial_labelmap(read_labelmap(folder / f"{source}.nii.gz"))
        for source in PREDICTIONS
        if (folder / f"{source}.nii.gz").is_file() and (run.has_sam or source != "sam")
    }


def _ends_of(run: RunRecord, project: Project, case: Case, folder: Path) -> Sequence[Picture] | str:
    predicted = _predicted(run, folder)
    shown = {"truth": axial_labelmap(project.load_labels(case)), **predicted}
    last = list(predicted)[-1:]
    ends = rank_slices(shown[last[0]], shown["truth"], project.targets) if last else None
    if ends is None:
        return "This volume has neither a target nor a label map."
    image = project.load_image(case)
    axial = axial_volume(image)
    return [
        Picture(
            slice_picture(axial, shown, slice_.index, project.targets),
            f"{word} slice of {case.id}: number {_number_of(slice_, image.geometry)}. "
            f"Dice of {NAMES[last[0]]} in this slice: {_scores(slice_)}.",
        )
        for word, slice_ in zip(("Worst", "Best"), ends, strict=True)
    ]


def _least_agreeing(
    run: RunRecord, project: Project, case_id: str, folder: Path
) -> Sequence[Picture] | str:
    case = project.case(case_id)
    predicted = _predicted(run, folder / case.id)
    if not {"specialist", "refined"} <= predicted.keys():
        return "Its label maps are not kept."
    ends = rank_slices(predicted["refined"], predicted["specialist"], project.targets)
    if ends is None:
        return "Nothing was found in this volume."
    worst, _ = ends
    image = project.load_image(case)
    picture = slice_picture(axial_volume(image), predicted, worst.index, project.targets)
    caption = (
        f"{case.id}: slice {_number_of(worst, image.geometry)}. Dice of specialist and refined "
        f"label with each other in this slice: {_scores(worst)}."
    )
    return [Picture(picture, caption)]


def _number_of(slice_: Slice, stored: Geometry) -> int:
    """Return the number of a slice in the file, from 0."""
    depth = to_axial(stored).shape(stored.shape)[0]
    return axial_to_slices(stored).index(slice_.index, depth)


def _scores(slice_: Slice) -> str:
    return ", ".join(f"{target} {value:.3f}" for target, value in slice_.dice.items())
