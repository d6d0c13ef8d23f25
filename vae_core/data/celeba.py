"""CelebA as people have it: as it was downloaded, extracted, or copied; whole or in part."""

import re
from pathlib import Path, PurePosixPath

from vae_core.data.files import PARTITION, DatasetMissing, entry
from vae_core.data.parts import grouped
from vae_core.storage import say

NAME = "img_align_celeba"
LAST = {"train": 162_770, "validation": 182_637, "test": 202_599}  # numbers of images


def find(root: Path) -> Path:
    """Return where CelebA is in `root`; raise DatasetMissing, which says what to put there."""
    for found in (root / "celeba" / NAME, root / "celeba" / f"{NAME}.zip"):
        if found.exists():
            return found
    raise DatasetMissing(
        f"CelebA is not in {root}: download {NAME}.zip and list_eval_partition.txt "
        "(mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or the copy on Kaggle) and put them in "
        f"{root / 'celeba'}, the zip as it is or extracted to {NAME}/NNNNNN.jpg"
    )


def beside(path: Path) -> dict[str, tuple]:
    """List the partition files beside a folder or zip of CelebA's name, as `files.listing` does."""
    names = [f"list_eval_partition.{kind}" for kind in ("txt", "csv") if path.stem == NAME]
    found = [path.absolute().with_name(name) for name in names]
    return {f"../{file.name}": entry(file) for file in found if file.is_file()}


def official(path: Path, files: dict, names: list[str], insist: bool) -> dict | None:
    """Sort CelebA's images into its official parts, by a partition file or else by their numbers.

    None has the others. Returns None where they are no CelebA, unless `insist` says they are.
    """
    if partition := max(filter(PARTITION.fullmatch, files), default=None):
        with files[partition][1]() as file:
            lines = file.read().decode("utf-8-sig", "replace").split("\n")
        line = re.compile(r"(\d+)\.\w+[\s,]+([012])\s*")
        matches = [line.fullmatch(text) for text in lines if text.strip()]
        if not any(matches) or not all(matches[1:]):  # the first may be a heading
            raise ValueError(f"not every line of {partition} is like '000001.jpg 0'")
        part_of = {match[1]: list(LAST)[int(match[2])] for match in matches if match}
    else:
        parts = reversed(LAST.items())  # so that each keeps the numbers below its last
        part_of = {f"{n:06d}": part for part, last in parts for n in range(1, last + 1)}
    groups = grouped(names, lambda name: part_of.get(PurePosixPath(name).stem))
    absent = len(part_of) - sum(len(group) for part, group in groups.items() if part)
    # Numbers alone make a CelebA only where they reach every part.
    other = absent == len(part_of) if partition else groups.keys() != LAST.keys()
    if other and not insist:
        return None
    if absent > 0:  # a copy may have images twice
        text = f"{absent:,} of the {len(part_of):,} images of CelebA are absent; using the others"
        say(f"{path}: {text}")
    return {part: [] for part in LAST} | groups
