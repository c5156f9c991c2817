"""How good are SAM's masks when a student's prompt it? For Docs/studies/results-methods.md.

    python Testing/benchmarks/sam_prompting.py --data ../shared/data/left_atrium \
        --project local/atrium/project --run mean_teacher-2d-0 --sizes 256 512

Takes what a run of `atrium_study.py` predicts for unlabelled cases, every twelfth slice that shows
more than 60 pixels, prompts the frozen SAM with it in several ways, and scores its masks against
labels that no run has seen. One case, in which the student finds next to nothing, is left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from aslseg.config import PromptConfig
from aslseg.data.images import read_labelmap, read_volume
from aslseg.preprocessing.intensity import window
from aslseg.project.run_folder import open_run
from aslseg.prompts import prompts_from_mask
from aslseg.sam.clicks import ClickTask, simulate_clicks
from aslseg.sam.decoder import decode
from aslseg.sam.embeddings import SliceFrame, embed_slices
from aslseg.sam.model import build_sam
from aslseg.sam.weights import get_weights

LEFT_OUT = 4
KINDS = {
    "box": PromptConfig(positive_points=0, use_mask=False),
    "box, point": PromptConfig(use_mask=False),
    "box, point, mask": PromptConfig(),
}
CLICKS = (1, 3, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--run", default="mean_teacher-2d-0")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    slices = slices_of(arguments)
    truths, students = [t for _, t, _ in slices], [s for _, _, s in slices]
    print(f"{len(slices)} slices; student {dice(students, truths):.3f}")
    for size in arguments.sizes:
        for name, masks in masks_by_prompt(slices, size):
            found = f"{dice(masks, truths):.3f}, agrees with student {dice(masks, students):.3f}"
            print(f"input {size}, {name}: {found}", flush=True)


def slices_of(arguments: argparse.Namespace) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return image, truth and student's mask of slices of the unlabelled cases."""
    images = sorted(arguments.data.glob("*_image.nii.gz"))
    predictions = open_run(arguments.project, arguments.run).round(1) / "predictions"
    slices = []
    for number in range(1, 7):
        if number == LEFT_OUT:
            continue
        volume = read_volume(images[number]).voxels
        label = images[number].with_name(images[number].name.replace("_image", "_label"))
        truth = read_labelmap(label).labels > 0
        student = read_labelmap(predictions / f"la-{number}" / "refined.nii.gz").labels > 0
        chosen = [k for k in range(0, len(student), 12) if student[k].sum() > 60]
        slices += [(volume[k], truth[k], student[k]) for k in chosen]
    return slices


def masks_by_prompt(slices: list, size: int) -> list[tuple[str, list[np.ndarray]]]:
    sam = build_sam("vit_t", input_size=size, checkpoint=get_weights("vit_t"))
    pictures = [torch.from_numpy(window(image[None], (0.0, 255.0))) for image, _, _ in slices]
    embeddings = [embed_slices(sam, picture)[0].float() for picture in pictures]
    frames = [SliceFrame(*image.shape, size) for image, _, _ in slices]
    students = [student for _, _, student in slices]
    found = []
    for name, settings in KINDS.items():
        masks = []
        for embedding, frame, student in zip(embeddings, frames, students, strict=True):
            prompts = prompts_from_mask(student, target="atrium", settings=settings)
            logits = decode(sam, embedding, prompts, frame).logits
            masks.append((logits.amax(0) > 0).numpy())
        found.append((name, masks))
    for clicks in CLICKS:
        tasks = [
            ClickTask(embedding, frame, pixel_centres(student.shape), student)
            for embedding, frame, student in zip(embeddings, frames, students, strict=True)
        ]
        sequences = simulate_clicks(sam, tasks, clicks, np.random.default_rng(0))
        found.append((f"{clicks} clicks", [sequence.predicted for sequence in sequences]))
    return found


def pixel_centres(shape: tuple[int, ...]) -> torch.Tensor:
    rows, columns = np.indices(shape) + 0.5
    return torch.from_numpy(np.stack([columns, rows], -1)).float()


def dice(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    both = sum(int((a & b).sum()) for a, b in zip(first, second, strict=True))
    return 2 * both / sum(int(mask.sum()) for mask in (*first, *second))


if __name__ == "__main__":
    main()
