"""What all models share: the posterior, its samples, the sigmoid at the end of the decoder."""

import torch
from torch import Generator, Tensor, nn


class VAE(nn.Module):
    """A variational autoencoder without the layers of its encoder and its decoder.

    The posterior is a diagonal Gaussian N(mu, exp(logvar)) and the prior is N(0, 1)
    (Kingma & Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114).

    A subclass is built from `latent_dim` and `image_shape` (C, H, W). It calls this constructor
    with the number `hidden` of values that its encoder ends with, and then sets `encoder` (images
    [N, C, H, W] to [N, hidden]) and `decoder` (latents [N, latent_dim] to logits that reshape to
    [N, C, H, W]). A subclass with `closed_form = True` also has a method `fit(images, variance)`,
    which computes its weights; such a model is solved instead of trained.
    """

    name: str  # in configurations, folder names and tables of results
    title: str  # in figures and text
    colour = "#555555"  # in figures
    memory_format = torch.contiguous_format  # of the images it is given
    closed_form = False  # whether it is solved by `fit` instead of trained
    has_dropout = False  # whether its constructor takes `dropout`

    def __init__(self, latent_dim: int, image_shape: tuple[int, int, int], hidden: int):
        super().__init__()
        self.latent_dim = latent_dim
        self.image_shape = tuple(image_shape)
        self.to_mu = nn.Linear(hidden, latent_dim)
        self.to_logvar = nn.Linear(hidden, latent_dim)
        # The variance of the Gaussian decoder where it is learned, a scalar; stored with the
        # weights. None is the original study's loss, squared error + KL.
        self.register_buffer("decoder_variance", None)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and logvar, float32 [N, latent_dim], of images [N, C, H, W] in [0, 1]."""
        hidden = self.encoder(images)
        return self.to_mu(hidden).float(), self.to_logvar(hidden).float()

    @staticmethod
    def reparameterize(mu: Tensor, logvar: Tensor, generator: Generator | None = None) -> Tensor:
        """Return samples z = mu + sigma * noise of the posteriors, [N, latent_dim].

        Gradients reach mu and sigma, since the randomness is all in the noise. The noise comes
        from `generator`, which may be on another device than `mu`, or from torch's global one.
        """
        device = mu.device if generator is None else generator.device
        noise = torch.randn(mu.shape, generator=generator, device=device, dtype=mu.dtype)
        return mu + noise.to(mu.device) * torch.exp(0.5 * logvar)

    def decode(self, z: Tensor) -> Tensor:
        """Return the images [N, C, H, W] in [0, 1], float32, of the latents [N, latent_dim]."""
        return torch.sigmoid(self.decoder(z).float()).reshape(-1, *self.image_shape)

    def forward(
        self, images: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images [N, C, H, W], sample z, decode; return decoded images, mu and logvar."""
        mu, logvar = self.encode(images)
        return self.decode(self.reparameterize(mu, logvar, generator)), mu, logvar

    @torch.no_grad()
    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """Decode `n` samples from the prior: images [n, C, H, W] in [0, 1]."""
        device = self.to_mu.weight.device
        return self.decode(torch.randn(n, self.latent_dim, generator=generator, device=device))

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Decode the posterior means of uint8 images [N, C, H, W]: images in [0, 1]."""
        mu, _ = self.encode(self.to_unit_interval(images))
        return self.decode(mu)

    def to_unit_interval(self, images: Tensor) -> Tensor:
        """Return uint8 images [N, C, H, W] as float32 in [0, 1], on the device of the model.

        Raises ValueError where they are not uint8, or not of the model's image shape.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images of {images.dtype} {list(images.shape)} do not fit this {self.title}; "
                f"give uint8 [N, {', '.join(map(str, self.image_shape))}], values from 0 to 255"
            )
        images = images.to(self.to_mu.weight.device)
        return images.to(torch.float32, memory_format=self.memory_format).div_(255)
