"""What an explorer shows: a location in the latent spaces of one or several runs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vae_core import figures
from vae_core.data import Dataset
from vae_core.data.image_files import MAX_BYTES, decode_image, readable_errors
from vae_core.evaluation import posterior_statistics
from vae_core.latent import (
    generate,
    interpolate,
    interpolate_latents,
    posterior_means,
    prior_samples,
    to_uint8,
)
from vae_core.models import VAE
from vae_core.runs import Run

ENDS = ("A", "B")
RANKED_ON = 2000  # generated images over which the KL of the latents is measured
GENERATED_IMAGES = 12  # to choose from where no data set is given
TEST_IMAGES = 100  # to choose from where one is given
# "sample 7" or "image 7"; "draw 7" is the older name of a sample.
NUMBERED_END = re.compile(r"(sample|draw|image) *(\d{1,9})")


class End(NamedTuple):
    """An end of the path: a sample from the prior, or an image to be encoded."""

    label: str
    seed: int = 0  # of the sample
    image: Tensor | None = None  # uint8 [C, H, W]; None for a sample


class ExplorerState:
    """A location in the latent spaces of runs: on the path from A to B, with offsets added.

    A and B are "sample 7" (from the prior, with seed 7), "image 7" (a test image of the data set
    or, without one, an image that the first model generates, encoded), or the path of an image
    file. The same latent means something else to each model, but the same encoded image does not:
    if both ends are encoded images, all runs are shown.

    Attributes:
        name: the label of the run that is moved.
        alpha: the location on the path, from 0 at A to 1 at B.
        spherical: whether the path is the great circle.
        offsets: by the label of a run, what is added to which latent.

    Raises ValueError where there is no run, something that is no run, or the images' shapes differ.
    """

    def __init__(self, *runs: Run, dataset: Dataset | None = None):
        check_runs(runs)
        self.runs = label_runs(runs)
        self.name = next(iter(self.runs))
        self.alpha = 0.0
        self.spherical = False
        with one_thread():
            if dataset is None:
                self.images = generate(self.runs[self.name].model, GENERATED_IMAGES, seed=1)
            else:
                self.images = dataset.test[:TEST_IMAGES]
            self.kl = {name: top_latents(run.model) for name, run in self.runs.items()}
        self.offsets = {name: dict.fromkeys(kl, 0.0) for name, kl in self.kl.items()}
        self.ends: dict[str, End] = {}
        self._latents: dict[tuple[str, str], Tensor] = {}  # by end and label of the run
        self.set_ends(A="sample 0", B="sample 1")

    def set_ends(self, **ends: str) -> "ExplorerState":
        """Choose A, B or both; return the explorer, to be displayed.

        Raises ValueError where an image does not exist or cannot be read; then nothing changes.

        >>> explorer.set_ends(A="sample 3", B="me.jpg")  # doctest: +SKIP
        """
        chosen = {name: self._read_end(text) for name, text in ends.items()}
        for name, end in chosen.items():
            self.ends[name] = end
            for label, run in self.runs.items():
                self._latents[name, label] = encode_end(run.model, end)
        return self

    def _read_end(self, text: str) -> End:
        """Return the end that a text names."""
        text = text.strip()
        match = NUMBERED_END.fullmatch(text)
        if match is None:
            return End(Path(text).name, image=load_image(text, self.images.shape[-1]))
        number = int(match[2])
        if match[1] != "image":
            return End(f"{match[1]} {number}", seed=number)
        if number >= len(self.images):
            raise ValueError(f"there is no image {number}, only 0 to {len(self.images) - 1}")
        return End(f"image {number}", image=self.images[number])

    @property
    def visible_runs(self) -> list[str]:
        """The labels of the runs that are shown, the one that is moved first."""
        encoded = all(end.image is not None for end in self.ends.values())
        if not encoded:
            return [self.name]
        return [self.name, *(name for name in self.runs if name != self.name)]

    @property
    def z(self) -> Tensor:
        """The latents that are shown now, of the run that is moved: [latent_dim]."""
        return self.latents(self.name)

    def latents(self, name: str) -> Tensor:
        """Return the latents of a run at this location, [latent_dim]."""
        a, b = self._latents["A", name], self._latents["B", name]
        z = interpolate_latents(a, b, torch.tensor(self.alpha), self.spherical)
        for dimension, offset in self.offsets[name].items():
            z[dimension] += offset
        return z

    @torch.no_grad()
    def image(self, name: str | None = None) -> Tensor:
        """Decode the latents of a run, by default of the one that is moved: uint8 [C, H, W]."""
        name = name or self.name
        with one_thread():
            return to_uint8(self.runs[name].model.decode(self.latents(name)[None])[0])

    def strip(self, name: str) -> Tensor:
        """Decode a run's path from A to B, without offsets: ten images, uint8 [10, C, H, W]."""
        a, b = self._latents["A", name], self._latents["B", name]
        with one_thread():
            images = interpolate(self.runs[name].model, a, b, spherical=self.spherical)
        return to_uint8(images)

    def __repr__(self):
        a, b = self.ends["A"].label, self.ends["B"].label
        return f"{self.name}: from {a} to {b}, alpha = {self.alpha:.2f}"

    def static_figure(self):
        """Return the figure that is shown where nobody can use widgets: the paths of the runs."""
        rows = {name.replace(", ", ",\n", 1): self.strip(name) for name in self.visible_runs}
        if len(rows) > 1:  # both ends are images, so there is a cross-fade to compare with
            rows["no model:\na cross-fade"] = self.cross_fade()
        title = f"From {self.ends['A'].label} to {self.ends['B'].label}"
        return figures.strips(rows, title)

    def cross_fade(self) -> Tensor:
        """Return the pixels of A fading into those of B in ten steps: [10, C, H, W] in [0, 1]."""
        a, b = (self.ends[name].image.float() / 255 for name in ENDS)
        return torch.lerp(a, b, torch.linspace(0, 1, 10)[:, None, None, None])


