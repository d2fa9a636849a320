"""Images that are read when they are needed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_lab.data.image_files import FilePixels
from jepa_lab.data.images import Block, HostPixels, LazyImages, to_memory, to_tensor
from jepa_lab.data.resident import ResidentBatches
from jepa_lab.data.streaming import StreamingBatches
from jepa_lab.data.workers import Workers, in_order
from jepa_lab.errors import RunStopped
from jepa_lab.testing.randomness import global_generators
from tests.unit.data.files import write_image

CPU = torch.device("cpu")
every_number_of_workers = pytest.mark.parametrize("num_workers", [0, 1, 3])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """23 files, each painted in its own number, and of its own height."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{number}.png" for number in range(23)]
    for number, path in enumerate(paths):
        write_image(path, np.full((6 + number, 6, 3), number))
    return paths


def lazy(files: list[Path], num_workers: int) -> LazyImages:
    return LazyImages(FilePixels(files, 6, None), Workers(num_workers), torch.arange(len(files)))


def streaming(files: list[Path], num_workers: int, seed: int = 0) -> StreamingBatches:
    return StreamingBatches(lazy(files, num_workers), 5, torch.Generator().manual_seed(seed), CPU)


def resident(files: list[Path], seed: int = 0) -> ResidentBatches:
    return ResidentBatches(to_memory(lazy(files, 0)), 5, torch.Generator().manual_seed(seed), CPU)


@every_number_of_workers
def test_streaming_batches_are_those_of_a_resident_data_set(files: list[Path], num_workers: int) -> None:
    stream, expected = streaming(files, num_workers), resident(files)
    assert stream.steps_per_epoch == expected.steps_per_epoch == 4
    for _ in range(11):  # over the ends of epochs
        for ours, theirs in zip(stream.next(), expected.next(), strict=True):
            assert ours is not None
            assert theirs is not None
            assert torch.equal(ours, theirs)
        position, wanted = stream.position(), expected.position()
        assert (position.epoch, position.batch) == (wanted.epoch, wanted.batch)
        assert torch.equal(position.generator_state, wanted.generator_state)
    assert torch.equal(stream.order.generator.get_state(), expected.order.generator.get_state())


@every_number_of_workers
def test_some_rows_of_the_batches_are_those_of_the_whole_ones_at_the_same_positions(
    files: list[Path], num_workers: int
) -> None:
    rows, whole, generator = slice(1, 3), resident(files), torch.Generator
    stream = StreamingBatches(lazy(files, num_workers), 5, generator().manual_seed(0), CPU, rows)
    in_memory = ResidentBatches(to_memory(lazy(files, 0)), 5, generator().manual_seed(0), CPU, rows)
    for _ in range(6):
        images, indices, sizes = whole.next()
        for part in (stream, in_memory):
            ours, ours_at, our_sizes = part.next()
            assert sizes is not None
            assert our_sizes is not None
            assert torch.equal(our_sizes, sizes[rows])
            assert torch.equal(ours, images[rows])
            assert torch.equal(ours_at, indices[rows])
            assert part.position().batch == whole.position().batch
            assert torch.equal(part.position().generator_state, whole.position().generator_state)


@every_number_of_workers
@pytest.mark.parametrize("steps", [0, 3, 4, 6])
def test_a_restored_stream_goes_on_with_the_batches_that_were_not_given_out(
    files: list[Path], num_workers: int, steps: int
) -> None:
    first = streaming(files, num_workers)
    for _ in range(steps):
        first.next()
    position = first.position()  # the workers have read further than this
    expected = [first.next()[1].tolist() for _ in range(7)]
    second = streaming(files, num_workers, seed=9)
    second.next()
    second.restore(position)
    drawn = [second.next() for _ in range(7)]
    assert [batch.indices.tolist() for batch in drawn] == expected
    assert all(torch.equal(batch.images[:, 0, 0, 0].long(), batch.indices) for batch in drawn)


