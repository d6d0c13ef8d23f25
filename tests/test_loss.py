import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core.loss import elbo, kl_per_dimension

NORMAL = torch.distributions.Normal
numbers = st.floats(-3, 3)


def example():
    torch.manual_seed(0)
    decoded, images = torch.rand(2, 4, 3, 4, 4)
    mu, logvar = torch.randn(2, 4, 6)
    return decoded, images, mu, logvar


@given(numbers, numbers)
def test_the_kl_is_that_of_two_gaussians(mu, logvar):
    posterior = NORMAL(torch.tensor(mu), torch.tensor(logvar / 2).exp())
    expected = torch.distributions.kl_divergence(posterior, NORMAL(0.0, 1.0)).item()
    kl = kl_per_dimension(torch.tensor(mu), torch.tensor(logvar)).item()
    assert kl == pytest.approx(expected, abs=1e-5)
    assert kl >= -1e-6


def test_the_loss_of_an_image_sums_over_its_values():
    decoded, images, mu, logvar = example()
    loss = elbo(decoded, images, mu, logvar)
    assert loss.total.shape == loss.reconstruction.shape == loss.kl.shape == (4,)
    torch.testing.assert_close(loss.reconstruction[2], ((decoded[2] - images[2]) ** 2).sum())
    torch.testing.assert_close(loss.kl[2], kl_per_dimension(mu[2], logvar[2]).sum())
    torch.testing.assert_close(loss.total, loss.reconstruction + loss.kl)


def test_beta_weights_the_kl_and_mean_averages_the_error():
    summed = elbo(*example(), beta=4.0)
    torch.testing.assert_close(summed.total, summed.reconstruction + 4 * summed.kl)
    averaged = elbo(*example(), reduction="mean")
    torch.testing.assert_close(averaged.reconstruction, summed.reconstruction / (3 * 4 * 4))
    torch.testing.assert_close(averaged.kl, summed.kl)


def test_with_a_variance_the_loss_is_the_gaussian_log_likelihood_and_the_kl():
    decoded, images, mu, logvar = example()
    loss = elbo(decoded, images, mu, logvar, beta=2.0, variance=torch.tensor(0.03))
    decoder = NORMAL(decoded, math.sqrt(0.03))
    expected = -decoder.log_prob(images).flatten(1).sum(1) + 2 * loss.kl
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.reconstruction, (decoded - images).square().flatten(1).sum(1))


def test_a_variance_and_beta_join_the_two_losses():
    """Gradients with variance v equal those with beta = 2 v, up to the factor 1 / (2 v)."""
    variance = torch.tensor(0.05)
    decoded, images, mu, logvar = example()
    gradients = []
    for options in ({"variance": variance}, {"beta": 2 * variance.item()}):
        inputs = [tensor.clone().requires_grad_() for tensor in (decoded, mu, logvar)]
        loss = elbo(inputs[0], images, inputs[1], inputs[2], **options)
        loss.total.sum().backward()
        gradients.append([tensor.grad for tensor in inputs])
    for calibrated, weighted in zip(*gradients, strict=True):
        torch.testing.assert_close(calibrated, weighted / (2 * variance))


@pytest.mark.parametrize("variance", [None, torch.tensor(0.1, dtype=torch.double)])
def test_gradients_are_right(variance):
    torch.manual_seed(1)
    tensors = [torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2), torch.randn(2, 3), torch.randn(2, 3)]
    inputs = [tensor.double().requires_grad_() for tensor in tensors]
    assert torch.autograd.gradcheck(lambda *x: elbo(*x, variance=variance).total, inputs)
