"""The latent space: what is used of it, walks through it, and how smooth they are."""

import torch
from torch import Tensor

from vae_core.evaluation import posterior_statistics, to_unit_interval
from vae_core.models import VAE


def prior_draws(model: VAE, n: int, seed: int = 0) -> Tensor:
    """Draw `n` latents from the prior N(0, 1): [n, latent_dim] on the CPU, the same for a seed."""
    return torch.randn(n, model.latent_dim, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def imagine(model: VAE, n: int, seed: int = 0) -> Tensor:
    """Decode `n` draws from the prior into pictures uint8 [n, C, H, W]."""
    return (model.decode(prior_draws(model, n, seed)) * 255).round().byte()


@torch.no_grad()
def posterior_means(model: VAE, pictures: Tensor) -> Tensor:
    """Return mu of the posteriors of pictures uint8 [N, C, H, W]: [N, latent_dim]."""
    return model.encode(to_unit_interval(pictures, model))[0]


def active_dimensions(model: VAE, pictures: Tensor) -> int:
    """Count the latent dimensions that say something about pictures uint8 [N, C, H, W].

    A dimension is active where the variance of the posterior means over the pictures is above
    0.01 (Burda et al. 2016, arXiv:1509.00519).
    """
    return int((posterior_statistics(model, pictures)["variance"] > 0.01).sum())


@torch.no_grad()
def interpolate(model: VAE, z1: Tensor, z2: Tensor, steps: int = 10) -> Tensor:
    """Decode the straight line z = (1 - alpha) z1 + alpha z2 from z1 to z2.

    Args:
        z1: where it starts, [latent_dim].
        z2: where it ends, [latent_dim].
        steps: pictures on the way, both ends included; at least 2.

    Returns:
        pictures [steps, C, H, W] in [0, 1].

    Raises:
        ValueError: fewer than two steps, or latents that do not fit the model.
    """
    if not isinstance(steps, int) or steps < 2:
        raise ValueError(f"steps is {steps!r}; give a whole number of at least 2")
    for z in (z1, z2):
        if tuple(z.shape) != (model.latent_dim,):
            raise ValueError(f"a latent of shape {list(z.shape)}; give [{model.latent_dim}]")
    alpha = torch.linspace(0, 1, steps, device=z1.device).unsqueeze(1)
    return model.decode((1 - alpha) * z1 + alpha * z2)


@torch.no_grad()
def traverse(model: VAE, z: Tensor, dimension: int, reach: float = 3.0, steps: int = 10) -> Tensor:
    """Decode `z` [latent_dim] with one dimension moved from -reach to +reach about its value.

    Returns:
        pictures [steps, C, H, W] in [0, 1].

    Raises:
        ValueError: the model has no such dimension.
    """
    if not 0 <= dimension < model.latent_dim:
        raise ValueError(f"dimension is {dimension!r}; give 0 to {model.latent_dim - 1}")
    path = z.repeat(steps, 1)
    path[:, dimension] += torch.linspace(-reach, reach, steps, device=z.device)
    return model.decode(path)


def step_sizes(strip: Tensor) -> Tensor:
    """Return the distance between neighbours of a strip [steps, C, H, W]: [steps - 1].

    It is the root of the summed squared difference of two pictures, in [0, 1] units.
    """
    return (strip[1:] - strip[:-1]).flatten(1).norm(dim=1)


def unevenness(model: VAE, starts: Tensor, ends: Tensor, steps: int = 10) -> Tensor:
    """Measure how smooth interpolation is: the largest step of a strip over its mean step.

    It is 1 where all steps change the picture equally, and `steps` - 1 where the whole change
    happens in one jump.

    Args:
        starts: latents [N, latent_dim].
        ends: latents [N, latent_dim].

    Returns:
        one value for each pair, [N].
    """
    strips = (interpolate(model, z1, z2, steps) for z1, z2 in zip(starts, ends, strict=True))
    sizes = [step_sizes(strip) for strip in strips]
    return torch.stack([size.max() / size.mean() for size in sizes])
