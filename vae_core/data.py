"""Pictures for training: `load_dataset` gives any data set as three parts of 32×32 uint8 tensors.

Picture files are decoded once. The result lies in `<root>/cache/` as raw bytes that are mapped
into memory, so that loading it again takes a moment and a set may be larger than the memory.
"""

import errno
import hashlib
import io
import json
import os
import posixpath
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch

from vae_core import picture_files, synthetic
from vae_core.files import DATA, code_hash, held, write, writing
from vae_core.picture_files import (
    CHUNK,
    SIZE,
    decode_all,
    open_files,
    reading,
    reason,
    refuse_web_page,
)
from vae_core.progress import progress
from vae_core.vision import CIFAR10

BUILT_IN = {"shapes": (20_000, 2_000, 2_000), "faces": (20_000, 2_000, 2_000)}
NAMES = (*BUILT_IN, "cifar10", "celeba")
TITLES = {
    "shapes": "built-in shapes",
    "faces": "built-in faces",
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10 (JPEG)",
    "celeba": "CelebA",
    "celeba-9k": "CelebA (first 9,000)",
    "celeba-files": "CelebA",
    "img_align_celeba": "CelebA",
}
PARTS = ("train", "validation", "test")
PART_FOLDERS = {part: part for part in PARTS} | {"val": "validation", "valid": "validation"}


class DatasetMissing(FileNotFoundError):
    """A known data set is not on this machine; the message says what to put where."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three parts of uint8 pictures [N, 3, 32, 32], RGB, each in an order drawn by the seed.

    `name` serves as the folder of its runs, `title` is for people. `fingerprint` is 16 hex
    digits of a SHA-256 over the sizes and the bytes of the parts.
    """

    train: torch.Tensor = field(repr=False)
    validation: torch.Tensor = field(repr=False)
    test: torch.Tensor = field(repr=False)
    name: str
    title: str
    fingerprint: str


def load_dataset(name_or_path, root=DATA, seed=0, limit=None, fraction=1.0) -> Dataset:
    """Load `shapes`, `faces`, `cifar10`, `celeba`, or the pictures of a folder or zip.

    A folder or zip with `train/` and `test/` (and `validation/` or `val/`) has these parts;
    otherwise 10 % are drawn for testing, and 5 % of the training pictures for validation. A copy
    of CelebA keeps its official partition. Every picture becomes a centre square of 32×32 RGB,
    transparent ones on white. A path is taken as a name where it equals one: write `./shapes` for
    a folder.

    Args:
        root: the folder of downloaded and cached data.
        seed: draws everything that is drawn.
        limit: at most so many training pictures, and a fifth of it for each other part.
        fraction: the share of the training part to use, 0 < fraction <= 1.

    Raises:
        DatasetMissing: CIFAR-10 or CelebA is not there (and cannot be downloaded).
        FileNotFoundError: neither a name nor an existing path.
        ValueError: unusable options, or files that cannot be read as pictures.
        OSError: the cache cannot be written.
    """
    text, root = str(name_or_path), Path(root)
    seed = _whole("seed", seed, least=0)
    limit = limit if limit is None else _whole("limit", limit, least=1)
    if isinstance(fraction, bool) or not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction!r}; it must be above 0 and at most 1")
    fraction = float(fraction)
    name = text
    if text not in NAMES:
        path = _existing(text)
        stem = path.resolve().name if path.is_dir() else path.stem
        name = re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "pictures"
        name += "-files" * (name in NAMES)
    title = TITLES.get(name, name)
    name += f"-fraction{fraction}" * (fraction < 1)
    name += f"-limit{limit}" * (limit is not None)
    name += f"-seed{seed}" * (seed != 0)

    if text in BUILT_IN:
        counts = _counts(BUILT_IN[text], limit, fraction)
        draw = getattr(synthetic, text)
        drawn = [draw(count, 3 * seed + part)[0] for part, count in enumerate(counts)]
        digest = _digest(counts, (part.numpy() for part in drawn))
        return Dataset(*drawn, name, title, digest[:16])
    if text == "cifar10":
        identity, read = CIFAR10.tgz_md5, partial(_read_cifar10, root)
    else:
        source = _find_celeba(root) if text == "celeba" else open_files(path)
        identity = source.identity
        read = partial(_read_files, source, official=text == "celeba")
    code = code_hash(picture_files, sys.modules[__name__])
    key = [code, text == "celeba", identity, seed, limit, fraction]
    cache = root / "cache" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.u8"
    draw = partial(_draw, text, seed, limit, fraction)
    sizes, pictures, digest = _cached(cache, text, read, draw)
    return Dataset(*torch.from_numpy(pictures).split(sizes), name, title, digest[:16])


