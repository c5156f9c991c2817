"""What the panel remembers: with the scene in the parameter node, for the computer in settings.

The names here equal those in the property `SlicerParameterName` of the widgets in `ASLseg.ui`.
"""

# No "from __future__ import annotations": the wrapper looks at the types when the class is made.
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import slicer
from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

METHODS = ["aslseg", "semisam", "scsam", "cpcsam", "specialist"]
PRESETS = ["quick", "standard", "demo"]
SAM_MODELS = ["vit_t", "vit_b", "vit_l", "vit_h", "none"]
PARADIGMS = [
    "supervised",
    "mean_teacher",
    "uncertainty_aware",
    "cross_pseudo",
    "unimatch",
    "bidirectional_copy_paste",
]
INPUT_SIZES = ["112", "128", "224", "256", "448", "512", "1024"]
TUNINGS = ["none", "decoder", "lora", "adapter"]
DEVICES = ["auto", "cpu", "cuda", "mps"]
AT_HOST = "host:"
"""A choice of device that begins so names another computer, which chooses its device itself."""


@parameterNodeWrapper
class ASLsegParameterNode:
    """What belongs to the scene.

    Attributes:
        inputVolume: The volume to segment.
        projectFolder: Where the project is, as it was typed; see `project_folder`.
        run: Id of the chosen run; empty for the latest.
        target: What the next prompts are about.
        method: Which method trains.
        preset: Named settings.
        samModel: Which SAM.
        rounds: Rounds at most.
        acceptedPercent: Part of the unlabelled cases, in %, whose AI labels round 1 may accept.
        reliabilityThreshold: Least score of an accepted case.
        paradigm: How the specialist trains on unlabelled volumes.
        inputSize: Edge of SAM's input.
        tuning: What of SAM is trained.
        seed: Of the next run.
        baseline: Whether to train a supervised specialist besides.
        wholeVolume: Run SAM again in all slices.
        followEdits: Run SAM again after each edit.
        eachBoxGrows: Let a lesion grow from each box.
        doubtfulFirst: Review the least reliable cases first.
        showPrompts: Show the prompts' node.
        showSpecialist: Show the specialist's node.
        showSam: Show SAM's node.
        showRefined: Show the refined node.
        showDisagreement: Show the overlay.
        labelSegmentation: What is saved as a label.
        organSegmentation: Has the organ of the volume to segment; without one it is predicted.
        startLabels: Origin of another model's labels that the next run starts from; empty for none.
        resultSegmentation: What is measured and exported.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    projectFolder: str = ""
    run: str = ""
    target: str = "tumour"
    method: Annotated[str, Choice(METHODS)] = "aslseg"
    preset: Annotated[str, Choice(PRESETS)] = "quick"
    samModel: Annotated[str, Choice(SAM_MODELS)] = "vit_t"
    rounds: Annotated[int, WithinRange(1, 20)] = 2
    acceptedPercent: Annotated[float, WithinRange(0.0, 100.0)] = 50.0
    reliabilityThreshold: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    paradigm: Annotated[str, Choice(PARADIGMS)] = "supervised"
    inputSize: Annotated[str, Choice(INPUT_SIZES)] = "512"
    tuning: Annotated[str, Choice(TUNINGS)] = "decoder"
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    baseline: bool = False
    wholeVolume: bool = False
    followEdits: bool = True
    eachBoxGrows: bool = False
    doubtfulFirst: bool = False
    showPrompts: bool = True
    showSpecialist: bool = False
    showSam: bool = False
    showRefined: bool = True
    showDisagreement: bool = False
    labelSegmentation: vtkMRMLSegmentationNode
    organSegmentation: vtkMRMLSegmentationNode
    startLabels: str = ""
    resultSegmentation: vtkMRMLSegmentationNode


class Connected:
    """Widgets that are connected to parameters, until `close`.

    Slicer 5.10 leaves an observer on the node when it disconnects, which keeps the parameters and
    their own observers alive for ever; it is removed here.

    Args:
        parameters: An `ASLsegParameterNode`.
        widget: Its children with `SlicerParameterName` are connected.
    """

    def __init__(self, parameters: Any, widget: Any) -> None:
        self._parameters = parameters
        self._tags: list[int] = []
        vars(parameters)["AddObserver"] = self._observe
        try:
            self._gui_tag = parameters.connectGui(widget)
        finally:
            del vars(parameters)["AddObserver"]

    def close(self) -> None:
        """Disconnect the widgets, and let nothing observe the node any more."""
        self._parameters.disconnectGui(self._gui_tag)
        for tag in self._tags:
            self._parameters.parameterNode.RemoveObserver(tag)

    def _observe(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        tag = int(self._parameters.parameterNode.AddObserver(event, callback, priority))
        self._tags.append(tag)
        return tag


def discard_unusable(node: Any) -> list[str]:
    """Take from a parameter node what this version cannot use; the usual values count then.

    A scene may come from another version, or from somebody who edited it. Slicer's wrapper reads
    such values, and fails when it shows them.

    Args:
        node: The node under an `ASLsegParameterNode`.

    Returns:
        The names of what was taken away.
    """
    hints = get_type_hints(ASLsegParameterNode, include_extras=True)
    unusable = [name for name, hint in hints.items() if not _is_usable(node, name, hint)]
    for name in unusable:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)
    return unusable


def _is_usable(node: Any, name: str, hint: Any) -> bool:
    kind, *rules = get_args(hint) or (hint,)
    if issubclass(kind, vtkMRMLNode):
        referred = node.GetNodeReference(name)
        return referred is None or isinstance(referred, kind)
    if not node.HasParameter(name):
        return True
    text = node.GetParameter(name)
    try:
        value = text if kind is bool else kind(text)
        for rule in rules:
            rule.validate(value)
    except ValueError:
        return False
    return kind is not bool or text in ("True", "False")


def settings_changes(parameters: Any) -> dict[str, Any]:
    """Return the panel's choices as changes of a preset, in the words of `RunConfig`.

    Args:
        parameters: An `ASLsegParameterNode`.
    """
    return {
        "method": parameters.method,
        "rounds": parameters.rounds,
        "patience": parameters.rounds,
        "paradigm": parameters.paradigm,
        "seed": parameters.seed,
        "baseline": parameters.baseline,
        "start_labels": parameters.startLabels,
        "device": chosen_device(),
        "sam": {
            "model": parameters.samModel,
            "input_size": int(parameters.inputSize),
            "tuning": parameters.tuning,
        },
        "reliability": {
            "first_share": parameters.acceptedPercent / 100,
            "min_score": parameters.reliabilityThreshold,
        },
    }


def project_folder(parameters: Any) -> Path | None:
    """Return the folder of the project; None while none is named by a whole path."""
    return whole_path(parameters.projectFolder)


def whole_path(text: str) -> Path | None:
    """Return the folder that was typed; None where no whole path was.

    A folder named from another one would be sought where the application was started.
    """
    typed = text.strip()
    folder = Path(typed).expanduser() if typed else Path()
    return folder if folder.is_absolute() else None


def choose_preset(parameters: Any, preset: str) -> None:
    """Choose a preset, and let the panel's other choices be those of it."""
    parameters.preset = preset
    apply_preset(parameters)


