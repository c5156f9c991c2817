"""Method, preset, SAM and device."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from aslseg.errors import AslsegError
from ASLsegLib import parameters, requirements
from ASLsegLib.widgets.choices import METHODS, PRESETS, about
from ASLsegLib.widgets.section import Section, fill_combo, not_installed

if TYPE_CHECKING:
    from aslseg.engine.facts import ComputerFacts, WeightsFacts

DEVICES = {
    "auto": _("automatic"),
    "cpu": _("processor (CPU)"),
    "cuda": _("NVIDIA graphics card (CUDA)"),
    "mps": _("Apple graphics (MPS)"),
}


ANOTHER = "another"
_WORDS = 2


class ModelsSection(Section):
    """What is trained, with which settings and where."""

    shows = ("computer",)
    answers = ("ComputerFacts", "DownloadFacts", "RemovalFacts")

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._computer: ComputerFacts | None = None
        self._fill_devices()
        self.on_signal(self.ui.deviceBox, "activated(int)", self._choose_device)
        self.on_signal(self.ui.presetBox, "activated(int)", self._choose_preset)
        self.on_signal(self.ui.methodBox, "activated(int)", self._choose_method)
        self.on_signal(self.ui.trainSection, "contentsCollapsed(bool)", self._look_up)
        self.on_click(self.ui.downloadButton, self._download)

    def update(self) -> None:
        """Show what is known about device and weights."""
        weights = self._weights()
        here = weights is not None and weights.path is not None
        self.ui.presetLabel.setText(about(PRESETS, self.panel.parameters.preset))
        self.ui.methodLabel.setText(about(METHODS, self.panel.parameters.method))
        self.ui.samLabel.setText(self._about_weights(weights))
        self.ui.deviceLabel.setText(self._about_device())
        self.gate(
            self.ui.downloadButton,
            not_installed(),
            _("No SAM is chosen.") if self._model == "none" else "",
            _("The weights are there already.") if here else "",
            needs_engine=True,
        )

    def on_answer(self, facts: Any) -> None:
        """Keep what the engine knows of this computer; weights that came or went are looked up."""
        from aslseg.engine.facts import ComputerFacts

        self._computer = facts if isinstance(facts, ComputerFacts) else None
        if self._computer is None:
            self._look_up()
        self.panel.update_soon("computer")

    def look_up(self) -> None:
        """Let the engine describe device and weights, if it is free."""
        if not requirements.missing() and not self.logic.engine.is_busy:
            self.logic.describe.begin()

    @property
    def _model(self) -> str:
        return self.panel.parameters.samModel if self.panel.parameters else "vit_t"

    def _look_up(self) -> None:
        if not self.ui.trainSection.collapsed and self._computer is None:
            self.look_up()

    def _fill_devices(self) -> None:
        """List the devices of this computer, and the other computers that are known."""
        entries = [(text, name) for name, text in DEVICES.items()]
        host = parameters.chosen_host()
        names = dict.fromkeys([*self._hosts(), *([host] if host else [])])
        text = _("computer {name} (ssh)")
        entries += [(text.format(name=name), parameters.AT_HOST + name) for name in names]
        entries.append((_("another computer …"), ANOTHER))
        chosen = parameters.AT_HOST + host if host else parameters.chosen_device()
        fill_combo(self.ui.deviceBox, entries, chosen)

    def _hosts(self) -> list[str]:
        if not requirements.can_open_projects():
            return []
        from aslseg.remote.hosts import known_hosts

        try:
            return list(known_hosts())
        except AslsegError as error:
            self.panel.attempt(partial(_fail, error), update=False)
            return []

    def _choose_device(self) -> None:
        device = self.ui.deviceBox.currentData
        try:
            if device == ANOTHER:
                device = self._ask_for_host()
            if device:
                parameters.choose_device(device)
        finally:
            self._fill_devices()
        if device:
            self._computer = None
            self.look_up()

    def _ask_for_host(self) -> str:
        """Ask for another computer and remember it; return the device that it is, or nothing."""
        title = _("Another computer")
        text = _(
            "Name of a computer that ssh reaches without a password, and the command of the Python "
            "there that has aslseg (python3 if it is left out), such as:\n"
            "user@gpu1 venv/bin/python\n"
            "Images, labels and decisions of the project are sent there."
        )
        answer = str(qt.QInputDialog.getText(self.panel.widget, title, text)).strip()
        if not answer or not requirements.can_open_projects():
            return ""
        from aslseg.remote.hosts import host_of, remember_host

        name, *python = answer.split(maxsplit=_WORDS - 1)
        host = host_of(name, *python)
        remember_host(host)
        return parameters.AT_HOST + host.name

    def _choose_preset(self) -> None:
        if requirements.can_open_projects():
            parameters.apply_preset(self.panel.parameters)

    def _choose_method(self) -> None:
        if requirements.can_open_projects():
            parameters.choose_teacher(self.panel.parameters)

    def _download(self) -> None:
        self.logic.download.begin(self._model)

    def _weights(self) -> WeightsFacts | None:
        found = [] if self._computer is None else self._computer.weights
        return next((one for one in found if one.model == self._model), None)

    def _about_weights(self, weights: WeightsFacts | None) -> str:
        if self._model == "none":
            return _("Without SAM the specialist works alone; every table says so.")
        if weights is None:
            return _("The weights are looked up when the engine runs.")
        size = f"{weights.bytes / 1e6:.0f} MB" if weights.bytes else _("size unknown")
        where = weights.problem or (self._where() if weights.path else _("not downloaded yet"))
        text = _("{name}: {size}, licence {licence}; {where}.")
        return text.format(name=weights.name, size=size, licence=weights.licence, where=where)

    def _where(self) -> str:
        host = parameters.chosen_host()
        return _("on {host}").format(host=host) if host else _("on this computer")

    def _about_device(self) -> str:
        if self._computer is None:
            return _("Which device is used is looked up when the engine runs.")
        device = self._computer.device
        if device.problem:
            return device.problem
        host = parameters.chosen_host()
        text = (
            _("Networks run on {name} of {host}: {reason}.")
            if host
            else _("Networks run on {name}: {reason}.")
        )
        return text.format(name=device.name.upper(), host=host, reason=device.reason)


def _fail(error: Exception) -> None:
    raise error
