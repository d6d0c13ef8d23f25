import pytest
import torch

from vae_core.evaluation import evaluate, posterior_statistics, to_unit_interval
from vae_core.loss import elbo
from vae_core.models import MODELS, build_model


def pictures(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return build_model(request.param, 16)


def test_figures_are_means_over_pictures_also_with_a_short_last_batch(model):
    data = pictures(7)
    whole = evaluate(model, data, batch_size=7)
    decoded, mu, logvar = model(data / 255, torch.Generator().manual_seed(0))
    by_hand = elbo(decoded, data / 255, mu, logvar)
    for name, values in zip(("loss", "reconstruction", "kl"), by_hand, strict=True):
        assert whole[name] == pytest.approx(values.mean().item(), rel=1e-5)
    # Torch draws noise in blocks of 16, the latent size here, so the split does not change it.
    assert evaluate(model, data, batch_size=3) == pytest.approx(whole, rel=1e-5)


def test_same_call_same_numbers_and_another_seed_others(model):
    data = pictures(4)
    assert evaluate(model, data) == evaluate(model, data)
    assert evaluate(model, data, seed=1)["loss"] != evaluate(model, data)["loss"]


def test_evaluation_leaves_no_gradients_and_no_trace(model):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    evaluate(model, pictures(3))
    assert torch.equal(before, torch.get_rng_state())
    assert all(weight.grad is None for weight in model.parameters())


def test_beta_and_reduction_reach_the_objective(model):
    plain = evaluate(model, pictures(3))
    weighed = evaluate(model, pictures(3), beta=10.0)
    assert weighed["loss"] == pytest.approx(plain["reconstruction"] + 10 * plain["kl"], rel=1e-5)
    averaged = evaluate(model, pictures(3), reduction="mean")
    assert averaged["reconstruction"] == pytest.approx(plain["reconstruction"] / 3072, rel=1e-5)


def test_no_pictures_is_an_error(model):
    with pytest.raises(ValueError, match="no pictures"):
        evaluate(model, pictures(0))


def test_pictures_that_are_not_uint8_are_refused(model):
    with pytest.raises(ValueError, match="float32"):
        evaluate(model, torch.rand(2, 3, 32, 32))


def test_unit_interval(model):
    data = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)
    found = to_unit_interval(data, model)
    assert found[0, :, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert found.is_contiguous(memory_format=model.memory_format)


def test_posterior_statistics_find_the_dimension_that_is_used(model):
    with torch.no_grad():
        for head in (model.to_mu, model.to_logvar):
            head.weight.zero_()
            head.bias.zero_()
        model.to_mu.weight[2] = 1.0
    statistics = posterior_statistics(model, pictures(9), batch_size=4)
    assert statistics["variance"][2] > 0
    assert statistics["kl"][2] > 0
    others = [dimension for dimension in range(16) if dimension != 2]
    assert statistics["variance"][others].abs().max() == 0
    assert statistics["kl"][others].abs().max() == 0
