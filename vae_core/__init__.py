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
from contextlib import suppress

__version__ = "2.0.0"

# A training step frees and allocates the same large buffers. glibc would give them back to the
# kernel, which takes them away and clears them again at every step: a third of the FC-VAE's time.
# Systems with another C library do not have these settings, and nothing happens there.
with suppress(OSError, AttributeError, TypeError):
    _mallopt = ctypes.CDLL(None).mallopt
    _mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
    _mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    _mallopt(-2, 64 << 20)  # M_TOP_PAD

# After the memory's settings, which torch would be too late for; it registers its models.
from vae_core import baselines  # noqa: F401
