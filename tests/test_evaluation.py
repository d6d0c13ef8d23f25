import math

import numpy as np
import pytest
import torch

from vae_core.config import PARAMETER_SETS, Config
from vae_core.data.synthetic import shapes
from vae_core.evaluation import (
    active_dimensions,
    bits_per_dim,
    class_accuracy,
    evaluate,
    importance_weighted_bound,
    operations,
    oscillation,
    posterior_statistics,
)
from vae_core.loss import elbo
from vae_core.models import MODELS
from vae_core.training import build_model


def images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture(params=["fc", "conv"])
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param](16, (3, 32, 32))


def test_losses_are_means_over_images_also_with_a_short_last_batch(model):
    data = images(7)
    whole = evaluate(model, data, batch_size=7)
    decoded, mu, logvar = model(data / 255, torch.Generator().manual_seed(0))
    by_hand = elbo(decoded, data / 255, mu, logvar)
    for name, values in zip(("loss", "reconstruction", "kl"), by_hand, strict=True):
        assert whole[name] == pytest.approx(values.mean().item(), rel=1e-5)
    # Torch draws noise in blocks of 16, the latent size here, so the split does not change it.
    assert evaluate(model, data, batch_size=3) == pytest.approx(whole, rel=1e-5)


def test_the_same_call_gives_the_same_numbers_and_another_seed_others(model):
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


def test_posterior_statistics_find_the_latent_that_is_used(model):
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


def test_the_bound_with_one_sample_is_the_loss_and_with_more_samples_lower():
    torch.manual_seed(0)
    model, data = MODELS["fc"](16, (3, 16, 16)), images(20)[..., :16, :16]

    def with_one_sample():
        return torch.stack([importance_weighted_bound(model, data, 1, seed) for seed in range(40)])

    assert with_one_sample().mean().item() == pytest.approx(evaluate(model, data)["loss"], rel=2e-3)
    for weight in model.decoder.parameters():  # so that it matters which z was sampled
        weight.data *= 3
    many = importance_weighted_bound(model, data, 64)
    assert (many < with_one_sample().mean(0)).all()
    assert torch.equal(many, importance_weighted_bound(model, data, 64))


def test_the_bound_of_a_linear_vae_is_its_likelihood_with_any_number_of_samples():
    linear, data = MODELS["linear"](8, (3, 16, 16)), shapes(300, size=16)[0]
    linear.fit(data, variance=0.5)
    # Its posterior is the true one, so every sample has the same weight.
    few = importance_weighted_bound(linear, data[:9], 1)
    many = importance_weighted_bound(linear, data[:9], 50)
    assert few.tolist() == pytest.approx(many.tolist(), rel=1e-4)
    # N(mean, W W' + 1/2) without the constant of the decoder's 768 variances of 1/2
    weight, mean = linear.decoder.weight.detach().double(), linear.decoder.bias.detach().double()
    covariance = weight @ weight.T + torch.eye(len(weight)) / 2
    exact = torch.distributions.MultivariateNormal(mean, covariance)
    constant = len(weight) / 2 * math.log(math.pi)
    expected = -exact.log_prob(data[:9].flatten(1).double() / 255) - constant
    assert many.tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_a_linear_probe_predicts_what_the_features_have_and_no_more():
    features = torch.randn(3_000, 5, generator=torch.Generator().manual_seed(0))
    sides = np.where(features[:, 2] > 0, "right", "left")
    shuffled = np.random.default_rng(0).permutation(sides)

    def accuracy(labels):
        train, test = features[:2_000], features[2_000:]
        return class_accuracy(lambda rows: rows, train, labels[:2_000], test, labels[2_000:])

    assert accuracy(sides) > 0.95
    assert 0.45 < accuracy(shuffled) < 0.55


def test_operations_are_those_of_the_matrix_products():
    sizes = [(3072, 512), (512, 256), (256, 16), (256, 16), (16, 256), (256, 512), (512, 3072)]
    products = sum(2 * n * m for n, m in sizes)
    # Forwards, and backwards to weights and inputs, of which the image is none.
    assert operations(MODELS["fc"](16, (3, 32, 32))) == 3 * products - 2 * 3072 * 512


def test_bits_per_dimension_of_a_uniform_code_are_8():
    assert bits_per_dim(0.0, 3072) == 8
    assert bits_per_dim(-3072 * math.log(2), 3072) == pytest.approx(7)


def test_a_learned_variance_gives_bits_per_dimension():
    torch.manual_seed(0)
    config = Config("fc", PARAMETER_SETS["p2"], decoder_variance="learned")
    model, data = build_model(config, (3, 32, 32)), images(5)
    model.decoder_variance.fill_(0.02)
    measured = evaluate(model, data)
    constant = 1536 * math.log(2 * math.pi * 0.02)
    expected = constant + measured["reconstruction"] / 0.04 + measured["kl"]
    assert measured["loss"] == pytest.approx(expected, rel=1e-6)
    assert measured["bits_per_dim"] == pytest.approx(bits_per_dim(expected, 3072), rel=1e-6)
    weighted = evaluate(model, data, beta=5.0)
    assert weighted["loss"] > measured["loss"]
    assert weighted["bits_per_dim"] == pytest.approx(measured["bits_per_dim"], rel=1e-5)
    assert "bits_per_dim" not in evaluate(MODELS["fc"](16, (3, 32, 32)), data)


def test_oscillation_is_the_size_of_the_jumps_about_a_trend():
    rng = np.random.default_rng(0)
    trend = np.linspace(90, 70, 3_000)
    history = [{"validation_loss": loss} for loss in trend + rng.normal(0, 0.4, 3_000)]
    assert oscillation(history) == pytest.approx(0.4, rel=0.05)
    assert oscillation([{"validation_loss": loss} for loss in trend]) == pytest.approx(0, abs=1e-9)
    assert math.isnan(oscillation(history[:14]))
