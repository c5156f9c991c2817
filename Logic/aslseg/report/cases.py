"""The parts of a report that show volumes: those for validation, and those without label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from aslseg.data.images import read_labelmap
from aslseg.data.orientation import axial_labelmap, axial_to_slices, axial_volume, to_axial
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import AslsegError
from aslseg.project.case import Case
from aslseg.project.project import Project
from aslseg.project.run_tables import Reliability
from aslseg.report import html
from aslseg.report.data import VOICES, RunRecord
from aslseg.report.pictures import VOICE_COLOURS, Slice, rank_slices, slice_picture

MOST_DOUBTFUL, MOST_RELIABLE = 4, 2
"""Number of unlabelled volumes that are shown."""


def case_pictures(run: RunRecord, project: Project) -> Iterator[str]:
    """Show the worst and the best slice of each validation volume with all outlines."""
    if not project.validation:
        yield html.paragraph("No volume is kept for validation, so no round can be scored.")
        return
    folder = _voices_folder(run)
    if folder is None:
        yield html.paragraph("There are no label maps of validation volumes yet.")
        return
    yield html.paragraph(
        f"Worst and best slice of each volume after round {_round_of(folder)}, "
        "by the Dice of the last voice. "
        "Sections of less than a twentieth of a target's largest one do not count."
    )
    yield from _key(run, project, ("truth", *VOICES))
    for case in project.validation:
        yield html.heading(case.id)
        try:
            yield from _validation_pictures(run, project, case, folder / case.id)
        except AslsegError as error:
            yield html.notice(str(error))


def unlabelled_pictures(run: RunRecord, project: Project) -> Iterator[str]:
    """Show, of the most doubtful and the most reliable volumes, where the voices agree least."""
    folder = _voices_folder(run)
    judged = _judged(run, project, folder) if folder else []
    if not folder or not judged:
        yield html.paragraph("No unlabelled volume has been judged yet.")
        return
    rest = judged[MOST_DOUBTFUL:]
    shown = [*judged[:MOST_DOUBTFUL], *rest[max(0, len(rest) - MOST_RELIABLE) :]]
    yield html.paragraph(
        f"{len(shown)} of {len(judged)} volumes after round {_round_of(folder)}, the most doubtful "
        "first and the most reliable last: of each the slice in which specialist and refined "
        "label agree least."
    )
    yield from _key(run, project, tuple(VOICES))
    for item in shown:
        state = "joined" if item.accepted else "did not join"
        yield html.heading(f"{item.case}: score {item.score:.2f}, {state} the training set")
        try:
            yield from _unlabelled_picture(run, project, project.case(item.case), folder)
        except AslsegError as error:
            yield html.notice(str(error))


def _key(run: RunRecord, project: Project, voices: Sequence[str]) -> Iterator[str]:
    dashes = ", ".join(
        f"{target.name} {word}"
        for target, word in zip(project.targets, ("solid", "dashed", "dotted"), strict=False)
    )
    yield html.paragraph(
        f"Left as scanned, right with outlines: {dashes}. The patient's right is on the left."
    )
    names = {"truth": "Truth", **VOICES}
    shown = [voice for voice in voices if run.has_sam or voice != "sam"]
    yield html.legend((names[voice], VOICE_COLOURS[voice]) for voice in shown)


def _voices_folder(run: RunRecord) -> Path | None:
    folders = sorted(run.folder.glob("round-*/voices"))
    best = run.folder / f"round-{int(run.status.get('best_round') or 0):02d}" / "voices"
    if best in folders:
        return best
    return folders[-1] if folders else None


def _round_of(folder: Path) -> int:
    return int(folder.parent.name.removeprefix("round-"))


def _judged(run: RunRecord, project: Project, folder: Path) -> list[Reliability]:
    """Return what was said of the round's unlabelled volumes, the most doubtful first."""
    number, unlabelled = _round_of(folder), {case.id for case in project.unlabelled}
    items = [i for i in run.reliability if i.round == number and i.case in unlabelled]
    return sorted(items, key=lambda item: item.score)


def _spoken(run: RunRecord, folder: Path) -> dict[str, Labelmap]:
    """Read what the voices said of a case, in the order in which they speak, on its axial grid."""
    return {
        voice: axial_labelmap(read_labelmap(folder / f"{voice}.nii.gz"))
        for voice in VOICES
        if (folder / f"{voice}.nii.gz").is_file() and (run.has_sam or voice != "sam")
    }


def _validation_pictures(
    run: RunRecord, project: Project, case: Case, folder: Path
) -> Iterator[str]:
    spoken = _spoken(run, folder)
    voices = {"truth": axial_labelmap(project.load_labels(case)), **spoken}
    last = list(spoken)[-1:]
    ends = rank_slices(voices[last[0]], voices["truth"], project.targets) if last else None
    if ends is None:
        yield html.paragraph("This volume has neither a target nor a label map.")
        return
    image = project.load_image(case)
    axial = axial_volume(image)
    for word, slice_ in zip(("Worst", "Best"), ends, strict=True):
        number = _number_of(slice_, image.geometry)
        caption = (
            f"{word} slice of {case.id}: number {number}. "
            f"Dice of {VOICES[last[0]]} in this slice: {_scores(slice_)}."
        )
        yield html.figure(
            slice_picture(axial, voices, slice_.index, project.targets),
            f"CT slice. {caption}",
            caption,
        )


def _unlabelled_picture(
    run: RunRecord, project: Project, case: Case, folder: Path
) -> Iterator[str]:
    voices = _spoken(run, folder / case.id)
    if not {"specialist", "refined"} <= voices.keys():
        yield html.paragraph("Its label maps are not kept.")
        return
    ends = rank_slices(voices["refined"], voices["specialist"], project.targets)
    if ends is None:
        yield html.paragraph("Nothing was found in this volume.")
        return
    worst, _ = ends
    image = project.load_image(case)
    caption = (
        f"{case.id}: slice {_number_of(worst, image.geometry)}. Dice of specialist and refined "
        f"label with each other in this slice: {_scores(worst)}."
    )
    picture = slice_picture(axial_volume(image), voices, worst.index, project.targets)
    yield html.figure(picture, f"CT slice. {caption}", caption)


def _number_of(slice_: Slice, stored: Geometry) -> int:
    """Return the number of a slice in the file, from 0."""
    depth = to_axial(stored).shape(stored.shape)[0]
    return axial_to_slices(stored).index(slice_.index, depth)


def _scores(slice_: Slice) -> str:
    return ", ".join(f"{target} {value:.3f}" for target, value in slice_.dice.items())
