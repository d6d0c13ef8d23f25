"""How images are sorted into a training, a validation and a test part."""

import sys
from pathlib import Path

import numpy as np

from vae_core.data.files import listed
from vae_core.storage import in_one_line

LEAST = {"train": 7, "validation": 1, "test": 2}  # two, to have something between them
FOLDERS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
FOLDERS |= dict.fromkeys(("val", "valid", "validation"), "validation")


def grouped(names: list[str], part_of) -> dict[str | None, list[str]]:
    """Sort names by the part that `part_of` gives for each, or None."""
    groups = {}
    for name in names:
        groups.setdefault(part_of(name), []).append(name)
    return groups


def by_folder(names: list[str]) -> dict[str | None, list[str]]:
    """Sort names by the folders in them, at any depth; None has those in no part's folder.

    Without train/ and another part, all are for training.
    """
    levels = zip(*(name.split("/")[:-1] for name in names), strict=False)
    shared = next((depth for depth, level in enumerate(levels) if len(set(level)) > 1), 0)

    def part_of(name):
        below = name.lower().split("/")[shared:-1]
        return next((FOLDERS[folder] for folder in below if folder in FOLDERS), None)

    groups = grouped(names, part_of)
    return (
        groups if "train" in groups and len(groups.keys() & LEAST.keys()) > 1 else {"train": names}
    )


def draw(where, groups: dict, seed: int, limit: int | None, fraction: float) -> list[list]:
    """Shuffle each part, cut missing parts from training, say so, and apply the options.

    Shuffling makes every cut a draw without replacement, and the first few images of a part a
    fair sample although files come sorted by class. Raises ValueError, see `counts`.
    """
    rng, given = np.random.default_rng(seed), [part for part in LEAST if part in groups]
    parts = {part: [groups[part][i] for i in rng.permutation(len(groups[part]))] for part in given}
    told = [", ".join(f"{len(parts[part]):,} images in {part}/" for part in given)]
    told = told if len(given) > 1 else [f"{len(parts['train']):,} images in no train/ and test/"]
    for part, share in (("test", 10), ("validation", 20)):
        if part not in parts:
            cut = max(LEAST[part], len(parts["train"]) // share)
            parts[part], parts["train"] = parts["train"][:cut], parts["train"][cut:]
            told.append(f"{cut:,} of {'train/' if len(given) > 1 else 'them'} drawn for {part}")
    if stray := groups.get(None):
        told.append(f"{len(stray):,} beside them left out: {listed(stray)}")
    sizes = counts(where, [len(parts[part]) for part in LEAST], limit, fraction)
    print(in_one_line(f"{Path(where).name}: {'; '.join(told)}"), file=sys.stderr)
    return [parts[part][:size] for part, size in zip(LEAST, sizes, strict=True)]


def counts(where, sizes: list[int], limit: int | None, fraction: float) -> list[int]:
    """Apply the options to the sizes of the parts; ValueError where one becomes too small."""
    sizes = [round(sizes[0] * fraction), *sizes[1:]]
    if limit is not None:
        sizes = [min(size, limit if i == 0 else limit // 5) for i, size in enumerate(sizes)]
    found = dict(zip(LEAST, sizes, strict=True))
    if any(found[part] < LEAST[part] for part in LEAST):
        texts = [", ".join(f"{n:,} {part}" for part, n in some.items()) for some in (found, LEAST)]
        text = f"{where} gives too few images ({texts[0]}); at least 10 are needed: {texts[1]}"
        raise ValueError(in_one_line(text))
    return sizes
