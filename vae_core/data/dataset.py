"""What a data set is: three parts of images, their classes, and what is known of it by name."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

BUILT_IN_SIZES = {"shapes": (20_000, 2_000, 2_000), "faces": (20_000, 2_000, 2_000)}
NAMES = (*BUILT_IN_SIZES, "cifar10", "celeba")
MAX_NAME = 60  # characters
# The names that `load_dataset` gives to these data sets, with options; a user's folder of such a
# name gets another one.
OPTION_SUFFIXES = r"(-fraction[\d.e-]+|-limit\d+|-seed\d+|-\d+px|-permuted[\d.e-]+)*"
RESERVED_NAME = re.compile(rf"({'|'.join(NAMES)}){OPTION_SUFFIXES}", re.IGNORECASE)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without loading it."""

    title: str  # for people
    fraction: float = 1.0  # share of the training part that the original study uses
    epochs: int = 100  # how long `make report` trains on it at most


INFO = {
    "shapes": DatasetInfo("built-in shapes", epochs=4),
    "faces": DatasetInfo("built-in faces", epochs=4),
    "cifar10": DatasetInfo("CIFAR-10"),
    "cifar10-jpeg": DatasetInfo("CIFAR-10 (JPEG)"),
    "celeba": DatasetInfo("CelebA", fraction=0.3),
    "celeba-9k": DatasetInfo("CelebA (first 9,000)"),
    "img_align_celeba": DatasetInfo("CelebA"),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three parts of uint8 images [N, 3, size, size], RGB, each in an order drawn by the seed.

    `labels` are the classes of the training, validation and test images as arrays of text: the
    kinds of the built-in shapes, the classes of CIFAR-10, or the names of the images' folders. They
    are None where the class of an image is unknown, or all images have the same one.
    """

    train: torch.Tensor = field(repr=False)
    validation: torch.Tensor = field(repr=False)
    test: torch.Tensor = field(repr=False)
    name: str  # safe as a file name
    title: str  # for people
    fingerprint: str  # hash of the sizes of the parts and the bytes of the images
    labels: tuple[np.ndarray, np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Height and width of an image in pixels."""
        return self.train.shape[-1]

    @property
    def folder(self) -> str:
        """The name of the folder of its runs, which data sets of other images do not share."""
        if RESERVED_NAME.fullmatch(self.name):
            return self.name
        return f"{self.name}-{self.fingerprint[:8]}"


def dataset_info(name_or_path) -> DatasetInfo:
    """Return what is known of a data set without loading it."""
    name = safe_name(str(name_or_path))
    return INFO.get(name, DatasetInfo(name))


def safe_name(name_or_path: str) -> str:
    """Return a name for a data set that is safe as a file name.

    A known name stays as it is; of a path it is the name of the folder or file.
    """
    if name_or_path in NAMES:
        return name_or_path
    path = Path(os.path.abspath(os.path.expanduser(name_or_path)))
    name = path.name if os.path.isdir(path) else path.stem
    name = re.sub(r"[^\w.-]+", "-", name)[:MAX_NAME].strip(".-") or "images"
    if RESERVED_NAME.fullmatch(name):
        return f"{name}-files"
    return name
