"""The latent space: samples from it, interpolation and traversal."""

import torch
from torch import Tensor

from vae_core.models import VAE
from vae_core.storage import check_int


def prior_samples(model: VAE, n: int, seed: int = 0) -> Tensor:
    """Return `n` latents sampled from the prior N(0, 1): [n, latent_dim] on the CPU."""
    return torch.randn(n, model.latent_dim, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def generate(model: VAE, n: int, seed: int = 0) -> Tensor:
    """Decode `n` samples from the prior into uint8 images [n, C, H, W]."""
    return to_uint8(model.decode(prior_samples(model, n, seed)))


def to_uint8(images: Tensor) -> Tensor:
    """Return decoded images as uint8; values outside [0, 1], as a linear decoder has, are cut."""
    return (images.clamp(0, 1) * 255).round().byte()


@torch.no_grad()
def posterior_parameters(
    model: VAE, images: Tensor, batch_size: int = 512
) -> tuple[Tensor, Tensor]:
    """Encode uint8 images [N, C, H, W]: mu and logvar, [N, latent_dim] each, on the CPU."""
    means, log_variances = [], []
    for batch in images.split(batch_size):
        mu, logvar = model.encode(model.to_unit_interval(batch))
        means.append(mu)
        log_variances.append(logvar)
    return torch.cat(means).cpu(), torch.cat(log_variances).cpu()


def posterior_means(model: VAE, images: Tensor) -> Tensor:
    """Return mu of the posteriors of uint8 images [N, C, H, W]: [N, latent_dim] on the CPU."""
    mu, _ = posterior_parameters(model, images)
    return mu


def posterior_samples(model: VAE, images: Tensor, seed: int = 0) -> Tensor:
    """Return one sample from the posterior of each uint8 image: [N, latent_dim] on the CPU."""
    mu, logvar = posterior_parameters(model, images)
    return model.reparameterize(mu, logvar, torch.Generator().manual_seed(seed))


@torch.no_grad()
def interpolate(
    model: VAE, z1: Tensor, z2: Tensor, steps: int = 10, spherical: bool = False
) -> Tensor:
    """Decode the path from z1 to z2, [latent_dim] each: images [steps, C, H, W] in [0, 1].

    The path is z = (1 - alpha) z1 + alpha z2, in equal steps of alpha. A sample from N(0, 1) in d
    dimensions lies near the sphere of radius sqrt(d), and the straight line between two of them
    passes inside it; `spherical` follows the great circle instead (White 2016, "Sampling
    Generative Networks", arXiv:1609.04468). Raises ValueError for fewer than two steps.
    """
    check_int("steps", steps, at_least=2)
    alpha = torch.linspace(0, 1, steps, device=z1.device).unsqueeze(1)
    return model.decode(interpolate_latents(z1, z2, alpha, spherical))


def interpolate_latents(z1: Tensor, z2: Tensor, alpha: Tensor, spherical: bool = False) -> Tensor:
    """Return the latents at alpha on the path from z1 to z2, straight or along the great circle."""
    if spherical:
        return slerp(z1, z2, alpha)
    return (1 - alpha) * z1 + alpha * z2


def slerp(z1: Tensor, z2: Tensor, alpha: Tensor) -> Tensor:
    """Return the latents [steps, latent_dim] at alpha [steps, 1] on the great circle z1 to z2.

    The lengths of the ends are interpolated linearly. Where no unique great circle leads from one
    to the other, since they point the same way or to opposite sides, the straight line is taken.
    The middle between (2, 0) and (0, 2), for example, is (1.41, 1.41), of length 2.
    """
    length1, length2 = z1.norm(), z2.norm()
    angle = torch.dot(z1 / length1, z2 / length2).clamp(-1, 1).arccos()
    if not angle.sin() > 1e-4:
        return (1 - alpha) * z1 + alpha * z2
    weight1 = ((1 - alpha) * angle).sin()
    weight2 = (alpha * angle).sin()
    direction = (weight1 * z1 / length1 + weight2 * z2 / length2) / angle.sin()
    return direction * ((1 - alpha) * length1 + alpha * length2)


@torch.no_grad()
def traverse(model: VAE, z: Tensor, dimension: int, reach: float = 3.0, steps: int = 10) -> Tensor:
    """Decode `z` [latent_dim] with one latent varied by -reach to +reach: [steps, C, H, W]."""
    latents = z.repeat(steps, 1)
    latents[:, dimension] += torch.linspace(-reach, reach, steps, device=z.device)
    return model.decode(latents)
