"""Pictures for training: `load_dataset` gives any data set as three parts of 32×32 uint8 tensors.

Picture files are decoded once. The result lies in `<root>/cache/` as raw bytes that are mapped
into memory, so that loading it again takes a moment and a set may be larger than the memory.
"""

import hashlib
import json
import os
import re
import socket
import sys
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from vae_core import picture_files, synthetic
from vae_core.files import DATA, code_hash, held, write, writing
from vae_core.picture_files import SIZE, decode_all, open_files, reading, reason, refuse_web_page
from vae_core.vision import CIFAR10

BUILT_IN = {"shapes": (20_000, 2_000, 2_000), "faces": (20_000, 2_000, 2_000)}
NAMES = (*BUILT_IN, "cifar10", "celeba")
TITLES = {name: f"built-in {name}" for name in BUILT_IN} | {
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10 (JPEG)",
    "celeba": "CelebA",
    "celeba-9k": "CelebA (first 9,000)",
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
    transparent ones on white. A folder that is called like a data set is given as `./shapes`.

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
    fraction, path = float(fraction), Path(os.path.expanduser(text))
    name = text if text in NAMES else _name_of(path, text)
    title = TITLES.get(name, name)
    name += f"-fraction{fraction}" * (fraction < 1)
    name += f"-limit{limit}" * (limit is not None)
    name += f"-seed{seed}" * (seed != 0)

    if text in BUILT_IN:
        counts = _counts(BUILT_IN[text], limit, fraction)
        draw = getattr(synthetic, text)
        parts = [draw(count, 3 * seed + part)[0] for part, count in enumerate(counts)]
        digest = _digest(counts, (part.numpy() for part in parts)).hexdigest()
        return Dataset(*parts, name, title, digest[:16])
    if text == "cifar10":
        identity, read = CIFAR10.tgz_md5, partial(_read_cifar10, root)
    else:
        source = open_files(_find_celeba(root) if text == "celeba" else path)
        identity, read = source.identity, partial(_read_files, source, text == "celeba")
    code = code_hash(picture_files, sys.modules[__name__])
    key = json.dumps([code, text == "celeba", identity, seed, limit, fraction])
    cache = root / "cache" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.u8"

    draw = partial(_draw, text, seed, limit, fraction)
    sizes, digest = _cached(cache, text, read, draw)
    pictures = np.memmap(cache, np.uint8, "c", shape=(sum(sizes), 3, SIZE, SIZE))
    return Dataset(*torch.from_numpy(pictures).split(sizes), name, title, digest[:16])


def _whole(option, value, least):
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{option} is {value!r}; it must be a whole number, at least {least}")
    return int(value)


def _name_of(path, text):
    if not text or not os.path.exists(path):
        raise FileNotFoundError(
            f"{text!r} is neither a known data set ({', '.join(NAMES)}) nor an existing path; "
            "the path to a folder or zip of pictures works too"
        )
    stem = path.resolve().name if path.is_dir() else path.stem
    name = re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "pictures"
    return name + "-files" * (name in NAMES)


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
    parts = {}
    for part in (part for part in PARTS if part in groups):
        parts[part] = [groups[part][i] for i in rng.permutation(len(groups[part]))]
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


def _digest(sizes, blocks=()):
    digest = hashlib.sha256(",".join(map(str, sizes)).encode())
    for block in blocks:
        digest.update(block)
    return digest


def _cached(path, source, read, draw):
    """Sizes of the parts and digest of the cache, which is built where it is missing or damaged.

    `read()` gives the groups of items to `draw` from, and what turns items to blocks of pictures.
    """
    if found := _open_cache(path):
        return found
    with held(path):
        if found := _open_cache(path):  # built by another process meanwhile
            return found
        if path.with_suffix(".json").exists():
            print(f"{path} is damaged or incomplete; building it again", file=sys.stderr)
        groups, blocks = read()
        parts = draw(groups)
        sizes = [len(part) for part in parts]
        digest = _digest(sizes)
        with writing(path) as file:
            for block in blocks([item for part in parts for item in part]):
                file.write(block)
                digest.update(block)
        about = {"source": source, "sizes": sizes, "sha256": digest.hexdigest()}
        write(path.with_suffix(".json"), json.dumps(about))
    return sizes, digest.hexdigest()


def _open_cache(path):
    # Whatever stands in a damaged file, the answer is to build it again.
    try:
        about = json.loads(path.with_suffix(".json").read_bytes())
        with path.open("rb") as file:
            digest = _digest(about["sizes"], iter(partial(file.read, 1 << 20), b"")).hexdigest()
        return (about["sizes"], digest) if digest == about["sha256"] else None
    except Exception:
        return None


def _read_cifar10(root):
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        with held(root / "cifar10"):
            parts = [CIFAR10(root, train=train, download=train).data for train in (True, False)]
    except Exception as error:  # of urllib, tarfile or torchvision, which have none in common
        what, kind = f"CIFAR-10 is not in {root}", DatasetMissing
        for path in (root / CIFAR10.filename, root / CIFAR10.base_folder):
            if path.exists():
                what, kind = f"{path} is not the genuine CIFAR-10; delete it", ValueError
        raise kind(
            f"{what}. It could not be downloaded ({reason(error)}): put {CIFAR10.filename} or "
            f"{CIFAR10.base_folder} in {root}, or give the path to a folder or zip of pictures"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    pictures = np.concatenate([part.transpose(0, 3, 1, 2) for part in parts])
    groups = {"train": range(len(parts[0])), "test": range(len(parts[0]), len(pictures))}
    return groups, lambda numbers: [pictures[numbers]]


def _read_files(source, official):
    """Sort a folder's or zip's pictures into groups by name; `official` insists on CelebA's."""
    part_of, size = _official_part, 202_599
    if source.partition:
        with reading(source.partition[0]):
            listing = _parse_partition(source.partition[1])
        part_of, size = listing.get, len(listing)
    parts = [part_of(PurePosixPath(name).stem) for name in source.names]
    groups = _grouped(source.names, parts)
    listed = sum(map(len, groups.values()))
    # Without a partition file, numbers alone make a CelebA only where they reach every part.
    all_parts = listed == len(parts) and len(groups) == len(PARTS)
    if official or (source.partition and listed) or all_parts:
        if listed < size:
            absent = f"{size - listed:,} of the {size:,} pictures of CelebA are absent"
            print(f"{source.path}: {absent}; using the others", file=sys.stderr)
        groups = {part: groups.get(part, []) for part in PARTS}
    else:
        groups = _grouped(source.names, _folder_parts(source.names))
        if not {"train", "test"} <= groups.keys():
            groups = {"train": source.names}
    return groups, partial(decode_all, source)


def _grouped(names, parts):
    groups = {}
    for name, part in zip(names, parts, strict=True):
        if part:
            groups.setdefault(part, []).append(name)
    return groups


def _official_part(stem):
    if re.fullmatch("[0-9]{6}", stem) and 1 <= int(stem) <= 202_599:
        return PARTS[(int(stem) > 162_770) + (int(stem) > 182_637)]
    return None


def _folder_parts(names):
    folders = [name.lower().split("/")[:-1] for name in names]
    depth = int(len({tuple(folder[:1]) for folder in folders}) == 1)
    return [PART_FOLDERS.get("".join(folder[depth : depth + 1])) for folder in folders]


def _parse_partition(content):
    refuse_web_page(content)
    lines = content.decode("utf-8-sig", "replace").splitlines()
    matches = [re.fullmatch(r"(\d+)\.\w+[\s,]+([012])\s*", line) for line in lines if line.strip()]
    if not any(matches) or not all(matches[1:]):  # the first may be a heading
        raise ValueError("not every line is like '000001.jpg 0'")
    return {match[1]: PARTS[int(match[2])] for match in matches if match}


def _find_celeba(root):
    for folder in (root / "celeba", root):
        for path in (folder / "img_align_celeba", folder / "img_align_celeba.zip"):
            if path.exists():
                return path
    raise DatasetMissing(
        f"CelebA is not in {root}: download img_align_celeba.zip and list_eval_partition.txt "
        "(mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or the copy on Kaggle) and put them in "
        f"{root / 'celeba'}, the zip as it is or extracted to img_align_celeba/NNNNNN.jpg"
    )
