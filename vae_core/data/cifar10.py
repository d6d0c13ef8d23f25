"""CIFAR-10, read by torchvision and downloaded where it is missing."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image, ImageOps

from vae_core.data.image_files import DatasetMissing, check_no_web_page
from vae_core.storage import atomic_write, locked, progress_bar, single_line

MIN_SPEED, PATIENCE = 100_000, 60  # bytes a second; seconds after which a slow download ends
BLOCK = 1000  # images that are resized at a time


class CIFAR10(NamedTuple):
    """The genuine CIFAR-10."""

    parts: dict[str, range]  # the numbers of the training and the test images
    images: np.ndarray  # uint8 [60000, 32, 32, 3]
    labels: list[str]  # the class of each image


def import_torchvision_cifar10() -> type:
    """Import torchvision's CIFAR10, which takes a second."""
    try:
        from torchvision.datasets import CIFAR10
    except RuntimeError:
        # A wheel built for CUDA misses its operators beside torch for the CPU. Data sets do not
        # need them, and declaring the two that the import looks for is enough. The declaration
        # lasts as long as the library object, so this function keeps it.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_torchvision_cifar10.library = library
        from torchvision.datasets import CIFAR10
    return CIFAR10


def read(root: Path) -> CIFAR10:
    """Return CIFAR-10 from `root`; download it where it is missing.

    Nothing is unpickled whose MD5 sum is not the published one. Raises DatasetMissing where it is
    neither there nor can be downloaded.
    """
    original = import_torchvision_cifar10()
    try:
        with locked(root / "cifar10"):
            try:
                parts = [original(root, train) for train in (True, False)]
            except RuntimeError:  # absent or damaged
                download(original.url, root / original.filename, original.tgz_md5)
                parts = [original(root, train, download=True) for train in (True, False)]
    except Exception as error:  # urllib, tarfile and torchvision have no error in common
        message = (
            f"no genuine CIFAR-10 is in {root}, and it could not be downloaded ({error}): put "
            f"{original.filename} or {original.base_folder} there and delete what is damaged, or "
            "give a folder or zip of images"
        )
        raise DatasetMissing(single_line(message)) from error
    train, test = (len(part.data) for part in parts)
    labels = [part.classes[number] for part in parts for number in part.targets]
    images = np.concatenate([part.data for part in parts])
    return CIFAR10({"train": range(train), "test": range(train, train + test)}, images, labels)


def resize(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield images [n, 32, 32, 3] as blocks [k, 3, size, size]."""
    for block in np.array_split(images, -(-len(images) // BLOCK)):
        resized = [ImageOps.fit(Image.fromarray(image), (size, size)) for image in block]
        yield np.stack(resized).transpose(0, 3, 1, 2)


def download(url: str, archive: Path, md5: str) -> None:
    """Download the archive unless it is there; raise an error where it is slow or another file."""
    if archive.exists() and hashlib.md5(archive.read_bytes()).hexdigest() == md5:
        return
    content, start = bytearray(), time.monotonic()
    request = Request(url, headers={"User-Agent": "pytorch/vision"})
    with (
        urlopen(request, timeout=30) as response,
        progress_bar(total=response.length, desc="CIFAR-10", unit="B", unit_scale=True) as bar,
    ):
        while block := response.read1(1 << 16):
            content += block
            bar.update(len(block))
            check_speed(len(content), time.monotonic() - start)
    check_no_web_page(bytes(content[:1024]))
    if hashlib.md5(content).hexdigest() != md5:
        raise ValueError("the downloaded file is not the genuine one")
    atomic_write(archive, bytes(content))


def check_speed(received: int, seconds: float) -> None:
    """Raise TimeoutError where a download has been slow for long."""
    speed = received / max(seconds, 1e-9)
    if seconds > PATIENCE and speed < MIN_SPEED:
        raise TimeoutError(f"given up after {seconds:.0f} s at {speed / 1e3:,.1f} kB/s")
