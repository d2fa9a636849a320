"""What every registered augmentation must do."""

import jepa_lab.data.augmentations  # noqa: F401
from jepa_lab.data.augmentations.base import AUGMENTATIONS
from jepa_lab.testing import AugmentationContract
from tests.contracts.registered import each_of


class TestAugmentations(AugmentationContract):
    entry = each_of(AUGMENTATIONS)
