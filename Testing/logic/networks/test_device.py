"""Where networks run, and what the allocator does."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import textwrap

import pytest
import torch

from aslseg.errors import DeviceError
from aslseg.networks.device import choose_device, tune_allocator


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Imaginary 9000")


def test_without_a_gpu_the_cpu_is_chosen(no_gpu: None) -> None:
    device = choose_device()
    assert device.torch_device == torch.device("cpu")
    assert device.reason == "no GPU was found"


def test_with_a_gpu_it_is_chosen_and_named(a_gpu: None) -> None:
    device = choose_device("auto")
    assert device.torch_device.type == "cuda"
    assert "Imaginary 9000" in device.reason


def test_the_cpu_can_be_asked_for_in_spite_of_a_gpu(a_gpu: None) -> None:
    assert choose_device("cpu").torch_device.type == "cpu"


def test_a_mac_gpu_is_chosen(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().torch_device.type == "mps"


def test_a_gpu_without_a_cuda_build_is_explained(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match="built without CUDA"):
        choose_device("cuda")


def test_a_gpu_that_does_not_answer_is_explained(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(DeviceError, match="check the driver"):
        choose_device("cuda")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(DeviceError, match="auto, cpu, cuda or mps"):
        choose_device("tpu")


def page_faults(prelude: str) -> int:
    code = f"""
        import resource, torch
        from aslseg.networks.device import tune_allocator
        torch.set_num_threads(1)
        {prelude}
        faults = []
        for _ in range(15):  # the heap finds its shape within some turns
            torch.zeros(10_000_000) + 1
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        print(faults[-1] - faults[-6])
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator of glibc")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    pages = 5 * 2 * 10_000_000 * 4 // resource.getpagesize()  # turns * tensors * bytes
    assert page_faults("") > 0.9 * pages
    assert page_faults("assert tune_allocator()") < 0.3 * pages


def test_without_glibc_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert tune_allocator() is False
