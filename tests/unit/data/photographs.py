"""Pictures for tests of what is left of a photograph."""

from __future__ import annotations

import numpy as np


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Slow waves of colour over the whole picture, [H, W, 3] uint8: resizing twice changes them as little as once."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(9 * x + 3 * y), np.cos(7 * y - 5 * x), np.sin(11 * x * y + 1)]
    return (127.5 + 120 * np.stack(waves, axis=-1)).round().astype(np.uint8)


def photographs() -> list[np.ndarray]:
    """Two real photographs that come with scikit-learn, [427, 640, 3] uint8."""
    from sklearn.datasets import load_sample_images

    return [np.array(image) for image in load_sample_images().images]
