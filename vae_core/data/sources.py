"""Where images come from: built in, CIFAR-10, or the files of a folder or zip."""

import posixpath
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from vae_core.data import celeba, cifar10, image_files, synthetic
from vae_core.data.cache import Build, Labels
from vae_core.data.dataset import BUILT_IN_SIZES
from vae_core.data.splits import group_by_folder, part_of_folder, split, split_sizes


class Source(Protocol):
    """Images that can be decoded."""

    def origin(self) -> str:
        """Return where the images come from: a name or a path."""

    def identity(self) -> Any:
        """Return a JSON value that changes with the images."""

    def build(self, size: int) -> Build:
        """Return the images as squares of a size, ready to be decoded."""


@dataclass(frozen=True)
class SplitOptions:
    """How a source is split, see `load_dataset`."""

    seed: int
    limit: int | None
    fraction: float


@dataclass(frozen=True)
class BuiltInSource:
    """Images that are drawn from a seed."""

    name: str
    options: SplitOptions

    def origin(self) -> str:
        """Return the name."""
        return self.name

    def identity(self) -> list[int]:
        """Return the sizes of the parts."""
        limit, fraction = self.options.limit, self.options.fraction
        return split_sizes(
            self.name, list(BUILT_IN_SIZES[self.name]), limit=limit, fraction=fraction
        )

    def build(self, size: int) -> Build:
        """Return the images; each part has a seed of its own."""
        sizes = self.identity()
        factors = []
        for part, n in enumerate(sizes):
            factors.append(synthetic.draw_factors(self.name, n, 3 * self.options.seed + part))
        render = partial(synthetic.render, self.name, size=size)
        blocks = (block for part_factors in factors for block in render(part_factors))
        labels = None
        if self.name == "shapes":
            labels = [synthetic.shape_names(part) for part in factors]
        return Build(sizes, blocks, labels)


@dataclass(frozen=True)
class CIFAR10Source:
    """The genuine CIFAR-10, downloaded where it is missing."""

    root: Path
    options: SplitOptions

    def origin(self) -> str:
        """Return the name of the data set."""
        return "cifar10"

    def identity(self) -> str:
        """Return what never changes, since its MD5 sum is checked."""
        return "genuine"

    def build(self, size: int) -> Build:
        """Return the images, resized."""
        original = cifar10.read(self.root)
        parts = split("CIFAR-10", original.parts, **vars(self.options))
        images = original.images[[*chain(*parts)]]
        labels = [[original.labels[number] for number in part] for part in parts]
        sizes = [len(part) for part in parts]
        return Build(sizes, cifar10.resize(images, size), known_labels(labels))


@dataclass(frozen=True)
class FileSource:
    """The image files of a folder or zip."""

    path: Path
    is_celeba: bool  # whether it was asked for as CelebA
    options: SplitOptions

    def origin(self) -> str:
        """Return the path."""
        return str(self.path.absolute())

    def identity(self) -> list[Any]:
        """Return what changes with the content of the folder or zip and the files beside it."""
        beside = celeba.partition_files(self.path)
        facts = [[name, file.facts] for name, file in beside.items()]
        return [image_files.identity(self.path), *facts]

    def build(self, size: int) -> Build:
        """List the files, split them, and return the images in the order of the parts."""
        files = image_files.list_files(self.path) | celeba.partition_files(self.path)
        names = image_files.image_names(self.path, files)
        with image_files.readable_errors(self.path):
            groups = celeba.official_groups(self.path, files, names, self.is_celeba)
            if groups is None:
                groups = group_by_folder(names)
        parts = split(self.path, groups, **vars(self.options))
        labels = [[folder_label(name) for name in part] for part in parts]
        blocks = image_files.decode_all(self.path, files, [*chain(*parts)], size)
        return Build([len(part) for part in parts], blocks, known_labels(labels))


def folder_label(name: str) -> str | None:
    """Return the folder that an image lies in as its class; None where that is none.

    Part folders such as "train" are no classes.
    """
    folder = posixpath.basename(posixpath.dirname(name))
    if not folder or part_of_folder(folder) is not None:
        return None
    return folder


def known_labels(labels: list[list[str | None]]) -> Labels | None:
    """Return the labels; None where one is unknown or all are the same."""
    classes = {label for part in labels for label in part}
    if None in classes or len(classes) < 2:
        return None
    return labels
