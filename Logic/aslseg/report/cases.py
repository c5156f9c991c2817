"""The parts of a report that show volumes: those for validation, and those without label.

Of each volume single slices are drawn, bare and with the outlines of truth and predictions.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap, axial_to_slices, axial_volume, to_axial
from aslseg.data.volume import Geometry, Labelmap, Labels, Mask, Volume
from aslseg.errors import AslsegError
from aslseg.evaluation.metrics import dice
from aslseg.project.case import Case
from aslseg.project.complete_slices import axial_incomplete
from aslseg.project.project import Project
from aslseg.project.run_folder import saw_another
from aslseg.project.run_tables import PREDICTIONS, ReliabilityRow, round_number
from aslseg.report.data import RunRecord
from aslseg.schema_1 import predictions_folder
from aslseg.targets import Target, region_mask

# Bright colours of Okabe and Ito: distinct on grey, and for colour-blind people.
SOURCE_COLOURS = {
    "truth": "#F0E442",
    "specialist": "#56B4E9",
    "sam": "#FF7A33",
    "refined": "#2FE0A0",
}


SOURCE_WIDTHS = {"truth": 2.6, "specialist": 1.2, "sam": 1.2, "refined": 1.6}


DASHES = ("solid", (0, (2.4, 0.8)), (0, (0.8, 0.8)))


WINDOW_HU = (-100.0, 250.0)


MARGIN_MM = 25.0


LEAST_MM = 150.0


LEAST_SHARE = 0.05


WIDTH_INCH = 4.6


ANOTHER_IMAGE = "Its image has been replaced since this run saw it."


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice and how good it is.

    Attributes:
        index: Along k, from 0.
        dice: By target; absent where truth and label have next to none of it in this slice.
        mean: Mean of these.
    """

    index: int
    dice: Mapping[str, float]
    mean: float


def rank_slices(
    labels: Labelmap,
    truth: Labelmap,
    targets: Sequence[Target],
    *,
    scored: Collection[str] | None = None,
    left_out: Mask | None = None,
) -> tuple[Slice, Slice] | None:
    """Find the worst and the best slice of a label map.

    Args:
        labels: What is scored.
        truth: The human labels on the same grid.
        targets: All targets; a target counts with all that lies inside of it.
        scored: Names of the targets that count; all when None.
        left_out: (D, H, W) voxels on that grid of which nobody has said what they are.

    Returns:
        Worst and best, or None when no slice has any target.
    """
    if left_out is not None:
        labels, truth = labels.without(left_out), truth.without(left_out)
    pairs = [
        _Pair.of(labels, truth, target, targets)
        for target in targets
        if scored is None or target.name in scored
    ]
    every = [_scored_slice(index, pairs) for index in range(truth.geometry.shape[0])]
    slices = [slice_ for slice_ in every if slice_.dice]
    if not slices:
        return None
    # Of equally good slices the one with more targets tells more.
    key = [(slice_.mean, len(slice_.dice)) for slice_ in slices]
    worst = min(range(len(slices)), key=lambda number: (key[number][0], -key[number][1]))
    best = max(range(len(slices)), key=lambda number: key[number])
    return slices[worst], slices[best]


def slice_picture(
    image: Volume, predictions: Mapping[str, Labelmap], index: int, targets: Sequence[Target]
) -> str:
    """Draw a slice bare and with the outlines of all predictions.

    Args:
        image: On its axial grid, so that the patient's right is on the left and the front is up.
        predictions: `truth`, `specialist`, `sam` or `refined` to their label maps on that grid.
        index: Slice along k.
        targets: Targets to outline: the first solid, the next dashed, then dotted.

    Returns:
        A PNG as a `data:` address.
    """
    window = _crop(predictions, index, image.geometry)
    pixels = image.voxels[index][window]
    height_mm = pixels.shape[0] * image.geometry.spacing_mm[1]
    width_mm = pixels.shape[1] * image.geometry.spacing_mm[2]
    size = (2 * WIDTH_INCH, WIDTH_INCH * min(height_mm / width_mm, 1.5))
    figure = Figure(figsize=size, facecolor="black")
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.01)
    bare, outlined = figure.subplots(1, 2)
    for axes in (bare, outlined):
        _show(axes, pixels, image.geometry)
    for source, colour in SOURCE_COLOURS.items():
        if source in predictions:
            labels = predictions[source].labels[index][window]
            _outline(outlined, labels, targets, colour, SOURCE_WIDTHS[source])
    return _png(figure)


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A target's region twice, and in which slices it is large enough to be scored."""

    name: str
    predicted: Mask
    truth: Mask
    counts: Mask

    @classmethod
    def of(
        cls, labels: Labelmap, truth: Labelmap, target: Target, targets: Sequence[Target]
    ) -> _Pair:
        first, second = (region_mask(each.labels, target, targets) for each in (labels, truth))
        areas = (first | second).sum(axis=(1, 2))
        return cls(target.name, first, second, (areas > 0) & (areas >= LEAST_SHARE * areas.max()))


