"""Images for training: `load_dataset` gives any data set as three parts of uint8 squares.

`synthetic` draws the built-in ones, `cifar10`, `celeba` and `files` read what lies on the disk,
`parts` sorts it into training, validation and test, and `cache` keeps it decoded.
"""

import hashlib
import json
import os
import posixpath
import re
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from vae_core.data import celeba, cifar10, files, parts, synthetic
from vae_core.data.cache import cached
from vae_core.data.files import DatasetMissing
from vae_core.storage import DATA, PROJECT, code_hash, number, whole_number

__all__ = ["Dataset", "DatasetMissing", "Facts", "facts", "load_dataset", "permutation", "permute"]

CODE = code_hash(*(file.read_text("utf-8") for file in sorted(Path(__file__).parent.glob("*.py"))))
BUILT_IN = {"shapes": (20_000, 2_000, 2_000), "faces": (20_000, 2_000, 2_000)}
NAMES = (*BUILT_IN, "cifar10", "celeba")
OPTIONS = r"(-fraction[\d.e-]+|-limit\d+|-seed\d+|-\d+px|-permuted[\d.e-]+)*"
OWN = re.compile(rf"({'|'.join(NAMES)}){OPTIONS}", re.I)

# A title for people, the share of the training part that the study uses, and for how long
Facts = namedtuple("Facts", ("title", "fraction", "epochs"), defaults=(1.0, 100))
FACTS = {
    "shapes": Facts("built-in shapes", epochs=4),
    "faces": Facts("built-in faces", epochs=4),
    "cifar10": Facts("CIFAR-10"),
    "cifar10-jpeg": Facts("CIFAR-10 (JPEG)"),
    "celeba": Facts("CelebA", fraction=0.3),
    "celeba-9k": Facts("CelebA (first 9,000)"),
    "img_align_celeba": Facts("CelebA"),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three parts of uint8 images [N, 3, size, size], RGB, each in an order drawn by the seed.

    `name` is safe as a file's, `title` is for people, `fingerprint` is over sizes and bytes, and
    `classes` returns the class of each image, in three lists, as far as it is known (see `labels`).
    """

    train: torch.Tensor = field(repr=False)
    validation: torch.Tensor = field(repr=False)
    test: torch.Tensor = field(repr=False)
    name: str
    title: str
    fingerprint: str
    classes: Callable[[], list[list[str]]] = field(default=list, repr=False)

    @cached_property
    def labels(self) -> list[np.ndarray]:
        """The classes of the training, the validation and the test images, as text.

        They are the kinds of the built-in shapes, the classes of CIFAR-10, and for images in
        folders the folders' names. Raises ValueError where there is one class at most.
        """
        found = [np.array(part, str) for part in self.classes()]
        if not found or len(np.unique(np.concatenate(found))) < 2:
            raise ValueError(f"the classes of {self.title} are not known; give each a folder")
        return found

    @property
    def size(self) -> int:
        """Height and width of an image in pixels."""
        return self.train.shape[-1]

    @property
    def folder(self) -> str:
        """The name of the folder of its runs, which sets with other images do not share."""
        return self.name if OWN.fullmatch(self.name) else f"{self.name}-{self.fingerprint[:8]}"


def facts(name_or_path) -> Facts:
    """Return what is known of a data set without loading it."""
    name = _name(str(name_or_path))
    return FACTS.get(name, Facts(name))


def load_dataset(
    name_or_path, root=DATA, seed=0, limit=None, fraction=1.0, size=32, permuted=0.0
) -> Dataset:
    """Load `shapes`, `faces`, `cifar10`, `celeba`, or the images of a folder or zip.

    With train/ and test/, val/ or both in it, at any depth, a folder or zip has these parts. Of
    what is missing, 10 % are drawn for testing and 5 % of the training images for validation. A
    copy of CelebA keeps its official parts. A folder called like a data set is `./shapes`.

    `seed` draws whatever is drawn, `limit` is the largest number of training images (at least 10;
    a fifth of it in the other parts), `fraction` the share of the training part that is used, and
    `size` the height and width in pixels, 8 to 256, `permuted` the share of the pixels that stand
    elsewhere, the same in every image (see `permutation`). Downloads and decoded images lie in
    `root`.

    Raises DatasetMissing where CIFAR-10 or CelebA is not there, FileNotFoundError for what is
    neither a name nor a path, ValueError for unusable options, too few images or files that
    cannot be read, and OSError where the cache cannot be written: one line, each.
    """
    text, fraction = str(name_or_path), number("fraction", fraction, 0, 1)
    seed, size = whole_number("seed", seed, 0), whole_number("size", size, 8, most=256)
    permuted = number("permuted", permuted, most=1)
    limit = None if limit is None else whole_number("limit", limit, 10)
    name = _name(text) + f"-fraction{fraction}" * (fraction < 1) + f"-limit{limit}" * bool(limit)
    name += f"-seed{seed}" * (seed != 0) + f"-{size}px" * (size != 32)

    root = Path(os.path.expanduser(root))
    draw = partial(parts.draw, seed=seed, limit=limit, fraction=fraction)
    if text in BUILT_IN:
        content = parts.counts(text, BUILT_IN[text], limit, fraction)
        build = partial(_built_in, text, content, seed, size)
    elif text == "cifar10":
        content, build = "genuine", partial(_cifar10, root, draw, size)
    else:
        path = celeba.find(root) if text == "celeba" else _path(text)
        beside = celeba.beside(path)
        content = [files.identity(path), *((name, facts) for name, (facts, _) in beside.items())]
        build = partial(_files, path, beside, text == "celeba", draw, size)
    key = json.dumps([CODE, text in NAMES and text, content, seed, limit, fraction, size])
    file = f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.u8"
    images, fingerprint = cached(root / "cache" / file, size, lambda: build()[:2])
    title = facts(text).title
    if permuted:
        order, named = permutation(size * size, permuted), f"-permuted{permuted}"
        images = [permute(part, order) for part in images]
        name, title = name + named, f"{title}, {permuted:.0%} of the pixels elsewhere"
        fingerprint = hashlib.sha256((fingerprint + named).encode()).hexdigest()[:16]
    return Dataset(*images, name, title, fingerprint, lambda: build()[2])


def permutation(places: int, share: float, seed: int = 0) -> torch.Tensor:
    """Draw an order [places] that moves this share of them; ValueError where it is not 0 to 1."""
    share = number("permuted", share, most=1)
    order, drawn = torch.arange(places), np.random.default_rng(seed).permutation(places)
    moved = torch.from_numpy(drawn[: round(share * places)])
    order[moved] = moved.roll(1)  # one cycle: nothing that moves stays
    return order


def permute(images: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Fill the places of images [N, C, H, W] from those that `order` names, [H * W].

    `order.argsort()` puts them back. Raises ValueError where it is an order of other places.
    """
    places = images.shape[2] * images.shape[3]
    if not torch.equal(order.sort().values, torch.arange(places)):
        raise ValueError(f"the order is none of {places} places; draw one with permutation()")
    return images.flatten(2)[:, :, order].view(images.shape)


def _name(text):
    if text in NAMES:
        return text
    path = Path(os.path.abspath(os.path.expanduser(text)))
    name = re.sub(r"[^\w.-]+", "-", path.name if os.path.isdir(path) else path.stem)
    name = name[:60].strip(".-") or "images"
    return name + "-files" * bool(OWN.fullmatch(name))


def _path(text):
    path = Path(os.path.expanduser(text))
    if not text or not os.path.exists(path):
        known = f"neither a known data set ({', '.join(NAMES)}) nor an existing path"
        raise FileNotFoundError(f"{text!r} is {known}; give a folder or zip of images, or a name")
    if (PROJECT / "vae_core").is_dir() and PROJECT.is_relative_to(path.resolve()):
        raise ValueError(f"{text!r} holds this project; give a folder that has only images")
    inside = path / f"{celeba.NAME}.zip"
    return inside if inside.is_file() and not (path / celeba.NAME).is_dir() else path


# Each returns the sizes of the parts, the images in blocks that are yet to be made, and classes.


def _built_in(name, sizes, seed, size):
    drawn = [synthetic.draw_factors(name, n, 3 * seed + part) for part, n in enumerate(sizes)]
    blocks = (block for some in drawn for block in synthetic.render(name, some, size))
    kinds = [[synthetic.KINDS[kind] for kind in some["kind"]] for some in drawn if "kind" in some]
    return sizes, blocks, kinds


def _cifar10(root, draw, size):
    groups, images, classes = cifar10.read(root)
    chosen = draw("CIFAR-10", groups)
    blocks = cifar10.resized(images[[*chain(*chosen)]], size)
    return [*map(len, chosen)], blocks, [[classes[n] for n in part] for part in chosen]


def _files(path, beside, insist, draw, size):
    found = files.listing(path) | beside
    names = files.image_names(path, found)
    with files.reading(path):
        groups = celeba.official(path, found, names, insist) or parts.by_folder(names)
    chosen = draw(path, groups)
    folders = [[posixpath.basename(posixpath.dirname(name)) for name in part] for part in chosen]
    return [*map(len, chosen)], files.decode_all(path, found, [*chain(*chosen)], size), folders
