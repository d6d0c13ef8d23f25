"""Decoded images in one file that is mapped into memory: loading takes a moment and no memory.

The file begins with a page of facts. Its checksum goes over its name, the facts and the images.
"""

import hashlib
import json
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from vae_core.storage import held, in_one_line, progress, writing

HEADER = 4096


def cached(path: Path, size: int, build) -> tuple[tuple[torch.Tensor, ...], str]:
    """Return the parts of a set, uint8 [n, 3, size, size], and its fingerprint.

    Where the file is missing or damaged, one process asks `build()` for the sizes of the parts and
    the images in blocks; the others wait. Raises OSError where the file cannot be written.
    """
    found = _opened(path)
    if not found:
        with held(path):
            found = _opened(path) or _write(path, *build())
    sizes, fingerprint = found
    images = np.memmap(path, np.uint8, "c", HEADER, (sum(sizes), 3, size, size))
    return torch.from_numpy(images).split(sizes), fingerprint


def _write(path, sizes, blocks):
    if path.exists():
        print(in_one_line(f"{path} is damaged; building it again"), file=sys.stderr)
    digest, checksum = hashlib.sha256(",".join(map(str, sizes)).encode()), 0
    bar = progress(total=sum(sizes), desc=f"preparing {path.stem}", unit=" images")
    with writing(path) as file, bar:
        file.write(bytes(HEADER))
        for block in blocks:
            file.write(content := block.tobytes())
            digest.update(content)
            checksum = zlib.crc32(content, checksum)
            bar.update(len(block))
        facts = [path.name, sizes, digest.hexdigest()[:16]]
        facts.append(zlib.crc32(json.dumps(facts).encode(), checksum))
        file.seek(0)
        file.write(json.dumps(facts).encode().ljust(HEADER))
    return facts[1:3]


def _opened(path):
    # Whatever stands in a damaged file, the answer is to build it again.
    with suppress(Exception), path.open("rb") as file:
        *facts, expected = json.loads(file.read(HEADER))
        checksum = 0
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
        if [path.name, zlib.crc32(json.dumps(facts).encode(), checksum)] == [facts[0], expected]:
            return facts[1:]
