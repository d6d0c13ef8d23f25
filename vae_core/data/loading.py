"""`load_dataset`: any data set as three parts of uint8 squares."""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vae_core.data import celeba
from vae_core.data.cache import load_cached
from vae_core.data.dataset import BUILT_IN_SIZES, NAMES, Dataset, dataset_info, safe_name
from vae_core.data.permutation import permute_pixels, pixel_permutation
from vae_core.data.sources import (
    BuiltInSource,
    CIFAR10Source,
    FileSource,
    Source,
    SplitOptions,
)
from vae_core.storage import DATA, PROJECT, check_float, check_int

# Every file of this package decides which images there are, so a change builds the cache anew.
CODE = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


@dataclass(frozen=True)
class LoadOptions:
    """The checked options of `load_dataset`."""

    seed: int
    limit: int | None
    fraction: float
    size: int

    @property
    def split(self) -> SplitOptions:
        """The options that decide which images are in which part."""
        return SplitOptions(self.seed, self.limit, self.fraction)

    @property
    def suffix(self) -> str:
        """What the options add to the name of a data set."""
        suffix = ""
        if self.fraction < 1:
            suffix += f"-fraction{self.fraction}"
        if self.limit is not None:
            suffix += f"-limit{self.limit}"
        if self.seed != 0:
            suffix += f"-seed{self.seed}"
        if self.size != 32:
            suffix += f"-{self.size}px"
        return suffix


def load_dataset(
    name_or_path: str | Path,
    root: str | Path = DATA,
    seed: int = 0,
    limit: int | None = None,
    fraction: float = 1.0,
    size: int = 32,
    permuted: float = 0.0,
) -> Dataset:
    """Load `shapes`, `faces`, `cifar10`, `celeba`, or the images of a folder or zip.

    If a folder or zip has a training part and another one (train/ and test/, val/ or both, at any
    depth), it is split accordingly. Of missing parts, 10 % of the images are drawn for testing and
    5 % of the training images for validation. A copy of CelebA keeps its official parts. A folder
    named like a known data set is given as `./shapes`.

    Args:
        root: folder of downloads and of decoded images.
        seed: of everything that is drawn.
        limit: maximum number of training images, at least 10; other parts have a fifth of it.
        fraction: share of the training part that is used.
        size: height and width of the images in pixels, 8 to 256.
        permuted: share of the pixels that are moved, in all images alike, see `pixel_permutation`.

    Raises DatasetMissing where CIFAR-10 or CelebA is not there, FileNotFoundError for what is
    neither a name nor a path, ValueError for invalid options, too few images or files that cannot
    be read, and OSError where the cache cannot be written. Each message is one line.
    """
    text, root = str(name_or_path), Path(os.path.expanduser(root))
    options = LoadOptions(
        check_int("seed", seed, at_least=0),
        None if limit is None else check_int("limit", limit, at_least=10),
        check_float("fraction", fraction, above=0, at_most=1),
        check_int("size", size, at_least=8, at_most=256),
    )
    check_float("permuted", permuted, at_most=1)
    source = find_source(text, root, options.split)
    name = safe_name(text) + options.suffix
    images = load_cached(
        cache_path(root, name, source, options), options.size, lambda: source.build(options.size)
    )
    dataset = Dataset(
        *images.parts,
        name=name,
        title=dataset_info(text).title,
        fingerprint=images.fingerprint,
        labels=images.labels,
    )
    if permuted > 0:
        return permute_dataset(dataset, float(permuted))
    return dataset


def find_source(text: str, root: Path, options: SplitOptions) -> Source:
    """Return the source of a data set's name or path."""
    if text in BUILT_IN_SIZES:
        return BuiltInSource(text, options)
    if text == "cifar10":
        return CIFAR10Source(root, options)
    if text == "celeba":
        return FileSource(celeba.find(root), True, options)
    return FileSource(find_path(text), False, options)


def find_path(text: str) -> Path:
    """Return the folder or zip of a path; a downloaded CelebA is the zip in its folder."""
    path = Path(os.path.expanduser(text))
    if not text or not os.path.exists(path):
        raise FileNotFoundError(
            f"{text!r} is neither a known data set ({', '.join(NAMES)}) nor an existing path; "
            "give a folder or zip of images, or a name"
        )
    if (PROJECT / "vae_core").is_dir() and PROJECT.is_relative_to(path.resolve()):
        raise ValueError(f"{text!r} holds this project; give a folder that has only images")
    archive = path / f"{celeba.NAME}.zip"
    if archive.is_file() and not (path / celeba.NAME).is_dir():
        return archive
    return path


def cache_path(root: Path, name: str, source: Source, options: LoadOptions) -> Path:
    """Return the cache file of exactly these images, decoded by this code.

    It is `<name>-<origin>-<content>.u8`: caches of one origin supersede each other.
    """
    origin = short_hash([type(source).__name__, source.origin()], 8)
    content = short_hash([CODE, source.identity(), vars(options)], 16)
    return root / "cache" / f"{name}-{origin}-{content}.u8"


def short_hash(value: Any, digits: int) -> str:
    """Return the first hexadecimal digits of a SHA-256 over a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:digits]


def permute_dataset(dataset: Dataset, share: float) -> Dataset:
    """Return the data set with this share of the pixels moved, in all images alike."""
    order = pixel_permutation(dataset.size**2, share)
    suffix = f"-permuted{share}"
    return replace(
        dataset,
        train=permute_pixels(dataset.train, order),
        validation=permute_pixels(dataset.validation, order),
        test=permute_pixels(dataset.test, order),
        name=dataset.name + suffix,
        title=f"{dataset.title}, {share:.0%} of the pixels elsewhere",
        fingerprint=hashlib.sha256((dataset.fingerprint + suffix).encode()).hexdigest()[:16],
    )
