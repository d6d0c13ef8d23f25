import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import TINY, one_line, tiny_dataset
from torch import nn

from vae_core import training
from vae_core.config import Config, ParameterSet
from vae_core.data import synthetic
from vae_core.evaluation import evaluate
from vae_core.models import FCVAE, MODELS, linear
from vae_core.training import (
    TrainingDiverged,
    best_epoch,
    initial_model,
    kl_weight,
    learning_rate,
    stopping_epoch,
    train,
)

SHAPE = (3, 32, 32)
CPU = torch.device("cpu")
DATA = tiny_dataset(64, 16)


def train_tiny(config, **options):
    return train(config, DATA.train, DATA.validation, CPU, **options)


def same_weights(first, second):
    return all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize(
    ("losses", "stop"),
    [
        ([], None),
        ([10], None),
        ([10, 9, 8, 7], None),  # always falling
        ([10, 10, 10], None),  # two epochs without progress are not three
        ([10, 10, 10, 10], 4),
        ([10, 9.6, 9.2, 8.9], None),  # small falls add up: 8.9 is 1.1 below 10
        ([10, 9.5, 9.5, 9.5], 4),  # exactly min_delta is no progress
        ([10, 8, 9, 9, 7.9], 5),  # 7.9 is not enough below 8
        ([10, 8, 9, 9, 7.4, 8, 8, 8, 1], 8),  # progress resets the wait; what follows is unseen
        ([10, math.nan, math.nan, math.nan], 4),
    ],
)
def test_early_stopping_on_sequences_made_by_hand(losses, stop):
    for seen in range(len(losses) + 1):  # nothing depends on what comes later
        expected = stop if stop and stop <= seen else None
        assert stopping_epoch(losses[:seen], patience=3, min_delta=0.5) == expected
    assert stopping_epoch([5, 4, 2, 1, 1], patience=2, min_delta=1) == 5


def test_the_best_epoch_is_the_first_of_the_lowest():
    assert best_epoch([3.0, 1.0, 2.0, 1.0]) == 2


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = initial_model(Config("fc", TINY, seed=7), SHAPE)
    again = initial_model(Config("fc", TINY, seed=7), SHAPE)
    other = initial_model(Config("fc", TINY, seed=8), SHAPE)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.to_mu.weight, again.to_mu.weight)
    assert not torch.equal(first.to_mu.weight, other.to_mu.weight)


def test_generators_of_different_uses_differ():
    values = {
        torch.rand(1, generator=training.seeded_generator(seed, epoch, use)).item()
        for seed in range(4)
        for epoch in range(4)
        for use in range(3)
    }
    assert len(values) == 48


def test_schedules_are_functions_of_the_progress():
    constant = Config("fc", TINY)
    cosine = replace(constant, patience=0, schedule="cosine")
    assert learning_rate(constant, 0.7) == TINY.learning_rate
    rates = [learning_rate(cosine, progress) for progress in (0, 0.5, 1)]
    assert rates == pytest.approx([TINY.learning_rate, TINY.learning_rate / 2, 0])
    warm = replace(cosine, rate_warmup=0.2)
    assert learning_rate(warm, 0) == 0
    assert learning_rate(warm, 0.1) == pytest.approx(learning_rate(cosine, 0.1) / 2)
    assert learning_rate(warm, 0.2) == learning_rate(cosine, 0.2)
    annealed = replace(cosine, kl_warmup=0.5, beta=3.0)
    weights = [kl_weight(annealed, progress) for progress in (0, 0.25, 0.5, 0.9)]
    assert weights == pytest.approx([0, 1.5, 3, 3])
    assert kl_weight(cosine, 0) == 1


