"""Latent spaces by hand: in Jupyter (`explore`), and in a page that needs no server (`page`)."""

from vae_core.explorer.display import Explorer, explore
from vae_core.explorer.state import top_latents

__all__ = ["Explorer", "explore", "top_latents"]
