"""Device, precision and compiler: what `auto` means, and what is refused with a remedy."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.errors import DeviceError, RunStopped
from jepa_lab.training import compiling
from jepa_lab.training.compiling import FEWEST_STEPS, CompileChoice
from jepa_lab.training.devices import memory_errors, resolve_compute, resume_compute
from jepa_lab.training.settings import TrainingSettings


def on_a_cuda_machine(patch: pytest.MonkeyPatch, *, triton: bool) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "device_count", lambda: 1)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    patch.setattr(compiling, "_has_triton", lambda: triton)
    patch.setattr(compiling.shutil, "which", lambda name: f"/usr/bin/{name}")


def auto_compiles(device: str, total_steps: int) -> bool:
    settings = TrainingSettings(device=device)
    return resolve_compute(settings).for_run(settings, total_steps).compile


def test_auto_compiles_long_runs_on_cuda_and_says_why_it_cannot(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_a_cuda_machine(monkeypatch, triton=True)
    assert auto_compiles("cuda", FEWEST_STEPS["cuda"])
    assert not auto_compiles("cuda", FEWEST_STEPS["cuda"] - 1)
    assert not caplog.messages
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    assert not auto_compiles("cuda", 10**9)
    on_a_cuda_machine(monkeypatch, triton=False)
    assert not auto_compiles("cuda", 10**9)
    lacking = [message.partition("slower: ")[2] for message in caplog.messages]
    assert lacking == ["a C compiler (gcc or clang) for Triton is not here", "Triton for this GPU is not here"]


@pytest.mark.parametrize(("choice", "expected"), [("on", True), ("off", False)])
def test_who_says_whether_to_compile_is_obeyed_whatever_the_length(choice: CompileChoice, expected: bool) -> None:
    for steps in (1, 10**9):
        assert compiling.compiles(choice, torch.device("cpu"), steps) is expected
        assert compiling.compiles(choice, torch.device("cuda"), steps) is expected


def test_a_resumed_run_compiles_if_and_only_if_it_did_before(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_cuda_machine(monkeypatch, triton=True)
    settings = TrainingSettings(device="cuda")
    for before in (True, False):
        compute = resume_compute(settings, "cuda", "bf16", before)
        assert [compute.for_run(settings, steps, before).compile for steps in (1, 10**9)] == [before, before]
    on_a_cuda_machine(monkeypatch, triton=False)
    with pytest.raises(DeviceError, match=r"began with a compiled model, which needs Triton.*install it"):
        resume_compute(settings, "cuda", "bf16", True)
    assert not resume_compute(settings, "cuda", "bf16", False).compile


def test_compiling_without_what_it_needs_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        on_a_cuda_machine(patch, triton=False)
        with pytest.raises(DeviceError, match=r"compile=on needs Triton.*training\.compile=off"):
            resolve_compute(TrainingSettings(compile="on"))
    with monkeypatch.context() as patch:
        on_a_cuda_machine(patch, triton=True)
        patch.setattr(compiling.shutil, "which", lambda name: None)
        with pytest.raises(DeviceError, match=r"needs a C compiler"):
            resolve_compute(TrainingSettings(compile="on"))
    with monkeypatch.context() as patch:
        patch.setattr(compiling.sysconfig, "get_path", lambda name: "/nowhere")
        with pytest.raises(DeviceError, match=r"needs what C code needs of Python \(Python\.h"):
            resolve_compute(TrainingSettings(device="cpu", compile="on"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler.*no-such-compiler.*training\.compile=off"):
        resolve_compute(TrainingSettings(device="cpu", compile="on"))


def test_a_run_goes_on_where_it_began_though_auto_would_choose_better(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_cuda_machine(monkeypatch, triton=True)
    compute = resume_compute(TrainingSettings(), "cpu", "fp32", False)
    assert (compute.device.type, compute.precision, compute.compile) == ("cpu", "fp32", False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA")
def test_a_run_of_cuda_says_that_it_needs_cuda() -> None:
    with pytest.raises(DeviceError, match=r"began on cuda in bf16.*this machine has cpu.*resume it on"):
        resume_compute(TrainingSettings(), "cuda", "bf16", None)


def test_a_full_memory_is_told_with_its_remedies() -> None:
    with (
        pytest.raises(RunStopped, match=r"out of memory \(.*4000000000000000 bytes.*training\.batch_size \(48\)"),
        memory_errors(TrainingSettings(batch_size=48)),
    ):
        torch.empty(10**15)


def test_other_errors_are_not_taken_for_a_full_memory() -> None:
    with pytest.raises(RuntimeError, match="must match"), memory_errors(TrainingSettings()):
        torch.empty(3) + torch.empty(4)
