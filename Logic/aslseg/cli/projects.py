"""The commands that make and hand on projects: `init` and `export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from aslseg.cli.console import (
    SameSizeChoice,
    SameSizeOption,
    examples,
    messages,
    names_of,
    pairs_of,
    parse_targets,
    say,
    show_table,
    tell,
    whole_pairs_of,
)
from aslseg.cli.planned import left_out, show_plan, tell_notes
from aslseg.cli.progress import watched
from aslseg.errors import as_typed_command
from aslseg.project.case import MASKS, Case
from aslseg.project.patients import IN_WORDS, alike_patients
from aslseg.project.project import Project
from aslseg.targets import Target, as_typed

PatientOption = Annotated[
    list[str] | None,
    typer.Option(help="CASE=PATIENT: whose volume a case is. Repeatable, or a=p1,b=p1."),
]
PatientsOption = Annotated[
    str | None,
    typer.Option(
        help="Whose volumes all cases are: a .csv with columns case and patient, or a regular "
        "expression whose first group is the patient in a case's name, such as '^(p[0-9]+)_'."
    ),
]


ColorOption = Annotated[
    list[str] | None, typer.Option(help="TARGET=#rrggbb: how it is shown. Repeatable.")
]
TerminologyOption = Annotated[
    list[str] | None,
    typer.Option(help="TARGET=ENTRY: what it is, as Slicer writes terminology. Repeatable."),
]


MasksOption = Annotated[
    list[str] | None,
    typer.Option(
        help="ORGAN=FOLDER: masks of a target that contains others, such as liver=masks, named as "
        "images are or as TotalSegmentator writes them (CASE/liver.nii.gz); they are used as they "
        "are. Repeatable."
    ),
]


LabelsOfOption = Annotated[
    list[str] | None,
    typer.Option(
        help="TARGET, or CASE=TARGET: label maps, or that of a case, were drawn of these targets "
        "alone and say nothing of others. Repeatable, or a,b."
    ),
]


class Labels(str, Enum):
    """Which label maps an export takes along."""

    HUMAN = "human"
    ACCEPTED = "accepted"
    ALL = "all"


class ExportFormat(str, Enum):
    """Of the label maps of an export."""

    NIFTI = "nifti"
    NNUNET = "nnunet"
    DICOM_SEG = "dicom_seg"
    TABLES = "tables"


def init(  # noqa: PLR0913 - one for each option of the command
    project: Annotated[Path, typer.Argument(help="New project folder.")],
    source: Annotated[
        Path, typer.Argument(help="Folder of images, dataset.json, or nnU-Net raw folder.")
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Folder of label maps, where it is not that of the images.")
    ] = None,
    masks: MasksOption = None,
    labels_of: LabelsOfOption = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE or NAME=VALUE:INSIDE; default: those of dataset.json, or liver=1 and "
            "tumour=2:liver. Repeatable."
        ),
    ] = None,
    color: ColorOption = None,
    terminology: TerminologyOption = None,
    labelled: Annotated[
        list[str] | None,
        typer.Option(help="Case to train on; others' labels are left out. Repeatable, or a,b,c."),
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Case to validate on. Repeatable, or a,b,c.")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option(help="Case that decides nothing. Repeatable, or a,b,c.")
    ] = None,
    patient: PatientOption = None,
    patients: PatientsOption = None,
    same_size: SameSizeOption = SameSizeChoice.REFUSE,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Case to leave out. Repeatable, or a,b,c.")
    ] = None,
    drop_unpaired: Annotated[
        bool, typer.Option("--drop-unpaired", help="Leave out label maps without a volume.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what was found and what is wrong; write nothing."),
    ] = False,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="With --dry-run: look for volumes of one patient, too."),
    ] = False,
) -> None:
    """Make a project from images and the label maps that exist.

    Images stay where they are; label maps are copied and checked, and training never writes them.

    Image and label map belong together by name: ct_7.nii.gz and ct_7.nii.gz of two folders,
    ct_7_0000.nii.gz and ct_7.nii.gz, volume-7.nii and segmentation-7.nii, a_ct.mha and a_seg.mha.
    A Medical Segmentation Decathlon task (dataset.json) and an nnU-Net raw folder are recognised.
    Targets are those of dataset.json, or those that segments are named after.

    All volumes of a patient are to learn from, or to check on (validation), or to test. DICOM
    slices say whose they are; of other volumes each is taken for a patient of its own unless you
    say so.
    """
    from aslseg.project.create import select_cases, with_label_targets
    from aslseg.project.organ_masks import with_organ_masks
    from aslseg.project.patients import with_patients
    from aslseg.project.plan import left_out_notes, plan_project, with_facts, write_plan
    from aslseg.project.target_table import styled_rows

    if compare and not dry_run:
        msg = (
            "--compare shows what --dry-run looks at; give that too, or compare once the project "
            "is made: aslseg patients PROJECT --compare"
        )
        raise typer.BadParameter(msg)
    given = parse_targets(target) if target else None
    with watched(messages) as monitor:
        plan = plan_project(project, source, labels, targets=given, monitor=monitor)
    found = left_out(plan.cases, names_of(leave_out))
    found = with_patients(found, pairs_of(patient, "--patient"), patients)
    for of, names in _claims(labels_of).items():
        found = with_label_targets(found, names, None if of == "" else [of])
    for organ, folder in whole_pairs_of(masks, "--masks", "ORGAN=FOLDER").items():
        found = with_organ_masks(found, organ, Path(folder))
    cases = select_cases(
        [replace(case, same_size=same_size.value) for case in found],
        labelled=names_of(labelled),
        validation=names_of(validation),
        test=names_of(test),
    )
    rows = styled_rows(plan.targets, *styles_of(color, terminology))
    unpaired = () if drop_unpaired else plan.unpaired
    plan = replace(plan, cases=tuple(cases), targets=rows, unpaired=unpaired)
    with watched(messages) as monitor:
        plan = with_facts(plan, monitor)  # of the masks
    if dry_run:
        show_plan(plan, compare=compare)
        return
    tell_notes(left_out_notes(plan))
    with watched(messages) as monitor:
        made = write_plan(plan, monitor=monitor)
    tell(
        f"Made {project}: {len(made.labelled)} labelled, {len(made.unlabelled)} unlabelled, "
        f"{len(made.validation)} validation, {len(made.test)} test volumes of "
        f"{len({case.patient for case in made.cases})} patients."
    )
    _tell_targets(made.targets)
    _tell_masks(made)
    if made.labelled and not any(case.label for case in made.validation):
        tell(
            "No label is kept to check on: all are learnt from, and cross-validation decides how "
            "far SAM is followed and which round is best."
        )
    if not made.labelled:
        tell(
            "No volume is labelled yet, so nothing can be learnt: outline two or three in the "
            "panel, or make a project with their label maps (--labels)."
        )
        return
    tell(f"Next: {as_typed_command('aslseg', 'train', project)}")


def styles_of(
    colors: list[str] | None, terminologies: list[str] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Read colours and terminology entries as typed, by the names of targets."""
    entries = whole_pairs_of(terminologies, "--terminology", "TARGET=ENTRY")
    return pairs_of(colors, "--color", "TARGET=#rrggbb"), entries