@every_number_of_workers
def test_reading_draws_nothing_from_global_generators(files: list[Path], num_workers: int) -> None:
    before = global_generators()
    stream = streaming(files, num_workers)
    stream.next()
    list(lazy(files, num_workers).split(4))
    assert global_generators() == before


@every_number_of_workers
def test_lazy_images_behave_as_the_tensor_that_they_stand_for(files: list[Path], num_workers: int) -> None:
    images = lazy(files, num_workers)
    whole = to_tensor(images)
    assert tuple(images.shape) == tuple(whole.shape) == (23, 3, 6, 6)
    chosen = torch.tensor([20, 3, 3, 7, 11])
    assert len(images[chosen]) == 5
    assert torch.equal(to_tensor(images[chosen][torch.tensor([4, 0])]), whole[[11, 20]])
    for ours, theirs in zip(images.split(10), whole.split(10), strict=True):
        assert torch.equal(ours, theirs)


def test_closing_ends_the_workers_and_the_next_batch_starts_them_again(files: list[Path]) -> None:
    stream, expected = streaming(files, 2), resident(files)
    for _ in range(3):
        assert torch.equal(stream.next()[0], expected.next()[0])
        assert len(multiprocessing.active_children()) == 2
        stream.close()
        assert multiprocessing.active_children() == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@every_number_of_workers
def test_batches_stream_to_the_device_from_pinned_memory(files: list[Path], num_workers: int) -> None:
    images = LazyImages(FilePixels(files, 6, None), Workers(num_workers, pin_memory=True), torch.arange(23))
    assert all(part.is_pinned() for part in images.split(5))
    stream = StreamingBatches(images, 5, torch.Generator().manual_seed(0), torch.device("cuda"))
    expected = resident(files)
    for _ in range(11):
        images_on_device, indices, _ = stream.next()
        expected_images, expected_indices, _ = expected.next()
        assert images_on_device.is_cuda
        assert torch.equal(images_on_device.cpu(), expected_images)
        assert torch.equal(indices, expected_indices)


def test_images_in_host_memory_can_be_lazy_too() -> None:
    whole = torch.randint(0, 256, (7, 1, 2, 2), dtype=torch.uint8)
    images = LazyImages(HostPixels(whole), Workers(0), torch.arange(7))[torch.tensor([5, 1, 2])]
    assert torch.equal(to_tensor(images), whole[[5, 1, 2]])


@every_number_of_workers
def test_a_file_that_breaks_later_stops_the_run_and_is_named(tmp_path: Path, num_workers: int) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for path in paths:
        write_image(path)
    stream = streaming(paths, num_workers)
    paths[7].unlink()
    with pytest.raises(RunStopped, match=r"7\.png cannot be decoded.*though it could be .*restore the file.*--resume"):
        _take(stream, 4)


def _take(stream: StreamingBatches, count: int) -> None:
    for _ in range(count):
        stream.next()


def _endless_blocks() -> Iterator[Tensor]:
    while True:
        yield torch.tensor([0])


def _whoami(indices: Tensor) -> Block:
    if indices[0] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return Block(torch.tensor([os.getpid(), torch.get_num_threads()]), ())


def test_workers_are_other_processes_with_one_thread_each() -> None:
    reader = in_order(_whoami, _endless_blocks(), Workers(2))
    seen = {tuple(next(reader).images.tolist()) for _ in range(6)}
    reader.close()
    assert len(seen) == 2
    assert all(process != os.getpid() and threads == 1 for process, threads in seen)


def test_workers_ignore_ctrl_c_and_end_with_sigterm_whatever_the_parent_does() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        reader = in_order(_whoami, _endless_blocks(), Workers(1))
        (worker, _) = next(reader).images.tolist()
        os.kill(worker, signal.SIGINT)
        for _ in range(4):
            assert next(reader).images.tolist()[0] == worker
        os.kill(worker, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{worker}/stat").exists() and ") Z" not in Path(f"/proc/{worker}/stat").read_text():
            assert time.monotonic() < deadline, "the worker lives on"
            time.sleep(0.01)
        reader.close()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_killed_worker_stops_the_run_with_a_remedy() -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    reader = in_order(_whoami, torch.tensor([0, 0, 0, 1, 0, 0]).split(1), Workers(2))
    with pytest.raises(RunStopped, match=r"process that reads images died .*lower data\.num_workers \(now 2"):
        list(reader)
    assert signal.getsignal(signal.SIGCHLD) == handler


