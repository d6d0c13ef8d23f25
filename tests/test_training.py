import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import TINY, tiny_dataset

from vae_core import training
from vae_core.data import Dataset, synthetic
from vae_core.evaluation import evaluate
from vae_core.hardware import choose_precision
from vae_core.parameter_sets import ParameterSet, parameter_set
from vae_core.training import Config, best_epoch, initial_model, stopping_epoch, train

SHAPE = (3, 32, 32)


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
def test_stopping_epoch_on_sequences_made_by_hand(losses, stop):
    for seen in range(len(losses) + 1):  # nothing depends on what comes later
        found = stopping_epoch(losses[:seen], patience=3, min_delta=0.5)
        assert found == (stop if stop and stop <= seen else None)
    assert stopping_epoch([5, 4, 2, 1, 1], patience=2, min_delta=1) == 5


def test_best_epoch_is_the_first_of_the_lowest():
    assert best_epoch([3.0, 1.0, 2.0, 1.0]) == 2


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first, again, other = (initial_model(Config("fc", TINY, seed), SHAPE) for seed in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.to_mu.weight, again.to_mu.weight)
    assert not torch.equal(first.to_mu.weight, other.to_mu.weight)


def test_generators_of_different_uses_differ():
    draws = {
        torch.rand(1, generator=training.seeded_generator("cpu", seed, epoch, use)).item()
        for seed in range(4)
        for epoch in range(4)
        for use in range(2)
    }
    assert len(draws) == 32


DATA = tiny_dataset(64, 16)


def test_the_cosine_schedule_falls_from_the_rate_to_0_and_survives_an_interruption(monkeypatch):
    rates, states, step = [], [], torch.optim.Adam.step

    def noted(optimizer, *arguments):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    # Without patience nothing stops it, not even that no epoch counts as a fall.
    config = Config("fc", TINY, max_epochs=3, patience=0, min_delta=1e9, schedule="cosine")
    cpu = torch.device("cpu")
    model, _ = train(config, DATA, cpu, after_epoch=lambda state: states.append(deepcopy(state)))
    steps = torch.arange(12) / 12  # of 3 epochs of 64 images in batches of 16
    expected = TINY.learning_rate / 2 * (1 + (math.pi * steps).cos())
    assert rates == pytest.approx(expected.tolist(), abs=1e-9)
    again, _ = train(config, DATA, cpu, start=states[0])
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
    assert rates[12:] == rates[4:12]


@pytest.mark.parametrize(("beta", "reduction"), [(0.3, "sum"), (1.0, "sum"), (2e-4, "mean")])
def test_the_linear_vae_is_probabilistic_pca(beta, reduction):
    """Its bound in closed form (Lucas et al. 2019), over eigenvalues that NumPy finds."""
    config = Config("linear", ParameterSet("wide", 1, 1e-3, 24), beta=beta, reduction=reduction)
    images = Dataset(*(synthetic.shapes(n, 1, size=8)[0] for n in (800, 9, 9)), "s", "s", "")
    model, (epoch,) = train(config, images, torch.device("cpu"))
    pixels = images.train.flatten(1).numpy() / 255
    eigenvalues = np.linalg.eigvalsh(np.cov(pixels.T, bias=True))[::-1]
    values = 192 if reduction == "mean" else 1
    kept = eigenvalues[:24][eigenvalues[:24] > beta * values / 2]
    assert 0 < len(kept) < 24 or beta < 1
    lost = eigenvalues.sum() - kept.sum()
    bound = beta / 2 * np.sum(np.log(2 * kept / beta / values) + 1) + lost / values
    found = np.mean([evaluate(model, images.train, k, beta, reduction)["loss"] for k in range(20)])
    assert found == pytest.approx(bound, rel=2e-3)
    assert epoch["train_loss"] == evaluate(model, images.train, 0, beta, reduction)["loss"]
    for parameter in (model.decoder.weight, model.to_mu.weight, model.to_logvar.bias):
        with torch.no_grad():  # no neighbour is better
            parameter.mul_(1.3)
            worse = evaluate(model, images.train, 0, beta, reduction)["loss"]
            parameter.div_(1.3)
        assert worse > epoch["train_loss"]


def test_what_the_linear_vae_cannot_solve():
    with pytest.raises(ValueError, match=r"beta is 0.0; .* above 0"):
        train(Config("linear", TINY, beta=0), DATA, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"at most 3×64×64"):
        initial_model(Config("linear", TINY), (3, 96, 96))


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", None])
def test_automatic_precision_asks_the_processor(monkeypatch, capability):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    cpu, asked = torch.device("cpu"), ("auto", "float32", "bfloat16")
    found = [choose_precision(precision, cpu) for precision in asked]
    assert found == ["bfloat16" if capability else "float32", "float32", "bfloat16"]
    assert choose_precision("auto", torch.device("mps")) == "float32"


SENSELESS = {
    "model": ["vae"],
    "seed": [-1, 2**63, 1.0],
    "max_epochs": [0, "6"],
    "patience": [-1, "none"],
    "schedule": ["linear", "cosine"],  # which early stopping would cut
    "min_delta": [-0.1],
    "beta": [math.nan, None],
    "monitor": ["test"],
    "reduction": ["max"],
    "precision": ["float16", ["auto"]],
    "batch_size": [0, -1, 1.5, "64", None, True],
    "latent_dim": [0, 2.0],
    "learning_rate": [0, -1e-3, 2, math.nan, 10**400, "1e-3"],
}


@pytest.mark.parametrize("field", SENSELESS)
def test_values_that_make_no_sense_are_named(field):
    for value in SENSELESS[field]:
        with pytest.raises(ValueError, match=rf"\b{field} "):
            replace(TINY if hasattr(TINY, field) else Config("fc", TINY), **{field: value})


def test_numbers_of_numpy_are_numbers():
    config = Config("fc", TINY, seed=np.int64(3), beta=np.float32(0.5))
    assert type(config.seed) is int and type(config.beta) is float


def test_the_sets_of_the_study():
    sets = [parameter_set(name) for name in ("p1", "p2", "p3")]
    numbers = [(p.batch_size, p.learning_rate, p.latent_dim) for p in sets]
    assert numbers == [(64, 1e-3, 128), (128, 5e-4, 128), (64, 5e-4, 256)]
