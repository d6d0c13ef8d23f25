"""Decoded images in one file that is mapped into memory: loading takes a moment and no memory."""

import hashlib
import json
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import torch

from vae_core.storage import held, progress, say, writing

HEADER = 4096  # bytes before the images: the file's name, the sizes of the parts, the fingerprint


def cached(path: Path, size: int, build) -> tuple[tuple[torch.Tensor, ...], str]:
    """Return the parts of a set, uint8 [n, 3, size, size], and its fingerprint.

    Where the file is missing or damaged, one process asks `build()` for the sizes of the parts and
    the images in blocks; the others wait.
    """
    # Whatever stands in a damaged file, the answer is to build it again.
    with suppress(Exception):
        return _read(path, size)
    with held(path):
        with suppress(Exception):  # another process may have built it meanwhile
            return _read(path, size)
        if path.exists():
            say(f"{path} is damaged; building it again")
        sizes, blocks = build()
        digest = hashlib.sha256(",".join(map(str, sizes)).encode())
        bar = progress(total=sum(sizes), desc=f"preparing {path.stem}", unit=" images")
        # Closed here, since threads wait in it: whoever collects what is left of it could deadlock.
        with writing(path) as file, bar, closing(blocks):
            file.write(bytes(HEADER))
            for block in blocks:
                file.write(content := block.tobytes())
                digest.update(content)
                bar.update(len(block))
            file.seek(0)
            header = json.dumps([path.name, sizes, digest.hexdigest()[:16]])
            file.write(header.encode().ljust(HEADER))
        return _read(path, size)


def _read(path, size):
    with path.open("rb") as file:
        name, sizes, fingerprint = json.loads(file.read(HEADER))
    images = np.memmap(path, np.uint8, "c", HEADER).reshape(-1, 3, size, size)
    digest = hashlib.sha256(",".join(map(str, sizes)).encode())
    digest.update(images)
    if (name, fingerprint) != (path.name, digest.hexdigest()[:16]):
        raise ValueError("damaged")
    return torch.from_numpy(images).split(sizes), fingerprint
