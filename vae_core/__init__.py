"""Variational autoencoders, fully connected and convolutional: models, loss, training, analysis.

The files in reading order:

1. `models/`, `loss`: the models, layer by layer, and what they minimize
2. `config`, `training`: the parameter sets p1, p2 and p3; the loop and early stopping
3. `latent`, `evaluation`: samples, interpolation, traversal; every number that is measured
4. `intervals`, `figures`: means over seeds and tests; figures in one style
5. `data/`: any images as a training, a validation and a test part
6. `runs/`: a run by its configuration, trained or loaded; its folder; tables of results
7. `explorer/`: latent spaces by hand, in Jupyter and in a page that needs no server
8. `storage`: whole files, locks, messages, checks
"""

import ctypes
from contextlib import suppress

__version__ = "2.0.0"

# Options of glibc's mallopt, from malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3

# A training step frees and allocates the same large buffers. By default glibc gives them back to
# the kernel and clears them again at every step, a third of the FC-VAE's time. This must be set
# before torch is imported. Other C libraries do not have these options, and nothing happens there.
with suppress(OSError, AttributeError, TypeError):
    _mallopt = ctypes.CDLL(None).mallopt
    _mallopt(M_MMAP_THRESHOLD, 32 << 20)
    _mallopt(M_TRIM_THRESHOLD, 1 << 30)
    _mallopt(M_TOP_PAD, 64 << 20)
