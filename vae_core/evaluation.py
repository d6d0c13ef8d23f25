"""Every number that is measured on a trained model."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vae_core.data import Dataset
from vae_core.latent import interpolate, posteriors
from vae_core.loss import elbo, kl_per_dimension
from vae_core.models import VAE

LABELLED = 10_000  # images that a linear probe learns from, at most


@torch.no_grad()
def evaluate(
    model: VAE,
    images: Tensor,
    seed: int = 0,
    beta: float = 1.0,
    reduction: str = "sum",
    batch_size: int = 512,
) -> dict[str, float]:
    """Return "loss" (reconstruction + beta * kl), "reconstruction" and "kl", in nats per image.

    They are means over uint8 images [N, C, H, W], on any device, of the objective of the training,
    with one draw of z for each from a generator seeded with `seed`: the same call gives the same
    numbers. The model may be in training or evaluation mode; it has no layers that differ. Raises
    ValueError where there are no images, or they do not fit the model.
    """
    if len(images) == 0:
        raise ValueError("there are no images to evaluate; give at least one")
    noise = torch.Generator(model.to_mu.weight.device).manual_seed(seed)
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in images.split(batch_size):
        batch = model.unit_interval(batch)
        decoded, mu, logvar = model(batch, noise)
        parts = elbo(decoded, batch, mu, logvar, beta, reduction)
        sums += torch.stack(parts).sum(1).cpu().double()
    loss, reconstruction, kl = (sums / len(images)).tolist()
    return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


@torch.no_grad()
def importance_weighted_bound(
    model: VAE, images: Tensor, draws: int = 1024, seed: int = 0
) -> Tensor:
    """Return the importance-weighted bound of each of uint8 images [N, C, H, W]: [N] in nats.

    With one draw from an image's posterior it is the loss on average; with more it falls towards
    the negative log-likelihood (Burda et al. 2016, arXiv:1509.00519), here of a Gaussian decoder of
    variance 1/2 and without its constant, as in `loss.elbo`. The draws' generator has the `seed`.
    """
    noise = torch.Generator(model.to_mu.weight.device).manual_seed(seed)
    bounds = []
    for image in images:
        batch = model.unit_interval(image[None])
        mu, logvar = model.encode(batch)
        z = model.reparameterize(mu.expand(draws, -1), logvar.expand(draws, -1), noise)
        error = (model.decode(z) - batch).square().flatten(1).sum(1)
        # log p(z) - log q(z|x); the constants of the two cancel.
        ratio = ((z - mu).square() / logvar.exp() + logvar - z.square()).sum(1) / 2
        bounds.append(math.log(draws) - (ratio - error).logsumexp(0))
    return torch.stack(bounds).cpu()


def operations(model: VAE) -> int:
    """Count the floating-point operations that one image costs in a training step.

    Forwards and backwards, as torch counts those of matrix products and convolutions; what the
    optimizer does once a batch is left out.
    """
    image = torch.zeros(1, *model.image_shape)
    with FlopCounterMode(display=False) as counter:
        decoded, mu, logvar = model(image)
        elbo(decoded, image, mu, logvar).total.sum().backward()
    model.zero_grad()
    return counter.get_total_flops()


def posterior_statistics(model: VAE, images: Tensor) -> dict[str, Tensor]:
    """Return what each latent dimension carries, over uint8 images [N, C, H, W].

    "kl" is its mean KL divergence in nats per image, "variance" that of the posterior means over
    the images, [latent_dim] each.
    """
    mu, logvar = posteriors(model, images)
    return {"kl": kl_per_dimension(mu, logvar).mean(0), "variance": mu.var(0, unbiased=False)}


def active_dimensions(model: VAE, images: Tensor) -> int:
    """Count the latent dimensions that say something about uint8 images [N, C, H, W].

    A dimension is active where the variance of the posterior means over the images is above
    0.01 (Burda et al. 2016, arXiv:1509.00519).
    """
    return int((posterior_statistics(model, images)["variance"] > 0.01).sum())


def ridge_regression(
    features: np.ndarray, targets: np.ndarray, test_features: np.ndarray, ridge: float = 1e-3
) -> np.ndarray:
    """Lay a linear map from features [N, D] to targets [N, K]; return what it says of others.

    Features are scaled to a standard deviation of 1, and the squares of the weights cost `ridge`
    per image.
    """
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    x = (features - mean) / deviation
    penalty = ridge * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(x.T @ x + penalty, x.T @ (targets - targets.mean(0)))
    return (test_features - mean) / deviation @ weights + targets.mean(0)


def class_accuracy(view: Callable[[Tensor], Tensor], dataset: Dataset) -> float | None:
    """Return how often a linear probe reads the class off test images; None where none is known.

    It is ridge regression from the features [N, D] that `view` makes of uint8 images onto one
    number a class, the largest of which is the answer, and learns from `LABELLED` at most.
    """
    try:
        learn, _, ask = dataset.labels
    except ValueError:
        return None
    seen = dataset.train[:LABELLED], dataset.test
    known, asked = (view(images).double().numpy() for images in seen)
    classes, which = np.unique(learn[:LABELLED], return_inverse=True)
    told = ridge_regression(known, np.eye(len(classes))[which], asked)
    return round(float((classes[told.argmax(1)] == ask).mean()), 4)


def unevenness(model: VAE, starts: Tensor, ends: Tensor, steps: int = 10, **how) -> Tensor:
    """Return the largest step over the mean step, [N], of strips between latents [N, latent_dim].

    A step is the root of the summed squared difference of neighbouring images in [0, 1]. The
    ratio is 1 where all steps change the image equally, and `steps` - 1 where the whole change
    happens in one jump. `how` are other arguments of `interpolate`.
    """
    ratios = []
    for z1, z2 in zip(starts, ends, strict=True):
        strip = interpolate(model, z1, z2, steps, **how)
        sizes = (strip[1:] - strip[:-1]).flatten(1).norm(dim=1)
        ratios.append(sizes.max() / sizes.mean())
    return torch.stack(ratios)
