import numpy as np
import pytest
import torch
from PIL import Image

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.pixels import data_digest, resize_images


@pytest.mark.parametrize(("native", "size"), [(8, 16), (8, 20), (32, 12), (28, 27)])
def test_resizing_is_pillows_antialiased_bilinear_to_one_step(native: int, size: int) -> None:
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (10, native, native)).astype(np.uint8)
    ours = resize_images(torch.from_numpy(pixels)[:, None], size)
    assert ours.dtype == torch.uint8
    for image, result in zip(pixels, ours, strict=True):
        expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
        assert np.abs(result[0].numpy().astype(int) - expected.astype(int)).max() <= 1


def test_images_of_the_right_size_stay_untouched() -> None:
    images = torch.randint(0, 256, (3, 3, 8, 8)).to(torch.uint8)
    assert resize_images(images, 8) is images


def test_resizing_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (7, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    whole = resize_images(images, 11)
    monkeypatch.setattr("jepa_lab.data.pixels.RESIZE_CHUNK_PIXELS", 800)
    assert torch.equal(resize_images(images, 11), whole)


def test_the_digest_names_pixels_and_labels() -> None:
    images = torch.arange(48, dtype=torch.uint8).reshape(4, 1, 3, 4)
    split = ImageSplit(images, torch.tensor([0, 1, 0, 1]))
    changed = images.clone()
    changed[3, 0, 2, 3] += 1
    digests = {
        data_digest(split, None),
        data_digest(split, split),
        data_digest(ImageSplit(changed, split.labels), None),
        data_digest(ImageSplit(images, torch.tensor([0, 1, 1, 0])), None),
        data_digest(ImageSplit(images, None), None),
        data_digest(ImageSplit(images.reshape(4, 1, 4, 3), None), None),
    }
    assert len(digests) == 6
    assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in digests)
    copy = ImageSplit(images.clone(), torch.tensor([0, 1, 0, 1]))
    assert data_digest(copy, None) in digests
