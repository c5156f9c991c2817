"""Organ masks that people have: found by name, read, kept, and never mixed with what was drawn."""

from __future__ import annotations

import gzip
import signal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from aslseg.cli.main import app
from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume
from aslseg.errors import GeometryMismatchError, ImageError, ProjectError, StorageError
from aslseg.project.case import CaseFiles
from aslseg.project.create import add_cases, create_project
from aslseg.project.edit import rename_case
from aslseg.project.external_labels import add_external_labels
from aslseg.project.given_masks import other_organ_masks, set_organ_masks
from aslseg.project.organ_masks import (
    find_organ_masks,
    read_organ_mask,
    with_masks,
    with_organ_masks,
)
from aslseg.project.project import Project, open_project
from aslseg.project.renew_image import renew_image
from aslseg.targets import LIVER_TARGETS, Target
from support.command_line import aslseg

GRID = Geometry.axis_aligned((4, 6, 8), (3.0, 1.5, 1.0))
LIVER, TUMOUR = LIVER_TARGETS
ORGAN = np.zeros(GRID.shape, np.bool_)
ORGAN[1:4, 1:5, 1:7] = True
LESION = np.zeros(GRID.shape, np.bool_)
LESION[2, 2:4, 2:4] = True
SMALLER = ORGAN.copy()
SMALLER[1] = False


def an_image(path: Path, seed: int = 0) -> Path:
    voxels = np.random.default_rng(seed).integers(-100, 200, GRID.shape).astype(np.int16)
    write_volume(Volume(voxels, GRID), path)
    return path


def a_mask(path: Path, mask: Mask = ORGAN, value: int = 1, grid: Geometry = GRID) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labelmap(Labelmap(mask.astype(np.uint8) * np.uint8(value), grid), path)
    return path


