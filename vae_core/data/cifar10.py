"""CIFAR-10, read by torchvision and downloaded where it is missing."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image, ImageOps

from vae_core.data.files import DatasetMissing
from vae_core.storage import held, in_one_line, progress, write

SLOWEST, PATIENCE = 100_000, 60  # a download is given up below so many bytes a second, after these


def torchvision_cifar10() -> type:
    """Import torchvision, which takes a second."""
    try:
        from torchvision.datasets import CIFAR10
    except RuntimeError:
        # A wheel built for CUDA misses its operators beside torch for the CPU. Data sets do not
        # need them, and declaring the two that the import looks for is enough.
        operators = torchvision_cifar10.kept = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision.datasets import CIFAR10
    return CIFAR10


def read(root: Path) -> tuple[dict[str, range], np.ndarray, list[str]]:
    """Return the numbers of each part's images, all images, uint8 [n, 32, 32, 3], and classes.

    Nothing is unpickled whose MD5 sum is not the published one.
    """
    genuine = torchvision_cifar10()
    try:
        with held(root / "cifar10"):
            try:
                parts = [genuine(root, train) for train in (True, False)]
            except RuntimeError:  # absent or damaged
                _download(genuine.url, root / genuine.filename, genuine.tgz_md5)
                parts = [genuine(root, train, download=True) for train in (True, False)]
    except Exception as error:  # of urllib, tarfile or torchvision, which have none in common
        text = f"no genuine CIFAR-10 is in {root}, and it could not be downloaded ({error}): put "
        text += f"{genuine.filename} or {genuine.base_folder} there and delete what is damaged, or "
        raise DatasetMissing(in_one_line(f"{text}give a folder or zip of images")) from error
    train, test = (len(part.data) for part in parts)
    numbers = {"train": range(train), "test": range(train, train + test)}
    classes = [part.classes[number] for part in parts for number in part.targets]
    return numbers, np.concatenate([part.data for part in parts]), classes


def resized(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield images [n, 32, 32, 3] as blocks [k, 3, size, size]."""
    for some in np.array_split(images, -(-len(images) // 1000)):
        some = [ImageOps.fit(Image.fromarray(image), (size, size)) for image in some]
        yield np.stack(some).transpose(0, 3, 1, 2)


def _download(url, archive, md5):
    if archive.exists() and hashlib.md5(archive.read_bytes()).hexdigest() == md5:
        return
    content, began = bytearray(), time.monotonic()
    with (
        urlopen(Request(url, headers={"User-Agent": "pytorch/vision"}), timeout=30) as response,
        progress(total=response.length, desc="CIFAR-10", unit="B", unit_scale=True) as bar,
    ):
        while block := response.read1(1 << 16):
            content += block
            bar.update(len(block))
            seconds = time.monotonic() - began
            if seconds > PATIENCE and (rate := len(content) / seconds) < SLOWEST:
                raise TimeoutError(f"given up after {seconds:.0f} s at {rate / 1e3:,.1f} kB/s")
    if hashlib.md5(content).hexdigest() != md5:
        raise ValueError("what came is not the genuine file")
    write(archive, bytes(content))
