import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import TINY, one_line

from vae_core.config import Config, ParameterSet, parameter_set

INVALID = {
    "model": ["vae"],
    "seed": [-1, 2**63, 1.0],
    "max_epochs": [0, "6"],
    "patience": [-1, "none"],
    "schedule": ["linear"],
    "min_delta": [-0.1],
    "beta": [math.nan, None],
    "monitor": ["test"],
    "reduction": ["max"],
    "precision": ["float16", ["auto"]],
    "batch_size": [0, -1, 1.5, "64", None, True],
    "latent_dim": [0, 2.0],
    "learning_rate": [0, -1e-3, 2, math.nan, 10**400, "1e-3"],
    "decoder_variance": [0, -0.5, 0.3, "small", None, True],
    "flip": [1, "yes"],
    "weight_decay": [-1, math.inf, "0.1"],
    "dropout": [1, -0.1, math.nan],
    "kl_warmup": [1.1, -0.1],
    "rate_warmup": [1.1, "half"],
}


@pytest.mark.parametrize("field", INVALID)
def test_an_invalid_value_is_named(field):
    for value in INVALID[field]:
        with pytest.raises(ValueError, match=rf"\b{field} ") as error:
            replace(TINY if hasattr(TINY, field) else Config("fc", TINY), **{field: value})
        one_line(error)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"schedule": "cosine"}, ("patience", "cosine")),  # early stopping would cut the schedule
        ({"kl_warmup": 0.1}, ("patience", "kl_warmup")),
        ({"decoder_variance": "learned", "reduction": "mean"}, ("decoder_variance", "reduction")),
        ({"dropout": 0.1, "model": "conv"}, ("dropout", "conv")),
    ],
)
def test_a_contradiction_names_both_fields(options, fields):
    with pytest.raises(ValueError) as error:
        Config(**{"model": "fc", "params": TINY} | options)
    for field in fields:
        assert field in one_line(error)


def test_numbers_of_numpy_are_accepted():
    config = Config("fc", TINY, seed=np.int64(3), beta=np.float32(0.5))
    assert type(config.seed) is int
    assert type(config.beta) is float


@pytest.mark.parametrize(
    ("name", "batch_size", "learning_rate", "latent_dim"),
    [("p1", 64, 1e-3, 128), ("p2", 128, 5e-4, 128), ("p3", 64, 5e-4, 256)],
)
def test_the_parameter_sets_of_the_original_study(name, batch_size, learning_rate, latent_dim):
    assert parameter_set(name) == ParameterSet(name, batch_size, learning_rate, latent_dim)


def test_an_unknown_parameter_set_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"p9.*p1, p2, p3"):
        parameter_set("p9")
    assert parameter_set(TINY) is TINY