def _tell_targets(targets: tuple[Target, ...]) -> None:
    """Say which targets are trained, and how to name one inside another where none is."""
    written = {one.name: as_typed(one.name, one.value, one.inside) for one in targets}
    tell(f"Targets: {', '.join(written.values())}.")
    if len(targets) > 1 and not any(target.inside for target in targets):
        first, second, *_ = written
        tell(
            f"None lies inside another. If {second} lies inside {first}, as a tumour in an organ, "
            f"make the project anew with --target {written[first]} "
            f"--target {written[second]}:{first}: it is looked for there alone then."
        )


def patients(
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    patient: PatientOption = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="CASE=train, validation or test: what a case is for. Repeatable."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Look for volumes that look like one patient.")
    ] = False,
) -> None:
    """Say whose volumes cases are and what they are for, and list who has which.

    Splits, folds and draws go by patient. A change that would leave a patient with volumes to train
    on and others to validate on is refused; change both at once.
    """
    from aslseg.project.project import open_project
    from aslseg.project.roles import assign

    opened = open_project(project)
    named, parts = pairs_of(patient, "--patient"), pairs_of(split, "--split")
    if named or parts:
        opened = assign(opened, patients=named, splits=parts)
    rows: dict[str, list[str]] = {}
    for case in opened.cases:
        rows.setdefault(case.patient, []).append(f"{case.id} ({IN_WORDS[case.split]})")
    lines = [[name, ", ".join(volumes)] for name, volumes in rows.items()]
    show_table(f"{len(rows)} patients", ["patient", "volumes"], lines, words=2)
    for note in alike_patients(opened.cases):
        tell(note)
    if compare:
        _compare(opened)


