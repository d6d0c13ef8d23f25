"""The fully connected VAE."""

import math
from itertools import pairwise

from torch import nn

from vae_core.models.vae import VAE


class FCVAE(VAE):
    """The fully connected VAE: all values of an image → 512 → 256 → latents, and back."""

    name, title, colour = "fc", "FC-VAE", "#d1495b"
    has_dropout = True
    width = 1.0  # factor on the sizes of the hidden layers

    def __init__(self, latent_dim, image_shape, dropout: float = 0.0):
        # 3072 → 512 → 256 for 3×32×32
        sizes = [math.prod(image_shape), int(512 * self.width), int(256 * self.width)]
        super().__init__(latent_dim, image_shape, hidden=sizes[-1])
        encoder = [*linear_layers(sizes), nn.ReLU()]
        decoder = linear_layers([latent_dim, *reversed(sizes)])
        if dropout > 0:
            encoder = with_dropout(encoder, dropout)
            decoder = with_dropout(decoder, dropout)
        self.encoder = nn.Sequential(nn.Flatten(), *encoder)
        self.decoder = nn.Sequential(*decoder)


class FCVAEHalf(FCVAE):
    """The FC-VAE with half as many hidden units."""

    name, title, width = "fc-half", "FC-VAE × 0.5", 0.5


class FCVAEDouble(FCVAE):
    """The FC-VAE with twice as many hidden units."""

    name, title, width = "fc-double", "FC-VAE × 2", 2.0


def linear_layers(sizes: list[int]) -> list[nn.Module]:
    """Return linear layers between neighbouring sizes, with a ReLU between every two layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]


def with_dropout(layers: list[nn.Module], dropout: float) -> list[nn.Module]:
    """Return the layers with dropout of this probability after every ReLU."""
    result: list[nn.Module] = []
    for layer in layers:
        result.append(layer)
        if isinstance(layer, nn.ReLU):
            result.append(nn.Dropout(dropout))
    return result