def _scored_slice(index: int, pairs: Sequence[_Pair]) -> Slice:
    scores = {
        pair.name: dice(pair.predicted[index], pair.truth[index])
        for pair in pairs
        if pair.counts[index]
    }
    mean = sum(scores.values()) / len(scores) if scores else float("nan")
    return Slice(index, scores, mean)


def _crop(
    predictions: Mapping[str, Labelmap], index: int, geometry: Geometry
) -> tuple[slice, slice]:
    """Cut to what is outlined and some of its surroundings."""
    union = np.logical_or.reduce([source.labels[index] > 0 for source in predictions.values()])
    if not union.any():
        return slice(None), slice(None)
    spans = []
    for axis, edge_mm in zip((1, 0), geometry.spacing_mm[1:], strict=True):
        hits = np.flatnonzero(union.any(axis=axis))
        missing_mm = LEAST_MM - edge_mm * (hits[-1] - hits[0] + 1)
        margin = round(max(MARGIN_MM, missing_mm / 2) / edge_mm)
        spans.append(slice(max(int(hits[0]) - margin, 0), int(hits[-1]) + margin + 1))
    return spans[0], spans[1]


def _show(axes: Axes, pixels: NDArray[Any], geometry: Geometry) -> None:
    _, j_mm, i_mm = geometry.spacing_mm
    low, high = WINDOW_HU
    if pixels.min() >= low and pixels.max() > 4 * high:  # no CT: its own range
        low, high = (float(value) for value in np.percentile(pixels, (1, 99)))
    axes.imshow(
        pixels, cmap="gray", vmin=low, vmax=high, aspect=j_mm / i_mm, interpolation="bicubic"
    )
    axes.set_axis_off()
    axes.set_autoscale_on(False)


def _outline(
    axes: Axes, labels: Labels, targets: Sequence[Target], colour: str, width: float
) -> None:
    for number, target in enumerate(targets):
        mask = region_mask(labels, target, targets)
        if mask.any():
            # A frame of background closes outlines that touch the edge of the picture.
            closed = np.pad(mask, 1).astype(np.float32)
            rows, columns = (np.arange(-1, count + 1) for count in mask.shape)
            dash = DASHES[min(number, len(DASHES) - 1)]
            axes.contour(
                columns, rows, closed, [0.5], colors=[colour], linewidths=width, linestyles=[dash]
            )


def _png(figure: Figure) -> str:
    data = BytesIO()
    figure.savefig(data, format="png", dpi=105, facecolor="black", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"


NAMES = {"truth": "Truth", "specialist": "Specialist", "sam": "SAM", "refined": "Final label"}
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
        return PicturePart(["No volume is kept to check on, so no round can be scored."])
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
    rows = _reliability_rows(run, project, folder) if folder else []
    if not folder or not rows:
        return PicturePart(["No unlabelled volume has been judged yet."])
    rest = rows[MOST_DOUBTFUL:]
    shown = [*rows[:MOST_DOUBTFUL], *rest[max(0, len(rest) - MOST_RELIABLE) :]]
    what = (
        f"{len(shown)} of {len(rows)} volumes after round {_round_of(folder)}, the most doubtful "
        "first and the most reliable last: of each the slice in which specialist and final "
        "label agree least."
    )
    cases = [
        _case_pictures(
            f"{item.case}: reliability {item.score:.2f}, AI label "
            f"{'used' if item.accepted else 'not used'}",
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
    best = run.status.best_round
    of_best = next((folder for folder in folders if _round_of(folder) == best), None)
    return of_best or (folders[-1] if folders else None)


def _round_of(folder: Path) -> int:
    return round_number(folder.parent)


def _reliability_rows(run: RunRecord, project: Project, folder: Path) -> list[ReliabilityRow]:
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
    if saw_another(run.status.images, case):
        return ANOTHER_IMAGE
    predicted = _predicted(run, folder)
    shown = {"truth": axial_labelmap(project.load_labels(case)), **predicted}
    last = list(predicted)[-1:]
    ends = None
    if last:
        ends = rank_slices(
            shown[last[0]],
            shown["truth"],
            project.targets,
            scored=project.scored_targets(case),
            left_out=axial_incomplete(project, case),
        )
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
    if saw_another(run.status.images, case):
        return ANOTHER_IMAGE
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
        f"{case.id}: slice {_number_of(worst, image.geometry)}. Dice of specialist and final "
        f"label with each other in this slice: {_scores(worst)}."
    )
    return [Picture(picture, caption)]


def _number_of(slice_: Slice, stored: Geometry) -> int:
    """Return the number of a slice in the file, from 0."""
    depth = to_axial(stored).shape(stored.shape)[0]
    return axial_to_slices(stored).index(slice_.index, depth)


def _scores(slice_: Slice) -> str:
    return ", ".join(f"{target} {value:.3f}" for target, value in slice_.dice.items())
