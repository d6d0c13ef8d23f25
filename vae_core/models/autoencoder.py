"""A plain autoencoder, to compare with."""

from vae_core.models.conv import ConvVAE


class Autoencoder(ConvVAE):
    """The layers of the CVAE without noise: z = mu. Trained with `beta=0`, without a prior."""

    name, title, colour = "ae", "autoencoder", "#8a6d00"

    @staticmethod
    def reparameterize(mu, logvar, generator=None):
        """Return mu."""
        return mu
