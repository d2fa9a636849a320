"""What the probes' regressions compute on: the device where scikit-learn can, and numpy's numbers in any case."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from threadpoolctl import threadpool_info

import jepa_lab
from jepa_lab.probes import arrays
from jepa_lab.probes.arrays import NUMPY, EstimatorArrays, double_device, estimator_arrays
from jepa_lab.probes.base import Probe
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.knn import KnnParams, knn_probe
from jepa_lab.probes.layerwise import Layerwise
from jepa_lab.probes.logistic import Logistic, LogisticParams, _fit, logistic_probe
from jepa_lab.probes.low_shot import LowShot
from jepa_lab.probes.online import online_probe
from jepa_lab.testing.subjects import make_subject
from tests.unit.probes.fakes import FakeEncoder
from tests.unit.probes.samples import blobs, digit_splits

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
TENSORS = EstimatorArrays(CPU)
"""What a GPU gets, on a CPU."""


@pytest.fixture(autouse=True)
def nothing_told_yet() -> Iterator[None]:
    arrays._tell_once.cache_clear()
    yield
    arrays._tell_once.cache_clear()


def of_two_classes(labelled: Labelled) -> Labelled:
    chosen = labelled[1] < 2
    return labelled[0][chosen], labelled[1][chosen]


@pytest.mark.parametrize("start", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_coefficients_fitted_on_tensors_are_those_of_numpy(num_classes: int, start: bool) -> None:
    features, labels = digit_splits()[0] if num_classes == 10 else of_two_classes(digit_splits()[0])
    features = (features.double() - features.double().mean(dim=0)) / (features.double().std(dim=0) + 1)
    found = []
    for each in (NUMPY, TENSORS):
        with each.computing(features.numel()):
            x, y = each.of(features), each.of(labels)
            before = _fit(x, y, 0.01, 3000, None)[0] if start else None
            classifier, converged = _fit(x, y, 1.0, 3000, before)
        assert converged
        found.append((each.to_numpy(classifier.coef_), each.to_numpy(classifier.intercept_)))
    for numpy_s, tensors in zip(*found, strict=True):
        np.testing.assert_allclose(tensors, numpy_s, rtol=0, atol=2e-6)


@pytest.mark.parametrize("refit", [True, False])
def test_a_probe_on_tensors_finds_what_it_finds_on_numpy(refit: bool) -> None:
    digits = digit_splits()
    two = tuple(map(of_two_classes, digits))
    three = (blobs(120, 0), blobs(90, 1), blobs(90, 2))
    for splits, count in ((digits, 10), (two, 2), (three, 3)):
        names, params = tuple(map(str, range(count))), LogisticParams(c_grid=(1e-3, 1e-2, 0.1))
        results = [logistic_probe(*splits, params, names, refit=refit, arrays=each) for each in (NUMPY, TENSORS)]
        assert results[0] == results[1]
        assert results[0].converged


def test_a_probe_on_tensors_leaves_the_features_as_they_were() -> None:
    splits = blobs(60, 0), blobs(60, 1), blobs(60, 2)
    before = [features.clone() for features, _ in splits]
    logistic_probe(*splits, LogisticParams(), ("a", "b", "c"), arrays=TENSORS)
    assert all(torch.equal(features, old) for (features, _), old in zip(splits, before, strict=True))


def test_numpy_computes_on_a_cpu_and_tensors_on_a_gpu(caplog: pytest.LogCaptureFixture) -> None:
    assert estimator_arrays(CPU) == estimator_arrays(torch.device("mps")) == NUMPY
    assert estimator_arrays(GPU) == EstimatorArrays(GPU)
    assert not caplog.records


@pytest.mark.parametrize(
    ("obstacle", "told"),
    [
        ("old scikit-learn", "scikit-learn 1.8.2 cannot fit it on a GPU; 1.9 or newer can"),
        ("scipy first", "scipy was imported before jepa_lab, without SCIPY_ARRAY_API=1 in the environment"),
        ("switched off", "SCIPY_ARRAY_API=0 is set; set it to 1, or unset it"),
    ],
)
def test_numpy_is_used_and_the_log_says_once_why_where_a_gpu_cannot_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, obstacle: str, told: str
) -> None:
    if obstacle == "old scikit-learn":
        monkeypatch.setattr(sklearn, "__version__", "1.8.2")
    elif obstacle == "scipy first":
        monkeypatch.setattr(jepa_lab, "SCIPY_CAME_FIRST", True)
    else:
        monkeypatch.setenv("SCIPY_ARRAY_API", "0")
    with caplog.at_level(logging.WARNING):
        assert [estimator_arrays(GPU) for _ in range(3)] == [NUMPY] * 3
    assert len(caplog.records) == 1
    assert told in caplog.text
    assert estimator_arrays(CPU) == NUMPY
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("code", "switch", "expected"),
    [
        ("import jepa_lab", None, "1 False"),
        ("import jepa_lab.cli", None, "1 False"),
        ("import scipy, jepa_lab", None, "1 True"),
        ("import scipy, jepa_lab", "1", "1 False"),
        ("import jepa_lab", "0", "0 False"),
    ],
)
def test_the_switch_is_set_before_scipy_is_imported_unless_the_user_has_set_it(
    code: str, switch: str | None, expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SCIPY_ARRAY_API"}
    if switch is not None:
        environment["SCIPY_ARRAY_API"] = switch
    scipy_too = "" if "scipy" in code else "; assert 'scipy' not in sys.modules"
    told = "; print(os.environ['SCIPY_ARRAY_API'], jepa_lab.SCIPY_CAME_FIRST)"
    program = [sys.executable, "-c", f"import os, sys; {code}{scipy_too}{told}"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == expected


@pytest.mark.parametrize(("num_values", "threads"), [(1 << 20, 1), (1 << 22, 2)])
def test_small_fits_have_one_thread_and_large_ones_those_of_the_run(num_values: int, threads: int) -> None:
    def of_blas() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    before, of_torch = of_blas(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with NUMPY.computing(num_values):
            assert of_blas() == {threads}
        assert of_blas() == before
    finally:
        torch.set_num_threads(of_torch)


def test_double_precision_is_computed_on_the_cpu_where_the_device_has_none() -> None:
    assert [double_device(torch.device(kind)).type for kind in ("cpu", "cuda", "mps")] == ["cpu", "cuda", "cpu"]


@pytest.mark.parametrize(
    "probe",
    [
        Logistic(Logistic.Params(c_grid=(0.01, 0.1))),
        Layerwise(Layerwise.Params(c_grid=(0.01, 0.1))),
        LowShot(LowShot.Params(c_grid=(0.01, 0.1), shots=(5, "all"), draws=2)),
    ],
    ids=["logistic", "layerwise", "low_shot"],
)
def test_every_probe_that_fits_regressions_fits_them_on_its_subject_s_device(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, asked, fitted_on = probe.run(make_subject(FakeEncoder())), [], set()

    def fit(features: Any, *arguments: Any) -> tuple[Any, bool]:
        fitted_on.add(type(features))
        return _fit(features, *arguments)

    def arrays_of(device: torch.device) -> EstimatorArrays:
        asked.append(device)
        return TENSORS

    monkeypatch.setattr(f"{type(probe).__module__}.estimator_arrays", arrays_of)
    monkeypatch.setattr("jepa_lab.probes.logistic._fit", fit)
    assert probe.run(make_subject(FakeEncoder())) == expected
    assert set(asked) == {CPU}
    assert fitted_on == {torch.Tensor}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_probes_on_a_gpu_find_what_they_find_on_a_cpu() -> None:
    train, validation, test = digit_splits()
    names, params = tuple(map(str, range(10))), LogisticParams(c_grid=(1e-3, 1e-2, 0.1))
    on_gpu = logistic_probe(train, validation, test, params, names, arrays=estimator_arrays(GPU))
    on_cpu = logistic_probe(train, validation, test, params, names)
    assert estimator_arrays(GPU) != NUMPY
    assert (on_gpu.c, on_gpu.validation_accuracy_by_c) == (on_cpu.c, on_cpu.validation_accuracy_by_c)
    assert on_gpu.test_accuracy == on_cpu.test_accuracy
    knn = KnnParams()
    assert knn_probe(train, validation, test, knn, 10, GPU) == knn_probe(train, validation, test, knn, 10)
    assert online_probe(train, validation, GPU) == online_probe(train, validation)
