"""Digits: 1,797 real scans of handwritten digits that come with scikit-learn; needs no files."""

from __future__ import annotations

import torch

from jepa_lab.data.base import DATASETS, ImageData, ImageDataset, ImageSplit
from jepa_lab.data.pixels import data_digest, resize_images
from jepa_lab.data.splits import stratified_sample
from jepa_lab.registry import ComponentParams

NUM_TRAIN_IMAGES = 1437
NUM_TEST_IMAGES = 360
BRIGHTEST = 16
SPLIT_SEED = 0


@DATASETS.register(
    "digits",
    summary="scikit-learn's 1,797 handwritten digits, 10 classes, 8x8 grey, enlarged; needs no files",
    source="sklearn.datasets.load_digits; Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits",
)
class Digits(ImageDataset):
    """1,437 training and 360 test images, stratified by digit.

    The division is fixed: it depends on no seed of the user's, nor on versions of libraries. scikit-learn
    ships none; ours mixes the writers, as those used with this data usually do.
    """

    Params = ComponentParams
    num_channels = 1
    needs_files = False

    def num_train_images(self) -> int:
        return NUM_TRAIN_IMAGES

    def num_test_images(self) -> int:
        return NUM_TEST_IMAGES

    def load(self) -> ImageData:
        from sklearn.datasets import load_digits

        scans = load_digits()
        brightness = torch.from_numpy(scans.images).unsqueeze(1)  # [1797, 1, 8, 8], 0 to 16
        images = resize_images((brightness * (255 / BRIGHTEST)).round().to(torch.uint8), self.image_size)
        labels = torch.from_numpy(scans.target).to(torch.int64)
        is_test = torch.zeros(len(labels), dtype=torch.bool)
        is_test[stratified_sample(labels, NUM_TEST_IMAGES, SPLIT_SEED, keep_one=True)] = True
        train = ImageSplit(images[~is_test], labels[~is_test])
        test = ImageSplit(images[is_test], labels[is_test])
        class_names = tuple(str(digit) for digit in range(10))
        return ImageData(train, test, class_names, data_digest(train, test), "sklearn.datasets.load_digits")
