"""How images are sorted into a training, a validation and a test part."""

import posixpath
from pathlib import Path

import numpy as np

from vae_core.data.files import listed
from vae_core.storage import in_one_line, say

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
    """Sort names by folders at any depth, with None for the others; without parts, all train."""
    shared = len(posixpath.commonpath(names)) if names else 0

    def part_of(name):
        below = name[shared:].lower().split("/")[:-1]
        return next((FOLDERS[folder] for folder in below if folder in FOLDERS), None)

    groups = grouped(names, part_of)
    return groups if "train" in groups and len(groups.keys() - {None}) > 1 else {"train": names}


def draw(where, groups: dict, seed: int, limit: int | None, fraction: float) -> list[list]:
    """Shuffle each part, cut missing parts from training, apply the options, and say so."""
    # Shuffling makes every cut a draw without replacement, and the first few images of a part a
    # fair sample although files come sorted by class.
    rng = np.random.default_rng(seed)
    parts = {part: rng.permutation(groups[part]).tolist() for part in LEAST if part in groups}
    found = ", ".join(parts) if len(parts) > 1 else "none"
    for part, share in (("test", 10), ("validation", 20)):
        if part not in parts:
            cut = max(LEAST[part], len(parts["train"]) // share)
            parts[part], parts["train"] = parts["train"][:cut], parts["train"][cut:]
    sizes = counts(where, [len(parts[part]) for part in LEAST], limit, fraction)
    text = f"{Path(where).name}: parts found: {found}; images used: {_told(sizes)}"
    if stray := groups.get(None):
        text += f"; {len(stray):,} beside the parts left out: {listed(stray)}"
    say(text)
    return [parts[part][:size] for part, size in zip(LEAST, sizes, strict=True)]


def counts(where, sizes: list[int], limit: int | None, fraction: float) -> list[int]:
    """Apply the options to the sizes of the parts; ValueError where one becomes too small."""
    sizes = [round(sizes[0] * fraction), *sizes[1:]]
    if limit is not None:
        sizes = [min(sizes[0], limit), *(min(size, limit // 5) for size in sizes[1:])]
    if any(size < least for size, least in zip(sizes, LEAST.values(), strict=True)):
        needed = f"at least 10 are needed: {_told(LEAST.values())}"
        raise ValueError(in_one_line(f"{where} gives too few images ({_told(sizes)}); {needed}"))
    return sizes


def _told(sizes):
    return ", ".join(f"{n:,} {part}" for part, n in zip(LEAST, sizes, strict=True))
