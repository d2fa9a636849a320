"""The baseline beside our step: I-JEPA pretraining as a careful user writes it with PyTorch's usual parts.

A DataLoader of PIL images with torchvision transforms, a collator that draws blocks image by image in Python and cuts
every context and target to the shortest of the batch, a plain ViT (attention materialised or fused, by choice), AdamW
with `foreach`, an EMA in a Python loop, the loss read on the host each step for the progress bar. It is nobody's code
in particular and shares none with the package, so that the comparison is between two ways of writing the same thing.
It has the pipeline's sizes and mask ranges; since it truncates, it computes fewer context patches than `pad` keeps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from jepa_lab.data.augmentations.minimal import Minimal
from jepa_lab.maskers.multi_block import MultiBlock
from jepa_lab.models.sizes import ModelSize

Range = tuple[float, float]


@dataclass(frozen=True)
class BaselineSettings:
    """What the baseline takes over from a pipeline.

    Attributes:
        crops: scale and aspect ratio of random resized crops, with flips; None for no augmentation.
        fused: attention by `scaled_dot_product_attention` rather than by materialised scores.
        workers: processes of the DataLoader.
    """

    image_size: int
    patch_size: int
    encoder: ModelSize
    predictor: ModelSize
    masks: MultiBlock.Params
    crops: Minimal.Params | None
    batch_size: int
    fused: bool
    workers: int

    @property
    def side(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size


class PilImages(Dataset[Tensor]):
    """Images as a folder of decoded files would give them: PIL in, a normalised tensor out."""

    def __init__(self, images: np.ndarray, settings: BaselineSettings) -> None:
        size, crops = settings.image_size, settings.crops
        resize: list[nn.Module] = [transforms.Resize((size, size))]
        if crops is not None:
            resize = [
                transforms.RandomResizedCrop(size, scale=crops.crop_scale, ratio=crops.crop_aspect_ratio),
                transforms.RandomHorizontalFlip(crops.flip_probability),
            ]
        normalize = transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.images = images
        self.transform = transforms.Compose([*resize, transforms.ToTensor(), normalize])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image: Tensor = self.transform(Image.fromarray(self.images[index]))
        return image


class MaskCollator:
    """Draws target blocks and a context block for each image of a batch, in Python, and truncates both."""

    def __init__(self, settings: BaselineSettings) -> None:
        self.side, self.masks = settings.side, settings.masks

    def __call__(self, batch: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Images [B, 3, H, W], context indices [B, K] and target indices [B, M, T]."""
        drawn = [self._draw() for _ in batch]
        fewest_context = min(len(context) for context, _ in drawn)
        fewest_target = min(len(block) for _, blocks in drawn for block in blocks)
        context = torch.tensor([context[:fewest_context] for context, _ in drawn])
        target = torch.tensor([[block[:fewest_target] for block in blocks] for _, blocks in drawn])
        return torch.stack(batch), context, target

    def _draw(self) -> tuple[list[int], list[list[int]]]:
        settings = self.masks
        while True:
            targets = [
                self._block(settings.target_scale, settings.target_aspect_ratio) for _ in range(settings.num_targets)
            ]
            context = self._block(settings.context_scale, settings.context_aspect_ratio)
            left = sorted(set(context).difference(*targets))
            if len(left) >= settings.min_context_patches:
                return left, targets

    def _block(self, scale: Range, aspect_ratio: Range) -> list[int]:
        area = int(self.side**2 * random.uniform(*scale))
        ratio = random.uniform(*aspect_ratio)
        height = max(1, min(self.side, round(math.sqrt(area * ratio))))
        width = max(1, min(self.side, round(math.sqrt(area / ratio))))
        top, left = random.randint(0, self.side - height), random.randint(0, self.side - width)
        return [row * self.side + column for row in range(top, top + height) for column in range(left, left + width)]


