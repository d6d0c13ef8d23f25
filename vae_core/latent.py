"""The latent space: draws from it, walks through it."""

import torch
from torch import Tensor

from vae_core.models import VAE
from vae_core.storage import whole_number


def prior_draws(model: VAE, n: int, seed: int = 0) -> Tensor:
    """Draw `n` latents from the prior N(0, 1): [n, latent_dim] on the CPU, the same for a seed."""
    return torch.randn(n, model.latent_dim, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def imagine(model: VAE, n: int, seed: int = 0) -> Tensor:
    """Decode `n` draws from the prior into uint8 images [n, C, H, W]."""
    return as_bytes(model.decode(prior_draws(model, n, seed)))


def as_bytes(images: Tensor) -> Tensor:
    """Return decoded images as uint8; what a linear decoder leaves outside [0, 1] is cut off."""
    return (images.clamp(0, 1) * 255).round().byte()


@torch.no_grad()
def posteriors(model: VAE, images: Tensor, batch_size: int = 512) -> tuple[Tensor, Tensor]:
    """Encode uint8 images [N, C, H, W]: mu and logvar, [N, latent_dim] each, on the CPU."""
    encoded = [model.encode(model.unit_interval(batch)) for batch in images.split(batch_size)]
    mu, logvar = (torch.cat(part).cpu() for part in zip(*encoded, strict=True))
    return mu, logvar


def posterior_means(model: VAE, images: Tensor) -> Tensor:
    """Return mu of the posteriors of uint8 images [N, C, H, W]: [N, latent_dim] on the CPU."""
    return posteriors(model, images)[0]


def posterior_draws(model: VAE, images: Tensor, seed: int = 0) -> Tensor:
    """Draw a latent from the posterior of each of uint8 images: [N, latent_dim] on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return model.reparameterize(*posteriors(model, images), generator)


@torch.no_grad()
def interpolate(
    model: VAE, z1: Tensor, z2: Tensor, steps: int = 10, spherical: bool = False
) -> Tensor:
    """Decode the way from z1 to z2, [latent_dim] each: images [steps, C, H, W] in [0, 1].

    It is z = (1 - alpha) z1 + alpha z2, in equal steps of alpha. A draw in d dimensions lies near
    the sphere of radius sqrt(d), and the straight line between two of them passes inside it;
    `spherical` follows the great circle instead (White 2016, "Sampling Generative Networks",
    arXiv:1609.04468). Raises ValueError for fewer than two steps.
    """
    alpha = torch.linspace(0, 1, whole_number("steps", steps, 2), device=z1.device).unsqueeze(1)
    return model.decode(between(z1, z2, alpha, spherical))


def between(z1: Tensor, z2: Tensor, alpha: Tensor, spherical: bool = False) -> Tensor:
    """Return the latents at alpha on the way from z1 to z2, straight or along the great circle."""
    return slerp(z1, z2, alpha) if spherical else (1 - alpha) * z1 + alpha * z2


def slerp(z1: Tensor, z2: Tensor, alpha: Tensor) -> Tensor:
    """Return the latents [steps, latent_dim] at alpha [steps, 1] on the great circle z1 to z2.

    The lengths of the ends are mixed evenly. Where no one circle leads from one to the other, since
    they point the same way or to opposite sides, the straight line is taken.
    """
    length1, length2 = z1.norm(), z2.norm()
    angle = torch.dot(z1 / length1, z2 / length2).clamp(-1, 1).arccos()
    if not angle.sin() > 1e-4:
        return (1 - alpha) * z1 + alpha * z2
    way = ((1 - alpha) * angle).sin() * z1 / length1 + (alpha * angle).sin() * z2 / length2
    return way / angle.sin() * ((1 - alpha) * length1 + alpha * length2)


@torch.no_grad()
def traverse(model: VAE, z: Tensor, dimension: int, reach: float = 3.0, steps: int = 10) -> Tensor:
    """Decode `z` [latent_dim], one dimension moved by -reach to +reach: [steps, C, H, W]."""
    path = z.repeat(steps, 1)
    path[:, dimension] += torch.linspace(-reach, reach, steps, device=z.device)
    return model.decode(path)
