"""How large pictures are stored: S x S pixels, out of which every crop of `data.image_size` is taken."""

from __future__ import annotations

import torch

from jepa_lab.data.base import ImageFileSet
from jepa_lab.data.decode import picture_size

SPARE = 1.5
"""Default of S, in units of the image size.

A crop of a share a of the picture's area has S sqrt(a) stored pixels a side. At S = image size the usual crops (a from
0.3 to 1) would be enlarged by 1.3 on average, at 1.5 they are reduced by 0.86, and the centre square of a 3:2
photograph, which is only two thirds of the store wide, still has every pixel of the result. It takes 2.25 times the
memory.
"""

LOOKED_AT = 64
"""Files whose size is looked up, evenly spaced."""


def stored_side(files: ImageFileSet | None, image_size: int, resize: int | None) -> int:
    """Height and width in pixels that the images of a data set are stored at.

    By default `SPARE` times the image size, but no more than the longer sides of the pictures that were looked at, as
    nothing is gained by enlarging all of them; and never less than the image size. Images that are squares of one size
    by nature are stored at the image size.

    Args:
        files: of the data set; None for one that comes in one piece.
        resize: `data.resize`.
    """
    if resize is not None:
        return resize
    if files is None or files.native_size is not None:
        return image_size
    chosen = torch.linspace(0, len(files.train.files) - 1, min(LOOKED_AT, len(files.train.files))).long().unique()
    sizes = [picture_size(files.train.files[place]) for place in chosen.tolist()]
    longest = max((max(size) for size in sizes if size is not None), default=0)
    spare = round(SPARE * image_size)
    return max(image_size, min(spare, longest)) if longest else spare
