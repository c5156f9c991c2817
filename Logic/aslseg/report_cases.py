"""The part of a report that shows validation volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aslseg import report_template as html
from aslseg.errors import AslsegError
from aslseg.images import read_labelmap
from aslseg.project import Case, Project
from aslseg.report_data import VOICES, RunRecord
from aslseg.report_pictures import VOICE_COLOURS, Slice, rank_slices, slice_picture
from aslseg.volume import Labelmap


def case_pictures(run: RunRecord, project: Project) -> Iterator[str]:
    """Show the worst and the best slice of each validation volume with all outlines."""
    folder = _voices_folder(run)
    if folder is None or not project.validation:
        yield html.paragraph("There are no label maps of validation volumes yet.")
        return
    dashes = ", ".join(
        f"{target.name} {word}"
        for target, word in zip(project.targets, ("solid", "dashed", "dotted"), strict=False)
    )
    yield html.paragraph(
        f"Worst and best slice of each volume after {folder.parent.name.replace('-0', ' ')}, "
        "by the Dice of the last voice. "
        "Sections of less than a twentieth of a target's largest one do not count. "
        f"Left as scanned, right with outlines: {dashes}. The patient's right is on the left."
    )
    shown = [voice for voice in VOICE_COLOURS if run.has_sam or voice != "sam"]
    names = {"truth": "Truth", **VOICES}
    yield html.legend((names[voice], VOICE_COLOURS[voice]) for voice in shown)
    for case in project.validation:
        yield html.heading(case.id)
        try:
            yield from _pictures_of(run, project, case, folder / case.id)
        except AslsegError as error:
            yield html.notice(str(error))


def _voices_folder(run: RunRecord) -> Path | None:
    folders = sorted(run.folder.glob("round-*/voices"))
    best = run.folder / f"round-{int(run.status.get('best_round') or 0):02d}" / "voices"
    if best in folders:
        return best
    return folders[-1] if folders else None


def _pictures_of(run: RunRecord, project: Project, case: Case, folder: Path) -> Iterator[str]:
    voices: dict[str, Labelmap] = {"truth": project.load_labels(case)}
    for voice in VOICES:
        if (folder / f"{voice}.nii.gz").is_file() and (run.has_sam or voice != "sam"):
            voices[voice] = read_labelmap(folder / f"{voice}.nii.gz")
    last = [voice for voice in voices if voice != "truth"][-1:]
    ends = rank_slices(voices[last[0]], voices["truth"], project.targets) if last else None
    if ends is None:
        yield html.paragraph("This volume has neither a target nor a label map.")
        return
    image = project.load_image(case)
    for word, slice_ in zip(("Worst", "Best"), ends, strict=True):
        caption = _caption(word, case, slice_, VOICES[last[0]])
        yield html.figure(
            slice_picture(image, voices, slice_.index, project.targets),
            f"CT slice. {caption}",
            caption,
        )


def _caption(word: str, case: Case, slice_: Slice, voice: str) -> str:
    scores = ", ".join(f"{target} {value:.3f}" for target, value in slice_.dice.items())
    return (
        f"{word} slice of {case.id}: k = {slice_.index}. Dice of {voice} in this slice: {scores}."
    )
