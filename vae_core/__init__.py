"""A study of two variational autoencoders, fully connected and convolutional.

The modules stand on floors, and an import may only point to a lower one (`tests/test_floors.py`
holds them to it):

1. `parameter_sets`, `models`, `loss`, `synthetic`, `files`, `progress`, `vision`
2. `picture_files`
3. `data`, `checkpoints`, `evaluation`
4. `training`, `latent`
5. `results`
6. `claims`, `experiment`, `figures`, `execute`, `report`
7. `study`, `gallery`
8. `publish`
"""

import ctypes
import sys

__version__ = "1.0.0"


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
