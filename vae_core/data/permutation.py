"""One fixed permutation of the pixels of all images, to take their neighbourhoods away."""

import numpy as np
import torch
from torch import Tensor

from vae_core.storage import check_float


def pixel_permutation(pixels: int, share: float, seed: int = 0) -> Tensor:
    """Return an order [pixels] that moves this share of them, in one cycle.

    Raises ValueError where the share is not from 0 to 1.
    """
    check_float("permuted", share, at_most=1)
    order = torch.arange(pixels)
    shuffled = np.random.default_rng(seed).permutation(pixels)
    moved = torch.from_numpy(shuffled[: round(share * pixels)])
    order[moved] = moved.roll(1)
    return order


def permute_pixels(images: Tensor, order: Tensor) -> Tensor:
    """Return images [N, C, H, W] whose pixels are taken from the places in `order`, [H * W].

    `order.argsort()` undoes it. Raises ValueError where `order` is not one of H * W places.
    """
    pixels = images.shape[2] * images.shape[3]
    if not torch.equal(order.sort().values, torch.arange(pixels)):
        raise ValueError(
            f"the order is not a permutation of {pixels} pixels; make one with pixel_permutation()"
        )
    return images.flatten(2)[:, :, order].view(images.shape)
