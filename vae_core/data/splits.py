"""How images are sorted into a training, a validation and a test part."""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vae_core.data.image_files import first_names
from vae_core.storage import print_error, single_line

# Images that each part needs: the training one for a step, the test one for an interpolation.
MIN_SIZES = {"train": 7, "validation": 1, "test": 2}
PART_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "eval", "evaluation"), "test"),
}
FILLERS = {"set", "images", "image", "imgs", "img", "data", "split"}

Groups = dict[str | None, list]  # names by part; None has those that belong to no part


def part_of_folder(folder: str) -> str | None:
    """Return the part that a folder's name means, or None.

    "Train", "test_images", "02-validation" and "dev set" are such names, "train cars" is none.
    """
    words = folder_words(folder)
    if words and words[0] in PART_WORDS and FILLERS.issuperset(words[1:]):
        return PART_WORDS[words[0]]
    return None


def folder_words(folder: str) -> list[str]:
    """Return the words of a folder's name, in small letters, without digits and punctuation."""
    return [word for word in re.split(r"[\W\d_]+", folder.lower()) if word]


def group_by(names: list[str], part_of: Callable[[str], str | None]) -> Groups:
    """Sort names by the part that `part_of` returns for each."""
    groups: Groups = {}
    for name in names:
        groups.setdefault(part_of(name), []).append(name)
    return groups


def group_by_folder(names: list[str]) -> Groups:
    """Sort names by the folders that they are in, at any depth.

    Where there are not at least a training part and another one, all are training images; if a
    folder looks like a part nevertheless, a line on the error stream says so.
    """
    common = len(posixpath.commonpath(names)) if names else 0
    folders = {name: name[common:].split("/")[:-1] for name in names}

    def part_of(name: str) -> str | None:
        for folder in folders[name]:
            part = part_of_folder(folder)
            if part is not None:
                return part
        return None

    groups = group_by(names, part_of)
    if "train" in groups and len(groups.keys() - {None}) > 1:
        return groups
    similar = {folder for path in folders.values() for folder in path if looks_like_part(folder)}
    if similar:
        print_error(
            f"not used as training, validation or test part: {first_names(sorted(similar))}; "
            "name the folders train and test (or val) if they are such parts"
        )
    return {"train": names}


def looks_like_part(folder: str) -> bool:
    """Return whether one of the words of a folder's name is that of a part."""
    return any(word in PART_WORDS for word in folder_words(folder))


def split(
    source: str | Path, groups: Groups, *, seed: int, limit: int | None, fraction: float
) -> list[list]:
    """Return the names or numbers of the training, validation and test images.

    Each part is shuffled. Missing parts are cut from the training part, then the options are
    applied. A line on the error stream says what was used. Raises ValueError for too few images.
    """
    # Files come sorted by class. Shuffled, every cut and the first images of a part are a fair
    # sample.
    rng = np.random.default_rng(seed)
    parts = {part: rng.permutation(groups[part]).tolist() for part in MIN_SIZES if part in groups}
    existing = ", ".join(parts) if len(parts) > 1 else "none"
    for part, share in (("test", 10), ("validation", 20)):
        if part not in parts:
            size = max(MIN_SIZES[part], len(parts["train"]) // share)
            parts[part], parts["train"] = parts["train"][:size], parts["train"][size:]
    sizes = [len(parts[part]) for part in MIN_SIZES]
    sizes = split_sizes(source, sizes, limit=limit, fraction=fraction)
    message = f"{Path(source).name}: parts found: {existing}; images used: {format_sizes(sizes)}"
    others = groups.get(None, [])
    if others:
        message += f"; {len(others):,} outside the parts left out: {first_names(others)}"
    print_error(message)
    return [parts[part][:size] for part, size in zip(MIN_SIZES, sizes, strict=True)]


def split_sizes(
    source: str | Path, sizes: list[int], *, limit: int | None, fraction: float
) -> list[int]:
    """Return the sizes of the three parts after the options; ValueError where one is too small."""
    train, *others = sizes
    train = round(train * fraction)
    if limit is not None:
        train = min(train, limit)
        others = [min(size, limit // 5) for size in others]
    sizes = [train, *others]
    if any(size < least for size, least in zip(sizes, MIN_SIZES.values(), strict=True)):
        needed = f"at least 10 are needed: {format_sizes(MIN_SIZES.values())}"
        message = f"{source} gives too few images ({format_sizes(sizes)}); {needed}"
        raise ValueError(single_line(message))
    return sizes


def format_sizes(sizes) -> str:
    """Return the sizes of the three parts as text: "7 train, 1 validation, 2 test"."""
    return ", ".join(f"{size:,} {part}" for part, size in zip(MIN_SIZES, sizes, strict=True))
