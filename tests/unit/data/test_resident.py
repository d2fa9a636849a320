import pytest
import torch

from jepa_lab.data.order import Batch
from jepa_lab.data.resident import ResidentBatches, normalize, to_float
from jepa_lab.errors import ConfigError
from jepa_lab.testing.randomness import global_generators


def batches(num_images: int = 23, batch_size: int = 5, seed: int = 0) -> ResidentBatches:
    images = torch.arange(num_images, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 3, 3).contiguous()
    return ResidentBatches(images, batch_size, torch.Generator().manual_seed(seed), torch.device("cpu"))


def order(source: ResidentBatches, count: int) -> list[list[int]]:
    return [source.next()[1].tolist() for _ in range(count)]


def test_an_epoch_shows_each_image_at_most_once_and_drops_the_incomplete_batch() -> None:
    source = batches()
    assert source.steps_per_epoch == 4
    epochs = [[image for batch in order(source, 4) for image in batch] for _ in range(200)]
    assert all(len(epoch) == len(set(epoch)) == 20 for epoch in epochs)
    assert set().union(*epochs) == set(range(23))  # the dropped images differ from epoch to epoch
    assert len({tuple(epoch) for epoch in epochs}) == 200


@pytest.mark.parametrize("sizes", [None, torch.tensor([[3, 4], [5, 6]])])
def test_a_batch_takes_all_of_another_over_in_the_memory_that_it_has(sizes: torch.Tensor | None) -> None:
    first = Batch(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2), None if sizes is None else 0 * sizes)
    other = Batch(torch.ones(2, 1, 3, 3, dtype=torch.uint8), torch.ones(2), sizes)
    copy = first.clone()
    places = [None if each is None else each.data_ptr() for each in copy]
    copy.copy_(other)
    assert [None if each is None else each.data_ptr() for each in copy] == places
    for mine, its in zip(copy, other, strict=True):
        assert mine is its is None or torch.equal(mine, its)
    assert first.images.sum() == 0


def test_a_batch_holds_the_images_of_its_indices() -> None:
    source = batches()
    for _ in range(9):
        images, indices, _ = source.next()
        assert images.shape == (5, 2, 3, 3)
        assert images.dtype == torch.uint8
        assert torch.equal(images[:, 0, 0, 0].long(), indices)


def test_the_order_depends_on_the_generator_alone() -> None:
    before = global_generators()
    assert order(batches(seed=1), 20) == order(batches(seed=1), 20)
    assert order(batches(seed=1), 20) != order(batches(seed=2), 20)
    assert global_generators() == before


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 5, 8, 11])
def test_a_restored_order_goes_on_as_the_uninterrupted_one(steps: int) -> None:
    source = batches()
    order(source, steps)
    position = source.position()
    expected = order(source, 14)
    resumed = batches(seed=99)
    order(resumed, 3)
    resumed.restore(position)
    assert resumed.position().batch == position.batch
    assert resumed.position().epoch == position.epoch
    assert order(resumed, 14) == expected


def test_the_generator_after_a_restore_is_that_of_the_uninterrupted_order() -> None:
    source = batches()
    order(source, 6)
    resumed = batches(seed=3)
    resumed.restore(source.position())
    assert torch.equal(resumed.order.generator.get_state(), source.order.generator.get_state())


def test_the_position_counts_epochs_and_batches() -> None:
    source = batches()
    assert (source.position().epoch, source.position().batch) == (0, 0)
    order(source, 4)
    assert (source.position().epoch, source.position().batch) == (0, 4)
    order(source, 1)
    assert (source.position().epoch, source.position().batch) == (1, 1)


def test_a_position_is_not_changed_by_later_batches() -> None:
    source = batches()
    position = source.position()
    state = position.generator_state.clone()
    order(source, 9)
    assert torch.equal(position.generator_state, state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_device_gives_the_order_of_the_cpu_and_never_waits() -> None:
    on_cpu = batches()
    on_device = ResidentBatches(on_cpu.pictures.pixels, 5, torch.Generator().manual_seed(0), torch.device("cuda"))
    drawn = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(11):
            drawn.append(on_device.next())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for images, indices, _ in drawn:
        expected_images, expected_indices, _ = on_cpu.next()
        assert torch.equal(indices.cpu(), expected_indices)
        assert torch.equal(images.cpu(), expected_images)


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers() -> None:
    batches(num_images=5, batch_size=5)
    with pytest.raises(ConfigError, match=r"training.batch_size must be at most .* \(4\), got 5; lower it"):
        batches(num_images=4, batch_size=5)


def test_pixels_become_fractions_and_then_standard_scores() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    pixels = to_float(images)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, torch.tensor([[[[0.0, 1.0]], [[0.2, 0.4]]]]))
    scores = normalize(pixels, torch.tensor([0.5, 0.2]), torch.tensor([0.5, 0.1]))
    torch.testing.assert_close(scores, torch.tensor([[[[-1.0, 1.0]], [[0.0, 2.0]]]]))
    assert images.dtype == torch.uint8