class Attention(nn.Module):
    def __init__(self, size: ModelSize, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = size.num_heads, fused
        self.qkv = nn.Linear(size.embed_dim, 3 * size.embed_dim)
        self.proj = nn.Linear(size.embed_dim, size.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        if self.fused:
            out = F.scaled_dot_product_attention(query, key, value)
        else:
            out = ((query @ key.transpose(-2, -1)) * (width // self.heads) ** -0.5).softmax(dim=-1) @ value
        return self.proj(out.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, size: ModelSize, fused: bool) -> None:
        super().__init__()
        hidden = int(size.embed_dim * size.mlp_ratio)
        self.norm1, self.norm2 = nn.LayerNorm(size.embed_dim), nn.LayerNorm(size.embed_dim)
        self.attention = Attention(size, fused)
        self.mlp = nn.Sequential(nn.Linear(size.embed_dim, hidden), nn.GELU(), nn.Linear(hidden, size.embed_dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def at(tokens: Tensor, indices: Tensor) -> Tensor:
    """Tokens [B, N, D] at indices [B, K]."""
    return torch.gather(tokens, 1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class Encoder(nn.Module):
    def __init__(self, settings: BaselineSettings) -> None:
        super().__init__()
        size = settings.encoder
        self.patches = nn.Conv2d(3, size.embed_dim, settings.patch_size, settings.patch_size)
        self.positions = nn.Parameter(torch.randn(1, settings.side**2, size.embed_dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(size, settings.fused) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.embed_dim)

    def forward(self, images: Tensor, indices: Tensor | None = None) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.blocks(tokens if indices is None else at(tokens, indices)))


class Predictor(nn.Module):
    def __init__(self, settings: BaselineSettings) -> None:
        super().__init__()
        size, width = settings.predictor, settings.encoder.embed_dim
        self.embed, self.project = nn.Linear(width, size.embed_dim), nn.Linear(size.embed_dim, width)
        self.positions = nn.Parameter(torch.randn(1, settings.side**2, size.embed_dim) * 0.02)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size.embed_dim))
        self.blocks = nn.Sequential(*(Block(size, settings.fused) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.embed_dim)

    def forward(self, context: Tensor, context_indices: Tensor, target_indices: Tensor) -> Tensor:
        """context [B, K, D] -> predictions [B * M, T, D]."""
        batch, blocks, length = target_indices.shape
        positions = self.positions.expand(batch, -1, -1)
        known = (self.embed(context) + at(positions, context_indices)).repeat_interleave(blocks, dim=0)
        wanted = self.mask_token + at(positions, target_indices.flatten(1)).reshape(batch * blocks, length, -1)
        return self.project(self.norm(self.blocks(torch.cat([known, wanted], dim=1)))[:, -length:])


class Baseline:
    """One process's training with the parts above; `take` is one step, the next batch of the loader included."""

    def __init__(self, settings: BaselineSettings, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device, self.dtype = device, dtype
        self.encoder, self.predictor = Encoder(settings).to(device), Predictor(settings).to(device)
        self.target_encoder = Encoder(settings).to(device).requires_grad_(False)
        self.target_encoder.load_state_dict(self.encoder.state_dict())
        parameters = [*self.encoder.parameters(), *self.predictor.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05, foreach=True)
        count, size = 16 * settings.batch_size, settings.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        self.loader = DataLoader(
            PilImages(pixels, settings),
            settings.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=settings.workers,
            collate_fn=MaskCollator(settings),
            pin_memory=device.type == "cuda",
            persistent_workers=settings.workers > 0,
        )
        self._batches = self._endless()

    def _endless(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        while True:
            yield from self.loader

    def take(self) -> float:
        """One step; its loss."""
        images, context, target = (part.to(self.device, non_blocking=True) for part in next(self._batches))
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            with torch.no_grad():
                features = self.target_encoder(images)
                features = F.layer_norm(features, features.shape[-1:])
                wanted = at(features, target.flatten(1)).unflatten(1, target.shape[1:]).flatten(0, 1)
            predicted = self.predictor(self.encoder(images, context), context, target)
            loss = F.smooth_l1_loss(predicted, wanted)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.target_encoder.parameters(), self.encoder.parameters(), strict=True):
                slow.mul_(0.996).add_(fast.detach(), alpha=0.004)
        return loss.item()

    def close(self) -> None:
        """End the loader's workers."""
        del self._batches, self.loader
