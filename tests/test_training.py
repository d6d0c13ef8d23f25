import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core.parameter_sets import ParameterSet
from vae_core.training import (
    Config,
    best_epoch,
    choose_device,
    choose_precision,
    initial_model,
    seeded_generator,
    stopping_epoch,
)

P = ParameterSet("tiny", 16, 1e-3, 2)


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
    first, again = initial_model(Config("fc", P, 7)), initial_model(Config("fc", P, 7))
    other = initial_model(Config("fc", P, 8))
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


def test_unknown_device_is_refused():
    with pytest.raises(ValueError, match=r"'tpu'.*cpu"):
        choose_device("tpu")


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
