"""CIFAR-10, read by torchvision and downloaded where it is missing."""

import hashlib
import time
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import torch
from PIL import Image, ImageOps

from vae_core.data.files import DatasetMissing
from vae_core.storage import held, in_one_line, progress, write

SLOWEST = 20_000  # bytes a second, after a minute
PATIENCE, LONGEST = 60, 1800  # seconds


def torchvision_cifar10() -> type:
    """Import torchvision, which takes a second; this is its only door.

    A wheel built for CUDA misses its compiled operators beside a CPU build of torch. Data sets do
    not need them, and declaring the two that its import looks for is enough.
    """
    try:
        from torchvision.datasets import CIFAR10
    except RuntimeError:
        operators = torchvision_cifar10.kept = torch.library.Library("torchvision", "DEF")
        operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision.datasets import CIFAR10
    return CIFAR10


def read(root: Path) -> tuple[dict[str, range], np.ndarray]:
    """Return the numbers of the images of each part, and all images, uint8 [n, 32, 32, 3].

    Nothing is unpickled whose MD5 sum is not the published one. Raises DatasetMissing where it is
    not in `root`, or not the genuine one, and cannot be downloaded.
    """
    genuine = torchvision_cifar10()
    archive = root / genuine.filename
    try:
        with held(root / "cifar10"):
            try:
                parts = [genuine(root, train=train).data for train in (True, False)]
            except RuntimeError:  # absent or damaged
                given = archive.read_bytes() if archive.exists() else b""
                if hashlib.md5(given).hexdigest() != genuine.tgz_md5:
                    write(archive, _download(genuine.url, genuine.tgz_md5))
                parts = [genuine(root, train=t, download=True).data for t in (True, False)]
    except Exception as error:  # of urllib, tarfile or torchvision, which have none in common
        text = f"no genuine CIFAR-10 is in {root}, and it could not be downloaded ({error}): put "
        text += f"{genuine.filename} or {genuine.base_folder} there and delete what is damaged, or "
        raise DatasetMissing(in_one_line(f"{text}give a folder or zip of images")) from error
    train, test = map(len, parts)
    return {"train": range(train), "test": range(train, train + test)}, np.concatenate(parts)


def blocks(images: np.ndarray, size: int):
    """Yield images [n, 32, 32, 3] as blocks [k, 3, size, size]."""
    for some in np.array_split(images, -(-len(images) // 1000)):
        some = [ImageOps.fit(Image.fromarray(image), (size, size)) for image in some]
        yield np.stack(some).transpose(0, 3, 1, 2)


def _download(url, md5):
    content, began = bytearray(), time.monotonic()
    with (
        urlopen(Request(url, headers={"User-Agent": "pytorch/vision"}), timeout=30) as response,
        progress(total=response.length, desc="CIFAR-10", unit="B", unit_scale=True) as bar,
    ):
        while block := response.read1(1 << 16):
            content += block
            bar.update(len(block))
            seconds = time.monotonic() - began
            rate = len(content) / max(seconds, 1)
            if seconds > LONGEST or (seconds > PATIENCE and rate < SLOWEST):
                raise TimeoutError(f"given up after {seconds:.0f} s at {rate / 1e3:,.1f} kB/s")
    if hashlib.md5(content).hexdigest() != md5:
        raise ValueError("what came is not the genuine file")
    return bytes(content)