def _whole(option, value, least):
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{option} is {value!r}; it must be a whole number, at least {least}")
    return int(value)


def _existing(text):
    path = os.path.expanduser(text)
    if not text or not os.path.exists(path):
        raise FileNotFoundError(
            f"{text!r} is neither a known data set ({', '.join(NAMES)}) nor an existing path; "
            "the path to a folder or zip of pictures works too"
        )
    return Path(path)


def _counts(sizes, limit, fraction):
    train = max(1, round(sizes[0] * fraction))
    if limit is None:
        return [train, *sizes[1:]]
    return [min(train, limit), *(min(size, max(1, limit // 5)) for size in sizes[1:])]


def _draw(where, seed, limit, fraction, groups):
    """Shuffle each part of `groups`, cut missing parts from training, and apply the options.

    Shuffling makes every cut a draw without replacement, and the first few pictures of a part a
    fair sample although files come sorted by class.
    """
    rng = np.random.default_rng(seed)
    parts = {
        part: [groups[part][i] for i in rng.permutation(len(groups[part]))]
        for part in PARTS
        if part in groups
    }
    for part, share in (("test", 10), ("validation", 20)):
        if part not in parts:
            count = max(1, len(parts["train"]) // share)
            parts[part], parts["train"] = parts["train"][:count], parts["train"][count:]
    sizes = [len(parts[part]) for part in PARTS]
    if min(sizes) == 0 or sum(sizes) < 10:
        found = ", ".join(f"{size} {part}" for part, size in zip(PARTS, sizes, strict=True))
        raise ValueError(
            f"{where} has too few pictures ({found}): at least 10 are needed, and one for each part"
        )
    counts = _counts(sizes, limit, fraction)
    return [parts[part][:count] for part, count in zip(PARTS, counts, strict=True)]


def _cached(path, source, read, draw):
    """Sizes of the parts, pictures [N, 3, 32, 32] mapped into memory, and their digest.

    `read()` gives the groups of items to `draw` from, and a function that turns items to blocks
    of pictures; it is called only where the cache does not serve.
    """
    found = _open_cache(path)
    if found is None:
        with held(path):
            found = _open_cache(path, warn=True)
            if found is None:
                groups, blocks = read()
                _build_cache(path, source, draw(groups), blocks)
                found = _open_cache(path, warn=True)
    if found is None:
        raise OSError(errno.EIO, f"{path} does not read back as it was written; check the disk")
    return found


def _build_cache(path, source, parts, blocks):
    sizes = [len(part) for part in parts]
    with writing(path) as file:

        def written() -> Iterator[np.ndarray]:
            for block in blocks([item for part in parts for item in part]):
                file.write(block)
                yield block

        digest = _digest(sizes, written())
    about = {"source": source, "sizes": sizes, "sha256": digest}
    write(path.with_suffix(".json"), json.dumps(about))


def _open_cache(path, warn=False):
    about = path.with_suffix(".json")
    if not about.exists():
        return None
    # Whatever stands in a damaged file, the answer is to build it again.
    try:
        content = json.loads(about.read_bytes())
        sizes, expected = content["sizes"], content["sha256"]
        with path.open("rb") as file:
            digest = _digest(sizes, iter(partial(file.read, 1 << 20), b""))
        if digest == expected:
            pictures = np.memmap(path, np.uint8, "c", shape=(sum(sizes), 3, SIZE, SIZE))
            return sizes, pictures, digest
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    if warn:
        print(f"{path} is damaged or incomplete; building it again", file=sys.stderr)
    return None


def _digest(sizes: Iterable[int], blocks: Iterable) -> str:
    digest = hashlib.sha256(",".join(map(str, sizes)).encode())
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _read_cifar10(root):
    batches = []
    timeout = socket.getdefaulttimeout()
    try:
        # The bar exists before the redirection, which silences what torchvision prints.
        with (
            held(root / "cifar10"),
            progress(total=len(CIFAR10.train_list) + 1, desc="CIFAR-10") as bar,
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            socket.setdefaulttimeout(30)
            test = CIFAR10(root, train=False, download=True).data
            # One batch at a time: all at once, torchvision would need the memory twice.
            for entry in CIFAR10.train_list:
                bar.update()
                batch = type("Batch", (CIFAR10,), {"train_list": [entry]})
                batches.append(batch(root, train=True).data.transpose(0, 3, 1, 2))
    # urllib, tarfile and torchvision have no error in common.
    except Exception as error:
        raise _cifar10_error(root, error) from error
    finally:
        socket.setdefaulttimeout(timeout)
    batches.append(test.transpose(0, 3, 1, 2))
    places = [(number, row) for number, batch in enumerate(batches) for row in range(len(batch))]

    def blocks(items):
        for start in range(0, len(items), CHUNK):
            yield np.stack([batches[number][row] for number, row in items[start : start + CHUNK]])

    return {"train": places[: -len(test)], "test": places[-len(test) :]}, blocks


def _cifar10_error(root, error):
    advice = (
        f"put {CIFAR10.filename} or {CIFAR10.base_folder} in {root}, "
        "or give the path to a folder or zip of pictures"
    )
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return OSError(error.errno, f"CIFAR-10 cannot be written to {root} ({error.strerror})")
    for path in (root / CIFAR10.filename, root / CIFAR10.base_folder):
        if path.exists():
            return ValueError(
                f"{path} is not the genuine CIFAR-10 (damaged, incomplete or a saved web page) "
                f"and could not be downloaded again ({reason(error)}): delete it, then {advice}"
            )
    return DatasetMissing(
        f"CIFAR-10 is not in {root} and could not be downloaded ({reason(error)}): {advice}"
    )


def _read_files(source, official):
    """Sort a folder's or zip's pictures into groups by name; `official` insists on CelebA's."""
    with reading(source.path):
        names, partition = source.pictures, source.partition()
    part_of, size = _official_part, 202_599
    if partition:
        with reading(partition[0]):
            listing = _parse_partition(partition[1])
        part_of, size = listing.get, len(listing)
    groups = {part: [] for part in PARTS}
    for name in names:
        part = part_of(posixpath.splitext(posixpath.basename(name))[0])
        if part:
            groups[part].append(name)
    listed = sum(map(len, groups.values()))
    # Without a partition file, numbers alone make a CelebA only where they reach every part.
    all_parts = listed == len(names) and all(groups.values())
    if not (official or (partition and listed) or all_parts):
        groups = _folder_parts(names)
    elif listed < size:
        absent = f"{size - listed:,} of the {size:,} pictures of CelebA are absent"
        print(f"{source.path}: {absent}; using the others", file=sys.stderr)
    return groups, partial(decode_all, source)


def _official_part(stem):
    if not re.fullmatch("[0-9]{6}", stem) or not 1 <= int(stem) <= 202_599:
        return None
    return PARTS[(int(stem) > 162_770) + (int(stem) > 182_637)]


def _folder_parts(names):
    folders = [name.lower().split("/")[:-1] for name in names]
    tops = {tuple(folder[:1]) for folder in folders}
    if len(tops) == 1:
        folders = [folder[1:] for folder in folders]
    groups = {}
    for name, folder in zip(names, folders, strict=True):
        if folder and folder[0] in PART_FOLDERS:
            groups.setdefault(PART_FOLDERS[folder[0]], []).append(name)
    return groups if {"train", "test"} <= groups.keys() else {"train": names}


def _parse_partition(content):
    refuse_web_page(content)
    listing = {}
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        match = re.fullmatch(r"(\d+)\.\w+[\s,]+([012])\s*", line)
        if match:
            listing[match[1]] = PARTS[int(match[2])]
        elif number > 1 and line.strip():
            raise ValueError(f"line {number}, {line[:40]!r}, is not like '000001.jpg 0'")
    if not listing:
        raise ValueError("no line is like '000001.jpg 0'")
    return listing


def _find_celeba(root):
    for folder in (root / "celeba", root):
        for path in (folder / "img_align_celeba", folder / "img_align_celeba.zip"):
            if path.exists():
                return open_files(path)
    raise DatasetMissing(
        f"CelebA is not in {root}: download img_align_celeba.zip and list_eval_partition.txt "
        "(mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or the copy on Kaggle) and put them in "
        f"{root / 'celeba'}, the zip as it is or extracted to img_align_celeba/NNNNNN.jpg"
    )
