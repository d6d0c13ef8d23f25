"""Figures in one style: grids and strips of images, loss curves, spectra, seeds."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vae_core.intervals import mean_interval
from vae_core.latent import interpolate, prior_samples
from vae_core.loss import LOSS_PARTS
from vae_core.models import MODELS, VAE

LINES = ("-", "--", ":", "-.")
LABELS = {"loss": "loss", "reconstruction": "reconstruction", "kl": "KL"}
plt.rc("figure", dpi=80, titlesize=13, titleweight="bold")
plt.rc("figure.constrained_layout", use=True)
plt.rc("savefig", dpi=160, bbox="tight")
plt.rc("font", size=11)
plt.rc("axes", titlesize=12, grid=True)
plt.rc("axes.spines", top=False, right=False)
plt.rc("grid", alpha=0.25)
plt.rc("legend", frameon=False)
# The title of a data set may have letters that the font lacks; they become boxes, which is fine.
warnings.filterwarnings("ignore", message="Glyph .* missing from")


def panels(
    columns: int, title: str, size: tuple[float, float], rows: int = 1
) -> tuple[Figure, np.ndarray]:
    """Return an empty figure in the project's style and its axes [rows, columns]."""
    figure, axes = plt.subplots(rows, columns, squeeze=False, figsize=size)
    figure.suptitle(title)
    return figure, axes


def image_grid(images: Tensor, title: str, columns: int = 8) -> Figure:
    """Draw images [N, 3, H, W], in [0, 1] or uint8, in a grid, row by row."""
    rows = dict(enumerate(images.split(columns)))
    return image_rows(rows, title, row_labels=False)


