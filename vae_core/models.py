"""The two models, layer by layer. A new one is a subclass of `VAE` and its entry in `MODELS`."""

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn


class VAE(nn.Module):
    """What all models share: everything but the layers of the encoder and the decoder.

    The posterior is a diagonal Gaussian N(mu, exp(logvar)) and the prior is N(0, 1)
    (Kingma & Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114).

    A subclass is built from `latent_dim` and `image_shape` alone. It says how many values `hidden`
    its encoder ends with, and builds `encoder` (images [N, C, H, W] to [N, hidden]) and `decoder`
    (latents [N, latent_dim] to logits that reshape to [N, C, H, W]). One with a method `fit(images,
    beta)` is solved by it instead of trained.
    """

    name: str  # in configurations, folders and tables of results
    title: str  # where people read
    colour = "#555555"  # in every figure
    memory_format = torch.contiguous_format  # of its images

    def __init__(self, latent_dim: int, image_shape: tuple[int, int, int], hidden: int):
        super().__init__()
        self.latent_dim, self.image_shape = latent_dim, tuple(image_shape)
        self.to_mu = nn.Linear(hidden, latent_dim)
        self.to_logvar = nn.Linear(hidden, latent_dim)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and logvar, float32 [N, latent_dim], of images [N, C, H, W] in [0, 1]."""
        hidden = self.encoder(images)
        return self.to_mu(hidden).float(), self.to_logvar(hidden).float()

    @staticmethod
    def reparameterize(mu: Tensor, logvar: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw z = mu + sigma * noise, [N, latent_dim]: a draw that gradients pass through.

        The noise is from the generator, on the device of `mu`; torch's own where it is None.
        """
        noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        return mu + noise * torch.exp(0.5 * logvar)

    def decode(self, z: Tensor) -> Tensor:
        """Return the images [N, C, H, W] in [0, 1], float32, of the latents [N, latent_dim]."""
        return torch.sigmoid(self.decoder(z).float()).reshape(-1, *self.image_shape)

    def forward(
        self, images: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images [N, C, H, W], draw z, decode; return the decoded images, mu, logvar."""
        mu, logvar = self.encode(images)
        return self.decode(self.reparameterize(mu, logvar, generator)), mu, logvar

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Decode `n` draws from the prior: images [n, C, H, W] in [0, 1]."""
        device = self.to_mu.weight.device
        return self.decode(torch.randn(n, self.latent_dim, generator=generator, device=device))

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior means of uint8 images [N, C, H, W]; the same at every call."""
        return self.decode(self.encode(self.unit_interval(images))[0])

    def unit_interval(self, images: Tensor) -> Tensor:
        """Return uint8 images [N, C, H, W] as float32 in [0, 1], as and where the model takes them.

        Raises ValueError where they are not uint8, or of another shape than that of the model.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images of {images.dtype} {list(images.shape)} do not fit this {self.title}; "
                f"give uint8 [N, {', '.join(map(str, self.image_shape))}], values from 0 to 255"
            )
        images = images.to(self.to_mu.weight.device)
        return images.to(torch.float32, memory_format=self.memory_format).div_(255)


class FCVAE(VAE):
    """The fully connected VAE: all values of an image, 512, 256, the latents, and back."""

    name, title, colour = "fc", "FC-VAE", "#d1495b"
    width = 1.0  # times the hidden layers

    def __init__(self, latent_dim, image_shape):
        # 3072 → 512 → 256 for 3×32×32
        sizes = [math.prod(image_shape), int(512 * self.width), int(256 * self.width)]
        super().__init__(latent_dim, image_shape, hidden=sizes[-1])
        self.encoder = nn.Sequential(nn.Flatten(), *self.linear_layers(sizes), nn.ReLU())
        self.decoder = nn.Sequential(*self.linear_layers([latent_dim, *reversed(sizes)]))

    @staticmethod
    def linear_layers(sizes: list[int]) -> list[nn.Module]:
        """Return linear layers between neighbouring sizes, with a ReLU between every two."""
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return layers[:-1]


class ConvVAE(VAE):
    """The convolutional VAE: strided convolutions down to about 4×4, the latents, and back.

    Each convolution halves height and width, and the channels are 32, 64, 128 … (so three of them
    for 32×32 and four for 64×64); transposed convolutions mirror them. Raises ValueError where
    height or width is odd or below 8, so that nothing can be halved.
    """

    name, title, colour = "conv", "CVAE", "#00798c"
    memory_format = torch.channels_last
    width = 1.0  # times the channels

    def __init__(self, latent_dim, image_shape):
        outside, height, width = image_shape
        channels = [outside]
        while height % 2 == width % 2 == 0 and min(height, width) >= 8:
            height, width = height // 2, width // 2
            # 3×32×32 → 32×16×16 → … → 128×4×4
            channels.append(int(32 * self.width) * 2 ** (len(channels) - 1))
        if len(channels) == 1:
            raise ValueError(f"images of {height} × {width} cannot be halved; give an even size")
        hidden = channels[-1] * height * width
        super().__init__(latent_dim, image_shape, hidden)
        halving = {"kernel_size": 4, "stride": 2, "padding": 1}
        encoder, decoder = [], []
        for outer, inner in pairwise(channels):
            encoder += [nn.Conv2d(outer, inner, **halving), nn.ReLU()]
            decoder = [nn.ReLU(), nn.ConvTranspose2d(inner, outer, **halving), *decoder]
        self.encoder = nn.Sequential(*encoder, nn.Flatten())
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.Unflatten(1, (channels[-1], height, width)),
            *decoder,
        )


MODELS: dict[str, type[VAE]] = {model.name: model for model in (FCVAE, ConvVAE)}
