"""A study of two variational autoencoders, fully connected and convolutional.

The files in reading order:

1. `models`, `loss`, `parameter_sets`: what is compared, layer by layer; `baselines`: with what
2. `training`: the loop and early stopping; `latent`: walks through what it has learned, and
   `explorer`, `controls`: by hand
3. `evaluation`, `figures`, `tables`: numbers, images and what they say
4. `experiment`, `checkpoints`: a run by its name, trained or loaded, and its folder
5. `data`: any images as three parts; `hardware`, `storage`: what the rest stands on
"""

import ctypes
import sys

__version__ = "2.0.0"


def _keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of giving them back to the kernel.

    A training step frees and allocates the same large buffers; without this the kernel takes
    them away and clears them again at every step, which costs the FC-VAE a third of its time.
    Systems with another C library do not have these settings, and nothing happens there.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    mallopt(m_mmap_threshold, 32 << 20)
    mallopt(m_trim_threshold, 1 << 30)
    mallopt(m_top_pad, 64 << 20)


_keep_freed_memory()

# After the memory's settings, which torch would be too late for; it registers its models.
from vae_core import baselines  # noqa: E402, F401
