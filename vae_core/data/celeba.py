"""CelebA as people have it: as it was downloaded, extracted, or copied; whole or in part."""

import re
import sys
from pathlib import Path, PurePosixPath

from vae_core.data.files import PARTITION, DatasetMissing, reading, refuse_web_page
from vae_core.data.parts import grouped
from vae_core.storage import in_one_line

NAME = "img_align_celeba"
LAST = {"train": 162_770, "validation": 182_637, "test": 202_599}  # numbers of images


def find(root: Path) -> Path:
    """Return where CelebA is in `root`; raise DatasetMissing, which says what to put there."""
    for path in (root / "celeba" / NAME, root / NAME):
        for found in (path, path.with_suffix(".zip")):
            if found.exists():
                return found
    raise DatasetMissing(
        f"CelebA is not in {root}: download {NAME}.zip and list_eval_partition.txt "
        "(mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or the copy on Kaggle) and put them in "
        f"{root / 'celeba'}, the zip as it is or extracted to {NAME}/NNNNNN.jpg"
    )


def partition_beside(path: Path) -> list[tuple[Path, bytes]]:
    """Return the partition files, with their content, beside a folder or zip of CelebA's name."""
    with reading(path):
        beside = sorted(path.absolute().parent.iterdir()) if path.stem == NAME else []
        return [(file, file.read_bytes()) for file in beside if PARTITION.fullmatch(file.name)]


def official(path: Path, files: dict, names: list[str], beside, insist: bool) -> dict | None:
    """Sort CelebA's images into its official parts, by their numbers or by a partition file.

    None has the others. Returns None where they are no CelebA, unless `insist` says they are.
    Raises ValueError for a damaged partition file.
    """
    for name in filter(PARTITION.fullmatch, sorted(files, reverse=True)):
        with reading(path / name), files[name][1]() as file:
            beside = [(path / name, file.read())]
    part_of, size = _by_number, LAST["test"]
    if beside:
        with reading(beside[0][0]):
            listing = _parse(beside[0][1])
        part_of, size = listing.get, len(listing)
    groups = grouped(names, lambda name: part_of(PurePosixPath(name).stem))
    absent = size - sum(len(group) for part, group in groups.items() if part)
    # Without a partition file, numbers alone make a CelebA only where they reach every part.
    if not insist and (absent == size if beside else groups.keys() != LAST.keys()):
        return None
    if absent > 0:
        text = f"{absent:,} of the {size:,} images of CelebA are absent; using the others"
        print(in_one_line(f"{path}: {text}"), file=sys.stderr)
    return {part: [] for part in LAST} | groups


def _by_number(stem):
    number = int(stem) if re.fullmatch("[0-9]{6}", stem) else 0
    return next((part for part, last in LAST.items() if 1 <= number <= last), None)


def _parse(content):
    refuse_web_page(content)
    lines = content.decode("utf-8-sig", "replace").splitlines()
    matches = [re.fullmatch(r"(\d+)\.\w+[\s,]+([012])\s*", line) for line in lines if line.strip()]
    if not any(matches) or not all(matches[1:]):  # the first may be a heading
        raise ValueError("not every line is like '000001.jpg 0'")
    return {match[1]: list(LAST)[int(match[2])] for match in matches if match}
