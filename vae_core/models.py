"""The two variational autoencoders that the study compares."""

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

IMAGE_SHAPE = (3, 32, 32)


class VAE(nn.Module):
    """What both models share: everything but the layers of the encoder and the decoder.

    The posterior is a diagonal Gaussian N(mu, exp(logvar)) and the prior is N(0, 1)
    (Kingma & Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114).

    A subclass builds `encoder` (pictures [N, C, H, W] to hidden values [N, hidden]) and
    `decoder` (latents [N, latent_dim] to logits that reshape to [N, C, H, W]).

    Raises:
        ValueError: `latent_dim` is not a whole number of at least 1, or `image_shape` is not
            three whole numbers that the layers can take.
    """

    name: str
    title: str
    memory_format = torch.contiguous_format

    def __init__(self, latent_dim: int, image_shape: tuple[int, int, int], hidden: int):
        super().__init__()
        if not isinstance(latent_dim, int) or latent_dim < 1:
            raise ValueError(f"latent_dim is {latent_dim!r}; give a whole number of at least 1")
        self.latent_dim = latent_dim
        self.image_shape = image_shape
        self.to_mu = nn.Linear(hidden, latent_dim)
        self.to_logvar = nn.Linear(hidden, latent_dim)

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and logvar of the posterior, each [N, latent_dim] in float32.

        Args:
            pictures: [N, C, H, W] in [0, 1].

        Raises:
            ValueError: the pictures do not have the shape that the model was built for.
        """
        if tuple(pictures.shape[1:]) != self.image_shape:
            raise ValueError(
                f"pictures of shape {list(pictures.shape)} do not fit {type(self).__name__}, "
                f"which was built for [N, {', '.join(map(str, self.image_shape))}]; "
                "resize them or build the model with their image_shape"
            )
        hidden = self.encoder(pictures)
        return self.to_mu(hidden).float(), self.to_logvar(hidden).float()

    @staticmethod
    def reparameterize(mu: Tensor, logvar: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw z = mu + sigma * noise, [N, latent_dim]: a draw that gradients pass through.

        Args:
            mu: [N, latent_dim].
            logvar: log of sigma squared, [N, latent_dim].
            generator: source of the noise, on the device of `mu`; torch's own where it is None.
        """
        noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        return mu + noise * torch.exp(0.5 * logvar)

    def decode(self, z: Tensor) -> Tensor:
        """Return the pictures [N, C, H, W] in [0, 1], float32, of the latents [N, latent_dim].

        Raises:
            ValueError: the latents do not have `latent_dim` dimensions.
        """
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(
                f"latents of shape {list(z.shape)} do not fit; give [N, {self.latent_dim}]"
            )
        return torch.sigmoid(self.decoder(z).float()).reshape(-1, *self.image_shape)

    def forward(
        self, pictures: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw z, decode; return the decoded pictures, mu and logvar.

        Args:
            pictures: [N, C, H, W] in [0, 1].
            generator: source of the noise in z.
        """
        mu, logvar = self.encode(pictures)
        return self.decode(self.reparameterize(mu, logvar, generator)), mu, logvar

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Decode `n` draws from the prior: pictures [n, C, H, W] in [0, 1]."""
        device = self.to_mu.weight.device
        return self.decode(torch.randn(n, self.latent_dim, generator=generator, device=device))

    @torch.no_grad()
    def reconstruct(self, pictures: Tensor) -> Tensor:
        """Decode the posterior means of the pictures [N, C, H, W]; the same at every call."""
        return self.decode(self.encode(pictures)[0])


class FCVAE(VAE):
    """The fully connected VAE: 3072 values, two hidden layers, the latents, and back.

    Args:
        latent_dim: dimensions of the latent space.
        image_shape: channels, height, width.
        hidden: sizes of the encoder's layers; the decoder mirrors them.
    """

    name = "fc"
    title = "FC-VAE"

    def __init__(self, latent_dim, image_shape=IMAGE_SHAPE, hidden=(512, 256)):
        image_shape = _checked(image_shape)
        super().__init__(latent_dim, image_shape, hidden[-1])
        sizes = [math.prod(image_shape), *hidden]
        self.encoder = nn.Sequential(nn.Flatten(), *_linear_layers(sizes), nn.ReLU())
        self.decoder = nn.Sequential(*_linear_layers([latent_dim, *reversed(sizes)]))


class ConvVAE(VAE):
    """The convolutional VAE: three strided convolutions, the latents, and back.

    Args:
        latent_dim: dimensions of the latent space.
        image_shape: channels, height, width; height and width must be multiples of 8, because
            each of the three convolutions halves them.
        channels: channels after each convolution; the decoder mirrors them.
    """

    name = "conv"
    title = "CVAE"
    memory_format = torch.channels_last

    def __init__(self, latent_dim, image_shape=IMAGE_SHAPE, channels=(32, 64, 128)):
        image_shape = _checked(image_shape, multiple=2 ** len(channels))
        height, width = (side // 2 ** len(channels) for side in image_shape[1:])
        hidden = channels[-1] * height * width
        super().__init__(latent_dim, image_shape, hidden)
        sizes = [image_shape[0], *channels]
        halving = {"kernel_size": 4, "stride": 2, "padding": 1}
        encoder, decoder = [], []
        for outer, inner in zip(sizes, channels, strict=False):
            encoder += [nn.Conv2d(outer, inner, **halving), nn.ReLU()]
            decoder = [nn.ReLU(), nn.ConvTranspose2d(inner, outer, **halving), *decoder]
        self.encoder = nn.Sequential(*encoder, nn.Flatten())
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.Unflatten(1, (channels[-1], height, width)),
            *decoder,
        )


MODELS: dict[str, type[VAE]] = {model.name: model for model in (FCVAE, ConvVAE)}


def build_model(name: str, latent_dim: int, image_shape=IMAGE_SHAPE) -> VAE:
    """Build the model of this name, "fc" or "conv", with torch's random initial weights.

    Raises:
        ValueError: there is no such model; the message lists the known ones.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(MODELS)}")
    return MODELS[name](latent_dim, image_shape)


def _linear_layers(sizes: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
    for before, after in pairwise(sizes[1:]):
        layers += [nn.ReLU(), nn.Linear(before, after)]
    return layers


def _checked(image_shape, multiple: int = 1) -> tuple[int, int, int]:
    shape = tuple(image_shape)
    whole = len(shape) == 3 and all(isinstance(size, int) and size > 0 for size in shape)
    if not whole or any(side % multiple for side in shape[1:]):
        rule = f" with height and width multiples of {multiple}" if multiple > 1 else ""
        raise ValueError(f"image_shape is {image_shape!r}; give (channels, height, width){rule}")
    return shape
