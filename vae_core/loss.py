"""The loss of a variational autoencoder: the negative evidence lower bound (ELBO)."""

from typing import NamedTuple

from torch import Tensor


class ELBO(NamedTuple):
    """The loss and its two parts, each [N]: nats per image, one value an image."""

    total: Tensor  # reconstruction + beta * kl, what training makes small
    reconstruction: Tensor  # the squared error of an image
    kl: Tensor  # the Kullback-Leibler divergence of the posterior from the prior


def elbo(
    reconstruction: Tensor,
    images: Tensor,
    mu: Tensor,
    logvar: Tensor,
    beta: float = 1.0,
    reduction: str = "sum",
) -> ELBO:
    """Return the negative ELBO of each image and its parts.

    The squared error is the negative log-likelihood of a Gaussian decoder of variance 1/2, up to a
    constant. `beta` is the weight of Higgins et al. 2017 ("beta-VAE").

    Args:
        reconstruction, images: the decoded and the original images [N, C, H, W] in [0, 1].
        mu, logvar: means and logs of the variances of the posteriors, [N, latent_dim].
        beta: weight of the KL term.
        reduction: "sum" adds the squared errors of an image's values, as the study does;
            "mean" averages them, which leaves the KL term far too heavy beside them.
    """
    squared_error = (reconstruction - images).square().flatten(1)
    error = squared_error.sum(1) if reduction == "sum" else squared_error.mean(1)
    kl = kl_per_dimension(mu, logvar).sum(1)
    return ELBO(error + beta * kl, error, kl)


def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(N(mu, exp(logvar)) || N(0, 1)) of each latent dimension, [N, latent_dim] nats.

    The closed form of Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)
