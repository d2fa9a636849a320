"""Crops of stored pictures, a different one for each, as two matrix products on the device.

A box is chosen in pixels of the picture as it is in its file, and then taken to the square that the picture was resized
to (`in_stored_pixels`): the store has one shape, whatever the shapes of the pictures. Not an augmentation itself:
`minimal` and stronger ones are made of it, and so are the centre squares that probes see.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ATTEMPTS = 10


def original_sizes(images: Tensor, sizes: Tensor | None) -> Tensor:
    """Height and width of each picture before it was stored, [B, 2] int64 on the images' device.

    Args:
        images: [B, C, H, W].
        sizes: [B, 2], or None where the images are what they were.
    """
    if sizes is not None:
        return sizes.long()
    same = torch.empty(len(images), 2, dtype=torch.int64, device=images.device)
    for axis, length in enumerate(images.shape[2:]):
        same[:, axis].fill_(length)
    return same


def draw_crops(batch_size: int, generator: torch.Generator) -> Tensor:
    """The random numbers of a crop of each picture, whatever its size: [B, 2 * ATTEMPTS + 2], uniform in [0, 1).

    Args:
        generator: its device is the device of the result.
    """
    return torch.rand(2 * ATTEMPTS + 2, batch_size, generator=generator, device=generator.device).T


def crop_boxes(draws: Tensor, sizes: Tensor, scale: tuple[float, float], aspect_ratio: tuple[float, float]) -> Tensor:
    """The crop of each picture: uniform share of the area, log-uniform aspect ratio, uniform position.

    Each picture takes the first of ten draws that fits into it, or else the largest centred crop of an allowed
    aspect ratio. Nothing is read back from the device.

    Args:
        draws: of `draw_crops`.
        sizes: height and width of each picture in its file, [B, 2] int64.
        scale: range of the crop's share of the picture's area.
        aspect_ratio: range of width / height.
    Returns:
        Top, left, height and width in pixels of the file, [B, 4] int64.
    Source: torchvision's RandomResizedCrop, whose distribution this is.
    """
    draws, (height, width) = draws.T, sizes.unbind(dim=1)  # [.., B], [B]
    scale_draw, ratio_draw = draws[:ATTEMPTS], draws[ATTEMPTS : 2 * ATTEMPTS]
    top_draw, left_draw = draws[-2], draws[-1]

    area = height * width * (scale[0] + (scale[1] - scale[0]) * scale_draw)  # [attempts, B]
    low, high = math.log(aspect_ratio[0]), math.log(aspect_ratio[1])
    ratio = torch.exp(low + (high - low) * ratio_draw)
    heights = torch.sqrt(area / ratio).round().long()
    widths = torch.sqrt(area * ratio).round().long()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    number = torch.arange(ATTEMPTS, device=draws.device)[:, None]
    first = torch.where(fits, number, ATTEMPTS).amin(dim=0, keepdim=True)  # [1, B]; ATTEMPTS if none fits

    whole_height, whole_width = _central_crop(height, width, aspect_ratio)  # [B], [B]
    crop_height = torch.cat([heights, whole_height[None]]).gather(0, first)[0]  # [B]
    crop_width = torch.cat([widths, whole_width[None]]).gather(0, first)[0]  # [B]
    is_drawn = first[0] < ATTEMPTS
    top = torch.where(is_drawn, _position(top_draw, height - crop_height), (height - whole_height) // 2)
    left = torch.where(is_drawn, _position(left_draw, width - crop_width), (width - whole_width) // 2)
    return torch.stack([top, left, crop_height, crop_width], dim=1)


def _position(draw: Tensor, room: Tensor) -> Tensor:
    """A uniform integer in 0 .. room for each picture, [B] int64."""
    return torch.minimum((draw * (room + 1)).long(), room)  # draw < 1, but the product may round up


def _central_crop(height: Tensor, width: Tensor, aspect_ratio: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Height and width of the largest centred crop of an allowed aspect ratio, each [B] int64."""
    # Ties are rounded as by torchvision, which computes in double precision; Apple's devices have none.
    precise = torch.float32 if height.device.type == "mps" else torch.float64
    ratio = width.to(precise) / height
    tallest = (width.to(precise) / aspect_ratio[0]).round().long().clamp(min=1)
    widest = (height.to(precise) * aspect_ratio[1]).round().long().clamp(min=1)
    return torch.where(ratio < aspect_ratio[0], tallest, height), torch.where(ratio > aspect_ratio[1], widest, width)


def centre_boxes(sizes: Tensor, resized: int, cut: int) -> Tensor:
    """The square that is left of each picture when its shorter side is resized and the centre is cut out.

    Args:
        sizes: height and width of each picture, [B, 2] int64.
        resized: what the shorter side becomes, in pixels.
        cut: side of the square, in pixels, at most `resized`.
    Returns:
        Top, left, height and width in pixels of the file, [B, 4] float32.
    Source: torchvision's Resize(resized) and CenterCrop(cut), whose rounding to pixels this is.
    """
    whole = resized * sizes // sizes.amin(dim=1, keepdim=True)  # [B, 2]
    start = ((whole - cut) / 2).round()
    scale = sizes / whole  # pixels of the file per pixel of the resized picture
    return torch.cat([start * scale, cut * sizes / whole], dim=1)


def in_stored_pixels(boxes: Tensor, sizes: Tensor, height: int, width: int) -> Tensor:
    """Boxes in pixels of the file as boxes in pixels of the store, [B, 4] float32.

    Exact where a picture is stored at its own size.

    Args:
        boxes: top, left, height and width, [B, 4].
        sizes: height and width of each picture in its file, [B, 2].
        height, width: of the stored pictures.
    """
    vertical, horizontal = boxes[:, 0::2] * height, boxes[:, 1::2] * width  # top and height, left and width
    vertical, horizontal = vertical / sizes[:, :1], horizontal / sizes[:, 1:]
    return torch.stack([vertical[:, 0], horizontal[:, 0], vertical[:, 1], horizontal[:, 1]], dim=1)


def crop_and_resize(images: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cut a box out of each image and resize it, antialiased bilinear: rows @ image @ columns^T.

    Exact to float32 rounding, in any autocast region. Where TF32 matrix products are switched on, pixels
    carry its rounding, at most 1e-3: a quarter of a step of the uint8 images.

    Args:
        images: [B, C, H, W] float32.
        boxes: top, left, height and width of each box, [B, 4]; with fractions of a pixel where they are float32.
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

    A triangle of half-width max(1, length / size) around the output pixel's centre, times the share of the input
    pixel that lies in the box, scaled to a sum of one.

    Args:
        start: where each box begins, in pixels, [B].
        length: of each box, in pixels, [B]; it may be less than one.
    Returns:
        [B, size, num_pixels] float32.
    """
    length = length.to(torch.float32)
    step = length / size  # [B], input pixels per output pixel
    centre = (torch.arange(size, device=start.device) + 0.5) * step[:, None]  # [B, size], from the box's edge
    pixel = torch.arange(num_pixels, device=start.device) - start[:, None] + 0.5  # [B, num_pixels], likewise
    in_box = torch.minimum(pixel + 0.5, length[:, None]) - (pixel - 0.5).clamp(min=0)  # 1 within, 0 or less outside
    weights = pixel[:, None, :] - centre[:, :, None]  # [B, size, num_pixels]: in place from here, it is large
    weights.abs_().div_(step.clamp(min=1)[:, None, None])
    weights.neg_().add_(1).clamp_(min=0).mul_(in_box.clamp(min=0)[:, None, :])
    return weights.div_(weights.sum(dim=2, keepdim=True))
