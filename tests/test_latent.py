import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core.latent import (
    interpolate,
    posterior_means,
    prior_draws,
    step_sizes,
    traverse,
    unevenness,
)
from vae_core.models import ConvVAE

torch.manual_seed(0)
MODEL = ConvVAE(5).eval()
Z1, Z2 = prior_draws(MODEL, 2)


@given(st.integers(2, 12))
def test_interpolation_starts_and_ends_at_its_ends(steps):
    strip = interpolate(MODEL, Z1, Z2, steps)
    assert strip.shape == (steps, 3, 32, 32)
    torch.testing.assert_close(strip[0], MODEL.decode(Z1[None])[0].detach())
    torch.testing.assert_close(strip[-1], MODEL.decode(Z2[None])[0].detach())


def test_interpolation_is_the_straight_line():
    strip = interpolate(MODEL, Z1, Z2, 11)
    expected = MODEL.decode((0.7 * Z1 + 0.3 * Z2)[None])[0]
    torch.testing.assert_close(strip[3], expected.detach())


@pytest.mark.parametrize("steps", [1, 0, 2.5, None])
def test_too_few_steps_are_refused(steps):
    with pytest.raises(ValueError, match="steps"):
        interpolate(MODEL, Z1, Z2, steps)


def test_latents_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"\[4\].*\[5\]"):
        interpolate(MODEL, Z1[:4], Z2)


def test_prior_draws_are_seeded():
    assert torch.equal(prior_draws(MODEL, 3, 1), prior_draws(MODEL, 3, 1))
    assert not torch.equal(prior_draws(MODEL, 3, 1), prior_draws(MODEL, 3, 2))
    draws = prior_draws(MODEL, 4000)
    assert draws.mean().abs() < 0.03 and abs(draws.std() - 1) < 0.03


def test_traversal_is_centred_on_the_latent_and_moves_one_dimension():
    strip = traverse(MODEL, Z1, 2, reach=1.5, steps=5)
    torch.testing.assert_close(strip[2], MODEL.decode(Z1[None])[0].detach())
    moved = Z1.clone()
    moved[2] -= 1.5
    torch.testing.assert_close(strip[0], MODEL.decode(moved[None])[0].detach())
    for dimension in (5, -1):
        with pytest.raises(ValueError, match="0 to 4"):
            traverse(MODEL, Z1, dimension)


def test_posterior_means_are_those_of_the_encoder():
    data = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(posterior_means(MODEL, data), MODEL.encode(data / 255)[0].detach())


def test_step_sizes_and_unevenness():
    strip = torch.tensor([0.0, 1.0, 1.0, 3.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    assert step_sizes(strip).tolist() == [2, 0, 4]

    class Line(ConvVAE):
        """Decodes the first latent dimension as brightness, or as a jump at 0.5."""

        jump = False

        def decode(self, z):
            value = (z[:, :1] > 0.5).float() if self.jump else z[:, :1]
            return value.reshape(-1, 1, 1, 1).expand(-1, 3, 32, 32)

    model = Line(5)
    starts, ends = torch.zeros(2, 5), torch.ones(2, 5)
    assert unevenness(model, starts, ends, 10).tolist() == pytest.approx([1, 1], rel=1e-5)
    model.jump = True
    assert unevenness(model, starts, ends, 10).tolist() == pytest.approx([9, 9])
