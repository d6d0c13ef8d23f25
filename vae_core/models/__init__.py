"""All models. A new one is a subclass of `VAE` in a file of its own and its entry in `MODELS`."""

from vae_core.models.autoencoder import Autoencoder
from vae_core.models.conv import ConvVAE, ConvVAEDouble, ConvVAEHalf
from vae_core.models.fc import FCVAE, FCVAEDouble, FCVAEHalf
from vae_core.models.hybrid import ConvEncoderFCDecoder, FCEncoderConvDecoder, HybridVAE
from vae_core.models.linear import LinearVAE
from vae_core.models.local import LocalVAE
from vae_core.models.vae import VAE

MODELS: dict[str, type[VAE]] = {
    "fc": FCVAE,
    "conv": ConvVAE,
    "linear": LinearVAE,
    "ae": Autoencoder,
    "fc-conv": FCEncoderConvDecoder,
    "conv-fc": ConvEncoderFCDecoder,
    "local": LocalVAE,
    "fc-half": FCVAEHalf,
    "fc-double": FCVAEDouble,
    "conv-half": ConvVAEHalf,
    "conv-double": ConvVAEDouble,
}

__all__ = [
    "FCVAE",
    "MODELS",
    "VAE",
    "Autoencoder",
    "ConvEncoderFCDecoder",
    "ConvVAE",
    "ConvVAEDouble",
    "ConvVAEHalf",
    "FCEncoderConvDecoder",
    "FCVAEDouble",
    "FCVAEHalf",
    "HybridVAE",
    "LinearVAE",
    "LocalVAE",
]
