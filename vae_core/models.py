"""The models, layer by layer. A new one is a subclass of `VAE` and its entry in `MODELS`."""

import math
from itertools import pairwise

import scipy.linalg
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

    Attributes:
        name: what the model is called in configurations, folders and tables of results.
        title: what it is called where people read.
        colour: its colour in every figure.
        memory_format: how its images lie in memory.
    """

    name: str
    title: str
    colour = "#555555"
    memory_format = torch.contiguous_format

    def __init__(self, latent_dim: int, image_shape: tuple[int, int, int], hidden: int):
        super().__init__()
        self.latent_dim, self.image_shape = latent_dim, tuple(image_shape)
        self.to_mu = nn.Linear(hidden, latent_dim)
        self.to_logvar = nn.Linear(hidden, latent_dim)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and logvar of the posteriors of images [N, C, H, W] in [0, 1].

        Both are [N, latent_dim] in float32.
        """
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
        """Return uint8 images [N, C, H, W] as the model takes them: float32 in [0, 1].

        They come on the model's device and in its memory format.

        Raises:
            ValueError: they are not uint8, or of another shape than the model was built for.
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

    def __init__(self, latent_dim, image_shape):
        super().__init__(latent_dim, image_shape, hidden=256)
        sizes = [math.prod(image_shape), 512, 256]  # 3072 → 512 → 256 for 3×32×32
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
    for 32×32 and four for 64×64); transposed convolutions mirror them.

    Raises:
        ValueError: height or width is odd or below 8, so that nothing can be halved.
    """

    name, title, colour = "conv", "CVAE", "#00798c"
    memory_format = torch.channels_last

    def __init__(self, latent_dim, image_shape):
        outside, height, width = image_shape
        channels = [outside]
        while height % 2 == width % 2 == 0 and min(height, width) >= 8:
            height, width = height // 2, width // 2
            channels.append(32 * 2 ** (len(channels) - 1))  # 3×32×32 → 32×16×16 → … → 128×4×4
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
    Analysis"; Lucas et al. 2019, arXiv:1911.02469). Decoded images may leave [0, 1].

    Raises:
        ValueError: the images are larger than 3×64×64, whose covariance does not fit in memory.
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

        Raises:
            ValueError: beta is 0, so that nothing would be given up.
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


MODELS: dict[str, type[VAE]] = {
    model.name: model for model in (FCVAE, ConvVAE, Autoencoder, LinearVAE)
}
