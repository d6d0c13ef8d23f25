"""The linear VAE: probabilistic PCA, solved instead of trained."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import scipy.linalg
import torch
from torch import Tensor, nn

from vae_core.models.vae import VAE

MAX_COVARIANCE = 3 * 64 * 64  # values of an image up to which their covariance fits in memory
BATCH = 4096  # images at a time; fewer where they are large
BATCH_VALUES = BATCH * MAX_COVARIANCE
ITERATIONS, OVERSAMPLING = 8, 16  # of the subspace iteration for larger images


class LinearVAE(VAE):
    """The best linear encoder and decoder, in closed form: probabilistic PCA.

    The optimum of a linear VAE with a Gaussian decoder of variance v keeps the principal components
    whose eigenvalue is above v and collapses the other latents (Tipping & Bishop 1999,
    "Probabilistic Principal Component Analysis"; Lucas et al. 2019, arXiv:1911.02469). Decoded
    images may leave [0, 1]. The components are exact up to 3×64×64; those of larger images, whose
    covariance would not fit in memory, are found by subspace iteration.
    """

    name, title, colour = "linear", "linear VAE", "#5b5f97"
    closed_form = True

    def __init__(self, latent_dim, image_shape):
        values = math.prod(image_shape)
        super().__init__(latent_dim, image_shape, hidden=values)
        self.encoder, self.decoder = nn.Flatten(), nn.Linear(latent_dim, values)

    def decode(self, z):
        """Return the images [N, C, H, W], float32, of the latents [N, latent_dim]."""
        return self.decoder(z).float().reshape(-1, *self.image_shape)

    @torch.no_grad()
    def fit(self, images: Tensor, variance: float | None) -> None:
        """Set the weights that minimize the loss over uint8 images [N, C, H, W].

        Args:
            variance: of the Gaussian decoder. None takes its maximum-likelihood estimate, the mean
                of the discarded eigenvalues (Tipping & Bishop 1999), and stores it in
                `decoder_variance`.

        Raises ValueError where the variance is not above 0, so that no component would collapse.
        """
        if variance is not None and not variance > 0:
            raise ValueError(
                f"beta is {2 * variance!r}; the {self.title} needs one above 0 (its decoder "
                "variance is beta / 2)"
            )
        mean, total, eigenvalues, components = principal_components(images, self.latent_dim)
        if variance is None:
            discarded = len(mean) - len(eigenvalues)
            variance = (total - float(eigenvalues.double().sum())) / max(1, discarded)
            self.decoder_variance.fill_(variance)
        kept = int((eigenvalues > variance).sum())
        eigenvalues, components = eigenvalues[:kept], components[:, :kept]
        scale = (eigenvalues - variance).sqrt()
        for parameter in self.parameters():
            parameter.zero_()
        self.decoder.weight[:, :kept] = components * scale
        self.decoder.bias.copy_(mean)
        self.to_mu.weight[:kept] = (components * (scale / eigenvalues)).T
        self.to_mu.bias.copy_(-self.to_mu.weight @ mean.float())
        self.to_logvar.bias[:kept] = (variance / eigenvalues).log()


class PrincipalComponents(NamedTuple):
    """The principal components of images with D values each."""

    mean: Tensor  # [D], float64
    total_variance: float  # the sum of all eigenvalues
    eigenvalues: Tensor  # [n], the largest ones, largest first
    components: Tensor  # [D, n], their eigenvectors


def principal_components(images: Tensor, n: int) -> PrincipalComponents:
    """Return the `n` first principal components of uint8 images scaled to [0, 1].

    The covariance is divided by the number of images.
    """
    pixels = images.flatten(1)
    values = pixels.shape[1]
    batches = pixels.split(max(1, min(BATCH, BATCH_VALUES // values)))
    total = sum(batch.double().sum(0) for batch in batches)
    mean = total / (255 * len(pixels))
    n = min(n, values)
    if values <= MAX_COVARIANCE:
        covariance = multiply_by_covariance(batches, mean, None)
        total_variance = float(covariance.diagonal().double().sum())
        eigenvalues, components = top_eigenvectors(covariance, n)
    else:
        squares = sum((batch / 255 - mean).square().sum().item() for batch in batches)
        total_variance = squares / len(pixels)
        eigenvalues, components = iterate_subspace(batches, mean, n)
    return PrincipalComponents(mean, total_variance, eigenvalues, components)


def multiply_by_covariance(
    batches: Sequence[Tensor], mean: Tensor, vectors: Tensor | None
) -> Tensor:
    """Return covariance @ vectors, [D, k], without the covariance in memory; None: itself."""
    images = sum(len(batch) for batch in batches)
    columns = len(mean) if vectors is None else vectors.shape[1]
    product = torch.zeros(len(mean), columns)
    for batch in batches:
        centred = batch.float().div_(255) - mean.float()
        right = centred if vectors is None else centred @ vectors
        product.addmm_(centred.T, right, alpha=1 / images)
    return product


def top_eigenvectors(matrix: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the `n` largest eigenvalues [n] of a symmetric matrix [D, D], their vectors [D, n]."""
    size = len(matrix)
    wanted = (size - n, size - 1)  # scipy sorts eigenvalues from small to large
    eigenvalues, eigenvectors = scipy.linalg.eigh(matrix.numpy(), subset_by_index=wanted)
    return torch.from_numpy(eigenvalues).flip(-1), torch.from_numpy(eigenvectors).flip(-1)


def iterate_subspace(batches: Sequence[Tensor], mean: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the `n` largest eigenvalues and their vectors of the covariance, by iteration.

    Each iteration multiplies an orthonormal basis by the covariance, so that it turns towards the
    components (Halko et al. 2011, "Finding structure with randomness", arXiv:0909.4061).
    """
    generator = torch.Generator().manual_seed(0)
    columns = min(n + OVERSAMPLING, len(mean))
    basis = torch.randn(len(mean), columns, generator=generator)
    for _ in range(ITERATIONS):
        basis, _ = torch.linalg.qr(multiply_by_covariance(batches, mean, basis))
    projected = basis.T @ multiply_by_covariance(batches, mean, basis)
    eigenvalues, vectors = top_eigenvectors((projected + projected.T) / 2, n)
    return eigenvalues, basis @ vectors
