"""How fast are steps of training, beside plain ones in float32? For Docs/studies/performance.md.

    python Testing/benchmarks/speed_training.py scsam mean_teacher specialist

Steps, ours and plain ones (`plain_training.py`) in turns, from equal weights and on equal patches,
all in one process, in which the allocator keeps freed memory; made-up patches, random weights:

* scsam: SC-SAM as published: 6 labelled and 6 unlabelled patches of 256 x 256, SAM ViT-B with
  adapters at input 256, U-Net of 16 to 256 channels.
* mean_teacher: 2 and 2 blocks of 112 x 112 x 80, network of 16 to 256 channels in 3-D.
* specialist: mean teacher with the liver's settings of the preset `quick`.

Medians of processor seconds (`--device cuda`: of the card, by the clock), how many times faster
ours is, and the largest difference of the losses of a step. `--precise` takes our steps in float32
too: losses are then equal but for the order of sums.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from plain_training import PlainMeanTeacher, PlainScSam, PlainStep

from aslseg.config import NetworkConfig, ScSamConfig, SpecialistConfig
from aslseg.distributed import WorkPart
from aslseg.events import Monitor
from aslseg.methods.scsam import CoTraining
from aslseg.networks.device import tune_allocator
from aslseg.networks.unet import build_network
from aslseg.preprocessing.patches import Batch
from aslseg.preprocessing.roi import image_channels
from aslseg.presets import PUBLISHED_METHODS, PUBLISHED_PARADIGMS, read_preset
from aslseg.sam.classwise import ClasswiseSam
from aslseg.sam.model import build_sam
from aslseg.sam.tuning import tune
from aslseg.targets import LIVER_TARGETS, CascadeStage, cascade_stages
from aslseg.training.ssl.mean_teacher import MeanTeacher
from aslseg.training.trainer import OptimizerSpec, Schedule, Trainer, step_generator

ADAPTER_WIDTH = 192
"""As released: a quarter of a token's width."""
CPU = torch.device("cpu")
LENGTH = 30_000
"""Of the schedules, of which the first steps are taken."""


@dataclass(frozen=True)
class Compared:
    """A method whose steps are timed.

    Attributes:
        ours: With its networks.
        plain: Builds its plain step.
        shape: (channels, *spatial) of a patch.
        batch_size: Labelled patches, and unlabelled ones.
    """

    ours: MeanTeacher | CoTraining
    plain: type[PlainStep]
    shape: tuple[int, ...]
    batch_size: int


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    print("| step | plain s | ours s | times | difference of losses |", flush=True)
    print("|---|---|---|---|---|", flush=True)
    for name in arguments.what:
        torch.manual_seed(0)
        print(compare(name, COMPARED[name](), arguments), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=list(COMPARED))
    parser.add_argument("--steps", type=int, default=3, help="after one that is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precise", action="store_true", help="ours in float32 too")
    return parser.parse_args()


def scsam() -> Compared:
    settings = SpecialistConfig(
        iterations=LENGTH, batch_size=6, patch_size=256, optimiser="sgd", learning_rate=0.01
    )
    own = ScSamConfig(rank=ADAPTER_WIDTH, **PUBLISHED_METHODS["scsam"])
    sam = tune(build_sam("vit_b", input_size=256), "adapter", rank=own.rank)
    classwise = ClasswiseSam(sam, 2, learned_boxes=True)
    ours = CoTraining(lambda: build_network(liver(), settings), settings, classwise, own)
    return Compared(ours, PlainScSam, (image_channels(settings), 256, 256), 6)


def mean_teacher() -> Compared:
    published = PUBLISHED_PARADIGMS["mean_teacher"]
    settings = SpecialistConfig(
        iterations=LENGTH,
        batch_size=2,
        patch_size=112,
        optimiser="sgd",
        learning_rate=0.01,
        network=NetworkConfig(dimensions=3),
        **published,
    )
    ours = MeanTeacher(lambda: build_network(liver(), settings), settings)
    return Compared(ours, PlainMeanTeacher, (1, 80, 112, 112), 2)


