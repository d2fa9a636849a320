"""Device, precision and compiler: what `auto` means, and what is refused with a remedy."""

from __future__ import annotations

import pytest
import torch

import jepa_lab.training.devices as devices_module
from jepa_lab.errors import DeviceError, RunStopped
from jepa_lab.training.devices import memory_errors, resolve_compute, resume_compute
from jepa_lab.training.settings import TrainingSettings


def on_a_cuda_machine(patch: pytest.MonkeyPatch, *, triton: bool) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "device_count", lambda: 1)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    patch.setattr(devices_module, "_has_triton", lambda: triton)
    patch.setattr(devices_module.shutil, "which", lambda name: f"/usr/bin/{name}")


def test_auto_compiles_on_cuda_alone_and_only_with_triton_and_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not resolve_compute(TrainingSettings(device="cpu")).compile
    on_a_cuda_machine(monkeypatch, triton=True)
    assert resolve_compute(TrainingSettings()).compile
    monkeypatch.setattr(devices_module.shutil, "which", lambda name: None)
    assert not resolve_compute(TrainingSettings()).compile
    on_a_cuda_machine(monkeypatch, triton=False)
    assert not resolve_compute(TrainingSettings()).compile


def test_compiling_without_what_it_needs_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        on_a_cuda_machine(patch, triton=False)
        with pytest.raises(DeviceError, match=r"compile=on needs Triton.*training\.compile=off"):
            resolve_compute(TrainingSettings(compile="on"))
    with monkeypatch.context() as patch:
        on_a_cuda_machine(patch, triton=True)
        patch.setattr(devices_module.shutil, "which", lambda name: None)
        with pytest.raises(DeviceError, match=r"needs a C compiler"):
            resolve_compute(TrainingSettings(compile="on"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler.*no-such-compiler.*training\.compile=off"):
        resolve_compute(TrainingSettings(device="cpu", compile="on"))


def test_a_run_goes_on_where_it_began_though_auto_would_choose_better(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_cuda_machine(monkeypatch, triton=True)
    compute = resume_compute(TrainingSettings(), "cpu", "fp32")
    assert (compute.device.type, compute.precision, compute.compile) == ("cpu", "fp32", False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
def test_a_run_of_cuda_says_that_it_needs_cuda() -> None:
    with pytest.raises(DeviceError, match=r"began on cuda in bf16.*this machine has cpu.*resume it on"):
        resume_compute(TrainingSettings(), "cuda", "bf16")


def test_a_full_memory_is_told_with_its_remedies() -> None:
    with (
        pytest.raises(RunStopped, match=r"out of memory \(.*4000000000000000 bytes.*training\.batch_size \(48\)"),
        memory_errors(TrainingSettings(batch_size=48)),
    ):
        torch.empty(10**15)


def test_other_errors_are_not_taken_for_a_full_memory() -> None:
    with pytest.raises(RuntimeError, match="must match"), memory_errors(TrainingSettings()):
        torch.empty(3) + torch.empty(4)