def test_the_optimizer_follows_the_schedule(monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def recorded(optimizer, *arguments):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    # Without patience nothing stops it, not even that no epoch counts as progress.
    train_tiny(Config("fc", TINY, max_epochs=3, patience=0, min_delta=1e9, schedule="cosine"))
    steps = torch.arange(12) / 12  # of 3 epochs of 64 images in batches of 16
    expected = TINY.learning_rate / 2 * (1 + (math.pi * steps).cos())
    assert rates == pytest.approx(expected.tolist(), abs=1e-9)


RECIPES = [
    {},
    {"schedule": "cosine", "rate_warmup": 0.3},
    {"decoder_variance": "learned"},
    {"flip": True, "weight_decay": 0.1},
    {"dropout": 0.3, "kl_warmup": 0.5},
]


@pytest.mark.parametrize("options", RECIPES, ids=str)
def test_a_training_continues_as_if_uninterrupted(options):
    config = Config("fc", TINY, max_epochs=3, patience=0, **options)
    states = []
    model, history = train_tiny(config, after_epoch=lambda state: states.append(deepcopy(state)))
    continued, again = train_tiny(config, resume_from=states[0])
    assert same_weights(model, continued)
    for row, other in zip(history, again, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize("options", RECIPES[1:], ids=str)
def test_every_option_changes_the_training(options):
    plain, _ = train_tiny(Config("fc", TINY, max_epochs=2, patience=0))
    other, _ = train_tiny(Config("fc", TINY, max_epochs=2, patience=0, **options))
    assert not torch.equal(plain.to_mu.weight, other.to_mu.weight)


class OrdinaryVAE(FCVAE):
    """A user's model with layers that behave differently in training and in evaluation."""

    name, title = "ordinary", "ordinary VAE"

    def __init__(self, latent_dim, image_shape):
        super().__init__(latent_dim, image_shape)
        self.encoder.insert(2, nn.BatchNorm1d(512))
        self.encoder.append(nn.Dropout(0.3))
        self.to_logvar.bias.requires_grad_(False)  # a frozen parameter
        self.unused = nn.Linear(2, 2)
        self.decoder[2].bias = self.encoder[1].bias  # a shared one, of 512 values


def test_an_ordinary_module_is_trained_measured_and_continued_rightly(monkeypatch):
    monkeypatch.setitem(MODELS, "ordinary", OrdinaryVAE)
    config = Config("ordinary", TINY, max_epochs=3, patience=0)
    states = []
    torch.manual_seed(1)
    model, history = train_tiny(config, after_epoch=lambda state: states.append(deepcopy(state)))
    torch.manual_seed(2)  # what another program draws from torch's generator does not matter
    continued, _ = train_tiny(config, resume_from=states[0])
    assert same_weights(model, continued)
    assert int(model.encoder[2].num_batches_tracked) == 12
    best = history[best_epoch([row["train_loss"] for row in history]) - 1]
    assert evaluate(model, DATA.validation)["loss"] == best["validation_loss"]
    assert not model.training


def test_a_learned_variance_is_the_error_of_the_training_images():
    config = Config("conv", TINY, max_epochs=3, patience=0, decoder_variance="learned")
    model, history = train_tiny(config)
    error = evaluate(model, DATA.train)["reconstruction"] / 3072
    assert model.decoder_variance.item() == pytest.approx(error, rel=0.02)
    measured = evaluate(model, DATA.validation)
    assert measured["loss"] == pytest.approx(history[-1]["validation_loss"])
    assert measured["bits_per_dim"] < 12


def test_float32_and_bfloat16_agree_with_a_learned_variance():
    config = Config("fc", TINY, max_epochs=2, patience=0, decoder_variance="learned")
    _, single = train_tiny(config, precision="float32")
    _, half = train_tiny(config, precision="bfloat16")
    assert half[-1]["validation_loss"] == pytest.approx(single[-1]["validation_loss"], abs=30)


def test_a_variance_that_falls_to_zero_is_an_error(monkeypatch):
    """Images without any variation are reconstructed exactly."""
    images = torch.full((64, 3, 8, 8), 128, dtype=torch.uint8)
    params = ParameterSet("fast", batch_size=16, learning_rate=0.03, latent_dim=2)
    config = Config("fc", params, max_epochs=200, patience=0, decoder_variance="learned")
    with pytest.raises(TrainingDiverged, match=r"decoder variance fell .* in epoch") as error:
        train(config, images, images[:8], CPU)
    one_line(error)


@pytest.mark.parametrize(("beta", "reduction"), [(0.3, "sum"), (1.0, "sum"), (2e-4, "mean")])
def test_the_linear_vae_is_probabilistic_pca(beta, reduction):
    """Its bound in closed form (Lucas et al. 2019), over eigenvalues that NumPy computes."""
    params = ParameterSet("wide", batch_size=1, learning_rate=1e-3, latent_dim=24)
    config = Config("linear", params, beta=beta, reduction=reduction)
    images, validation = synthetic.shapes(800, 1, size=8)[0], synthetic.shapes(9, 1, size=8)[0]
    model, (epoch,) = train(config, images, validation, CPU)
    eigenvalues = pixel_eigenvalues(images)
    values = 192 if reduction == "mean" else 1
    kept = eigenvalues[:24][eigenvalues[:24] > beta * values / 2]
    assert 0 < len(kept) < 24 or beta < 1
    lost = eigenvalues.sum() - kept.sum()
    bound = beta / 2 * np.sum(np.log(2 * kept / beta / values) + 1) + lost / values
    losses = [evaluate(model, images, seed, beta, reduction)["loss"] for seed in range(20)]
    assert np.mean(losses) == pytest.approx(bound, rel=2e-3)
    assert epoch["train_loss"] == evaluate(model, images, 0, beta, reduction)["loss"]
    for parameter in (model.decoder.weight, model.to_mu.weight, model.to_logvar.bias):
        with torch.no_grad():  # no neighbour is better
            parameter.mul_(1.3)
            worse = evaluate(model, images, 0, beta, reduction)["loss"]
            parameter.div_(1.3)
        assert worse > epoch["train_loss"]


def pixel_eigenvalues(images):
    pixels = images.flatten(1).numpy() / 255
    return np.linalg.eigvalsh(np.cov(pixels.T, bias=True))[::-1]


def test_the_linear_vae_with_a_learned_variance_is_maximum_likelihood_pca():
    """Tipping & Bishop 1999: the variance is the mean of the discarded eigenvalues."""
    params = ParameterSet("wide", batch_size=1, learning_rate=1e-3, latent_dim=24)
    config = Config("linear", params, decoder_variance="learned")
    images = synthetic.shapes(800, 1, size=8)[0]
    model, (epoch,) = train(config, images, images[:9], CPU)
    eigenvalues = pixel_eigenvalues(images)
    variance = eigenvalues[24:].mean()
    assert model.decoder_variance.item() == pytest.approx(variance, rel=1e-3)
    log_determinant = np.log(eigenvalues[:24]).sum() + (192 - 24) * math.log(variance)
    negative_log_likelihood = (192 * math.log(2 * math.pi) + log_determinant + 192) / 2
    assert epoch["train_loss"] == pytest.approx(negative_log_likelihood, rel=5e-3)


@pytest.mark.parametrize("variance", [0.5, "learned"])
def test_large_images_have_the_same_components_by_iteration(monkeypatch, variance):
    params = ParameterSet("wide", batch_size=1, learning_rate=1e-3, latent_dim=12)
    config = Config("linear", params, decoder_variance=variance)
    images = synthetic.shapes(400, 1, size=16)[0]
    exact, _ = train(config, images, images[:9], CPU)
    monkeypatch.setattr(linear, "MAX_COVARIANCE", 100)
    iterated, _ = train(config, images, images[:9], CPU)
    error = (exact.reconstruct(images) - iterated.reconstruct(images)).abs().max()
    assert error < 0.01
    if variance == "learned":
        assert iterated.decoder_variance.item() == pytest.approx(
            exact.decoder_variance.item(), rel=1e-3
        )


@pytest.mark.parametrize(
    "config",
    [Config("linear", TINY, beta=0), Config("linear", TINY, beta=2, decoder_variance="learned")],
)
def test_what_the_linear_vae_cannot_solve_is_an_error(config):
    images = torch.zeros(4, *SHAPE, dtype=torch.uint8)
    with pytest.raises(ValueError, match="beta") as error:
        train(config, images, images, CPU)
    one_line(error)
