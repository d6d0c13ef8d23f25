import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vae_core.data.synthetic import shapes
from vae_core.evaluation import (
    active_dimensions,
    class_accuracy,
    evaluate,
    importance_weighted_bound,
    operations,
    posterior_statistics,
)
from vae_core.loss import elbo
from vae_core.models import MODELS


def images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture(params=["fc", "conv"])
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param](16, (3, 32, 32))


def test_figures_are_means_over_images_also_with_a_short_last_batch(model):
    data = images(7)
    whole = evaluate(model, data, batch_size=7)
    decoded, mu, logvar = model(data / 255, torch.Generator().manual_seed(0))
    by_hand = elbo(decoded, data / 255, mu, logvar)
    for name, values in zip(("loss", "reconstruction", "kl"), by_hand, strict=True):
        assert whole[name] == pytest.approx(values.mean().item(), rel=1e-5)
    # Torch draws noise in blocks of 16, the latent size here, so the split does not change it.
    assert evaluate(model, data, batch_size=3) == pytest.approx(whole, rel=1e-5)


def test_same_call_same_numbers_and_another_seed_others(model):
    data = images(4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert evaluate(model, data) == evaluate(model, data)
    assert evaluate(model, data, seed=1)["loss"] != evaluate(model, data)["loss"]
    assert torch.equal(before, torch.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())


def test_no_images_is_an_error(model):
    with pytest.raises(ValueError, match="no images"):
        evaluate(model, images(0))


def test_posterior_statistics_find_the_dimension_that_is_used(model):
    with torch.no_grad():
        for head in (model.to_mu, model.to_logvar):
            head.weight.zero_()
            head.bias.zero_()
        model.to_mu.weight[2] = 10.0
    statistics = posterior_statistics(model, images(9))
    others = [dimension for dimension in range(16) if dimension != 2]
    for name in ("variance", "kl"):
        assert statistics[name][2] > 0 and statistics[name][others].abs().max() == 0
    assert active_dimensions(model, images(9)) == 1


def test_one_draw_bounds_as_the_loss_does_and_more_draws_tighter():
    torch.manual_seed(0)
    model, data = MODELS["fc"](16, (3, 16, 16)), images(20)[..., :16, :16]

    def alone():
        return torch.stack([importance_weighted_bound(model, data, 1, seed) for seed in range(40)])

    assert alone().mean().item() == pytest.approx(evaluate(model, data)["loss"], rel=2e-3)
    for weight in model.decoder.parameters():  # so that it matters which z was drawn
        weight.data *= 3
    many = importance_weighted_bound(model, data, 64)
    assert (many < alone().mean(0)).all()
    assert torch.equal(many, importance_weighted_bound(model, data, 64))


def test_the_bound_of_a_linear_vae_is_its_likelihood_with_any_number_of_draws():
    linear, data = MODELS["linear"](8, (3, 16, 16)), shapes(300, size=16)[0]
    linear.fit(data, beta=1.0)
    # Its posterior is the true one, so that every draw has the same weight.
    few, many = (importance_weighted_bound(linear, data[:9], draws) for draws in (1, 50))
    assert few.tolist() == pytest.approx(many.tolist(), rel=1e-4)
    # N(mean, W W' + 1/2) without the constant of the decoder's 768 variances of 1/2
    weight, mean = linear.decoder.weight.detach().double(), linear.decoder.bias.detach().double()
    covariance = weight @ weight.T + torch.eye(len(weight)) / 2
    exact = torch.distributions.MultivariateNormal(mean, covariance)
    constant = len(weight) / 2 * math.log(math.pi)
    expected = -exact.log_prob(data[:9].flatten(1).double() / 255) - constant
    assert many.tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_a_linear_probe_reads_what_is_there_and_no_more():
    features = torch.randn(3_000, 5, generator=torch.Generator().manual_seed(0))
    sides = np.where(features[:, 2] > 0, "right", "left")
    tossed = np.random.default_rng(0).permutation(sides)
    known, unknown = (
        class_accuracy(
            lambda rows: rows,
            SimpleNamespace(
                train=features[:2_000], test=features[2_000:], labels=(own[:2_000], [], own[2_000:])
            ),
        )
        for own in (sides, tossed)
    )
    assert known > 0.95 and 0.45 < unknown < 0.55


def test_operations_are_those_of_the_matrix_products():
    sizes = [(3072, 512), (512, 256), (256, 16), (256, 16), (16, 256), (256, 512), (512, 3072)]
    products = sum(2 * n * m for n, m in sizes)
    # Forwards, and backwards to weights and inputs, of which the image is none.
    assert operations(MODELS["fc"](16, (3, 32, 32))) == 3 * products - 2 * 3072 * 512