def masks(
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    organ: Annotated[str, typer.Argument(help="Target that contains others, such as liver.")],
    source: Annotated[
        Path | None, typer.Argument(help="Folder of masks; none with --remove.")
    ] = None,
    case: Annotated[
        list[str] | None, typer.Option(help="Case that is meant; default: all. Repeatable, or a,b.")
    ] = None,
    same_size: SameSizeOption = SameSizeChoice.REFUSE,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace other masks that cases have already.")
    ] = False,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="Take masks away: the organ is predicted from then on."),
    ] = False,
) -> None:
    """Give organ masks that you have already, from TotalSegmentator for example.

    They are used as they are: in training, in place of the predicted organ, and in the results. An
    organ of which every case has a mask is not trained; its lesions are all that needs labels.
    Another mask that a case has already is replaced when you say so alone. What is replaced or
    taken away stays in the history.
    """
    from aslseg.errors import ProjectError
    from aslseg.project.given_masks import set_organ_masks
    from aslseg.project.organ_masks import find_organ_masks
    from aslseg.project.project import open_project

    if remove and replace:
        msg = "--replace is for masks that are given, and --remove takes masks away; leave one out"
        raise typer.BadParameter(msg)
    if remove == (source is not None):
        msg = (
            f"Give the folder of the masks of {organ}, or --remove to take away those that cases "
            "have: one of both."
        )
        raise ProjectError(msg)
    opened = open_project(project)
    chosen = [opened.case(name) for name in names_of(case) or [one.id for one in opened.cases]]
    if source is None:
        _remove_masks(opened, organ, chosen)
    else:
        with watched(messages) as monitor:
            images = {one.id: opened.image_path(one) for one in chosen}
            found = find_organ_masks(images, organ, source)
            opened = set_organ_masks(
                opened,
                organ,
                found,
                replaceable=found if replace else (),
                same_size=same_size.value,
                monitor=monitor,
            )
        _tell_masks(opened)


def _remove_masks(project: Project, organ: str, cases: Sequence[Case]) -> None:
    """Take masks of an organ away from cases, and say from which."""
    from aslseg.project.given_masks import set_organ_masks
    from aslseg.project.organ_masks import organ_of

    organ_of(project.targets, organ)
    having = [case.id for case in cases if organ in case.masks]
    if not having:
        tell(f"None of these cases has a mask of {organ}; nothing was taken away.")
        return
    kept = set_organ_masks(project, organ, dict.fromkeys(having))
    tell(
        f"Masks of {organ} were taken away from {', '.join(having)}: it is predicted there from "
        f"now on. The files stay in the history, in {project.folder / MASKS}."
    )
    _tell_masks(kept)


def _claims(texts: list[str] | None) -> dict[str, list[str]]:
    """Return names of targets by case; those under the empty name are for all cases, and first."""
    claims: dict[str, list[str]] = {}
    for text in names_of(texts) or []:
        case_id, _, target = text.rpartition("=")
        claims.setdefault(case_id, []).append(target)
    return dict(sorted(claims.items()))


def _tell_masks(project: Project) -> None:
    """Say of how many cases masks of each organ are there."""
    for target in project.targets:
        having = [case.id for case in project.cases if target.name in case.masks]
        if having:
            count = f"{len(having)} of {len(project.cases)} cases"
            tell(f"Masks of {target.name} are given for {count}.")


def _compare(project: Project) -> None:
    from aslseg.project.similar_bodies import in_words, similar_pairs

    with watched(messages) as monitor:
        matches, notes = similar_pairs(project, monitor=monitor)
    for sentence in (*(in_words(match, project) for match in matches), *notes):
        tell(sentence)
    if not matches:
        tell("No two volumes that were compared look like one patient.")


def renew(
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    cases: Annotated[list[str], typer.Argument(help="Cases whose image was replaced.")],
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--set-aside",
            help="Label maps, masks and decisions: count for the new images, or go to the history.",
        ),
    ] = None,
) -> None:
    """Take the images that cases have now, for those that were replaced on purpose.

    A project knows its images by their content, and refuses to go on with others. Label maps of
    these cases were drawn on the images of before: say whether they are kept. Runs that have seen
    those images cannot go on; start a new one.
    """
    from aslseg.project.project import open_project
    from aslseg.project.renew_image import renew_image

    opened = open_project(project)
    for case_id in cases:
        renew_image(opened, case_id, keep=keep)
        tell(f"{case_id}: the image that is there now is taken.")