def image_rows(
    rows: Mapping[object, Tensor],
    title: str,
    column_labels: Sequence[str] = (),
    row_labels: bool = True,
) -> Figure:
    """Draw one labelled row of images for each entry; the images of all rows align in columns.

    Args:
        rows: images [N, 3, H, W], in [0, 1] or uint8, by the label of their row.
        title: what the images are, on which data and by which model.
        column_labels: one label above each column.
    """
    columns = max(len(images) for images in rows.values())
    side = min(1.4, 9.6 / columns)  # of an image, in inches
    width = side * columns + (1.3 if row_labels else 0)
    height = side * len(rows) + 0.5 + (0.3 if column_labels else 0)
    figure, axes = panels(columns, title, (width, height), len(rows))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for (label, images), row_axes in zip(rows.items(), axes, strict=True):
        for image, axis in zip(images, row_axes, strict=False):
            draw_image(axis, image)
        if row_labels:
            row_axes[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for label, axis in zip(column_labels, axes[0], strict=False):
        axis.set_title(label, fontsize=10)
    return figure


def draw_image(axis: Axes, image: Tensor) -> None:
    """Draw an image [3, H, W], in [0, 1] or uint8; values outside [0, 1] are cut."""
    if image.is_floating_point():
        image = image.detach().clamp(0, 1)
    axis.imshow(image.cpu().movedim(0, -1), interpolation="nearest")


def reconstructions(models: Mapping[str, VAE], images: Tensor, title: str) -> Figure:
    """Draw uint8 images [N, 3, H, W] above each model's reconstructions (posterior means)."""
    rows = {"original": images}
    for name, model in models.items():
        rows[name] = model.reconstruct(images)
    return image_rows(rows, title)


def samples(models: Mapping[str, VAE], title: str, n: int = 10, seed: int = 0) -> Figure:
    """Draw `n` decoded samples from the prior for each model."""
    decoded = {name: model.decode(prior_samples(model, n, seed)) for name, model in models.items()}
    return image_rows(decoded, title)


def strips(strips: Mapping[str, Tensor], title: str) -> Figure:
    """Draw interpolations [steps, 3, H, W] by their label, with alpha above the columns."""
    steps = max(len(strip) for strip in strips.values())
    return image_rows(strips, title, [f"α = {step / (steps - 1):.2f}" for step in range(steps)])


def interpolations(models: Mapping[str, VAE], title: str, pairs: int = 1, seed: int = 1) -> Figure:
    """Draw interpolations between pairs of samples from the prior, `pairs` for each model."""
    rows = {}
    for name, model in models.items():
        ends = prior_samples(model, 2 * pairs, seed).split(2)
        for number, (z1, z2) in enumerate(ends, start=1):
            label = name if pairs == 1 else f"{name}, pair {number}"
            rows[label] = interpolate(model, z1, z2)
    return strips(rows, title)


def loss_curves(runs: Mapping[str, Any], title: str, training: bool = True) -> Figure:
    """Draw loss, reconstruction and KL of every epoch of runs, by their label in the legend.

    Strong lines are means over the validation images after the epoch; faint lines, where
    `training` is true, are means over the training images during the epoch. The colour is the
    model, the line style the parameter set; a dot marks the best epoch, whose weights are kept.
    The first epoch, which would flatten all others, is left out where there are more than five. A
    model with a closed form is a horizontal line.

    Args:
        runs: finished runs (`vae_core.runs.Run`) by their label.
    """
    set_names = list(dict.fromkeys(run.config.params.name for run in runs.values()))
    figure, axes = panels(3, title, (12, 3.8))
    for axis, part in zip(axes[0], LOSS_PARTS, strict=True):
        for label, run in runs.items():
            line = LINES[set_names.index(run.config.params.name) % len(LINES)]
            draw_loss_curve(axis, run, part, label, line, training)
        axis.set(xlabel="epoch", title=LABELS[part])
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel("nats per image")
    faint = "faint: training, " if training else ""
    axes[0, 0].legend(title=f"validation ({faint}dot: kept)", fontsize=9, title_fontsize=9)
    return figure


def draw_loss_curve(axis: Axes, run: Any, part: str, label: str, line: str, training: bool) -> None:
    """Draw one part of the loss of one run, as `loss_curves` describes."""
    rows = run.history[1:] if len(run.history) > 5 else run.history
    epochs = [row["epoch"] for row in rows]
    validation = [row[f"validation_{part}"] for row in rows]
    style = {"color": run.model.colour, "linestyle": line}
    if run.model.closed_form:
        axis.axhline(validation[0], label=label, **style)
        return
    axis.plot(epochs, validation, label=label, **style)
    if training:
        axis.plot(epochs, [row[f"train_{part}"] for row in rows], **style, alpha=0.4)
    best = run.summary["best_epoch"]
    if best in epochs:
        axis.plot(best, validation[epochs.index(best)], "o", color=run.model.colour)


def kl_spectrum(kl: Mapping[str, Tensor], title: str) -> Figure:
    """Draw the KL divergence of each latent, [latent_dim] nats by label, largest first."""
    figure, axes = panels(1, title, (10, 3.8))
    for index, (label, values) in enumerate(kl.items()):
        nats = np.sort(values.numpy())[::-1].clip(1e-6)
        line = LINES[index % len(LINES)]
        axes[0, 0].plot(range(1, len(nats) + 1), nats, line, color="black", label=label)
    axes[0, 0].axhline(0.1, color="black", lw=1, alpha=0.4, label="0.1 nats")
    axes[0, 0].set(xlabel="rank of the latent (1: the most nats)", yscale="log")
    axes[0, 0].set_ylabel("KL, nats per image (at least 10⁻⁶)")
    axes[0, 0].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def seed_dots(axis: Axes, x: float, values: Sequence[float], model: str) -> None:
    """Draw a dot for each seed's value, and their mean with its 95 % interval as a bar."""
    colour = MODELS[model].colour
    interval = mean_interval(values)
    half_width = 0 if math.isinf(interval.half_width) else interval.half_width
    axis.plot([x] * len(values), values, "o", color=colour, alpha=0.5, zorder=3)
    style = {"color": colour, "capsize": 5, "marker": "_", "markersize": 18}
    axis.errorbar(x, interval.mean, half_width, **style)
