"""The loss of a variational autoencoder: the negative evidence lower bound (ELBO)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

LOSS_PARTS = ("loss", "reconstruction", "kl")  # in histories, summaries and tables


class ELBO(NamedTuple):
    """The negative ELBO and its two parts, each [N]: one value an image."""

    total: Tensor  # what training minimizes, in nats per image
    reconstruction: Tensor  # the squared error of an image
    kl: Tensor  # KL(q(z|x) || p(z)) in nats per image


def elbo(
    reconstruction: Tensor,
    images: Tensor,
    mu: Tensor,
    logvar: Tensor,
    beta: float = 1.0,
    reduction: str = "sum",
    variance: Tensor | None = None,
) -> ELBO:
    """Return the negative ELBO of each image and its parts.

    Without a `variance`, the total is squared error + beta * KL, the loss of the original study.
    The squared error is the negative log-likelihood of a Gaussian decoder of variance 1/2, up to
    the constant D/2 * log(pi), where D is the number of values of an image.

    With a `variance` the total is D/2 * log(2 pi variance) + squared error / (2 variance)
    + beta * KL, constant included (the calibrated decoder of Rybkin et al. 2021, "Simple and
    Effective VAE Training with Calibrated Decoders", arXiv:2006.13202).

    Args:
        reconstruction, images: the decoded and the original images [N, C, H, W] in [0, 1].
        mu, logvar: means and log variances of the posteriors, [N, latent_dim].
        beta: weight of the KL term (Higgins et al. 2017, "beta-VAE").
        reduction: "sum" adds the squared errors of an image's values; "mean" averages them, which
            makes the KL term D times as heavy.
        variance: variance of the Gaussian decoder, a scalar.
    """
    squared_errors = (reconstruction - images).square().flatten(1)
    if reduction == "sum":
        error = squared_errors.sum(1)
    else:
        error = squared_errors.mean(1)
    kl = kl_per_dimension(mu, logvar).sum(1)
    if variance is None:
        return ELBO(error + beta * kl, error, kl)
    values = squared_errors.shape[1]
    constant = values / 2 * torch.log(2 * math.pi * variance)
    return ELBO(constant + error / (2 * variance) + beta * kl, error, kl)


def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mu, exp(logvar)) || N(0, 1)) of each latent dimension, [N, latent_dim] nats.

    The closed form of Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
