import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core.hardware import choose_device, choose_precision
from vae_core.parameter_sets import ParameterSet, parameter_set
from vae_core.training import (
    Config,
    best_epoch,
    initial_model,
    seeded_generator,
    stopping_epoch,
)

P = ParameterSet("tiny", 16, 1e-3, 2)
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
    assert stopping_epoch(losses, patience=3, min_delta=0.5) == stop


@given(st.lists(st.floats(0, 100), max_size=40), st.integers(1, 6), st.floats(0, 2))
def test_stopping_does_not_depend_on_what_comes_later(losses, patience, min_delta):
    stop = stopping_epoch(losses, patience, min_delta)
    if stop is None:
        assert all(
            stopping_epoch(losses[:k], patience, min_delta) is None for k in range(len(losses))
        )
    else:
        assert stop > patience
        assert stopping_epoch(losses[:stop], patience, min_delta) == stop
        assert stopping_epoch(losses[: stop - 1], patience, min_delta) is None
        reference = min(losses[: stop - patience])
        assert min(losses[stop - patience : stop]) >= reference - min_delta


def test_best_epoch_is_the_first_of_the_lowest():
    assert best_epoch([3.0, 1.0, 2.0, 1.0]) == 2


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first, again, other = (initial_model(Config("fc", P, seed), SHAPE) for seed in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.to_mu.weight, again.to_mu.weight)
    assert not torch.equal(first.to_mu.weight, other.to_mu.weight)


def test_generators_of_different_uses_differ():
    draws = {
        torch.rand(1, generator=seeded_generator("cpu", seed, epoch, use)).item()
        for seed in range(4)
        for epoch in range(4)
        for use in range(2)
    }
    assert len(draws) == 32


@pytest.mark.parametrize("name", ["tpu", "cpu:x", "cpu:"])
def test_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}'.*cpu"):
        choose_device(name)


def test_precision():
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == "float32"
    assert choose_precision("bfloat16", cpu) == "bfloat16"
    assert choose_precision("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", None])
def test_automatic_precision_asks_the_processor(monkeypatch, capability):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    expected = "bfloat16" if capability else "float32"
    assert choose_precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "vae"),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 1.0),
        ("max_epochs", 0),
        ("max_epochs", "6"),
        ("patience", 0),
        ("min_delta", -0.1),
        ("beta", math.nan),
        ("beta", None),
        ("monitor", "test"),
        ("reduction", "max"),
        ("precision", "float16"),
        ("precision", ["auto"]),
    ],
)
def test_values_that_make_no_sense_are_named(field, value):
    with pytest.raises(ValueError, match=field):
        Config(**{"model": "fc", "params": P, field: value})


def test_numbers_of_numpy_are_numbers():
    config = Config("fc", P, seed=np.int64(3), beta=np.float32(0.5))
    assert type(config.seed) is int and type(config.beta) is float


def test_the_sets_of_the_study():
    sets = [parameter_set(name) for name in ("p1", "p2", "p3")]
    numbers = [(p.batch_size, p.learning_rate, p.latent_dim) for p in sets]
    assert numbers == [(64, 1e-3, 128), (128, 5e-4, 128), (64, 5e-4, 256)]
    assert parameter_set(P) is P
    with pytest.raises(ValueError, match=r"'p4'.*p1, p2, p3"):
        parameter_set("p4")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("batch_size", value) for value in (0, -1, 1.5, "64", None, True)),
        *(("latent_dim", value) for value in (0, 2.0)),
        *(("learning_rate", value) for value in (0, -1e-3, 2, math.nan, 10**400, "1e-3")),
    ],
)
def test_sets_that_make_no_sense_are_named(field, value):
    values = {"batch_size": 64, "learning_rate": 1e-3, "latent_dim": 128, field: value}
    with pytest.raises(ValueError, match=f"{field} is "):
        ParameterSet("mine", **values)
