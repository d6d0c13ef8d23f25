"""Images for training: `load_dataset` gives any data set as three parts of uint8 squares.

`sources` says where images come from: `synthetic` draws the built-in ones; `cifar10`, `celeba` and
`image_files` read what lies on the disk. `splits` sorts them into a training, a validation and a
test part, and `cache` keeps them decoded.
"""

from vae_core.data.dataset import NAMES, Dataset, DatasetInfo, dataset_info
from vae_core.data.image_files import DatasetMissing
from vae_core.data.loading import load_dataset
from vae_core.data.permutation import permute_pixels, pixel_permutation

__all__ = [
    "NAMES",
    "Dataset",
    "DatasetInfo",
    "DatasetMissing",
    "dataset_info",
    "load_dataset",
    "permute_pixels",
    "pixel_permutation",
]
