"""Random crops, a different one for each image, as two matrix products on the device.

Not an augmentation itself: `minimal` (and stronger ones) are made of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ATTEMPTS = 10


def sample_crops(
    batch_size: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    aspect_ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Draw a crop for each image: uniform share of the area, log-uniform aspect ratio, uniform position.

    Each image takes the first of ten draws that fits into it, or else the largest centred crop of an allowed
    aspect ratio. Nothing is read back from the device.

    Args:
        scale: range of the crop's share of the image's area.
        aspect_ratio: range of width / height.
        generator: its device is the device of the result.
    Returns:
        Top, left, height and width in pixels, [B, 4] int64.
    Source: torchvision's RandomResizedCrop, whose distribution this is.
    """
    device = generator.device
    draws = torch.rand(2 * ATTEMPTS + 2, batch_size, generator=generator, device=device)
    scale_draw, ratio_draw = draws[:ATTEMPTS], draws[ATTEMPTS : 2 * ATTEMPTS]
    top_draw, left_draw = draws[-2], draws[-1]

    area = height * width * (scale[0] + (scale[1] - scale[0]) * scale_draw)  # [attempts, B]
    low, high = math.log(aspect_ratio[0]), math.log(aspect_ratio[1])
    ratio = torch.exp(low + (high - low) * ratio_draw)
    heights = torch.sqrt(area / ratio).round().long()
    widths = torch.sqrt(area * ratio).round().long()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    number = torch.arange(ATTEMPTS, device=device)[:, None]
    first = torch.where(fits, number, ATTEMPTS).amin(dim=0, keepdim=True)  # [1, B]; ATTEMPTS if none fits

    whole_height, whole_width = _central_crop(height, width, aspect_ratio)
    crop_height = torch.cat([heights, torch.full_like(heights[:1], whole_height)]).gather(0, first)[0]  # [B]
    crop_width = torch.cat([widths, torch.full_like(widths[:1], whole_width)]).gather(0, first)[0]  # [B]
    is_drawn = first[0] < ATTEMPTS
    top = torch.where(is_drawn, _position(top_draw, height - crop_height), (height - whole_height) // 2)
    left = torch.where(is_drawn, _position(left_draw, width - crop_width), (width - whole_width) // 2)
    return torch.stack([top, left, crop_height, crop_width], dim=1)


def _position(draw: Tensor, room: Tensor) -> Tensor:
    """A uniform integer in 0 .. room for each image, [B] int64."""
    return torch.minimum((draw * (room + 1)).long(), room)  # draw < 1, but the product may round up


def _central_crop(height: int, width: int, aspect_ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest centred crop of an allowed aspect ratio."""
    if width / height < aspect_ratio[0]:
        return round(width / aspect_ratio[0]), width
    if width / height > aspect_ratio[1]:
        return height, round(height * aspect_ratio[1])
    return height, width


def crop_and_resize(images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut a box out of each image and resize it, antialiased bilinear: rows @ image @ columns^T.

    Exact to float32 rounding, in any autocast region. Where TF32 matrix products are switched on, pixels
    carry its rounding, at most 1e-3: a quarter of a step of the uint8 images.

    Args:
        images: [B, C, H, W] float32.
        boxes: top, left, height and width of each box, [B, 4] int64.
        size: height and width of the result, in pixels.
        flip: [B] bool, whether the result is mirrored left to right; None for no image.
    Returns:
        [B, C, size, size] float32.
    Source: torchvision's resized_crop(..., antialias=True), which takes one box for the whole batch.
    """
    top, left, box_height, box_width = boxes.unbind(dim=1)
    rows = _resize_weights(top, box_height, images.shape[2], size)  # [B, size, H]
    columns = _resize_weights(left, box_width, images.shape[3], size)  # [B, size, W]
    if flip is not None:
        columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 would leave 8 bits of a pixel
        return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _resize_weights(start: Tensor, length: Tensor, num_pixels: int, size: int) -> Tensor:
    """How much each input pixel contributes to each output pixel along one axis.

    A triangle of half-width max(1, length / size) around the output pixel's centre, cut off at the box, whose
    weights sum to one.

    Args:
        start: first pixel of each box, [B] int64.
        length: pixels of each box, [B] int64.
    Returns:
        [B, size, num_pixels] float32.
    """
    step = length.to(torch.float32) / size  # [B], input pixels an output pixel
    centre = (torch.arange(size, device=start.device) + 0.5) * step[:, None]  # [B, size], from the box's edge
    pixel = torch.arange(num_pixels, device=start.device) - start[:, None] + 0.5  # [B, num_pixels], likewise
    in_box = (pixel > 0) & (pixel < length[:, None])
    distance = (pixel[:, None, :] - centre[:, :, None]).abs() / step.clamp(min=1)[:, None, None]
    weights = (1 - distance).clamp(min=0) * in_box[:, None, :]
    return weights / weights.sum(dim=2, keepdim=True)
