import pytest
import torch
from torch import nn

from vae_core.config import PARAMETER_SETS, Config
from vae_core.models import FCVAE, MODELS, Autoencoder, ConvVAE, LinearVAE, LocalVAE
from vae_core.training import build_model

UINT8 = torch.randint(
    256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
IMAGES = UINT8 / 255


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param](7, (3, 32, 32))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 24), (3, 64, 64), (3, 28, 28)])
def test_shapes_and_ranges(model, shape):
    model = type(model)(7, shape)
    decoded, mu, logvar = model(torch.rand(5, *shape))
    assert mu.shape == logvar.shape == (5, 7)
    assert decoded.shape == (5, *shape) and decoded.dtype == torch.float32
    assert isinstance(model, LinearVAE) or (decoded.min() >= 0 and decoded.max() <= 1)
    uint8 = (torch.rand(5, *shape) * 255).byte()
    mu, _ = model.encode(model.to_unit_interval(uint8))
    assert torch.equal(model.reconstruct(uint8), model.decode(mu).detach())
    first, again = (model.sample(4, seeded(3)) for _ in range(2))
    assert first.shape == (4, *shape) and torch.equal(first, again)


def test_every_weight_gets_a_gradient(model):
    decoded, mu, logvar = model(IMAGES)
    ((decoded - IMAGES).square().sum() + (mu.square() + logvar.exp() - logvar).sum()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_reparameterization_has_the_moments_of_the_posterior():
    mu, logvar = torch.full((20_000, 1), 2.0), torch.full((20_000, 1), 1.5)
    z = ConvVAE.reparameterize(mu, logvar, seeded(1))
    assert z.mean().item() == pytest.approx(2.0, abs=0.06)
    assert z.var().item() == pytest.approx(torch.tensor(1.5).exp().item(), rel=0.04)
    assert Autoencoder.reparameterize(mu, logvar) is mu


def test_sizes_are_those_of_the_design():
    def weights(model):
        return sum(weight.numel() for weight in model.parameters())

    assert weights(FCVAE(128, (3, 32, 32))) == 3_511_040
    assert weights(ConvVAE(128, (3, 32, 32))) == 1_119_811
    larger = ConvVAE(4, (3, 64, 64)).encoder  # four convolutions, down to 4×4 too
    assert sum(isinstance(layer, nn.Conv2d) for layer in larger) == 4
    assert larger(torch.rand(1, 3, 64, 64)).shape == (1, 256 * 16)


def test_a_locally_connected_model_with_equal_filters_everywhere_is_the_convolutional_one():
    torch.manual_seed(0)
    conv, local = ConvVAE(8, (3, 32, 32)), LocalVAE(8, (3, 32, 32))
    local.to_mu, local.decoder[0] = conv.to_mu, conv.decoder[0]
    unlike = local.encode(IMAGES)[0]
    for local_layers, conv_layers in ((local.encoder, conv.encoder), (local.decoder, conv.decoder)):
        shared = [
            layer for layer in conv_layers if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        ]
        unshared = [layer for layer in local_layers if hasattr(layer, "output_size")]
        for copy, layer in zip(unshared, shared, strict=True):
            # [C', C, 4, 4] of a convolution, [C, C', 4, 4] of a transposed one
            order = (2, 3, 1, 0) if isinstance(layer, nn.Conv2d) else (0, 2, 3, 1)
            filters = layer.weight.permute(order).reshape(copy.weight.shape[1:])
            copy.weight.data = filters.expand_as(copy.weight).clone()
            copy.bias.data = layer.bias.expand_as(copy.bias).clone()
    z = torch.randn(3, 8, generator=seeded(0))
    assert not torch.allclose(unlike, conv.encode(IMAGES)[0], atol=1e-3)
    assert torch.allclose(local.encode(IMAGES)[0], conv.encode(IMAGES)[0], atol=1e-5)
    assert torch.allclose(local.decode(z), conv.decode(z), atol=1e-5)


def test_hybrids_take_one_half_of_each_and_widths_scale_both():
    fc, conv, first, second = (
        MODELS[n](8, (3, 32, 32)) for n in ("fc", "conv", "fc-conv", "conv-fc")
    )
    assert [str(first.encoder), str(first.decoder)] == [str(fc.encoder), str(conv.decoder)]
    assert [str(second.encoder), str(second.decoder)] == [str(conv.encoder), str(fc.decoder)]
    assert first.to_mu.in_features == 256 and second.to_mu.in_features == 2048
    for name, hidden in (("fc-half", 128), ("fc-double", 512), ("conv-half", 1024)):
        assert MODELS[name](8, (3, 32, 32)).to_mu.in_features == hidden


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((3, 33, 32), (32, 36)), ((3, 6, 6), (8,)), ((3, 62, 62), (60, 64)), ((1, 254, 254), (256,))],
)
def test_a_size_that_makes_no_sensible_network_is_refused_with_sizes_that_do(shape, sizes):
    with pytest.raises(ValueError, match=f"{shape[1]} × {shape[2]}") as error:
        ConvVAE(4, shape)
    for size in sizes:
        assert str(size) in str(error.value)
        ConvVAE(4, (3, size, size))


@pytest.mark.parametrize("size", [8, 12, 28, 48, 100, 256])
def test_the_convolutional_model_stays_small_at_every_size_that_it_takes(size):
    try:
        model = ConvVAE(128, (3, size, size))
    except ValueError:
        return
    assert model.decoder[0].out_features <= 16_384


@pytest.mark.parametrize("images", [IMAGES, UINT8[..., :16], UINT8[0]])
def test_images_that_do_not_fit_are_refused(model, images):
    with pytest.raises(ValueError, match=r"do not fit .*uint8 \[N, 3, 32, 32\]"):
        model.reconstruct(images)


def test_uint8_images_become_values_from_0_to_1(model):
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    scaled = model.to_unit_interval(images.expand(2, 3, 32, 32))
    assert scaled[0, :, 0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert scaled.is_contiguous(memory_format=model.memory_format)


def test_every_model_is_listed_under_its_own_name():
    assert {name: model.name for name, model in MODELS.items()} == {name: name for name in MODELS}


def test_dropout_acts_in_training_alone():
    config = Config("fc", PARAMETER_SETS["p2"], dropout=0.5)
    model = build_model(config, (3, 32, 32))
    model.train()
    assert not torch.equal(model.encode(IMAGES)[0], model.encode(IMAGES)[0])
    model.eval()
    assert torch.equal(model.encode(IMAGES)[0], model.encode(IMAGES)[0])