def test_a_worker_without_shared_memory_stops_the_run_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Tensor) -> Tensor:
        if threading.current_thread() is not threading.main_thread():
            pytest.fail("errors of this thread reach nobody")
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(Tensor, "share_memory_", full)  # the workers inherit it
    with pytest.raises(RunStopped, match=r"No space left on device .*/dev/shm.*lower data\.num_workers \(now 2"):
        next(in_order(_whoami, _endless_blocks(), Workers(2)))
    assert multiprocessing.active_children() == []


def test_workers_are_not_sent_their_indices_through_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(tensor: Tensor) -> None:
        raise AssertionError("a full /dev/shm would make this hang")

    monkeypatch.setitem(ForkingPickler._extra_reducers, Tensor, refuse)
    reader = in_order(_empty, _endless_blocks(), Workers(1))
    assert next(reader).bad == (0,)
    reader.close()


def _empty(indices: Tensor) -> Block:
    return Block(indices.tolist(), tuple(indices.tolist()))  # type: ignore[arg-type]


def test_semaphores_that_cannot_be_made_stop_the_run_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    with pytest.raises(RunStopped, match=r"No space left on device.*/dev/shm"):
        next(in_order(_whoami, _endless_blocks(), Workers(1)))


def test_what_a_worker_cannot_send_stops_the_run_rather_than_letting_it_wait(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The loader sends in a thread, whose errors are printed and otherwise lost; here no file can be opened for it."""

    def no_file(tensor: Tensor) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setitem(ForkingPickler._extra_reducers, Tensor, no_file)  # the workers inherit it
    with pytest.raises(RunStopped, match=r"process that reads images died .*data\.num_workers"):
        next(in_order(_whoami, _endless_blocks(), Workers(2)))
    assert "Traceback" not in capfd.readouterr().err
    assert multiprocessing.active_children() == []


def test_a_limit_of_open_files_stops_the_run_with_a_remedy() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, before[1]))
    try:
        with pytest.raises(RunStopped, match=r"Too many open files.*ulimit -n"):
            list(in_order(_whoami, torch.arange(2, 100).split(1), Workers(2)))  # each block holds a file
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_folder_for_temporary_files_in_which_no_socket_fits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.util.get_temp_dir", lambda: "/tmp/" + "x" * 200)
    with pytest.raises(RunStopped, match=r"/tmp/x*.*AF_UNIX path too long.*set TMPDIR.*data\.num_workers=0"):
        next(in_order(_whoami, _endless_blocks(), Workers(1)))


def test_workers_that_are_stopped_are_killed_when_the_reading_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa_lab.data.workers.SECONDS_TO_LEAVE", 0.1)
    reader = in_order(_whoami, _endless_blocks(), Workers(2))
    processes = {next(reader).images.tolist()[0] for _ in range(4)}
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    reader.close()
    assert multiprocessing.active_children() == []
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_first_moment_of_a_worker_does_not_reach_its_parents_handler(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    parent = os.getpid()

    def early(*arguments: object) -> object:
        if os.getpid() != parent:
            os.kill(os.getpid(), number)
        return loop(*arguments)

    loop = torch.utils.data._utils.worker._worker_loop
    monkeypatch.setattr("torch.utils.data._utils.worker._worker_loop", early)
    before = signal.signal(number, lambda *_: os._exit(9))
    try:
        reader = in_order(_whoami, _endless_blocks(), Workers(1))
        assert len(next(reader).images) == 2
        reader.close()
    finally:
        signal.signal(number, before)
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_mistake_in_a_worker_is_not_taken_for_its_death() -> None:
    def fail(indices: Tensor) -> Block:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        next(in_order(fail, torch.arange(4).split(2), Workers(1)))