def check_runs(runs: tuple[Run, ...]) -> None:
    """Raise ValueError unless there are runs, all for images of one shape."""
    for run in runs:
        if not isinstance(run, Run):
            advice = "give what published_run or train_or_load returns"
            raise ValueError(f"{run!r} is no run; {advice}")
    shapes = {run.model.image_shape for run in runs}
    if len(shapes) != 1:
        texts = ["×".join(map(str, shape)) for shape in sorted(shapes)]
        raise ValueError(
            f"give runs for images of one shape; these are {' and '.join(texts) or 'no run'}"
        )


def label_runs(runs: tuple[Run, ...]) -> dict[str, Run]:
    """Return runs by a label: model, parameter set and data set, and the folder if they repeat."""
    labelled: dict[str, Run] = {}
    for run in runs:
        label = f"{run.model.title} {run.config.params.name}, {run.dataset['title']}"
        if label in labelled:
            label += f", {run.folder.name}"
        labelled[label] = run
    return labelled


def encode_end(model: VAE, end: End) -> Tensor:
    """Return the latents of an end, [latent_dim]: a sample from the prior, or a posterior mean."""
    with one_thread():
        if end.image is None:
            return prior_samples(model, 1, end.seed)[0]
        return posterior_means(model, end.image[None])[0]


def top_latents(model: VAE, n: int = 8) -> dict[int, float]:
    """Return the `n` latents with the largest KL, and their KL in nats per image.

    The KL is a mean over images that the model generates, so no data set is needed.
    """
    kl = posterior_statistics(model, generate(model, RANKED_ON))["kl"]
    return {int(dimension): float(kl[dimension]) for dimension in kl.argsort(descending=True)[:n]}


def load_image(path: str, size: int) -> Tensor:
    """Return the upright centre square of an image file, uint8 [3, size, size] in RGB.

    Raises ValueError with one line where the file is missing, too large or cannot be read.
    """
    with readable_errors(repr(path)):
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError("there is no file of this name")
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"{file.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
        return torch.from_numpy(decode_image(file.read_bytes(), size).copy())


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: for a single image, waiting for a second one takes longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
