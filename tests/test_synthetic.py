import tracemalloc

import pytest
import torch

from vae_core.data import synthetic
from vae_core.data.synthetic import FACTORS, faces, shapes

DRAW = {"shapes": shapes, "faces": faces}
BOTH = pytest.mark.parametrize("name", DRAW)


@BOTH
@pytest.mark.parametrize("size", [32, 64, 20])
def test_images_and_factors_follow_the_seed(name, size, monkeypatch):
    images, factors = DRAW[name](131, 3, size)
    assert images.dtype == torch.uint8 and images.shape == (131, 3, size, size)
    assert factors.keys() == FACTORS[name].keys()
    assert all(values.shape == (131,) for values in factors.values())
    monkeypatch.setattr(synthetic, "CHUNK", 7 * 32 * 32)  # nor does the way they are drawn matter
    again, same = DRAW[name](131, 3, size)
    assert torch.equal(images, again) and all((factors[f] == same[f]).all() for f in factors)
    assert (images != DRAW[name](131, 4, size)[0]).flatten(1).any(dim=1).all()
    assert torch.equal(DRAW[name](5)[0], DRAW[name](5, 0, 32)[0])


@BOTH
def test_images_are_drawn_in_little_memory(name):
    tracemalloc.start()
    images, _ = DRAW[name](2000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.numel() + 40e6


@BOTH
def test_an_unusable_number_of_images_is_named(name):
    for n in (0, -3, 2.0, "9", None, True):
        with pytest.raises(ValueError, match=r"n is .*whole number of at least 1"):
            DRAW[name](n)
