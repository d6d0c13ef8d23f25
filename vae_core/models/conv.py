"""The convolutional VAE."""

from itertools import pairwise

import torch
from torch import nn

from vae_core.models.vae import VAE

MAX_SIDE = 16  # of the last map
HALVE = {"kernel_size": 4, "stride": 2, "padding": 1}  # halves, or transposed doubles, a size


class ConvVAE(VAE):
    """The convolutional VAE: strided convolutions down to about 4×4, the latents, and back.

    Each convolution halves height and width, and the channels are 32, 64, 128 … (three of them
    for 32×32, four for 64×64); transposed convolutions mirror them. Raises ValueError, which names
    sizes that fit, where height and width cannot be halved to at most 16, since the layers between
    the last map and the latents would be far larger than the convolutions.
    """

    name, title, colour = "conv", "CVAE", "#00798c"
    memory_format = torch.channels_last
    width = 1.0  # factor on the numbers of channels

    def __init__(self, latent_dim, image_shape):
        channels, height, width = self.shrink(image_shape)
        hidden = channels[-1] * height * width
        super().__init__(latent_dim, image_shape, hidden)
        encoder, decoder = [], []
        for outer, inner in pairwise(channels):
            encoder += [nn.Conv2d(outer, inner, **HALVE), nn.ReLU()]
            decoder = [nn.ReLU(), nn.ConvTranspose2d(inner, outer, **HALVE), *decoder]
        self.encoder = nn.Sequential(*encoder, nn.Flatten())
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.Unflatten(1, (channels[-1], height, width)),
            *decoder,
        )

    @classmethod
    def shrink(cls, image_shape: tuple[int, int, int]) -> tuple[list[int], int, int]:
        """Return the channels from the image to the last map, and that map's height and width.

        3×32×32 → 32×16×16 → 64×8×8 → 128×4×4 gives [3, 32, 64, 128], 4, 4.
        """
        image_channels, image_height, image_width = image_shape
        height, halvings = halve(image_height, image_width)
        width = image_width >> halvings
        if halvings == 0 or max(height, width) > MAX_SIDE:
            raise ValueError(
                f"images of {image_height} × {image_width} can be halved only to {height} × "
                f"{width}; {cls.title} needs at most {MAX_SIDE} × {MAX_SIDE}: "
                f"give a size such as {' or '.join(map(str, good_sizes(image_height)))}"
            )
        channels = [int(32 * cls.width) * 2**index for index in range(halvings)]
        return [image_channels, *channels], height, width


def halve(height: int, width: int) -> tuple[int, int]:
    """Halve height and width while both are even and at least 8; return height and halvings."""
    halvings = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 8:
        height, width, halvings = height // 2, width // 2, halvings + 1
    return height, halvings


def good_sizes(size: int) -> list[int]:
    """Return the nearest sizes below and above that the CVAE takes; 62 gives 60 and 64."""
    fitting = []
    for candidate in range(8, 257):
        last, halvings = halve(candidate, candidate)
        if halvings > 0 and last <= MAX_SIDE:
            fitting.append(candidate)
    below = [candidate for candidate in fitting if candidate < size]
    above = [candidate for candidate in fitting if candidate > size]
    return below[-1:] + above[:1]


class ConvVAEHalf(ConvVAE):
    """The CVAE with half as many channels."""

    name, title, width = "conv-half", "CVAE × 0.5", 0.5


class ConvVAEDouble(ConvVAE):
    """The CVAE with twice as many channels."""

    name, title, width = "conv-double", "CVAE × 2", 2.0