def specialist() -> Compared:
    settings = read_preset("quick").organ
    ours = MeanTeacher(lambda: build_network(liver(), settings), settings)
    edge = settings.patch_size
    shape = (image_channels(settings), edge, edge)
    return Compared(ours, PlainMeanTeacher, shape, settings.batch_size)


COMPARED: dict[str, Callable[[], Compared]] = {
    "scsam": scsam,
    "mean_teacher": mean_teacher,
    "specialist": specialist,
}


def liver() -> CascadeStage:
    return cascade_stages(LIVER_TARGETS)[0]


def compare(name: str, compared: Compared, arguments: argparse.Namespace) -> str:
    """Take steps of both in turns, and return a row of the table."""
    device = torch.device(arguments.device)
    found = in_turns(compared, 1 + arguments.steps, device, precise=arguments.precise)
    plain, ours = (statistics.median(seconds[1:]) for seconds in (found.plain_s, found.ours_s))
    apart = max(abs(a - b) for a, b in zip(found.plain, found.ours, strict=True))
    return f"| {name} | {plain:.4f} | {ours:.4f} | {plain / ours:.2f} | {apart:.1e} |"


@dataclass
class Turns:
    """Losses and seconds of each step of both."""

    plain: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    plain_s: list[float] = field(default_factory=list)
    ours_s: list[float] = field(default_factory=list)


def in_turns(compared: Compared, steps: int, device: torch.device = CPU, *, precise: bool) -> Turns:
    """Take the first steps of a training, ours and plain ones in turns."""
    ours, settings, turns = compared.ours.to(device), compared.ours.settings, Turns()
    rates = settings.learning_rate, settings.weight_decay
    schedule = Schedule("speed", steps, *rates)
    specs = ours.configure_optimizers() or (
        OptimizerSpec(list(ours.student.parameters()), settings.optimiser, *rates),
    )
    with TemporaryDirectory(prefix="aslseg-speed-") as folder:
        trainer = Trainer(
            ours,
            schedule,
            device,
            Path(folder),
            precise=precise,
            configure_optimizers=specs,
            after_step=lambda step: after(step),
        )
        plain = compared.plain(ours, specs, steps)
        drawn = [patches(compared, step, device) for step in range(steps)]
        clock = Stopwatch(device)

        def step_loss(
            step: int, generator: torch.Generator, _: WorkPart
        ) -> dict[str, torch.Tensor]:
            total = ours.loss(*drawn[step], step, generator).total
            turns.ours.append(float(total.detach()))
            return {"loss": total}

        def after(step: int) -> None:
            ours.after_step(step)
            turns.ours_s.append(clock.lap())
            generator = step_generator(schedule.seed, step)
            turns.plain.append(plain(*drawn[step], step, generator))
            turns.plain_s.append(clock.lap())

        trainer.run(step_loss, Monitor())
    return turns


class Stopwatch:
    """Tells the seconds of the processor or of a card since it was last asked."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = self._now()

    def lap(self) -> float:
        before, self._last = self._last, self._now()
        return self._last - before

    def _now(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()


def patches(compared: Compared, step: int, device: torch.device) -> tuple[Batch, Batch]:
    """Return labelled and unlabelled patches of a step: smooth noise, and where it is bright."""
    generator = torch.Generator().manual_seed(step)
    shape = (2, compared.batch_size, *compared.shape)
    coarse = torch.randn(2 * shape[1], shape[2], *[6] * (len(shape) - 3), generator=generator)
    how = "bilinear" if len(shape) == 5 else "trilinear"
    images = torch.nn.functional.interpolate(coarse, shape[3:], mode=how).view(shape)
    classes = (images[:, :, 0] > 0.5).long()
    weight = torch.ones(shape[1])
    return (
        Batch(images[0], classes[0], weight).to(device),
        Batch(images[1], torch.zeros_like(classes[1]), weight).to(device),
    )


if __name__ == "__main__":
    main()
