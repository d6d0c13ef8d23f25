import pytest
import torch

from vae_core.models import FCVAE, MODELS, ConvVAE, build_model

PICTURES = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return build_model(request.param, 7)


def test_shapes_and_ranges(model):
    mu, logvar = model.encode(PICTURES)
    assert mu.shape == logvar.shape == (5, 7)
    decoded, _, _ = model(PICTURES)
    assert decoded.shape == PICTURES.shape
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert model.sample(4).shape == (4, 3, 32, 32)


def test_every_weight_gets_a_gradient(model):
    decoded, mu, logvar = model(PICTURES)
    ((decoded - PICTURES).square().sum() + (mu.square() + logvar.exp() - logvar).sum()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_reparameterization_has_the_moments_of_the_posterior(model):
    mu, logvar = torch.full((20_000, 1), 2.0), torch.full((20_000, 1), 1.5)
    z = model.reparameterize(mu, logvar, torch.Generator().manual_seed(1))
    assert z.mean().item() == pytest.approx(2.0, abs=0.06)
    assert z.var().item() == pytest.approx(torch.tensor(1.5).exp().item(), rel=0.04)


def test_reconstruct_is_deterministic_and_decodes_the_mean(model):
    mu, _ = model.encode(PICTURES)
    assert torch.equal(model.reconstruct(PICTURES), model.reconstruct(PICTURES))
    assert torch.equal(model.reconstruct(PICTURES), model.decode(mu).detach())


def test_forward_and_sample_are_random_but_seeded(model):
    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    assert torch.equal(model(PICTURES, seeded(3))[0], model(PICTURES, seeded(3))[0])
    assert not torch.equal(model(PICTURES, seeded(3))[0], model(PICTURES, seeded(4))[0])
    assert torch.equal(model.sample(2, seeded(3)), model.sample(2, seeded(3)))


def test_sizes_are_those_of_the_study():
    def weights(model):
        return sum(weight.numel() for weight in model.parameters())

    linear = [(3072, 512), (512, 256), (256, 128), (256, 128), (128, 256), (256, 512), (512, 3072)]
    assert weights(FCVAE(128)) == sum(n * m + m for n, m in linear)
    convolutions = [(3, 32), (32, 64), (64, 128)]
    expected = sum(n * m * 16 + m for n, m in convolutions)
    expected += sum(n * m * 16 + n for n, m in convolutions)
    expected += 2 * (2048 * 128 + 128) + 128 * 2048 + 2048
    assert weights(ConvVAE(128)) == expected


@pytest.mark.parametrize("shape", [(1, 16, 24), (3, 64, 64)])
def test_other_picture_sizes(shape):
    for name in MODELS:
        model = build_model(name, 4, shape)
        assert model.sample(2).shape == (2, *shape)
        assert model.encode(torch.rand(2, *shape))[0].shape == (2, 4)


@pytest.mark.parametrize("shape", [(3, 30, 32), (3, 32), (3, 0, 32), (3, 32, 32.0)])
def test_impossible_picture_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"image_shape is .*multiples of 8"):
        ConvVAE(4, shape)


def test_pictures_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match=r"\[2, 3, 16, 16\].*\[N, 3, 32, 32\]"):
        model.encode(torch.rand(2, 3, 16, 16))


def test_latents_of_another_size_are_refused(model):
    with pytest.raises(ValueError, match=r"\[2, 8\].*\[N, 7\]"):
        model.decode(torch.rand(2, 8))


@pytest.mark.parametrize("latent_dim", [0, -1, 1.5, "8", None])
def test_impossible_latent_sizes_are_refused(latent_dim):
    with pytest.raises(ValueError, match="latent_dim"):
        FCVAE(latent_dim)


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'vae'.*fc, conv"):
        build_model("vae", 8)
