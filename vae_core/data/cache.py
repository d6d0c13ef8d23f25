"""Decoded images in one file that is mapped into memory, so that loading takes no memory."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vae_core.storage import atomic_open, locked, print_error, progress_bar

LARGE_GIGABYTES = 2.0  # of decoded images, above which their size is printed first
HEADER = 4096  # bytes before the images: a description of the file as JSON

Labels = list[list[str]]  # the class of each image, in three lists


class Build(NamedTuple):
    """A data set that is about to be decoded."""

    sizes: list[int]  # of the training, validation and test part
    blocks: Iterator[np.ndarray]  # the images of all parts in order, uint8 [n, 3, size, size] each
    labels: Labels | None  # None: unknown


class CachedImages(NamedTuple):
    """A decoded data set."""

    parts: tuple[torch.Tensor, ...]  # uint8 [n, 3, size, size]
    fingerprint: str  # hash of the sizes and the bytes of the images
    labels: tuple[np.ndarray, ...] | None


def load_cached(path: Path, size: int, build: Callable[[], Build]) -> CachedImages:
    """Return the data set in a cache file; build the file where it is missing or damaged.

    One process builds it; the others wait.
    """
    # Whatever a damaged file makes the libraries raise, the answer is to build it again.
    with suppress(Exception):
        return read_cache(path, size)
    with locked(path):
        with suppress(Exception):  # another process may have built it meanwhile
            return read_cache(path, size)
        if path.exists():
            print_error(f"{path} is damaged; building it again")
        write_cache(path, size, build())
        remove_superseded(path)
        return read_cache(path, size)


def remove_superseded(path: Path) -> None:
    """Remove the caches that the files of the same data set had before they changed."""
    prefix, _, _ = path.stem.rpartition("-")
    for other in path.parent.glob(f"{prefix}-*{path.suffix}"):
        if other != path:
            other.unlink(missing_ok=True)


def write_cache(path: Path, size: int, build: Build) -> None:
    """Decode a data set into a cache file: header, images, labels."""
    report_large_file(path, size, build)
    digest = size_digest(build.sizes)
    labels = json.dumps(build.labels).encode()
    bar = progress_bar(total=sum(build.sizes), desc=f"preparing {path.stem}", unit=" images")
    # The blocks are closed here, since threads wait in them: left to the garbage collector, which
    # may run while another thread starts, they could cause a deadlock.
    with atomic_open(path) as file, bar, closing(build.blocks):
        file.write(bytes(HEADER))
        for block in build.blocks:
            content = block.tobytes()
            file.write(content)
            digest.update(content)
            bar.update(len(block))
        file.write(labels)
        file.seek(0)
        header = {
            "file": path.name,
            "sizes": build.sizes,
            "fingerprint": digest.hexdigest()[:16],
            "labels": hashlib.sha256(labels).hexdigest(),
        }
        file.write(json.dumps(header).encode().ljust(HEADER))


def report_large_file(path: Path, size: int, build: Build) -> None:
    """Print a line where the decoded images will take much room."""
    gigabytes = 3 * size**2 * sum(build.sizes) / 1e9
    if gigabytes > LARGE_GIGABYTES:
        print_error(f"the decoded images will take {gigabytes:.1f} GB in {path.parent}")


def read_cache(path: Path, size: int) -> CachedImages:
    """Read a cache file of images of this size; raise any error where it is damaged."""
    with path.open("rb") as file:
        header = json.loads(file.read(HEADER))
        sizes = header["sizes"]
        shape = (sum(sizes), 3, size, size)
        images = np.memmap(path, np.uint8, "c", HEADER, shape)
        file.seek(HEADER + images.nbytes)
        labels = file.read()
    digest = size_digest(sizes)
    digest.update(images)
    if header["file"] != path.name or header["fingerprint"] != digest.hexdigest()[:16]:
        raise ValueError("the images are not those of the header")
    if hashlib.sha256(labels).hexdigest() != header["labels"]:
        raise ValueError("the labels are not those of the header")
    parts = torch.from_numpy(images).split(sizes)
    return CachedImages(parts, header["fingerprint"], label_arrays(json.loads(labels)))


def size_digest(sizes: list[int]):
    """Return a SHA-256 that has the sizes of the parts in it."""
    return hashlib.sha256(",".join(map(str, sizes)).encode())


def label_arrays(labels: Labels | None) -> tuple[np.ndarray, ...] | None:
    """Return labels as arrays of text."""
    if labels is None:
        return None
    return tuple(np.array(part, str) for part in labels)
