"""A test script of the kind that papers ship: a Dataset, a DataLoader, a loop, and nothing more.

Written after the repositories of RINE, NPR, AlignedForensics and FerretNet, whose transforms are
torchvision's on Pillow images. torchvision itself is not needed: `resize`, `center_crop`,
`to_tensor` and `normalize` below are what its functions of these names do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Picture: TypeAlias = "Image.Image"
Transform = Callable[[Picture], Tensor]  # to float32 [3, H, W], normalised


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Image files through a transform."""

    def __init__(self, paths: Sequence[Path], transform: Transform):
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), index


def score_files(
    model: nn.Module,
    transform: Transform,
    paths: Sequence[Path],
    *,
    batch: int,
    workers: int,
    seconds: float = float("inf"),
) -> tuple[list[float], float]:
    """The logits of the files, and images per second after the first batch.

    It stops after `seconds`, but not before the third batch.
    """
    loader = DataLoader(ImageDataset(paths, transform), batch_size=batch, num_workers=workers)
    model.eval()
    logits: list[float] = []
    with torch.no_grad():
        for count, (images, _indices) in enumerate(loader):
            logits += model(images).flatten().tolist()
            now = time.perf_counter()
            if count == 0:
                start = now
            elif count >= 2 and now - start > seconds:
                break
    return logits, (len(logits) - batch) / max(now - start, 1e-9)


def resize(image: Picture, height: int, width: int) -> Picture:
    """torchvision's `Resize((height, width))`: bilinear, of a Pillow image."""
    return image.resize((width, height), Image.Resampling.BILINEAR)


def center_crop(image: Picture, size: int) -> Picture:
    """torchvision's `CenterCrop(size)`: an image that is too small gets black borders first."""
    width, height = image.size
    if width < size or height < size:
        padded = Image.new("RGB", (max(width, size), max(height, size)))
        padded.paste(image, (max(0, (size - width) // 2), max(0, (size - height) // 2)))
        image, (width, height) = padded, padded.size
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def to_tensor(image: Picture) -> Tensor:
    """torchvision's `ToTensor()`: [3, H, W], 0 to 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().div(255.0)


def normalize(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """torchvision's `Normalize(mean, std)`."""
    return (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
