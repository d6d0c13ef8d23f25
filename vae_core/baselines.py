"""What the two models are measured against: without noise, linear, half of one, half of the other.

They are registered in `MODELS` beside the two.
"""

import math

import scipy.linalg
import torch
from torch import Tensor, nn

from vae_core.models import FCVAE, MODELS, VAE, ConvVAE


class Autoencoder(ConvVAE):
    """The layers of the CVAE without its noise: z = mu. Trained with `beta=0`, without a prior."""

    name, title, colour = "ae", "autoencoder", "#8a6d00"

    @staticmethod
    def reparameterize(mu, logvar, generator=None):
        """Return mu."""
        return mu


class LinearVAE(VAE):
    """The best linear encoder and decoder, solved instead of trained: probabilistic PCA.

    Squared error + beta * KL is, up to a constant and a factor, the loss of a Gaussian decoder of
    variance beta / 2. Along the directions in which the training images vary by more than that it
    keeps them, and gives up the others (Tipping & Bishop 1999, "Probabilistic Principal Component
    Analysis"; Lucas et al. 2019, arXiv:1911.02469). Decoded images may leave [0, 1]. A ValueError
    says that images are larger than 3×64×64, whose covariance does not fit in memory.
    """

    name, title, colour = "linear", "linear VAE", "#5b5f97"

    def __init__(self, latent_dim, image_shape):
        values = math.prod(image_shape)
        if values > 3 * 64 * 64:
            raise ValueError(f"{self.title}: images of {values:,} values; at most 3×64×64 fit")
        super().__init__(latent_dim, image_shape, hidden=values)
        self.encoder, self.decoder = nn.Flatten(), nn.Linear(latent_dim, values)

    def decode(self, z):
        """Return the images [N, C, H, W], float32, of the latents [N, latent_dim]."""
        return self.decoder(z).float().reshape(-1, *self.image_shape)

    @torch.no_grad()
    def fit(self, images: Tensor, beta: float) -> None:
        """Take the weights that minimize squared error + beta * KL over uint8 images [N, C, H, W].

        Raises ValueError where beta is 0, so that nothing would be given up.
        """
        if not beta > 0:
            raise ValueError(f"beta is {beta!r}; the {self.title} needs one above 0")
        pixels, variance = images.flatten(1), beta / 2
        mean = sum(batch.double().sum(0) for batch in pixels.split(4096)) / (255 * len(pixels))
        covariance = torch.zeros(pixels.shape[1], pixels.shape[1])
        for batch in pixels.split(4096):
            centred = batch.float().div_(255) - mean.float()
            covariance.addmm_(centred.T, centred, alpha=1 / len(pixels))
        # The most variable directions come last.
        most = len(covariance) - min(self.latent_dim, len(covariance))
        found = scipy.linalg.eigh(covariance.numpy(), subset_by_index=(most, len(covariance) - 1))
        eigenvalues, directions = (torch.from_numpy(part).flip(-1) for part in found)
        kept = int((eigenvalues > variance).sum())
        eigenvalues, directions = eigenvalues[:kept], directions[:, :kept]
        scale = (eigenvalues - variance).sqrt()
        for parameter in self.parameters():
            parameter.zero_()
        self.decoder.weight[:, :kept] = directions * scale
        self.decoder.bias.copy_(mean)
        self.to_mu.weight[:kept] = (directions * (scale / eigenvalues)).T
        self.to_mu.bias.copy_(-self.to_mu.weight @ mean.float())
        self.to_logvar.bias[:kept] = (variance / eigenvalues).log()


class Hybrid(VAE):
    """The encoder of one model with the decoder of another."""

    memory_format = torch.channels_last
    encoding: type[VAE]
    decoding: type[VAE]

    def __init__(self, latent_dim, image_shape):
        first, second = (kind(latent_dim, image_shape) for kind in (self.encoding, self.decoding))
        super().__init__(latent_dim, image_shape, first.to_mu.in_features)
        self.encoder, self.decoder = first.encoder, second.decoder


class ConvDecoderVAE(Hybrid):
    """Fully connected on the way in, convolutional on the way out."""

    name, title, colour = "fc-conv", "FC encoder, conv decoder", "#e08e2b"
    encoding, decoding = FCVAE, ConvVAE


