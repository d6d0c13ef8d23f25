"""CelebA as people have it: as it was downloaded, extracted, or copied; whole or in part."""

import re
from pathlib import Path, PurePosixPath

from vae_core.data.image_files import (
    PARTITION,
    DatasetMissing,
    ListedFile,
    check_no_web_page,
    describe_file,
)
from vae_core.data.splits import Groups, group_by
from vae_core.storage import print_error

NAME = "img_align_celeba"
# The official partition is by number: the last image of each part.
LAST_NUMBER = {"train": 162_770, "validation": 182_637, "test": 202_599}
PARTS = list(LAST_NUMBER)  # in the order of their numbers in a partition file
PARTITION_LINE = re.compile(r"(\d+)\.\w+[\s,]+([012])\s*")


def find(root: Path) -> Path:
    """Return where CelebA is in `root`; raise DatasetMissing, which says what to put there."""
    for path in (root / "celeba" / NAME, root / "celeba" / f"{NAME}.zip"):
        if path.exists():
            return path
    raise DatasetMissing(
        f"CelebA is not in {root}: download {NAME}.zip and list_eval_partition.txt "
        "(mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or the copy on Kaggle) and put them in "
        f"{root / 'celeba'}, the zip as it is or extracted to {NAME}/NNNNNN.jpg"
    )


def partition_files(path: Path) -> dict[str, ListedFile]:
    """Return the partition files beside a folder or zip of CelebA's name."""
    if path.stem != NAME:
        return {}
    files = {}
    for extension in ("txt", "csv"):
        file = path.absolute().with_name(f"list_eval_partition.{extension}")
        if file.is_file():
            files[f"../{file.name}"] = describe_file(file)
    return files


def official_groups(
    path: Path, files: dict[str, ListedFile], names: list[str], is_celeba: bool
) -> Groups | None:
    """Sort CelebA's images into its official parts; None where the images are not CelebA.

    The parts come from a partition file or else from the images' numbers. Other images belong to
    no part. `is_celeba` says that the images were asked for as CelebA, whatever they look like.
    """
    partition = max(filter(PARTITION.fullmatch, files), default=None)
    if partition is None:
        part_of_number = official_parts()
    else:
        part_of_number = read_partition(partition, files[partition])
    groups = group_by(names, lambda name: part_of_number.get(PurePosixPath(name).stem))
    present = sum(len(group) for part, group in groups.items() if part is not None)
    if partition is None:  # numbers alone make a CelebA only if they reach every part
        looks_like_celeba = groups.keys() == LAST_NUMBER.keys()
    else:
        looks_like_celeba = present > 0
    if not looks_like_celeba and not is_celeba:
        return None
    absent = len(part_of_number) - present
    if absent > 0:  # a copy may also have images twice
        total = len(part_of_number)
        print_error(f"{path}: {absent:,} of the {total:,} images of CelebA are absent")
    return {part: [] for part in PARTS} | groups


def official_parts() -> dict[str, str]:
    """Return the part of each of CelebA's images by its number of six digits."""
    part_of_number, first = {}, 1
    for part, last in LAST_NUMBER.items():
        for number in range(first, last + 1):
            part_of_number[f"{number:06d}"] = part
        first = last + 1
    return part_of_number


def read_partition(name: str, file: ListedFile) -> dict[str, str]:
    """Read a partition file: return the part of each image by its number."""
    with file.open() as opened:
        content = opened.read()
    check_no_web_page(content)
    text = content.decode("utf-8-sig", "replace")
    lines = [line for line in text.split("\n") if line.strip()]
    matches = [PARTITION_LINE.fullmatch(line) for line in lines]
    # The first line may be a heading.
    if not any(matches) or not all(matches[1:]):
        raise ValueError(f"not every line of {name} is like '000001.jpg 0'")
    return {match[1]: PARTS[int(match[2])] for match in matches if match}
