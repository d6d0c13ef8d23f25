"""The encoder of one model with the decoder of another."""

import torch

from vae_core.models.conv import ConvVAE
from vae_core.models.fc import FCVAE
from vae_core.models.vae import VAE


class HybridVAE(VAE):
    """What the hybrids share: they take their encoder and their decoder from two other models."""

    memory_format = torch.channels_last
    encoder_model: type[VAE]
    decoder_model: type[VAE]

    def __init__(self, latent_dim, image_shape):
        encoding = self.encoder_model(latent_dim, image_shape)
        decoding = self.decoder_model(latent_dim, image_shape)
        super().__init__(latent_dim, image_shape, hidden=encoding.to_mu.in_features)
        self.encoder = encoding.encoder
        self.decoder = decoding.decoder


class FCEncoderConvDecoder(HybridVAE):
    """A fully connected encoder with a convolutional decoder."""

    name, title, colour = "fc-conv", "FC encoder, conv decoder", "#e08e2b"
    encoder_model, decoder_model = FCVAE, ConvVAE


class ConvEncoderFCDecoder(HybridVAE):
    """A convolutional encoder with a fully connected decoder."""

    name, title, colour = "conv-fc", "conv encoder, FC decoder", "#8f4ea8"
    encoder_model, decoder_model = ConvVAE, FCVAE