def relocate(
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    old: Annotated[
        Path, typer.Argument(help="Folder that images were in, as the project names it; or one.")
    ],
    new: Annotated[Path, typer.Argument(help="Folder that they are in now; or that image.")],
) -> None:
    """Say where images are that were moved to another folder or disk.

    All images that the project knows below the old folder have to be in the new one, under the
    same names and with the same content; else nothing is changed, and the reason is told for each.
    No image is touched. Labels, decisions and runs stay as they are.
    """
    from aslseg.project.project import open_project
    from aslseg.project.relocate import relocate_images

    with watched(messages) as monitor:
        _, moved = relocate_images(open_project(project), old, new, monitor)
    rows = [[one.case_id, str(one.before), str(one.now)] for one in moved]
    show_table(f"{len(rows)} images", ["case", "was", "is now"], rows, words=3)


def export(
    project: Annotated[Path, typer.Argument(help="Project folder.")],
    folder: Annotated[Path, typer.Argument(help="Where to; nnU-Net: Dataset501_Liver.")],
    format_: Annotated[ExportFormat, typer.Option("--format", help="Of the label maps.")] = (
        ExportFormat.NIFTI
    ),
    labels: Annotated[
        Labels,
        typer.Option(help="Drawn or corrected by people; accepted by them too; all: AI's too."),
    ] = Labels.ACCEPTED,
    case: Annotated[
        list[str] | None, typer.Option(help="Case to export; default: all. Repeatable, or a,b,c.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run that AI labels are of.")] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace files that this program did not write, or of other images."
        ),
    ] = False,
) -> None:
    """Write label maps with their origin and what they measure.

    Formats: nifti, nnunet (a raw data set with its images), dicom_seg (of images that are DICOM
    folders), tables (cases.csv and lesions.csv alone, which the others have too). origin.json says
    who or what made each label map. With nnunet, test volumes become imagesTs.
    """
    from aslseg.export.project import ExportOptions, export_project
    from aslseg.project.project import open_project

    cases = names_of(case)
    options = ExportOptions(
        format_.value, labels.value, None if cases is None else tuple(cases), run, force
    )
    with watched(messages) as monitor:
        done = export_project(open_project(project), folder, options, monitor=monitor)
    counts = ", ".join(f"{number} {made_by}" for made_by, number in sorted(done.label_maps.items()))
    measured = sum(done.label_maps.values())
    what = f"label maps of {len(done.written)} cases"
    if len(done.written) != measured:
        wrote = f"{what}; " if done.written else ""
        what = f"{wrote}measured {measured} cases"
    tell(f"Wrote {folder}: {what} ({counts}).")
    for note in done.notes:
        say(f"Note: {note}", style="yellow")


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg init my_project ct --labels segmentations --dry-run",
            "aslseg init my_project ct --labels segmentations --validation ct_3,ct_8",
            "aslseg init my_project Task03_Liver/dataset.json --labelled liver_0,liver_4",
            "aslseg init my_project ct --patients '^([^_]+)_' --patient ct_7=ct_9",
            "aslseg init my_project ct --labels livers --labels-of liver --labels-of ct_7=tumour",
            "aslseg init my_project ct --labels tumours --masks liver=totalsegmentator_output",
            "aslseg init my_project Dataset003_Cyst --target organ=1 --target cyst=2:organ",
        )
    )(init)
    app.command(
        epilog=examples(
            "aslseg patients my_project --compare",
            "aslseg patients my_project --patient ct_7=ct_9 --split ct_7=train",
        )
    )(patients)
    app.command(epilog=examples("aslseg renew my_project ct_3 --set-aside"))(renew)
    app.command(epilog=examples("aslseg relocate my_project /old_disk/ct /new_disk/ct"))(relocate)
    app.command(
        epilog=examples(
            "aslseg masks my_project liver totalsegmentator_output",
            "aslseg masks my_project liver --remove --case ct_7",
        )
    )(masks)
    app.command(
        epilog=examples(
            "aslseg export my_project labels",
            "aslseg export my_project Dataset501_Liver --format nnunet --labels all",
            "aslseg export my_project seg --format dicom_seg --case ct_3,ct_8",
        )
    )(export)
