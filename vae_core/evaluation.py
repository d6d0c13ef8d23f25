"""What is measured on pictures that a model was not trained on."""

import torch
from torch import Tensor

from vae_core.loss import elbo, kl_per_dimension
from vae_core.models import VAE


@torch.no_grad()
def evaluate(
    model: VAE,
    pictures: Tensor,
    seed: int = 0,
    beta: float = 1.0,
    reduction: str = "sum",
    batch_size: int = 512,
) -> dict[str, float]:
    """Return the mean loss over pictures and its parts, in nats per picture.

    It is the objective of the training, with one draw of z for each picture from a generator
    seeded with `seed`: the same call gives the same numbers. The figures are means over
    pictures; a short last batch weighs as many pictures as it has.

    Args:
        model: in training or evaluation mode (the models have no layers that differ).
        pictures: uint8 [N, C, H, W], N at least 1, on any device.

    Returns:
        "loss" (reconstruction + beta * kl), "reconstruction" and "kl".

    Raises:
        ValueError: there are no pictures.
    """
    if len(pictures) == 0:
        raise ValueError("there are no pictures to evaluate; give at least one")
    device = model.to_mu.weight.device
    noise = torch.Generator(device).manual_seed(seed)
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in pictures.split(batch_size):
        batch = to_unit_interval(batch, model)
        decoded, mu, logvar = model(batch, noise)
        parts = elbo(decoded, batch, mu, logvar, beta, reduction)
        sums += torch.stack(parts).sum(1).cpu().double()
    loss, reconstruction, kl = (sums / len(pictures)).tolist()
    return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


def to_unit_interval(pictures: Tensor, model: VAE) -> Tensor:
    """Return uint8 pictures [N, C, H, W] as the model takes them: float32 in [0, 1].

    They come on the model's device and in its memory format.

    Raises:
        ValueError: the pictures are not uint8.
    """
    if pictures.dtype != torch.uint8:
        raise ValueError(f"the pictures are {pictures.dtype}; give uint8 values from 0 to 255")
    return (
        pictures.to(model.to_mu.weight.device)
        .to(torch.float32, memory_format=model.memory_format)
        .div_(255)
    )


@torch.no_grad()
def posterior_statistics(model: VAE, pictures: Tensor, batch_size: int = 512) -> dict[str, Tensor]:
    """Return what each latent dimension carries, over pictures uint8 [N, C, H, W].

    Returns:
        "kl": mean KL divergence of each dimension, [latent_dim] in nats per picture;
        "variance": variance of the posterior means over the pictures, [latent_dim]; a dimension
        is active where it is above 0.01 (Burda et al. 2016, arXiv:1509.00519).
    """
    posteriors = [
        model.encode(to_unit_interval(batch, model)) for batch in pictures.split(batch_size)
    ]
    mu, logvar = (torch.cat(part).cpu() for part in zip(*posteriors, strict=True))
    return {"kl": kl_per_dimension(mu, logvar).mean(0), "variance": mu.var(0, unbiased=False)}