class ConvEncoderVAE(Hybrid):
    """Convolutional on the way in, fully connected on the way out."""

    name, title, colour = "conv-fc", "conv encoder, FC decoder", "#8f4ea8"
    encoding, decoding = ConvVAE, FCVAE


class LocalDown(nn.Module):
    """A convolution of kernel 4, stride 2, padding 1 with weights of its own at each place.

    Maps [N, C, H, W] become [N, C', H/2, W/2]. In between they lie as [H, W, N, C], so that a place
    is a matrix product.
    """

    def __init__(self, inside: int, outside: int, size: tuple[int, int]):
        super().__init__()
        self.size = height, width = size[0] // 2, size[1] // 2
        self.weight = _uniform(height * width, 16 * inside, outside, inputs=16 * inside)
        self.bias = _uniform(height * width, 1, outside, inputs=16 * inside)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of half the height and width."""
        height, width = self.size
        padded = nn.functional.pad(maps.permute(2, 3, 0, 1), (0, 0, 0, 0, 1, 1, 1, 1))
        windows = [
            padded[row : row + 2 * height : 2, column : column + 2 * width : 2]
            for row in range(4)
            for column in range(4)
        ]
        windows = torch.cat(windows, dim=3).flatten(0, 1)
        found = torch.baddbmm(self.bias, windows, self.weight).unflatten(0, self.size)
        return found.permute(2, 3, 0, 1)


class LocalUp(nn.Module):
    """Its mirror, a transposed convolution: [N, C, H, W] to [N, C', 2H, 2W]."""

    def __init__(self, inside: int, outside: int, size: tuple[int, int]):
        super().__init__()
        self.size = 2 * size[0], 2 * size[1]
        # torch counts the inputs of a transposed convolution by its outputs.
        self.weight = _uniform(size[0] * size[1], inside, 16 * outside, inputs=16 * outside)
        self.bias = _uniform(*self.size, 1, outside, inputs=16 * outside)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of double the height and width."""
        maps = maps.permute(2, 3, 0, 1)
        painted = torch.bmm(maps.flatten(0, 1), self.weight)  # a window of 4×4 for each place
        painted = painted.view(*maps.shape[:3], 4, 4, -1)
        return (self.merged(self.merged(painted, 0), 1) + self.bias).permute(2, 3, 0, 1)

    @staticmethod
    def merged(painted: Tensor, along: int) -> Tensor:
        """Add up the windows along one axis: they overlap by one on either side."""
        before, first, second, after = painted.unbind(3)
        aside = [0, 0] * (first.dim() - 1 - along)
        first = first + nn.functional.pad(after, [*aside, 1, -1])
        second = second + nn.functional.pad(before, [*aside, -1, 1])
        return torch.stack([first, second], along + 1).flatten(along, along + 1)


def _uniform(*shape: int, inputs: int) -> nn.Parameter:
    # As torch draws the weights of a layer with so many inputs.
    return nn.Parameter(torch.empty(shape).uniform_(-(inputs**-0.5), inputs**-0.5))


class LocalVAE(ConvVAE):
    """The CVAE without shared weights: locally connected, each place with filters of its own."""

    name, title, colour = "local", "locally connected", "#3d8f5f"
    memory_format = torch.contiguous_format

    def __init__(self, latent_dim, image_shape):
        super().__init__(latent_dim, image_shape)
        size = image_shape[1:]
        for layers in (self.encoder, self.decoder):
            for place, layer in enumerate(layers):
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    local = LocalDown if isinstance(layer, nn.Conv2d) else LocalUp
                    layers[place] = local(layer.in_channels, layer.out_channels, size)
                    size = layers[place].size


for kind in (Autoencoder, LinearVAE, ConvDecoderVAE, ConvEncoderVAE, LocalVAE):
    MODELS[kind.name] = kind
for kind in (FCVAE, ConvVAE):  # with half and twice the hidden units or channels
    for width, word in ((0.5, "half"), (2.0, "double")):
        name, title = f"{kind.name}-{word}", f"{kind.title} × {width:g}"
        MODELS[name] = type(name, (kind,), {"name": name, "title": title, "width": width})
