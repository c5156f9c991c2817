"""Stock nnU-Net v2 on a draw of LiTS, scored as specialist.py scores the specialist.

    python -m venv nnunet && nnunet/bin/pip install . nnunetv2
    nnunet/bin/python Testing/benchmarks/nnunet_anchor.py --work local/specialist --name nnunet \
        --epochs 20 --iterations 20 --batch 2

The draw's project is exported as an nnU-Net raw data set, planned and preprocessed by nnU-Net, and
trained on all labelled volumes by its own trainer: network, patch, augmentation, loss, optimiser
and the decay of the learning rate are nnU-Net's own. Cut are the epochs (1000) and the iterations
of an epoch (250), the batch if `--batch` says so, and the validation after each epoch to one batch.
Mirrored images are not averaged when segmenting, which nnU-Net leaves out on a CPU too.

For equal processor time choose the iterations by `seconds.json` of a short run: all of nnU-Net
runs in this process.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from specialist import (
    Clock,
    Segment,
    common_arguments,
    score,
    study_project,
    summary,
)

from aslseg.data.orientation import to_axial
from aslseg.data.volume import Float32, Labels
from aslseg.export.project import ExportOptions, export_project
from aslseg.networks.device import choose_device, tune_allocator
from aslseg.project.case import Case
from aslseg.project.project import Project

DATASET, NAME = 1, "Dataset001_LiTS"


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    folder = arguments.work / arguments.name
    project = study_project(arguments)
    point_nnunet_to(folder)
    clock = Clock()
    if not (folder / "raw" / NAME).exists():
        export_project(project, folder / "raw" / NAME, ExportOptions(format="nnunet"))
        plan(arguments)
    clock.charge("planning and preprocessing")
    trained = train(arguments, folder, clock)
    scored = [case for case in project.cases if case.label is None]
    score(arguments, scored, by_nnunet(trained, project, arguments), clock)
    clock.write(folder / "seconds.json")
    print(summary(folder, clock))


def parse() -> argparse.Namespace:
    parser = common_arguments(__doc__)
    parser.add_argument("--configuration", default="2d", help="2d or 3d_fullres")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=250, help="of an epoch")
    parser.add_argument("--batch", type=int, help="in place of the planned batch")
    return parser.parse_args()


def point_nnunet_to(folder: Path) -> None:
    """Say where nnU-Net reads and writes; it looks when it is imported."""
    here = {name: str((folder / name).resolve()) for name in ("raw", "preprocessed", "results")}
    for name, value in {**here, "n_proc_DA": "1", "compile": "false"}.items():
        os.environ[f"nnUNet_{name}"] = value


def plan(arguments: argparse.Namespace) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    extract_fingerprints([DATASET], num_processes=1)
    plan_experiments([DATASET])
    preprocess([DATASET], configurations=[arguments.configuration], num_processes=[1])


def train(arguments: argparse.Namespace, folder: Path, clock: Clock) -> Path:
    """Train on all labelled volumes; return the folder that nnU-Net predicts from."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    # Augmentation runs in this process, so that its time is counted; planning refuses that.
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112
    preprocessed = folder / "preprocessed" / NAME
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
    if arguments.batch:
        plans["configurations"][arguments.configuration]["batch_size"] = arguments.batch
    plans["continue_training"] = False  # which its command puts there, from 2.8 on
    dataset = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    torch.manual_seed(arguments.seed)
    np.random.seed(arguments.seed)  # noqa: NPY002 - which nnU-Net's loader draws from
    trainer = nnUNetTrainer(
        plans, arguments.configuration, "all", dataset, device=choose_device("auto").torch_device
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch = arguments.epochs, arguments.iterations
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    clock.charge(f"training of {trainer.current_epoch} epochs of {arguments.iterations}")
    return Path(trainer.output_folder_base)


def by_nnunet(trained: Path, project: Project, arguments: argparse.Namespace) -> Segment:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=False,
        device=choose_device("auto").torch_device,
        allow_tqdm=False,
    )
    network = load_network(trained)
    predictor.manual_initialization(*network)

    def segment(case: Case) -> tuple[Labels, Float32]:
        volume = project.load_image(case)
        turn = to_axial(volume.geometry)
        spacing_mm = list(volume.geometry.spacing_mm)
        labels, probabilities = predictor.predict_single_npy_array(
            volume.voxels[None].astype(np.float32), {"spacing": spacing_mm}, None, None, True
        )
        tumour: Float32 = turn.array(probabilities[2]).astype(np.float32)
        return turn.array(labels).astype(np.uint8), tumour

    return segment


def load_network(trained: Path) -> tuple[Any, ...]:
    """Return what a predictor is made of: network, plans, configuration, weights, data set."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(json.loads((trained / "plans.json").read_text(encoding="utf-8")))
    dataset = json.loads((trained / "dataset.json").read_text(encoding="utf-8"))
    saved = torch.load(
        trained / "fold_all" / "checkpoint_final.pth", map_location="cpu", weights_only=False
    )
    configuration = plans.get_configuration(saved["init_args"]["configuration"])
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        plans.get_label_manager(dataset).num_segmentation_heads,
        allow_init=True,
        deep_supervision=False,
    )
    weights = [saved["network_weights"]]
    axes = saved.get("inference_allowed_mirroring_axes")
    return network, plans, configuration, weights, dataset, "nnUNetTrainer", axes


if __name__ == "__main__":
    main()
