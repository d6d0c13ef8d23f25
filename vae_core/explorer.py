"""Move through a latent space by hand: controls in Jupyter, a static strip where nobody watches."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython import get_ipython
from IPython.core.pylabtools import print_figure
from torch import Tensor

from vae_core import figures
from vae_core.checkpoints import Run
from vae_core.controls import Controls
from vae_core.data import Dataset
from vae_core.data.files import MAX_BYTES, decode, reading
from vae_core.evaluation import posterior_statistics
from vae_core.latent import as_bytes, between, imagine, interpolate, posterior_means, prior_draws
from vae_core.models import VAE


def ranked_dimensions(model: VAE, n: int = 8) -> dict[int, float]:
    """Return the `n` latent dimensions that say most, and their KL in nats per image.

    The KL is a mean over 2,000 images that the model has imagined, so no data set is needed.
    """
    kl = posterior_statistics(model, imagine(model, 2000))["kl"]
    return {int(dimension): float(kl[dimension]) for dimension in kl.argsort(descending=True)[:n]}


class Explorer:
    """A place in the latent spaces of runs: on the way from A to B, and moved along dimensions.

    A and B are "draw 7" (from the prior, with seed 7), "image 7" (a test image of the data set or,
    without one, an image that the first model imagines, encoded), or an image file. The same latent
    means something else to each model, but the same encoded image does not: where both ends are
    encoded images, all runs are shown. `name`, `mix`, `spherical` and `moves` may be set.

    Raises ValueError where there is no run, something that is no run, or the images' shapes differ.
    """

    def __init__(self, *runs: Run, dataset: Dataset | None = None):
        for run in runs:
            if not isinstance(run, Run):
                advice = "give what published_run or train_or_load returns"
                raise ValueError(f"{run!r} is no run; {advice}")
        if len(shapes := {run.model.image_shape for run in runs}) != 1:
            found = " and ".join("×".join(map(str, shape)) for shape in sorted(shapes)) or "no run"
            raise ValueError(f"give runs for images of one shape; these are {found}")
        self.runs: dict[str, Run] = {}  # by their labels
        for run in runs:
            label = f"{run.model.title} {run.config.params.name}, {run.dataset['title']}"
            self.runs[label + f", {run.folder.name}" * (label in self.runs)] = run
        self.name = next(iter(self.runs))  # the label of the run that is moved
        self.mix, self.spherical = 0.0, False  # alpha on the way from A to B; the great circle?
        with one_thread():
            first = self.runs[self.name].model
            self.images = imagine(first, 12, seed=1) if dataset is None else dataset.test[:100]
            self.kl = {name: ranked_dimensions(run.model) for name, run in self.runs.items()}
        # By label, what is added to which latent dimension
        self.moves = {name: dict.fromkeys(kl, 0.0) for name, kl in self.kl.items()}
        # What A and B are, and the images that they encode, uint8 [C, H, W]; None for a draw
        self.ends, self.originals, self._latents = {}, {}, {}
        self.go(A="draw 0", B="draw 1")

    def go(self, **ends: str) -> "Explorer":
        """Choose A, B or both, `go(A="draw 3", B="me.jpg")`; return the explorer, to be shown.

        A ValueError says which image does not exist or cannot be read; then nothing changes.
        """
        for end, (label, seed, image) in {end: self._find(ends[end]) for end in ends}.items():
            self.ends[end], self.originals[end] = label, image
            for name, run in self.runs.items():
                with one_thread():
                    if image is None:
                        z = prior_draws(run.model, 1, seed)
                    else:
                        z = posterior_means(run.model, image[None])
                self._latents[end, name] = z[0]
        return self

    def _find(self, text: str) -> tuple[str, int, Tensor | None]:
        """Return what an end is called, the seed of a draw, and the image if it is none."""
        known = re.fullmatch(r"(draw|image) *(\d{1,9})", text.strip())
        if not known:
            return Path(text.strip()).name, 0, own_image(text.strip(), self.images.shape[-1])
        number, image = int(known[2]), None
        if known[1] == "image":
            if number >= len(self.images):
                raise ValueError(f"there is no image {number}, only 0 to {len(self.images) - 1}")
            image = self.images[number]
        return f"{known[1]} {number}", number, image

    @property
    def shown(self) -> list[str]:
        """The labels of the runs that are shown, the one that is moved first."""
        encoded = all(image is not None for image in self.originals.values())
        return [self.name, *(name for name in self.runs if encoded and name != self.name)]

    @property
    def z(self) -> Tensor:
        """The latent that is shown now, of the run that is moved: [latent_dim]."""
        return self.latent(self.name)

    def latent(self, name: str) -> Tensor:
        """Return the latent of a run at this place, [latent_dim]."""
        ends = self._latents["A", name], self._latents["B", name]
        z = between(*ends, torch.tensor(self.mix), self.spherical)
        for dimension, distance in self.moves[name].items():
            z[dimension] += distance
        return z

    @torch.no_grad()
    def image(self, name: str | None = None) -> Tensor:
        """Decode the latent of a run, or of the one that is moved: uint8 [C, H, W]."""
        name = name or self.name
        with one_thread():
            return as_bytes(self.runs[name].model.decode(self.latent(name)[None])[0])

    def strip(self, name: str) -> Tensor:
        """Decode the way from A to B of a run in ten steps, without moves: uint8 [10, C, H, W]."""
        ends = self._latents["A", name], self._latents["B", name]
        with one_thread():
            return as_bytes(interpolate(self.runs[name].model, *ends, spherical=self.spherical))

    def __repr__(self):
        return f"{self.name}: from {self.ends['A']} to {self.ends['B']}, alpha = {self.mix:.2f}"

    def _repr_mimebundle_(self, **_):
        title = f"From {self.ends['A']} to {self.ends['B']}"
        rows = {name.replace(", ", ",\n", 1): self.strip(name) for name in self.shown}
        if len(rows) > 1:  # what is encoded, and what a way has to be more than
            pixels, alpha = self.originals.values(), torch.linspace(0, 1, 10)[:, None, None, None]
            rows["no model:\na cross-fade"] = torch.lerp(*(p.float() / 255 for p in pixels), alpha)
        figure = figures.strips(rows, title)
        static = {"text/plain": repr(self), "image/png": print_figure(figure, base64=True)}
        plt.close(figure)
        return {**(Controls(self).box._repr_mimebundle_() if watched() else {}), **static}


explore = Explorer  # what one calls in a notebook


def own_image(path: str, size: int) -> Tensor:
    """Return the upright centre square of an image file, uint8 [3, size, size] in RGB.

    A ValueError of one line names what is missing, too large or cannot be read.
    """
    with reading(repr(path)):
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError("there is no file of this name")
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"{file.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
        return torch.from_numpy(decode(file.read_bytes(), size, []).copy())


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: for one image, to wait for a second one takes longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def watched() -> bool:
    """Say whether a person sees the output: papermill, nbconvert and nbval answer no input."""
    kernel = getattr(get_ipython(), "kernel", None)
    asked = kernel.get_parent("shell").get("content", {}) if kernel else {}
    return bool(asked.get("allow_stdin")) and not os.environ.get("TQDM_DISABLE")
