import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core.evaluation import unevenness
from vae_core.latent import (
    interpolate,
    posterior_means,
    posterior_parameters,
    posterior_samples,
    prior_samples,
    slerp,
    traverse,
)
from vae_core.models import ConvVAE

torch.manual_seed(0)
MODEL = ConvVAE(5, (3, 32, 32)).eval()
Z1, Z2 = prior_samples(MODEL, 2)


@given(st.integers(2, 12), st.booleans())
def test_interpolation_takes_even_steps_from_one_end_to_the_other(steps, spherical):
    strip = interpolate(MODEL, Z1, Z2, steps, spherical)
    alpha = torch.linspace(0, 1, steps)[:, None]
    latents = slerp(Z1, Z2, alpha) if spherical else (1 - alpha) * Z1 + alpha * Z2
    torch.testing.assert_close(strip, MODEL.decode(latents).detach())
    torch.testing.assert_close(strip[[0, -1]], MODEL.decode(torch.stack([Z1, Z2])).detach())


def test_the_great_circle_keeps_the_length_and_turns_evenly():
    z1, z2 = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    path = slerp(z1, z2, torch.tensor([[0.0], [1 / 3], [0.5], [1.0]]))
    half, third = math.sqrt(2), math.pi / 6
    expected = [[2, 0], [2 * math.cos(third), 2 * math.sin(third)], [half, half], [0, 2]]
    torch.testing.assert_close(path, torch.tensor(expected))
    longer = slerp(z1, 3 * z2, torch.tensor([[0.5]]))
    assert longer.norm().item() == pytest.approx(4)


@pytest.mark.parametrize("scale", [1.0, 2.0, -1.0, 0.0])
def test_where_there_is_no_great_circle_the_line_is_straight(scale):
    path = slerp(Z1, scale * Z1, torch.tensor([[0.0], [0.25], [1.0]]))
    torch.testing.assert_close(path, torch.stack([Z1, (0.75 + 0.25 * scale) * Z1, scale * Z1]))


@pytest.mark.parametrize("steps", [1, 0, 2.5, None])
def test_too_few_steps_are_refused(steps):
    with pytest.raises(ValueError, match="steps"):
        interpolate(MODEL, Z1, Z2, steps)


def test_prior_samples_are_seeded():
    assert torch.equal(prior_samples(MODEL, 3, 1), prior_samples(MODEL, 3, 1))
    assert not torch.equal(prior_samples(MODEL, 3, 1), prior_samples(MODEL, 3, 2))
    samples = prior_samples(MODEL, 4000)
    assert samples.mean().abs() < 0.03 and abs(samples.std() - 1) < 0.03


def test_traversal_is_centred_on_the_latent_and_varies_one_latent():
    strip = traverse(MODEL, Z1, 2, reach=1.5, steps=5)
    torch.testing.assert_close(strip[2], MODEL.decode(Z1[None])[0].detach())
    moved = Z1.clone()
    moved[2] -= 1.5
    torch.testing.assert_close(strip[0], MODEL.decode(moved[None])[0].detach())


def test_posteriors_are_those_of_the_encoder_and_samples_follow_them():
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    expected = MODEL.encode(MODEL.to_unit_interval(images))
    parameters = posterior_parameters(MODEL, images, batch_size=2)
    for in_batches, at_once in zip(parameters, expected, strict=True):
        torch.testing.assert_close(in_batches, at_once.detach())
    torch.testing.assert_close(posterior_means(MODEL, images), expected[0].detach())
    many = posterior_samples(MODEL, images[:1].expand(4000, -1, -1, -1), seed=1)
    mu, deviation = expected[0][0].detach(), (expected[1][0] / 2).exp().detach()
    torch.testing.assert_close(many.mean(0), mu, atol=0.1, rtol=0)
    torch.testing.assert_close(many.std(0), deviation, atol=0.1, rtol=0)


def test_unevenness_of_an_even_path_and_of_a_jump():
    starts, ends = torch.zeros(2, 5), torch.ones(2, 5)
    for decode, expected in ((lambda z: z, 1), (lambda z: (z > 0.5).float(), 9)):
        ratios = unevenness(SimpleNamespace(decode=decode), starts, ends, 10)
        assert ratios.tolist() == pytest.approx([expected] * 2, rel=1e-5)