def apply_preset(parameters: Any) -> None:
    """Let the panel's choices be those of the chosen preset."""
    from aslseg.presets import read_preset

    config = read_preset(parameters.preset)
    parameters.rounds = config.rounds
    parameters.paradigm = config.paradigm
    parameters.baseline = config.baseline
    parameters.samModel = config.sam.model
    parameters.inputSize = str(config.sam.input_size)
    parameters.tuning = config.sam.tuning
    parameters.acceptedPercent = 100 * config.reliability.first_share
    parameters.reliabilityThreshold = config.reliability.min_score
    choose_teacher(parameters)


def choose_teacher(parameters: Any) -> None:
    """Let a method that builds upon a teacher have one."""
    from aslseg.config import TEACHERS

    if parameters.method == "semisam" and parameters.paradigm not in TEACHERS:
        parameters.paradigm = TEACHERS[0]


def chosen_device() -> str:
    """Return where networks shall run on this computer: one of `DEVICES`."""
    device = slicer.util.settingsValue("ASLseg/device", "auto")
    return device if device in DEVICES else "auto"


def chosen_host() -> str:
    """Return the name of the computer that shall work in place of this one; else an empty text."""
    text = str(slicer.util.settingsValue("ASLseg/device", "auto"))
    return text.removeprefix(AT_HOST) if text.startswith(AT_HOST) else ""


def choose_device(device: str) -> None:
    """Remember where networks shall run: one of `DEVICES`, or `AT_HOST` and a host's name."""
    import qt

    qt.QSettings().setValue("ASLseg/device", device)
