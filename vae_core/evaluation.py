"""Every number that is measured on a trained model."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vae_core.latent import interpolate, posterior_parameters
from vae_core.loss import elbo, kl_per_dimension
from vae_core.models import VAE

PROBE_IMAGES = 10_000  # training images that a linear probe learns from, at most
MIN_EPOCHS = 15  # for `oscillation`


@torch.no_grad()
def evaluate(
    model: VAE,
    images: Tensor,
    seed: int = 0,
    beta: float = 1.0,
    reduction: str = "sum",
    batch_size: int = 512,
) -> dict[str, float]:
    """Return "loss", "reconstruction" (squared error) and "kl", means over images in nats.

    The loss is that of the training, `loss.elbo` with the model's own decoder variance, and one
    sample of z for each image from a generator seeded with `seed`, so the same call gives the same
    numbers. Where the decoder variance is learned there is also "bits_per_dim": the negative ELBO
    (beta 1) in bits per value of an image, for values of 8 bits. It takes the density of the
    values on [0, 1] and adds 8 bits, without dequantization noise, which is right while the
    variance is far above that of the rounding, 1 / (12 * 255²).

    Args:
        images: uint8 [N, C, H, W], on any device.

    Raises ValueError where there are no images, or they do not fit the model.
    """
    if len(images) == 0:
        raise ValueError("there are no images to evaluate; give at least one")
    noise = torch.Generator().manual_seed(seed)
    sums = torch.zeros(3, dtype=torch.float64)
    was_training = model.training
    model.eval()
    for image_batch in images.split(batch_size):
        batch = model.to_unit_interval(image_batch)
        decoded, mu, logvar = model(batch, noise)
        parts = elbo(decoded, batch, mu, logvar, beta, reduction, model.decoder_variance)
        sums += torch.stack(parts).sum(1).cpu().double()
    model.train(was_training)
    loss, reconstruction, kl = (sums / len(images)).tolist()
    measured = {"loss": loss, "reconstruction": reconstruction, "kl": kl}
    if model.decoder_variance is not None:
        negative_elbo = loss + (1 - beta) * kl
        measured["bits_per_dim"] = bits_per_dim(negative_elbo, math.prod(model.image_shape))
    return measured


def bits_per_dim(nats: float, values: int) -> float:
    """Return bits per value of an 8-bit image from the nats of its `values` scaled to [0, 1]."""
    return nats / (values * math.log(2)) + 8


@torch.no_grad()
def importance_weighted_bound(
    model: VAE, images: Tensor, samples: int = 1024, seed: int = 0
) -> Tensor:
    """Return the importance-weighted bound of each of uint8 images [N, C, H, W]: [N] in nats.

    With one sample from the posterior it is the loss on average; with more samples it falls towards
    the negative log-likelihood (Burda et al. 2016, arXiv:1509.00519), here of a Gaussian decoder of
    variance 1/2 and without its constant, as in `loss.elbo`. `seed` seeds the samples.
    """
    noise = torch.Generator().manual_seed(seed)
    bounds = []
    for image in images:
        batch = model.to_unit_interval(image[None])
        mu, logvar = model.encode(batch)
        z = model.reparameterize(mu.expand(samples, -1), logvar.expand(samples, -1), noise)
        error = (model.decode(z) - batch).square().flatten(1).sum(1)
        # log p(z) - log q(z|x); the constants of the two cancel.
        ratio = ((z - mu).square() / logvar.exp() + logvar - z.square()).sum(1) / 2
        bounds.append(math.log(samples) - (ratio - error).logsumexp(0))
    return torch.stack(bounds).cpu()


def operations(model: VAE) -> int:
    """Count the floating-point operations of one image in a training step.

    Forward and backward pass, as torch counts matrix products and convolutions; the optimizer,
    which works once a batch, is left out.
    """
    image = torch.zeros(1, *model.image_shape)
    with FlopCounterMode(display=False) as counter:
        decoded, mu, logvar = model(image)
        elbo(decoded, image, mu, logvar).total.sum().backward()
    model.zero_grad()
    return counter.get_total_flops()


def posterior_statistics(model: VAE, images: Tensor) -> dict[str, Tensor]:
    """Return statistics of each latent over uint8 images [N, C, H, W], [latent_dim] each.

    "kl" is the mean KL divergence in nats per image, "variance" the variance of the posterior
    means over the images.
    """
    mu, logvar = posterior_parameters(model, images)
    return {"kl": kl_per_dimension(mu, logvar).mean(0), "variance": mu.var(0, unbiased=False)}


def active_dimensions(model: VAE, images: Tensor) -> int:
    """Count the active latents on uint8 images [N, C, H, W].

    A latent is active where the variance of the posterior means over the images is above
    0.01 (Burda et al. 2016, arXiv:1509.00519).
    """
    return int((posterior_statistics(model, images)["variance"] > 0.01).sum())


def ridge_regression(
    features: np.ndarray, targets: np.ndarray, test_features: np.ndarray, ridge: float = 1e-3
) -> np.ndarray:
    """Fit ridge regression and return its predictions for `test_features`, [M, K].

    Features [N, D] are standardized. The penalty on the squared weights is `ridge` per image.
    """
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    x = (features - mean) / deviation
    penalty = ridge * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(x.T @ x + penalty, x.T @ (targets - targets.mean(0)))
    return (test_features - mean) / deviation @ weights + targets.mean(0)


def class_accuracy(
    features: Callable[[Tensor], Tensor],
    train_images: Tensor,
    train_labels: np.ndarray,
    test_images: Tensor,
    test_labels: np.ndarray,
) -> float:
    """Return the share of test images whose class a linear probe predicts.

    The probe is ridge regression from features onto one indicator a class; it predicts the class
    of the largest output. It learns from the first `PROBE_IMAGES` training images.

    Args:
        features: returns the features [N, D] of uint8 images [N, C, H, W].
        train_labels, test_labels: the class of each image.
    """
    train_features = features(train_images[:PROBE_IMAGES]).double().numpy()
    test_features = features(test_images).double().numpy()
    classes, indices = np.unique(train_labels[:PROBE_IMAGES], return_inverse=True)
    indicators = np.eye(len(classes))[indices]
    outputs = ridge_regression(train_features, indicators, test_features)
    predictions = classes[outputs.argmax(1)]
    return round(float((predictions == test_labels).mean()), 4)


def unevenness(
    model: VAE, starts: Tensor, ends: Tensor, steps: int = 10, spherical: bool = False
) -> Tensor:
    """Return the largest step over the mean step of each interpolation, [N].

    `starts` and `ends` are latents [N, latent_dim]. A step is the root of the summed squared
    difference of neighbouring images in [0, 1]. The ratio is 1 where all steps change the image
    equally, and `steps` - 1 where the whole change happens in one jump.
    """
    ratios = []
    for z1, z2 in zip(starts, ends, strict=True):
        images = interpolate(model, z1, z2, steps, spherical)
        step_sizes = (images[1:] - images[:-1]).flatten(1).norm(dim=1)
        ratios.append(step_sizes.max() / step_sizes.mean())
    return torch.stack(ratios)


def oscillation(history: Sequence[dict[str, float]]) -> float:
    """Return how much the validation loss jumps about its trend, in nats per image.

    It is the standard deviation of the jumps if they are independent and the trend is locally
    straight: the root mean square of the losses' second differences over the square root of 6. The
    first third, where the loss falls steeply, is left out. NaN for fewer than 15 epochs.
    """
    if len(history) < MIN_EPOCHS:
        return math.nan
    later = [row["validation_loss"] for row in history][len(history) // 3 :]
    return float(np.sqrt(np.mean(np.diff(later, n=2) ** 2) / 6))
