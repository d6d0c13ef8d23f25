import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core.loss import elbo, kl_per_dimension

NORMAL = torch.distributions.Normal
numbers = st.floats(-3, 3)


def parts(**options):
    torch.manual_seed(0)
    decoded, originals = torch.rand(2, 4, 3, 4, 4)
    mu, logvar = torch.randn(2, 4, 6)
    return decoded, originals, mu, logvar, elbo(decoded, originals, mu, logvar, **options)


@given(numbers, numbers)
def test_kl_is_that_of_two_gaussians(mu, logvar):
    posterior = NORMAL(torch.tensor(mu), torch.tensor(logvar / 2).exp())
    expected = torch.distributions.kl_divergence(posterior, NORMAL(0.0, 1.0)).item()
    found = kl_per_dimension(torch.tensor(mu), torch.tensor(logvar)).item()
    assert found == pytest.approx(expected, abs=1e-5)
    assert found >= -1e-6


def test_one_value_an_image_summed_over_its_values():
    decoded, originals, mu, logvar, loss = parts()
    assert loss.total.shape == loss.reconstruction.shape == loss.kl.shape == (4,)
    by_hand = ((decoded[2] - originals[2]) ** 2).sum()
    torch.testing.assert_close(loss.reconstruction[2], by_hand)
    torch.testing.assert_close(loss.kl[2], kl_per_dimension(mu[2], logvar[2]).sum())
    torch.testing.assert_close(loss.total, loss.reconstruction + loss.kl)


def test_beta_weighs_the_kl_term_and_mean_averages_the_error():
    *_, summed = parts(beta=4.0)
    torch.testing.assert_close(summed.total, summed.reconstruction + 4 * summed.kl)
    *_, averaged = parts(reduction="mean")
    torch.testing.assert_close(averaged.reconstruction, summed.reconstruction / (3 * 4 * 4))
    torch.testing.assert_close(averaged.kl, summed.kl)


def test_gradients_are_right():
    torch.manual_seed(1)
    tensors = [torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2), torch.randn(2, 3), torch.randn(2, 3)]
    inputs = [tensor.double().requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(lambda *x: elbo(*x).total, inputs)