def with_label_table(path: Path, names: dict[int, str]) -> None:
    """Give a NIfTI file the table of labels that TotalSegmentator writes between its parts."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    entries = "".join(
        f'<Label Key="{key}" Red="0.0" Alpha="1"><![CDATA[{name}]]></Label>\n'
        for key, name in names.items()
    )
    table = f"<CaretExtension><LabelTable>\n{entries}</LabelTable></CaretExtension>".encode()
    size = -(-(len(table) + 8) // 16) * 16
    head = np.array([size, 0], "<i4").tobytes()
    content[108:112] = np.float32(352 + size).tobytes()
    extension = b"\1\0\0\0" + head + table.ljust(size - 8, b"\0")
    path.write_bytes(gzip.compress(bytes(content[:348]) + extension + bytes(content[352:])))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    cases = [
        CaseFiles(name, an_image(tmp_path / f"{name}.nii.gz", seed))
        for seed, name in enumerate(("a", "b"))
    ]
    lesions = a_mask(tmp_path / "a-label.nii.gz", LESION, 2)
    drawn = CaseFiles("a", cases[0].image, lesions, masks={"liver": a_mask(tmp_path / "m.nii.gz")})
    return create_project(tmp_path / "project", [drawn, cases[1]])


@pytest.mark.parametrize(
    "name", ["a.nii.gz", "a_seg.nii.gz", "a/liver.nii.gz", "a/segmentations/Liver.nii.gz"]
)
def test_masks_are_found_as_label_maps_and_totalsegmentator_name_them(
    tmp_path: Path, name: str
) -> None:
    masks = tmp_path / "masks"
    path = a_mask(masks / name)
    a_mask(masks / name.replace("liver", "spleen").replace("Liver", "spleen")).touch()
    images = {"a": Path("ct/a_0000.nii.gz"), "b": Path("ct/b_0000.nii.gz")}
    assert find_organ_masks(images, "liver", masks) == {"a": path}


@pytest.mark.parametrize("other", ["a/segmentations/liver.nii.gz", "a/Liver.nrrd"])
def test_two_masks_of_one_organ_in_a_folder_are_refused(
    project: Project, tmp_path: Path, other: str
) -> None:
    masks = tmp_path / "masks"
    for name in ("a/liver.nii.gz", other):
        a_mask(masks / name)
        a_mask(masks / name.replace("a/", "b/", 1))
    with pytest.raises(ProjectError, match=r"liver\..* both are masks of liver by name; leave one"):
        find_organ_masks({"a": Path("ct/a.nii.gz")}, "liver", masks)
    with pytest.raises(ProjectError, match="both are masks of liver by name; leave one"):
        add_external_labels(project, "TotalSegmentator", masks)


def test_masks_that_are_named_as_no_image_are_refused(tmp_path: Path) -> None:
    a_mask(tmp_path / "other.nii.gz")
    with pytest.raises(ProjectError, match=r"no mask of liver.* a/liver.nii.gz"):
        find_organ_masks({"a": Path("a.nii.gz"), "b": Path("b.nii.gz")}, "liver", tmp_path)
    with pytest.raises(ProjectError, match="is no folder"):
        find_organ_masks({"a": Path("a.nii.gz"), "b": Path("b.nii.gz")}, "liver", tmp_path / "c")


def test_a_mask_of_any_value_and_a_label_map_of_the_targets_are_masks(tmp_path: Path) -> None:
    of_255 = a_mask(tmp_path / "255.nii.gz", value=255)
    assert np.array_equal(read_organ_mask(of_255, GRID, LIVER, LIVER_TARGETS).labels, ORGAN)
    both = ORGAN.astype(np.uint8) + LESION
    write_labelmap(Labelmap(both, GRID), tmp_path / "both.nii.gz")
    found = read_organ_mask(tmp_path / "both.nii.gz", GRID, LIVER, LIVER_TARGETS)
    assert np.array_equal(found.labels, ORGAN)


def test_of_several_structures_the_one_with_the_name_counts(tmp_path: Path) -> None:
    labels = np.where(ORGAN, 5, 0).astype(np.uint8)
    labels[0] = 1
    path = tmp_path / "all.nii.gz"
    write_labelmap(Labelmap(labels, GRID), path)
    with pytest.raises(ImageError, match="holds the values 1, 5 and does not say which is liver"):
        read_organ_mask(path, GRID, LIVER, LIVER_TARGETS)
    with_label_table(path, {1: "spleen", 5: "liver"})
    assert np.array_equal(read_organ_mask(path, GRID, LIVER, LIVER_TARGETS).labels, ORGAN)
    write_labelmap(Labelmap(labels, GRID), path)
    with_label_table(path, {1: "spleen", 5: "stomach"})
    with pytest.raises(ImageError, match=r"no segment 'liver' \(but spleen, stomach"):
        read_organ_mask(path, GRID, LIVER, LIVER_TARGETS)


def test_masks_that_are_empty_or_elsewhere_are_refused(tmp_path: Path) -> None:
    empty = a_mask(tmp_path / "empty.nii.gz", np.zeros_like(ORGAN))
    with pytest.raises(ImageError, match="empty mask of liver"):
        read_organ_mask(empty, GRID, LIVER, LIVER_TARGETS)
    moved = GRID.ijk_to_ras.copy()
    moved[:3, 3] += 500
    away = a_mask(tmp_path / "away.nii.gz", grid=Geometry(GRID.shape, moved))
    with pytest.raises(GeometryMismatchError):
        read_organ_mask(away, GRID, LIVER, LIVER_TARGETS)


def test_a_given_organ_fills_in_around_drawn_lesions(project: Project) -> None:
    labels = project.load_labels(project.case("a")).labels
    assert np.array_equal(labels, ORGAN.astype(np.uint8) + LESION)
    kept = read_labelmap(project.label_path(project.case("a"))).labels
    assert np.array_equal(kept > 0, LESION)  # what was drawn is as it was
    assert project.known_targets(project.case("a")) == {"liver", "tumour"}
    assert project.unknown_targets(project.case("b")) == {"liver", "tumour"}


def test_an_organ_that_was_drawn_stays_as_it_was_drawn() -> None:
    drawn = Labelmap(LESION.astype(np.uint8) * np.uint8(2), GRID)
    drawn.labels[2, 4, 4] = 1
    assert with_masks(drawn, {"liver": ORGAN}, LIVER_TARGETS, "a").labels is drawn.labels


def test_masks_in_each_other_lie_in_the_order_of_their_targets() -> None:
    targets = (*LIVER_TARGETS[:1], Target(name="lobe", value=3, inside="liver"),
               Target(name="tumour", value=2, inside="lobe"))  # fmt: skip
    lobe = ORGAN.copy()
    lobe[:, :, 4:] = False
    drawn = Labelmap(LESION.astype(np.uint8) * np.uint8(2), GRID)
    found = with_masks(drawn, {"liver": ORGAN, "lobe": lobe}, targets, "a").labels
    assert np.array_equal(found, np.where(LESION, 2, np.where(lobe, 3, ORGAN)))


def test_images_come_with_their_masks(project: Project) -> None:
    assert np.array_equal(project.load_image(project.case("a")).given["liver"], ORGAN)
    assert project.load_image(project.case("b")).given == {}
    assert project.given_organs == ()


def test_masks_are_set_replaced_and_taken_away(project: Project, tmp_path: Path) -> None:
    updated = set_organ_masks(project, "liver", {"b": Labelmap(ORGAN.astype(np.uint8), GRID)})
    assert updated.given_organs == ("liver",)
    assert open_project(project.folder) == updated
    new = a_mask(tmp_path / "new.nii.gz", SMALLER)
    assert other_organ_masks(updated, "liver", {"a": new, "b": new}) == ["a", "b"]
    with pytest.raises(ProjectError, match=r"another mask of liver already of b; .*--replace"):
        set_organ_masks(updated, "liver", {"b": new})
    assert np.array_equal(updated.load_masks(updated.case("b"))["liver"], ORGAN)
    updated = set_organ_masks(updated, "liver", {"b": new}, replaceable=["b"])
    assert other_organ_masks(updated, "liver", {"b": new}) == []
    assert set_organ_masks(updated, "liver", {"b": new}) == updated  # the same one
    assert np.array_equal(updated.load_masks(updated.case("b"))["liver"], SMALLER)
    gone = set_organ_masks(updated, "liver", {"b": None})
    assert gone.load_masks(gone.case("b")) == {}
    kept = list((project.folder / "masks").rglob("history/*.nii.gz"))
    assert any(np.array_equal(read_labelmap(path).labels > 0, SMALLER) for path in kept)
    assert [path.name for path in (project.folder / "masks").glob("*/*.nii.gz")] == ["a.nii.gz"]


def test_the_command_replaces_no_mask_unasked(project: Project, tmp_path: Path) -> None:
    for name in ("a", "b"):
        a_mask(tmp_path / "new" / f"{name}.nii.gz", SMALLER)
    words = ["masks", str(project.folder), "liver", str(tmp_path / "new")]
    refused = aslseg(*words)
    assert (refused.exit_code, "already of a; " in refused.output) == (1, True)
    assert open_project(project.folder) == project  # b has got none either
    one = CliRunner().invoke(app, [*words, "--case", "b"])
    assert one.exit_code == 0, one.output
    both = CliRunner().invoke(app, [*words, "--replace"])
    assert both.exit_code == 0, both.output
    now = open_project(project.folder)
    assert np.array_equal(now.load_masks(now.case("a"))["liver"], SMALLER)
    (kept,) = (project.folder / "masks").rglob("history/a-*.nii.gz")
    assert np.array_equal(read_labelmap(kept).labels > 0, ORGAN)


def give_both(project: Project, tmp_path: Path) -> Project:
    """Give both cases another mask, as a person does who lets the one of a be replaced."""
    new = {name: a_mask(tmp_path / "new" / f"{name}.nii.gz", SMALLER) for name in ("a", "b")}
    return set_organ_masks(project, "liver", new, replaceable=["a"])


def assert_nothing_was_given(project: Project) -> None:
    assert open_project(project.folder) == project
    assert np.array_equal(project.load_masks(project.case("a"))["liver"], ORGAN)
    assert [path.name for path in (project.folder / "masks").glob("*/*.nii.gz")] == ["a.nii.gz"]
    assert not [*project.folder.glob(".aslseg*"), *project.folder.glob(".unfinished/*")]


def test_a_command_that_is_stopped_gives_no_mask(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(mask: Labelmap, path: Path) -> None:
        write_labelmap(mask, path)
        signal.raise_signal(signal.SIGINT)

    for name in ("a", "b"):
        a_mask(tmp_path / "new" / f"{name}.nii.gz", SMALLER)
    monkeypatch.setattr("aslseg.project.given_masks.write_labelmap", stopped)
    stop = aslseg("masks", project.folder, "liver", tmp_path / "new", "--replace")
    assert stop.exit_code == 130
    assert_nothing_was_given(project)


@pytest.mark.parametrize("error", [StorageError("The disk is full."), KeyboardInterrupt()])
def test_what_fails_between_two_masks_gives_none(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_: Project) -> None:
        raise error

    monkeypatch.setattr("aslseg.project.given_masks.write_project", fail)
    with pytest.raises(type(error)):
        give_both(project, tmp_path)
    assert_nothing_was_given(project)


def test_a_mask_that_was_drawn_meanwhile_is_not_replaced(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn_meanwhile(mask: Labelmap, path: Path) -> None:
        write_labelmap(mask, path)
        place = project.folder / project.case("a").masks["liver"]
        a_mask(place, LESION)  # as another program does, which holds the lock

    monkeypatch.setattr("aslseg.project.given_masks.write_labelmap", drawn_meanwhile)
    with pytest.raises(ProjectError, match="a was changed by another program meanwhile; no mask"):
        give_both(project, tmp_path)
    assert open_project(project.folder) == project
    assert np.array_equal(project.load_masks(project.case("a"))["liver"], LESION)


@pytest.mark.parametrize("options", [[], ["--replace"]])
def test_the_command_gives_all_masks_or_none(
    project: Project, tmp_path: Path, options: list[str]
) -> None:
    set_organ_masks(project, "liver", {"a": None})
    a_mask(tmp_path / "new" / "a.nii.gz", SMALLER)
    a_mask(tmp_path / "new" / "b.nii.gz", np.zeros_like(ORGAN))
    refused = aslseg("masks", project.folder, "liver", tmp_path / "new", *options)
    assert (refused.exit_code, "b.nii.gz is an empty mask" in refused.output) == (1, True)
    assert open_project(project.folder).case("a").masks == {}


def test_the_command_takes_no_mask_away_unasked(project: Project, tmp_path: Path) -> None:
    words = ["masks", str(project.folder), "liver"]
    for wrong in (words, [*words, str(tmp_path), "--remove"]):
        refused = aslseg(*wrong)
        assert (refused.exit_code, "or --remove to take away" in refused.output) == (1, True)
    assert open_project(project.folder) == project
    none = aslseg(*words, "--remove", "--case", "b")
    assert (none.exit_code, "nothing was taken away" in none.output) == (0, True)
    assert open_project(project.folder) == project
    gone = aslseg(*words, "--remove")
    assert (gone.exit_code, "taken away from a: it is" in gone.output) == (0, True)
    now = open_project(project.folder)
    assert now.load_masks(now.case("a")) == {}
    (kept,) = (project.folder / "masks").rglob("history/a-*.nii.gz")
    assert np.array_equal(read_labelmap(kept).labels > 0, ORGAN)
    wrong_organ = CliRunner().invoke(app, [*words[:2], "tumour", "--remove"])
    assert wrong_organ.exit_code == 1


def test_masks_are_given_of_targets_that_contain_others_alone(project: Project) -> None:
    mask = Labelmap(ORGAN.astype(np.uint8), GRID)
    with pytest.raises(ProjectError, match=r"contain others \(liver\), and 'tumour' is none"):
        set_organ_masks(project, "tumour", {"b": mask})
    with pytest.raises(ProjectError, match="no case 'z'"):
        set_organ_masks(project, "liver", {"z": mask})
    with pytest.raises(ImageError, match="empty mask"):
        set_organ_masks(project, "liver", {"b": Labelmap(np.zeros(GRID.shape, np.uint8), GRID)})
    assert open_project(project.folder) == project


def test_a_project_with_a_bad_mask_leaves_no_trace(tmp_path: Path) -> None:
    image = an_image(tmp_path / "ct" / "a.nii.gz")
    a_mask(tmp_path / "masks" / "a.nii.gz", np.zeros_like(ORGAN))
    cases = with_organ_masks([CaseFiles("a", image)], "liver", tmp_path / "masks")
    with pytest.raises(ImageError, match="empty mask"):
        create_project(tmp_path / "project", cases)
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize("name", ["a", "A"])
def test_a_new_case_does_not_take_the_mask_of_one_that_was_renamed(
    project: Project, tmp_path: Path, name: str
) -> None:
    rename_case(project, "a", "z")
    added = add_cases(
        open_project(project.folder), [CaseFiles(name, an_image(tmp_path / "n.nii.gz", 5))]
    )
    other = ORGAN.copy()
    other[1] = False
    updated = set_organ_masks(added, "liver", {name: Labelmap(other.astype(np.uint8), GRID)})
    assert np.array_equal(updated.load_masks(updated.case("z"))["liver"], ORGAN)
    assert np.array_equal(updated.load_masks(updated.case(name))["liver"], other)
    place = updated.case(name).masks["liver"]
    assert place.name == f"_{name}.nii.gz"  # a and A are one file on some disks


def beside() -> Geometry:
    """The grid of the images, a voxel further."""
    affine = GRID.ijk_to_ras.copy()
    affine[0, 3] += 1.0
    return Geometry(GRID.shape, affine)


def test_a_mask_of_the_project_that_lies_elsewhere_is_refused(project: Project) -> None:
    path = project.folder / project.case("a").masks["liver"]
    write_labelmap(Labelmap(ORGAN.astype(np.uint8), beside()), path)
    for read in (project.load_image, project.load_masks, project.labels_of_masks):
        with pytest.raises(GeometryMismatchError, match="lies on other voxels than the image"):
            read(project.case("a"))


def test_a_mask_is_not_kept_for_an_image_on_other_voxels(project: Project, tmp_path: Path) -> None:
    project = set_organ_masks(project, "liver", {"b": Labelmap(ORGAN.astype(np.uint8), GRID)})
    write_volume(Volume(np.zeros(GRID.shape, np.int16), beside()), tmp_path / "b.nii.gz")
    with pytest.raises(ProjectError, match="organ masks of case b are kept by voxels of the image"):
        renew_image(project, "b", keep=True)
    write_volume(Volume(np.zeros(GRID.shape, np.int16), GRID), tmp_path / "b.nii.gz")
    renewed = renew_image(project, "b", keep=True)
    assert np.array_equal(renewed.load_image(renewed.case("b")).given["liver"], ORGAN)
