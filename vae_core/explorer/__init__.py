"""Latent spaces by hand: in Jupyter (`explore`), and in a page that needs no server (`page`)."""

from vae_core.explorer.state import Explorer, explore, top_latents

__all__ = ["Explorer", "explore", "top_latents"]
